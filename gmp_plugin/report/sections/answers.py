"""What is taken for what, and whose speech is recognised."""

import numpy as np

from ...corpora.folds import natural_key
from ...page import Details, Heading, Picture, Table, Text
from .. import plots
from ..analysis import Analysis, recalls
from ..results import ExperimentResults
from . import wording
from .wording import NONE


def confusion_section(experiment: ExperimentResults, found: dict[str, Analysis]) -> list:
    """Confusion matrices of the rows, folds and seeds together."""
    blocks = [
        Heading("Confusion matrices"),
        Text("Folds and seeds together, an utterance once for each seed: share of the spoken class, and count."),
    ]
    for one in found.values():
        if one.pool is None:
            continue
        counts = one.pool.confusion
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        rows = [
            [name] + [f"{share:.1%}  ({count})" for share, count in zip(*pair, strict=True)]
            for name, *pair in zip(experiment.classes, shares, counts, strict=True)
        ]
        shades = [[None, *line] for line in shares.tolist()]
        table = Table(["spoken \\ recognised", *experiment.classes], rows, shades=shades)
        if one.row is experiment.headline:
            blocks += [Heading(wording.title(one.row), 3), table]
        else:
            blocks.append(Details(wording.title(one.row), [table]))
    return blocks


def speakers_section(experiment: ExperimentResults, found: dict[str, Analysis]) -> list:
    """Recall by gender for all rows, by speaker for each."""
    blocks = [Heading("Gender and speakers")]
    shown = [one for one in found.values() if one.pool is not None]
    if not shown or experiment.speakers(shown[0].pool.paths) is None:
        return [*blocks, Text("Not shown: no row has all its runs, or the speakers are not known.")]
    head = ["utterances", "UAR %", "WAR %", *(f"{name} %" for name in experiment.classes)]
    rows, bold = [], []
    for one in shown:
        genders = experiment.genders(one.pool.paths)
        for gender in sorted(set(genders)):
            bold += [len(rows)] * (one.row is experiment.headline)
            rows.append([wording.title(one.row), gender, *_rates_of(one, genders == gender, experiment)[0]])
    blocks += [
        Text("Recall in percent, seeds averaged, folds together; every speaker by the models that never heard them."),
        Table(["", "gender", *head], rows, tuple(bold)),
    ]
    for one in shown:
        speakers, genders = experiment.speakers(one.pool.paths), experiment.genders(one.pool.paths)
        rows, marks, by_class, uars = [], [], [], []
        for speaker in sorted(set(speakers), key=natural_key):
            gender = genders[speakers == speaker][0]
            cells, numbers, uar = _rates_of(one, speakers == speaker, experiment)
            rows.append([speaker, gender, *cells])
            marks.append(f"{speaker}\n{gender}")
            by_class.append(numbers)
            uars.append(uar)
        figure = plots.speakers_figure(marks, np.array(by_class), uars, experiment.classes)
        picture = Picture(f"speakers_{one.row.name}", figure, f"Recall of every speaker, {wording.title(one.row)}")
        table = Table(["speaker", "gender", *head], rows)
        if one.row is experiment.headline:
            blocks += [Heading(wording.title(one.row), 3), picture, Details("The figures", [table])]
        else:
            blocks.append(Details(wording.title(one.row), [picture, table]))
    return blocks


def _rates_of(
    one: Analysis, members: np.ndarray, experiment: ExperimentResults
) -> tuple[list[str], list[float], float]:
    by_class, uar, war = recalls(one.pool, members, len(experiment.classes))
    cells = [f"{members.sum()}", f"{100 * uar:.1f}", f"{100 * war:.1f}"]
    cells += [NONE if r is None else f"{100 * r:.1f}" for r in by_class]
    return cells, [float("nan") if r is None else 100 * r for r in by_class], 100 * uar
