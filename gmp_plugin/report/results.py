"""The results of an experiment: which it should have, which it has, and which of those count.

`exp/NAME/experiment.json` says what is to be done: rows (variants of the method), folds and seeds. A row has one
`result.json` per fold and seed; what is missing or does not belong where it lies is a `Problem`, and is in no mean.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .. import metrics
from ..errors import UserError
from ..experiment import STAGES, Experiment
from ..kmeans import MultiscaleKMeans
from ..manifest import Utterance, UtteranceTable
from ..training_config import differences, fingerprint, read_training_config
from . import checks

RATES = {"uar": "UAR", "war": "WAR", "macro_f1": "macro-F1"}

Run = tuple[str, int]  # fold and seed


@dataclass(frozen=True)
class Problem:
    """`kind` is `missing` (a run that is not finished) or `wrong` (a result that is there and does not count)."""

    kind: str
    text: str


@dataclass
class RowResults:
    """A variant of the method.

    `templates[STAGE]` are folders relative to the experiment's, with {fold} and {seed}, None for a stage that the row
    does without; `runs` are all folds and seeds, `results` those that are finished and count.
    """

    name: str
    title: str
    table: str
    paper: dict | None
    templates: dict[str, str | None]
    runs: list[Run]
    results: dict[Run, dict] = field(default_factory=dict)

    @property
    def missing(self) -> list[Run]:
        return [run for run in self.runs if run not in self.results]

    @property
    def folds(self) -> list[str]:
        """Folds with a result, in order."""
        return list(dict.fromkeys(fold for fold, _ in self.runs if any(fold == f for f, _ in self.results)))

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for _, seed in self.results})

    def folder(self, stage: str, run: Run) -> str | None:
        template = self.templates[stage]
        return None if template is None else template.format(fold=run[0], seed=run[1])

    def rate(self, name: str, fold: str) -> float:
        """A rate on one of `folds` in percent, mean of its seeds."""
        return float(np.mean([result[name] for (f, _), result in self.results.items() if f == fold]))


@dataclass(frozen=True)
class Pool:
    """The test parts of several folds together, N utterances of C classes.

    `hits` `(N,)` is the share of the seeds that recognised each utterance, `truth` `(N,)` its class number;
    `confusion` `(C, C)` is summed over the seeds.
    """

    paths: list[str]
    truth: np.ndarray
    hits: np.ndarray
    confusion: np.ndarray


@dataclass
class ExperimentResults:
    """An experiment in its folder, with the results that count.

    `classes` are the emotions, `notes` say what is not known, `utterances` are those of the corpus by their paths,
    `configs` what all runs of a stage's folder were trained with.
    """

    folder: Path
    plan: Experiment
    rows: dict[str, RowResults]
    classes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    utterances: dict[str, Utterance] = field(default_factory=dict)
    configs: dict[str, dict] = field(default_factory=dict)

    @property
    def headline(self) -> RowResults:
        return next(iter(self.rows.values()))

    @property
    def folds(self) -> list[str]:
        return self.plan.folds

    @property
    def seeds(self) -> list[int]:
        return self.plan.seeds

    def speakers(self, paths: Iterable[str]) -> np.ndarray | None:
        return self._about("speaker", paths)

    def genders(self, paths: Iterable[str]) -> np.ndarray | None:
        return self._about("gender", paths)

    def _about(self, name: str, paths) -> np.ndarray | None:
        known = all(path in self.utterances for path in paths)
        return np.array([getattr(self.utterances[path], name) for path in paths]) if known else None

    def templates(self, stage: str) -> dict[str, list[RowResults]]:
        """The folders of a stage that rows use, each with its rows; the headline's first."""
        found: dict[str, list[RowResults]] = {}
        for row in self.rows.values():
            if row.templates[stage] is not None:
                found.setdefault(row.templates[stage], []).append(row)
        return found


