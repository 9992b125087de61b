"""An experiment: rows of tables, folds and seeds, and the artefacts that rows share.

What an artefact is made of is its name, so that two rows which need the same one find it in the same
place: `foldK/seedS/stage2/multitask.layer-3.k64-512-4096.from_original.masked`.
"""

import itertools
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import yaml

from .errors import UserError
from .files import atomic_text
from .frames import resolve_layer

PLAIN = {"stage1": "multitask", "stage2": "masked", "stage3": "am_softmax"}  # no fragment: the method itself
STAGES = ("stage1", "labels", "stage2", "stage3")


@dataclass(frozen=True)
class Row:
    """One row of a table: the method, and what it does otherwise.

    Args:
        labels: whose features are clustered: `stage1`, `original`, the final model of another row, or None for no
            retraining.
        layer: of these features; see `resolve_layer`.
        scales: cluster counts that stage 2 predicts.
        own_clusters: k-means is fitted at these `scales` alone, not at all of the experiment's.
        init_from: start of stage 2: `original` or `stage1`.
        stage1, stage2, stage3: what differs from the method's configuration of that stage, see `config`.
        paper: what the paper reports for this row, `{"uar", "war"}` in percent.
    """

    name: str
    title: str
    table: str
    scales: tuple[int, ...]
    labels: "str | Row | None" = "stage1"
    layer: int | float = -3
    own_clusters: bool = False
    init_from: str = "original"
    stage1: str | tuple[str, ...] | None = None
    stage2: str | tuple[str, ...] | None = None
    stage3: str | tuple[str, ...] | None = None
    paper: dict | None = None

    def config(self, stage: str) -> tuple[str | None, str | None]:
        """A configuration in place of the stage's own, as `flesa/pretraining`, and a fragment of `ablation/` on top;
        None for what there is not."""
        setting = getattr(self, stage) or ()
        names = (setting,) if isinstance(setting, str) else setting
        whole, fragments = [n for n in names if "/" in n], [n for n in names if "/" not in n]
        if len(whole) > 1 or len(fragments) > 1:
            raise UserError(f"row {self.name}, {stage}: expected a configuration and a fragment at most, found {names}")
        return next(iter(whole), None), next(iter(fragments), None)

    def labelled_by(self) -> tuple[str, str] | None:
        """Stage and name of the model whose features are clustered; None for the original HuBERT."""
        if isinstance(self.labels, Row):
            return "stage3", self.labels.variants()["stage3"]
        return None if self.labels == "original" else ("stage1", self.variants()["stage1"])

    def variants(self) -> dict[str, str | None]:
        """Name of the artefact of each of `STAGES`; None for what the row does without."""
        settings = {stage: ".".join(filter(None, self.config(stage))).replace("/", "_") for stage in PLAIN}
        settings = {stage: setting or PLAIN[stage] for stage, setting in settings.items()}
        stage1 = labels = stage2 = None
        if self.labels:
            if "stage1" in (self.labels, self.init_from):
                stage1 = settings["stage1"]
            clustered = {"stage1": stage1, "original": "original"}
            # Another row by its name, not by what it is made of: the names would grow with every step.
            source = self.labels.name if isinstance(self.labels, Row) else clustered[self.labels]
            scales = "-".join(map(str, self.scales))
            labels = f"{source}.layer{self.layer}" + (f".k{scales}" if self.own_clusters else "")
            start = "original" if self.init_from == "original" else stage1
            stage2 = f"{source}.layer{self.layer}.k{scales}.from_{start}.{settings['stage2']}"
        stage3 = f"{stage2 or 'original'}.{settings['stage3']}"
        return {"stage1": stage1, "labels": labels, "stage2": stage2, "stage3": stage3}


def read_rows(path, scales, layer: int = -3, init_from: str = "original", n_layers: int | None = None) -> dict:
    """Rows of an `ablations.yaml` by table, `{table: {name: Row}}`.

    Args:
        scales: the experiment's cluster counts.
        layer, init_from: of the rows that say nothing else.
        n_layers: of the HuBERT.

    Rows that these do not allow, of a layer that the HuBERT does not have or of one scale among too few, stand there
    as the reason why. Raises `UserError` for a `layer` that it does not have.
    """
    scales, tables = sorted(scales), {}
    if n_layers:
        resolve_layer(layer, n_layers)
    for table, content in yaml.safe_load(Path(path).read_text(encoding="utf-8")).items():
        tables[table] = {}
        for name, settings in content["rows"].items():
            settings = {"layer": layer, "init_from": init_from, **settings}
            own = settings.pop("clusters", None)
            single = settings.pop("scale", None)
            if single and single not in (by_size := _by_size(scales)):
                tables[table][name] = f"{name}: there is no {single} among {len(scales)} scales"
                continue
            clusters = tuple(own or ([by_size[single]] if single else scales))
            try:
                if n_layers:
                    resolve_layer(settings["layer"], n_layers)
            except UserError as error:
                tables[table][name] = f"{name}: {error}"
                continue
            try:
                tables[table][name] = Row(
                    name=name, table=content["title"], scales=clusters, own_clusters=own is not None, **settings
                )
            except TypeError as error:
                raise UserError(f"{path}, row {name}: {error}") from None
    return _with_sources(tables, path)


