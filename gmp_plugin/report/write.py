"""The report of an experiment: an HTML page, the same as Markdown, CSVs of all runs and answers, a summary as JSON."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..files import atomic_text
from ..page import html_page, markdown_page
from .analysis import Analysis, Comparison, analyse
from .results import RATES, ExperimentResults
from .sections import answers, calibration, curves, embeddings, labels, rates, setup, status

FILES = ("report.html", "report.md", "report.csv", "answers.csv", "summary.json")
PICTURES = "report_pictures"


def write_report(experiment: ExperimentResults, out, allow_partial: bool = False) -> dict[str, Analysis]:
    """Write `FILES`, and the pictures of the Markdown, into the folder `out`; returns what the rows come to.

    `allow_partial`: rows that lack runs get a mean of those that they have.
    """
    out = Path(out)
    found = analyse(experiment, allow_partial)
    blocks = [
        *status.status_section(experiment, allow_partial),
        *rates.results_section(experiment, found),
        *rates.intervals_section(experiment, found),
        *rates.tests_section(experiment, found),
        *rates.runs_section(experiment),
        *answers.confusion_section(experiment, found),
        *answers.speakers_section(experiment, found),
        *calibration.calibration_section(experiment, found),
        *curves.curves_section(experiment),
        *labels.labels_section(experiment),
        *embeddings.embeddings_section(experiment),
        *setup.costs_section(experiment),
        *setup.setup_section(experiment),
        *setup.method_section(),
    ]
    title = f"Experiment {experiment.plan.name}"
    text, pictures = markdown_page(title, blocks, PICTURES)
    for name, picture in pictures.items():
        _write(out / PICTURES / name, picture)
    for path in (out / PICTURES).glob("*.svg"):
        if path.name not in pictures:
            path.unlink()  # of an earlier report
    _write(out / "report.html", html_page(title, blocks))
    _write(out / "report.md", text)
    _write_csv(out / "report.csv", _runs(experiment))
    write_answers(experiment, out / "answers.csv")
    _write(out / "summary.json", json.dumps(summary(experiment, found), indent=1) + "\n")
    return found


def summary(experiment: ExperimentResults, found: dict[str, Analysis]) -> dict:
    """The headline row's summary, those of all rows under `rows` with their tests against it, and what is wrong."""
    rows = {}
    for name, one in found.items():
        rows[name] = dict(one.summary)
        for rate in ("uar", "war") if one.estimates else ():
            e = one.estimates[rate]
            rows[name][rate] = {
                **rows[name][rate],
                "pooled": 100 * e.value,
                "interval_utterances": _percent(e.utterances),
                "interval_speakers": _percent(e.speakers),
            }
        if one.against:
            rows[name]["against_first_row"] = {rate: _comparison(one.against, rate) for rate in ("uar", "war")}
    name = experiment.headline.name
    problems = [problem.text for problem in experiment.problems]
    return {**rows[name], "row": name, "rows": rows, "problems": problems}


def _comparison(against: Comparison, rate: str) -> dict:
    e, p = against.estimates[rate], against.p[rate]
    return {
        "difference": 100 * e.value,
        "interval_utterances": _percent(e.utterances),
        "interval_speakers": _percent(e.speakers),
        "p_utterances": p.utterances,
        "p_speakers": p.speakers,
        "p_holm": against.holm[rate],
    }


def _percent(ends) -> list[float] | None:
    return None if ends is None else [100 * end for end in ends]


def _write_csv(path: Path, lines: Iterable[list]) -> None:
    with atomic_text(path) as stream:
        csv.writer(stream, lineterminator="\n").writerows(lines)


def _runs(experiment: ExperimentResults) -> Iterator[list]:
    """A line for every row, fold and seed; one without a result has empty cells."""
    recalls = [f"recall_{name}" for name in experiment.classes]
    head = ["row", "title", "table", "fold", "seed", "utterances", *RATES, *recalls, "result", "checkpoint_sha256"]
    yield head
    for row in experiment.rows.values():
        for run in row.runs:
            line = [row.name, row.title, row.table, *run]
            if result := row.results.get(run):
                line += [len(result["utterances"]), *(f"{result[rate]:.4f}" for rate in RATES)]
                line += [_cell(result["recalls"].get(name)) for name in experiment.classes]
                line += [f"{row.folder('stage3', run)}/result.json", result["checkpoint_sha256"]]
            yield line + [""] * (len(head) - len(line))


def write_answers(experiment: ExperimentResults, path: Path) -> None:
    _write_csv(path, _answers(experiment))


def _answers(experiment: ExperimentResults) -> Iterator[list]:
    """A line for every utterance of the results that count: what statistics of one's own start from."""
    yield ["row", "fold", "seed", "path", "speaker", "emotion", "recognised"]
    for row in experiment.rows.values():
        for run, result in row.results.items():
            for u in result["utterances"]:
                known = experiment.utterances.get(u["path"])
                yield [row.name, *run, u["path"], known.speaker if known else "", u["truth"], u["predicted"]]


def _cell(recall: float | None) -> str:
    return "" if recall is None else f"{recall:.4f}"


def _write(path: Path, text: str) -> None:
    with atomic_text(path) as stream:
        stream.write(text)
