"""Rows, figures and counts in the words of the report."""

import numpy as np

from ..analysis import Analysis
from ..results import ExperimentResults, RowResults

NONE = "–"
TITLES = {"stage1": "stage 1", "labels": "k-means and labels", "stage2": "stage 2", "stage3": "stage 3"}


def title(row: RowResults) -> str:
    return row.title + (f" ({len(row.results)} of {len(row.runs)} runs)" if row.missing else "")


def runs(row: RowResults) -> str:
    return f"{len(row.runs)}" if not row.missing else f"{len(row.results)} of {len(row.runs)}"


def mean(summary: dict) -> str:
    if summary["mean"] is None:
        return NONE
    return f"{summary['mean']:.1f}" + ("" if summary["std"] is None else f" ± {summary['std']:.1f}")


def figure(value) -> str:
    return NONE if value is None else f"{value:.1f}"


def interval(ends, sign: str = "") -> str:
    return NONE if ends is None else " to ".join(signed(100 * end, f"{sign}.1f") for end in ends)


def signed(value: float, form: str) -> str:
    """With a minus sign instead of a hyphen, and none before a zero."""
    text = f"{value:{form}}"
    return text.replace("-", "" if float(text) == 0 else "−")


def p_value(p: float | None) -> str:
    if p is None:
        return NONE
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def bold_rows(experiment: ExperimentResults, shown: list[Analysis]) -> tuple[int, ...]:
    return tuple(i for i, one in enumerate(shown) if one.row is experiment.headline)


def duration(seconds: float) -> str:
    if np.isnan(seconds):
        return NONE
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def count(things, name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


def join(values) -> str:
    return ", ".join(map(str, values))
