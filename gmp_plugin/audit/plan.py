"""What the workflow set out to make: its `experiment.json`, as far as the leak audit needs it."""

import json
from pathlib import Path

from ..errors import UserError
from .artefacts import Artefact
from .corpus import Corpus


def read_plan(path) -> dict:
    """`checkpoint`, `folds`, `seeds` and `rows` (name -> template of the folder of stage 3); empty without a file."""
    if not Path(path).is_file():
        return {}
    try:
        plan = json.loads(Path(path).read_text(encoding="utf-8"))
        return {
            "checkpoint": plan.get("checkpoint"),
            "folds": list(plan["folds"]),
            "seeds": list(plan["seeds"]),
            "rows": {row: str(paths["stage3"]) for row, paths in plan["rows"].items()},
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); start the workflow again, which writes it") from None


def absent(exp_dir: Path, plan: dict, corpus: Corpus, artefacts: list[Artefact]) -> list[str]:
    """Results that are still to be made; without a plan, folds without artefacts."""
    if not plan:
        there = {artefact.fold for artefact in artefacts}
        return [f"fold {fold}: no artefact" for fold in corpus.manifests if fold not in there]
    missing: dict[str, list[str]] = {}
    for row, template in plan["rows"].items():
        for fold in plan["folds"]:
            for seed in plan["seeds"]:
                result = Path(template.format(fold=fold, seed=seed), "result.json")
                if not (exp_dir / result).is_file():
                    missing.setdefault(str(result), []).append(row)
    return [f"{result} (for {', '.join(rows)})" for result, rows in missing.items()]
