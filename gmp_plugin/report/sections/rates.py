"""Rates of the rows: means over folds, intervals, tests against the headline row, and every run."""

from collections import Counter

import numpy as np

from ...corpora.iemocap import KNOWN_CLASSES
from ...page import Details, Heading, Picture, Table, Text
from .. import plots
from ..analysis import Analysis
from ..results import RATES, ExperimentResults, RowResults
from . import wording
from .wording import NONE


def results_section(experiment: ExperimentResults, found: dict[str, Analysis]) -> list:
    """Means over folds, as papers have them, a table for each question; the headline row stands in each."""
    chance = 100 / max(1, len(experiment.classes))
    blocks = [
        Heading("Results"),
        Text(
            f"Mean ± standard deviation over the folds' test parts, seeds averaged within a fold. Guessing among "
            f"{wording.join(experiment.classes)} has a UAR of {chance:.1f} %."
        ),
    ]
    for title in dict.fromkeys(row.table for row in experiment.rows.values()):
        rows = [row for row in experiment.rows.values() if row.table == title or row is experiment.headline]
        paper = shows_paper(experiment) and any(row.paper for row in rows if row.table == title)
        head = ["", "runs", "UAR %", "WAR %", "macro-F1 %"] + ["paper, IEMOCAP: UAR %", "paper, IEMOCAP: WAR %"] * paper
        lines = []
        for row in rows:
            line = [wording.title(row), wording.runs(row)] + [
                wording.mean(found[row.name].summary[rate]) for rate in RATES
            ]
            if paper:
                line += [wording.figure((row.paper or {}).get(rate)) for rate in ("uar", "war")]
            lines.append(line)
        blocks.append(Table(head, lines, (rows.index(experiment.headline),), title, soft=(5, 6)))
    if shows_paper(experiment):
        blocks.append(Text("The columns in grey are the figures of Pan et al. (2024), not ours.", soft=True))
    elif any(row.paper for row in experiment.rows.values()):
        text = "The paper's figures are of the complete IEMOCAP, and so do not stand beside those of this corpus."
        blocks.append(Text(text, soft=True))
    return blocks


def shows_paper(experiment: ExperimentResults) -> bool:
    """The paper's figures are shown beside those of the complete IEMOCAP only: a recall is comparable on no other
    recordings, and the generated corpus, which has IEMOCAP's shape, is none."""
    known = sum((Counter(classes) for classes in KNOWN_CLASSES.values()), Counter())
    same = Counter(u.emotion for u in experiment.utterances.values()) == known
    return experiment.plan.corpus == "iemocap" and same


def intervals_section(experiment: ExperimentResults, found: dict[str, Analysis]) -> list:
    """Pooled rates with their intervals."""
    shown = [one for one in found.values() if one.estimates]
    if not shown:
        return [Heading("How sure the rates are"), Text("No row has all its runs.")]
    head = ["", "UAR %", "95 %, utterances", "95 %, speakers", "WAR %", "95 %, utterances", "95 %, speakers"]
    rows = []
    for one in shown:
        row = [wording.title(one.row)]
        for rate in ("uar", "war"):
            e = one.estimates[rate]
            row += [f"{100 * e.value:.1f}", wording.interval(e.utterances), wording.interval(e.speakers)]
        rows.append(row)
    own = shown[0].pool
    speakers = experiment.speakers(own.paths)
    many = "" if speakers is None else f" of {len(set(speakers))} speakers"
    figure = plots.rates_figure(
        [wording.title(one.row) for one in shown],
        [one.estimates for one in shown],
        [{rate: one.summary[rate]["folds"] for rate in ("uar", "war")} for one in shown],
        [(one.row.paper or {}) if shows_paper(experiment) else {} for one in shown],
    )
    return [
        Heading("How sure the rates are"),
        Text(
            f"The test parts of all folds together, {len(own.paths)} utterances{many}, so that a rate differs a little "
            "from the mean over folds. The intervals are bootstrap intervals of the mean over seeds: over utterances, "
            "drawn inside each class, and over speakers, whole speakers being drawn. The one over speakers is the one "
            "to quote: it is about new voices."
        ),
        Table(head, rows, bold=wording.bold_rows(experiment, shown)),
        Picture("rates", figure, "Rates of the rows with their intervals, and their folds"),
    ]


def tests_section(experiment: ExperimentResults, found: dict[str, Analysis]) -> list:
    """Every row against the headline row."""
    title = wording.title(experiment.headline)
    shown = [one for one in found.values() if one.against]
    blocks = [Heading("Rows against the first")]
    if not shown:
        return [*blocks, Text("There is no other row with results to compare with the first.")]
    blocks.append(
        Text(
            f"Each row less **{title}**, on the same utterances, in percent points; below 0, the row is worse. "
            "p is that of no difference, by swapping the two rows' answers to utterances, or to all of a speaker; "
            f"the last column corrects the one over speakers for the {len(shown)} comparisons (Holm)."
        )
    )
    head = ["", "runs", "difference", "95 %, utterances", "95 %, speakers", "p, utterances", "p, speakers", "p, Holm"]
    for rate in ("uar", "war"):
        rows = []
        for one in shown:
            e, p = one.against.estimates[rate], one.against.p[rate]
            difference = [wording.signed(100 * e.value, "+.1f")]
            difference += [wording.interval(ends, "+") for ends in (e.utterances, e.speakers)]
            chances = [wording.p_value(x) for x in (p.utterances, p.speakers, one.against.holm[rate])]
            rows.append([wording.title(one.row), f"{one.against.n_runs}", *difference, *chances])
        blocks.append(Table(head, rows, caption=RATES[rate]))
    figure = plots.differences_figure([wording.title(one.row) for one in shown], [o.against.estimates for o in shown])
    return [*blocks, Picture("differences", figure, f"Differences of the rows to {title}")]


def runs_section(experiment: ExperimentResults) -> list:
    """Every fold and seed."""
    blocks = [Heading("Folds and seeds"), Text("UAR and WAR in percent of every run; a dash is a run that lacks.")]
    for row in experiment.rows.values():
        head = ["seed"] + [f"fold {fold}" for fold in experiment.folds] + ["mean"]
        rows = []
        for seed in experiment.seeds:
            runs = [row.results.get((fold, seed)) for fold in experiment.folds]
            cells = [f"{r['uar']:.1f} / {r['war']:.1f}" if r else NONE for r in runs]
            whole = None not in runs
            mean = " / ".join(f"{np.mean([r[rate] for r in runs]):.1f}" for rate in ("uar", "war")) if whole else NONE
            rows.append([f"{seed}", *cells, mean])
        rows.append(["mean", *_fold_means(row, experiment)])
        table = Table(head, rows, bold=(len(rows) - 1,))
        if row is experiment.headline:
            blocks += [Heading(wording.title(row), 3), table]
        else:
            blocks.append(Details(wording.title(row), [table]))
    return blocks


def _fold_means(row: RowResults, experiment: ExperimentResults) -> list[str]:
    """Mean of the seeds of every fold, and of the folds; a dash where a run lacks."""
    lacking = {fold for fold, _ in row.missing}
    means = [
        None if fold in lacking else np.array([row.rate(rate, fold) for rate in ("uar", "war")])
        for fold in experiment.folds
    ]
    means.append(None if lacking else np.mean(means, axis=0))
    return [NONE if mean is None else f"{mean[0]:.1f} / {mean[1]:.1f}" for mean in means]
