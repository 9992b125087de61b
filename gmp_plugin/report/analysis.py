"""What the rows of an experiment come to: means over folds, intervals, and tests against the headline row."""

from dataclasses import dataclass

import numpy as np

from .. import statistics
from ..statistics import Estimate, PairedP
from .results import ExperimentResults, Pool, RowResults, pool, summarize


@dataclass(frozen=True)
class Comparison:
    """A row less the headline row on the runs that both have, 0 to 1; `p` by rate, `holm` the corrected p over
    speakers (over utterances where speakers are not known)."""

    n_runs: int
    estimates: dict[str, Estimate]
    p: dict[str, PairedP]
    holm: dict[str, float]


@dataclass(frozen=True)
class Analysis:
    """Of one row: `summary` as `summarize` has it; the rest is None where there is no mean."""

    row: RowResults
    summary: dict
    pool: Pool | None = None
    estimates: dict[str, Estimate] | None = None
    against: Comparison | None = None


def analyse(experiment: ExperimentResults, allow_partial: bool = False) -> dict[str, Analysis]:
    """An `Analysis` of every row. A row with missing runs has no means, unless `allow_partial`.

    Folds are not alike: the mean over some of them is of another quantity than the mean over all.
    """
    counted = {name: row for name, row in experiment.rows.items() if _counts(row, allow_partial)}
    comparisons = _compare(experiment, counted)
    found = {name: Analysis(row, summarize(row, allow_partial)) for name, row in experiment.rows.items()}
    for name, row in counted.items():
        own = pool(row.results)
        estimates = statistics.estimate(own.hits, own.truth, experiment.speakers(own.paths))
        found[name] = Analysis(row, found[name].summary, own, estimates, comparisons.get(name))
    return found


def _counts(row: RowResults, allow_partial: bool) -> bool:
    return bool(row.results) and (allow_partial or not row.missing)


def _compare(experiment: ExperimentResults, counted: dict[str, RowResults]) -> dict[str, Comparison]:
    headline = experiment.headline
    found = {}
    for name, row in counted.items():
        runs = [run for run in row.results if run in headline.results]
        same = row.templates["stage3"] == headline.templates["stage3"]  # the same results under another name
        if same or headline.name not in counted or not runs:
            continue
        mine, theirs = (pool({run: r.results[run] for run in runs}) for r in (row, headline))
        difference, speakers = mine.hits - theirs.hits, experiment.speakers(mine.paths)
        found[name] = (
            len(runs),
            statistics.estimate(difference, mine.truth, speakers),
            statistics.paired_p(difference, mine.truth, speakers),
        )
    holm: dict[str, dict[str, float]] = {name: {} for name in found}
    for rate in ("uar", "war"):
        ps = [p[rate].utterances if p[rate].speakers is None else p[rate].speakers for _, _, p in found.values()]
        for name, corrected in zip(found, statistics.holm(ps), strict=True):
            holm[name][rate] = corrected
    return {name: Comparison(*parts, holm[name]) for name, parts in found.items()}


def recalls(own: Pool, members: np.ndarray, n_classes: int) -> tuple[list[float | None], float, float]:
    """Of the utterances `members` `(N,)`: recall of each class, None where it has none, UAR and WAR; all 0 to 1."""
    hits, truth = own.hits[members], own.truth[members]
    by_class = [float(hits[truth == c].mean()) if (truth == c).any() else None for c in range(n_classes)]
    rates = statistics.rates(hits, truth)
    return by_class, rates["uar"], rates["war"]
