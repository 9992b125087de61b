"""An experiment: rows of tables, folds and seeds, and the artefacts that rows share.

What an artefact is made of is its name, so that two rows which need the same one find it in the same
place: `foldK/seedS/stage2/multitask.layer-3.k64-512-4096.from_original.masked`.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import yaml

from .errors import UserError
from .files import atomic_text

PLAIN = {"stage1": "multitask", "stage2": "masked", "stage3": "am_softmax"}  # no fragment: the method itself
STAGES = ("stage1", "labels", "stage2", "stage3")


@dataclass(frozen=True)
class Row:
    """One row of a table: the method, and what it does otherwise.

    Args:
        labels: whose features are clustered: `stage1`, `original`, or None for no retraining.
        layer: of these features.
        scales: cluster counts that stage 2 predicts.
        init_from: start of stage 2: `original` or `stage1`.
        stage1, stage2, stage3: fragment of `ablation/` for that stage, None for the method itself.
        paper: what the paper reports for this row, `{"uar", "war"}` in percent.
    """

    name: str
    title: str
    table: str
    scales: tuple[int, ...]
    labels: str | None = "stage1"
    layer: int = -3
    init_from: str = "original"
    stage1: str | None = None
    stage2: str | None = None
    stage3: str | None = None
    paper: dict | None = None

    def variants(self) -> dict[str, str | None]:
        """Name of the artefact of each of `STAGES`; None for what the row does without."""
        fragments = {stage: getattr(self, stage) or plain for stage, plain in PLAIN.items()}
        stage1 = labels = stage2 = None
        if self.labels:
            if "stage1" in (self.labels, self.init_from):
                stage1 = fragments["stage1"]
            labels = f"{stage1 if self.labels == 'stage1' else 'original'}.layer{self.layer}"
            start = "original" if self.init_from == "original" else stage1
            scales = "-".join(map(str, self.scales))
            stage2 = f"{labels}.k{scales}.from_{start}.{fragments['stage2']}"
        stage3 = f"{stage2 or 'original'}.{fragments['stage3']}"
        return {"stage1": stage1, "labels": labels, "stage2": stage2, "stage3": stage3}


def read_rows(path, scales, layer: int = -3, init_from: str = "original", n_layers: int | None = None) -> dict:
    """Rows of an `ablations.yaml` by table, `{table: {name: Row}}`.

    Args:
        scales: the experiment's cluster counts.
        layer, init_from: of the rows that say nothing else.
        n_layers: of the HuBERT; rows of layers that it does not have are left out.
    """
    tables = {}
    for table, content in yaml.safe_load(Path(path).read_text(encoding="utf-8")).items():
        tables[table] = {}
        for name, settings in content["rows"].items():
            settings = {"layer": layer, "init_from": init_from, **settings}
            chosen = settings.pop("scales", range(len(scales)))
            if any(i >= len(scales) for i in chosen) or n_layers and not 1 <= -settings["layer"] <= n_layers:
                continue
            try:
                tables[table][name] = Row(
                    name=name, table=content["title"], scales=tuple(scales[i] for i in chosen), **settings
                )
            except TypeError as error:
                raise UserError(f"{path}, row {name}: {error}") from None
    return tables


def choose_rows(tables: dict, names: list[str]) -> dict[str, Row]:
    """Rows by their own names or those of tables, each once, in the order of `names`.

    Raises `UserError` for a name that is neither.
    """
    rows = {name: row for table in tables.values() for name, row in table.items()}
    chosen = {}
    for name in names:
        if name not in tables and name not in rows:
            raise UserError(f"ablations={','.join(names)}: ablations.yaml has {', '.join([*tables, *rows])}")
        chosen |= tables.get(name) or {name: rows[name]}
    return chosen


@dataclass
class Experiment:
    """What is to be done, as `experiment.json` keeps it.

    `rows[name]` has `title`, `table`, `paper`, and for each of `STAGES` the folder of the artefact, relative to the
    experiment's, with `{fold}` and `{seed}`; None where the row does without. The first row is the headline.
    """

    name: str
    corpus: str
    corpus_root: str
    checkpoint: str
    size: str
    scales: list[int]
    seeds: list[int]
    folds: list[str]
    rows: dict[str, dict] = field(default_factory=dict)

    @classmethod
    def read(cls, folder) -> "Experiment":
        """Of an experiment's folder; `UserError` if there is none."""
        path = Path(folder) / "experiment.json"
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"{path} is no experiment of the workflow ({error}); give the folder that `make experiment` makes, "
                "exp/NAME"
            ) from None

    def write(self, folder) -> None:
        with atomic_text(Path(folder) / "experiment.json") as stream:
            json.dump(asdict(self), stream, indent=1)

    def with_rows(self, rows: dict[str, Row]) -> "Experiment":
        return replace(self, rows={name: self.describe(row) for name, row in rows.items()})

    @staticmethod
    def describe(row: Row) -> dict:
        folders = {
            stage: variant and f"fold{{fold}}/seed{{seed}}/{stage}/{variant}"
            for stage, variant in row.variants().items()
        }
        return {"title": row.title, "table": row.table, "paper": row.paper, **folders}

    def runs(self, row: str) -> list[tuple[str, int]]:
        """`(fold, seed)` of all runs of a row."""
        return [(fold, seed) for fold in self.folds for seed in self.seeds]

    def artefacts(self) -> dict[str, list[str]]:
        """Folders of all artefacts by stage, each once, relative to the experiment's."""
        found = {}
        for stage in STAGES:
            templates = dict.fromkeys(row[stage] for row in self.rows.values() if row[stage])
            found[stage] = [
                template.format(fold=fold, seed=seed)
                for fold in self.folds
                for seed in self.seeds
                for template in templates
            ]
        return found