def pool(results: dict[Run, dict]) -> Pool:
    """Results of several folds as one; each fold's utterances once, whatever the number of its seeds."""
    paths, truth, hits, confusion = [], [], [], 0
    for fold in dict.fromkeys(fold for fold, _ in results):
        seeds = [result for (f, _), result in results.items() if f == fold]
        numbers = {name: number for number, name in enumerate(seeds[0]["classes"])}
        own = np.array([numbers[u["truth"]] for u in seeds[0]["utterances"]])
        predicted = [np.array([numbers[u["predicted"]] for u in result["utterances"]]) for result in seeds]
        paths += [u["path"] for u in seeds[0]["utterances"]]
        truth.append(own)
        hits.append(np.mean([p == own for p in predicted], axis=0))
        confusion = confusion + sum(metrics.confusion_counts(own, p, len(numbers)) for p in predicted)
    return Pool(paths, np.concatenate(truth), np.concatenate(hits), confusion)


def summarize(row: RowResults, allow_partial: bool = False) -> dict:
    """`uar`, `war` and `macro_f1` over the row's folds in percent: `mean`, `std` (n - 1) and the folds' values.

    A fold with several seeds counts with their mean. A fold that lacks a seed has None, and a row that lacks a run has
    no mean, unless `allow_partial`: then what is there counts.
    """
    summary = {"folds": row.folds, "seeds": row.seeds, "missing_runs": len(row.missing)}
    lacking = set() if allow_partial else {fold for fold, _ in row.missing}
    for name in RATES:
        values = [None if fold in lacking else row.rate(name, fold) for fold in row.folds]
        known = values if values and not lacking else []
        summary[name] = {
            "mean": float(np.mean(known)) if known else None,
            "std": float(np.std(known, ddof=1)) if len(known) > 1 else None,
            "folds": values,
        }
    return summary


def read_experiment(folder) -> ExperimentResults:
    """Read `experiment.json` and every result that it asks for; `UserError` if it is no experiment.

    What is wrong with single results is in `problems`; such results are in no row.
    """
    experiment = _read_plan(Path(folder))
    _read_utterances(experiment)
    found = _read_results(experiment)
    _keep_one_config(experiment, found)
    for paths in checks.same_outputs(found):
        for path in paths:
            others = ", ".join(p for p in paths if p != path)
            _drop(experiment, found, path, f"it has the very scores of {others}: one is a copy, and neither counts")
    for row in experiment.rows.values():
        row.results = {run: found[path] for run in row.runs if (path := _path(row, run)) in found}
    _note_strangers(experiment)
    return experiment


def _read_plan(folder: Path) -> ExperimentResults:
    plan = Experiment.read(folder)
    about = ("title", "table", "paper")
    try:
        rows = {
            name: RowResults(name, *(row[key] for key in about), {s: row[s] for s in STAGES}, plan.runs(name))
            for name, row in plan.rows.items()
        }
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder}/experiment.json: a row lacks {error}; start make experiment again") from None
    if not rows or not plan.folds or not plan.seeds:
        raise UserError(f"{folder}/experiment.json names no rows, folds or seeds; start make experiment again")
    return ExperimentResults(folder, plan, rows)


def _read_utterances(experiment: ExperimentResults) -> None:
    try:
        table = UtteranceTable.read(experiment.folder / "data" / "utterances.tsv")
        experiment.utterances = {u.path: u for u in table.utterances}
    except UserError as error:
        experiment.notes.append(f"nothing is known of speakers and genders: {error}")


def _read_results(experiment: ExperimentResults) -> dict[str, dict]:
    """Results that are right by themselves, by their path in the experiment."""
    parts: dict[str, checks.TestPart | str] = {}
    for fold in experiment.folds:
        try:
            parts[fold] = checks.TestPart.read(experiment.folder / "data" / f"fold{fold}")
        except UserError as error:
            parts[fold] = f"the fold's test part cannot be read ({error})"
    readable = [part for part in parts.values() if not isinstance(part, str)]
    experiment.classes = readable[0].classes if readable else []
    found, absent, seen = {}, {}, set()
    for row in experiment.rows.values():
        for run in row.runs:
            path = _path(row, run)
            if not (experiment.folder / path).is_file():
                absent.setdefault(row.name, []).append(run)
            elif path not in seen:
                seen.add(path)
                found[path], reasons = _read_result(experiment.folder / path, run, parts[run[0]])
                if reasons:
                    _drop(experiment, found, path, "; ".join(reasons))
    experiment.problems = [
        Problem(
            "missing",
            f"{name}: none of the {len(runs)} runs is finished"
            if len(runs) == len(experiment.rows[name].runs)
            else f"{name}: {len(runs)} of {len(experiment.rows[name].runs)} runs are not finished, "
            f"{runs_in_words(runs, experiment)}",
        )
        for name, runs in absent.items()
    ] + experiment.problems
    return found


