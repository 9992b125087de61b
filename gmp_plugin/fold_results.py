"""`result.json` of folds' test parts, for what is said about a model that was trained like theirs."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .calibration import fit_temperature, softmax
from .errors import UserError

RATES = ("uar", "war", "macro_f1")


def read_results(paths) -> list[dict]:
    """The results at `paths`; `UserError` for a file that is none, or not finished, and for one that is of no fold's
    test part, or of recordings that its model has seen."""
    results = []
    for path in paths:
        try:
            result = json.loads(Path(path).read_text(encoding="utf-8"))
            results.append({**result, **{rate: float(result[rate]) for rate in RATES}})
            int(result["n_utterances"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is no finished result of an evaluation: {error!r}") from None
        if result.get("seen"):
            raise UserError(f"{path} is of recordings that its model has seen; give those of test parts")
        if result.get("fold") is None or not result.get("checkpoint_sha256"):
            raise UserError(
                f"{path} is not the result of a fold; expected those of evaluate.py --fold, as of an experiment"
            )
    return results


def held_out_logits(results: list[dict], names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Logits `(N, C)` in the order of `names`, and class numbers `(N,)`, of the recordings of all results.

    Each result is of another model, on recordings that this model has not seen. Raises `UserError` if its classes are
    not `names`.
    """
    logits, labels = [], []
    for result in results:
        where = f"the result of {result.get('manifest')}"
        try:
            classes, utterances = result["classes"], result["utterances"]
            if sorted(classes) != sorted(names):
                raise UserError(f"{where} has the classes {', '.join(classes)}; the model has {', '.join(names)}")
            order = [classes.index(name) for name in names]
            labels += [names.index(u["truth"]) for u in utterances]
            logits.append(np.array([u["logits"] for u in utterances], dtype=np.float64)[:, order])
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise UserError(f"{where} has no logits of its recordings ({error!r}); evaluate again") from None
    return np.concatenate(logits), np.array(labels)


@dataclass(frozen=True)
class CrossCalibration:
    """Answers of all folds with a temperature that their own recordings had no part in.

    `temperatures` by fold, each fitted on the other folds; `probabilities` `(N, C)` with them, `plain` `(N, C)` without
    any; `labels` `(N,)`.
    """

    temperatures: dict[str, float]
    probabilities: np.ndarray
    plain: np.ndarray
    labels: np.ndarray


def cross_calibrate(by_fold: dict[str, list[dict]], names: list[str]) -> CrossCalibration:
    """From the results of at least two folds, with one or more seeds each."""
    answers = {fold: held_out_logits(results, names) for fold, results in by_fold.items()}
    temperatures = {}
    for fold in answers:
        others = [own for other, own in answers.items() if other != fold]
        temperatures[fold] = fit_temperature(*(np.concatenate(parts) for parts in zip(*others, strict=True)))
    return CrossCalibration(
        temperatures,
        np.concatenate([softmax(logits, temperatures[fold]) for fold, (logits, _) in answers.items()]),
        np.concatenate([softmax(logits) for logits, _ in answers.values()]),
        np.concatenate([labels for _, labels in answers.values()]),
    )