def _by_size(scales: list[int]) -> dict[str, int]:
    """What single scales are called, of two or more in rising order."""
    ends = {"smallest": scales[0], "largest": scales[-1]} if len(scales) > 1 else {}
    return ends | ({"middle": scales[1]} if len(scales) == 3 else {})


def _with_sources(tables: dict, path) -> dict:
    """The same rows, with the rows themselves where `labels` names them."""
    rows = {name: row for table in tables.values() for name, row in table.items()}

    def resolve(row: Row | str, above: tuple[str, ...] = ()) -> Row | str:
        if isinstance(row, str) or row.labels in ("stage1", "original", None):
            return row
        above += (row.name,)
        if isinstance(reason := rows.get(row.labels), str):
            return f"{row.name} needs {reason}"
        if row.labels not in rows or row.labels in above:
            raise UserError(f"{path}, row {row.name}: labels={row.labels}: expected stage1, original or another row")
        return replace(row, labels=resolve(rows[row.labels], above))

    return {table: {name: resolve(row) for name, row in content.items()} for table, content in tables.items()}


def choose_rows(tables: dict, names: list[str], n_layers: int | None = None) -> dict[str, Row]:
    """Rows by their own names or those of tables, each once, in the order of `names`; then those whose final models
    they need. `n_layers`: of the HuBERT, None where that is not known.

    Raises `UserError` for a name that is neither, for a row that cannot be (of a table, such rows are left out), and
    for two rows that the names of their artefacts do not tell apart as they should.
    """
    rows = {name: row for table in tables.values() for name, row in table.items()}
    chosen = {}
    for name in names:
        if name not in tables and name not in rows:
            raise UserError(f"ablations={','.join(names)}: ablations.yaml has {', '.join([*tables, *rows])}")
        if isinstance(rows.get(name), str):
            raise UserError(f"ablations={','.join(names)}: {rows[name]}")
        chosen |= {n: r for n, r in tables.get(name, {name: rows.get(name)}).items() if isinstance(r, Row)}
    if not chosen:
        raise UserError(f"ablations={','.join(names)}: no row of it can be: {next(iter(tables[names[0]].values()))}")
    for row in list(chosen.values()):
        while isinstance(row.labels, Row):
            row = row.labels
            chosen.setdefault(row.name, row)
    for one, other in itertools.combinations(chosen.values(), 2):
        _refuse_confusion(one, other, n_layers)
    return chosen


def _refuse_confusion(one: Row, other: Row, n_layers: int | None) -> None:
    """`UserError` if two rows would have one artefact that they make differently, or make one artefact twice."""
    a, b = one.variants(), other.variants()
    if a["stage2"] and a["stage2"] == b["stage2"] and a["labels"] != b["labels"]:
        raise UserError(
            f"rows {one.name} and {other.name}: both predict {'-'.join(map(str, one.scales))} clusters of the same "
            "layer, but one of them fits them alone, and their results would have one name; give the row with "
            "`clusters` another number, or an experiment of its own"
        )
    if one.layer == other.layer or not (one.labels and other.labels):
        return
    if replace(one, layer=0).variants()["stage2"] != replace(other, layer=0).variants()["stage2"]:
        return
    if n_layers:
        same, be = resolve_layer(one.layer, n_layers) == resolve_layer(other.layer, n_layers), "are"
    else:
        same, be = _spelling(one.layer) != _spelling(other.layer), "may be"
    if same:
        raise UserError(
            f"rows {one.name} and {other.name}: layers {one.layer} and {other.layer} {be} one and the same, computed "
            "twice and then taken for a copy; give both in one way, as layer=-3"
        )


def _spelling(layer: int | float) -> str:
    return "share" if 0 < layer < 1 else "from the last" if layer < 0 else "from the first"


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