def _read_result(path: Path, run: Run, part) -> tuple[dict, list[str]]:
    """The result, and why it does not count."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        return {}, [f"it cannot be read ({error})"]
    if reasons := checks.check_fields(result):
        return {}, reasons
    reasons = checks.check_place(result, *run)
    reasons += [part] if isinstance(part, str) else checks.check_test_part(result, part)
    return result, (reasons + checks.check_figures(result) + checks.check_checkpoint(result, path.parent))


def _keep_one_config(experiment: ExperimentResults, found: dict[str, dict]) -> None:
    """All runs of a stage must have one config: drop the results that come by another one, at any stage."""
    for stage in STAGES:
        for template, rows in experiment.templates(stage).items():
            configs, users = {}, {}
            for run in rows[0].runs:
                paths = [path for row in rows if (path := _path(row, run)) in found]
                folder = rows[0].folder(stage, run)
                if paths and (config := _config(experiment, stage, folder, found)) is not None:
                    configs[folder], users[folder] = config, list(dict.fromkeys(paths))
            usual, odd = checks.odd_ones({folder: fingerprint(config) for folder, config in configs.items()})
            example = next((c for c in configs.values() if fingerprint(c) == usual), None)
            if example is not None:
                experiment.configs[template] = example
            for folder in odd:
                if example is None:
                    reason = f"the runs of {template} have different configs, and none is that of most"
                else:
                    what = "; ".join(differences(configs[folder], example)[:3])
                    reason = f"{folder} has another config than most runs of {template} ({what})"
                for path in users[folder]:
                    _drop(experiment, found, path, reason)


def _config(experiment: ExperimentResults, stage: str, folder: str, found: dict[str, dict]) -> dict | None:
    """What must be equal in all runs of a stage; None where it is not known any more."""
    path = experiment.folder / folder
    if stage == "stage3":
        result = found[f"{folder}/result.json"]
        return {**result["config"], "stages": {"past": list(dict.fromkeys(e["stage"] for e in result["provenance"]))}}
    try:
        if stage != "labels":
            return read_training_config(path)
        if (path / "kmeans.safetensors").is_file():
            km = MultiscaleKMeans.load(path / "kmeans.safetensors")
            return {"kmeans": {"layer": km.layer, "scales": km.scales}}
    except UserError as error:
        experiment.notes.append(f"{folder}: its config is not known ({error})")
    return None


def _drop(experiment: ExperimentResults, found: dict[str, dict], path: str, reason: str) -> None:
    found.pop(path, None)
    experiment.problems.append(Problem("wrong", f"{path} does not count: {reason}"))


def _note_strangers(experiment: ExperimentResults) -> None:
    wanted = {_path(row, run) for row in experiment.rows.values() for run in row.runs}
    there = (p.relative_to(experiment.folder) for p in experiment.folder.glob("fold*/seed*/stage3/*/result.json"))
    strangers = sorted(path.as_posix() for path in there if path.as_posix() not in wanted)
    if strangers:
        experiment.notes.append(
            f"{len(strangers)} results on disk are not part of the experiment and are not shown, as {strangers[0]}"
        )


def _path(row: RowResults, run: Run) -> str:
    return f"{row.folder('stage3', run)}/result.json"


def runs_in_words(runs: list[Run], experiment: ExperimentResults) -> str:
    """`fold 3; seed 2 of fold 1`: whole folds, whole seeds, and what is left."""
    left, words = set(runs), []
    for number, names, what in ((0, experiment.folds, "fold"), (1, experiment.seeds, "seed")):
        for name in names:
            mine = {run for run in runs if run[number] == name}
            if len(mine) * len(names) == len(experiment.folds) * len(experiment.seeds) and mine & left:
                words.append(f"{what} {name}")
                left -= mine
    by_fold: dict[str, list[str]] = {}
    for fold, seed in runs:
        if (fold, seed) in left:
            by_fold.setdefault(fold, []).append(str(seed))
    words += [f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)} of fold {fold}" for fold, seeds in by_fold.items()]
    return "; ".join(words)
