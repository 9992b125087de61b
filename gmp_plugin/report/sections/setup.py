"""What it cost, what it was made with, and how the figures are made."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np

from ...experiment import STAGES
from ...page import Bullets, Code, Details, Heading, Table, Text
from ...training_config import settings
from ..results import ExperimentResults, RowResults
from . import wording
from .wording import NONE, TITLES

METHOD = [
    "**Mean and standard deviation** are over folds (n - 1), the seeds of a fold being averaged first: what folds "
    "differ by is the test speakers, not chance in training.",
    "**Intervals** are percentiles of 10 000 bootstrap draws from the test parts of all folds, of the rate averaged "
    "over seeds. Over utterances, they are drawn inside each class, so that every class keeps its count; utterances of "
    "one speaker are taken for independent, which they are not, and the interval is too narrow. Over speakers, all of "
    "a speaker's utterances are drawn together, over all folds: a fold has too few speakers to draw inside it. With "
    "ten speakers that interval, too, is rather narrow: on simulated speakers it held the true rate in 9 of 10 cases, "
    "that over utterances in 3 to 7 of 10.",
    "**Tests** are paired permutation tests: the two rows' answers, averaged over seeds, are swapped for each "
    "utterance, or for each speaker; all ways of swapping where there are at most 10 000, else as many at random. With "
    "n speakers no p over speakers is below 2 / 2^n.",
    "**Seeds** are averaged first everywhere; no interval tells how much another seed would change.",
    "**A row that lacks a run** has no mean, as folds are not alike; `--allow-partial` gives one, and says of how many "
    "runs. A result that does not belong where it lies is never counted.",
]


def costs_section(experiment: ExperimentResults) -> list:
    """Time and memory of the stages, from Snakemake's benchmark files."""
    rows, total = [], 0.0
    for stage in STAGES:
        for template, users in experiment.templates(stage).items():
            found = [_time(experiment.folder / users[0].folder(stage, run)) for run in users[0].runs]
            found = [one for one in found if one]
            if not found:
                continue
            seconds, cpu, memory = ([one[key] for one in found] for key in ("s", "cpu_time", "max_rss"))
            total += sum(seconds)
            rows.append(
                [TITLES[stage], Path(template).name, f"{len(found)}", wording.duration(np.mean(seconds)),
                 f"{wording.duration(min(seconds))} to {wording.duration(max(seconds))}",
                 wording.duration(np.nanmean(cpu)), f"{np.nanmax(memory) / 1024:.2f} GB"]
            )  # fmt: skip
    blocks = [Heading("Time and memory")]
    if not rows:
        return [*blocks, Text("Not known: there are no time.tsv files beside the stages.")]
    head = ["stage", "folder", "runs", "time, mean", "least to most", "processor time", "most memory"]
    return [
        *blocks,
        Text(f"As Snakemake measured it, in all {wording.duration(total)}, jobs after each other. A stage that was "
             "stopped and went on counts from its last start."),
        Table(head, rows),
    ]  # fmt: skip


def _time(folder: Path) -> dict[str, float] | None:
    """The last line of `time.tsv` as numbers, NaN for what was not measured; None without the file."""
    if not (folder / "time.tsv").is_file():
        return None
    lines = list(csv.DictReader((folder / "time.tsv").open(encoding="utf-8"), delimiter="\t"))
    numbers = {}
    for key in ("s", "cpu_time", "max_rss"):
        try:
            numbers[key] = float(lines[-1][key])
        except (IndexError, KeyError, ValueError, TypeError):
            numbers[key] = float("nan")
    return None if np.isnan(numbers["s"]) else numbers


def setup_section(experiment: ExperimentResults) -> list:
    """Machine, versions, configs."""
    results = [result for row in experiment.rows.values() for result in row.results.values()]
    machines, versions = (
        Counter(json.dumps(result[key]) for result in results if key in result) for key in ("machine", "versions")
    )
    blocks = [Heading("Machine, versions, configs")]
    for counter, name in ((machines, "evaluated on"), (versions, "with")):
        for text, count in counter.most_common():
            what = ", ".join(f"{key} {value}" for key, value in json.loads(text).items() if value is not None)
            blocks.append(Text(f"{count} results {name}: {what}."))
    about = {key: value for key, value in vars(experiment.plan).items() if key != "rows"}
    blocks.append(Details("The experiment", [Code(json.dumps(about, indent=1))]))
    for stage in STAGES:
        for template in experiment.templates(stage):
            if template in experiment.configs:
                own = settings(experiment.configs[template])
                code = Code("\n".join(f"{key}: {json.dumps(value)}" for key, value in own.items()))
                blocks.append(Details(f"{TITLES[stage].capitalize()}, `{Path(template).name}`", [code]))
    rows = [
        [row.name, wording.title(row), *(_variant(row, stage) for stage in STAGES)] for row in experiment.rows.values()
    ]
    return [*blocks, Details("The rows and their folders", [Table(["name", "", *TITLES.values()], rows)])]


def _variant(row: RowResults, stage: str) -> str:
    return NONE if row.templates[stage] is None else Path(row.templates[stage]).name


def method_section() -> list:
    return [Heading("How the figures are made"), Bullets(METHOD)]
