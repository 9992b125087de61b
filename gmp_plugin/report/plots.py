"""Pictures of an experiment's report, as matplotlib figures: a marker or a line style goes with every colour."""

import re
import textwrap
from itertools import cycle

import numpy as np

from ..calibration import Reliability
from ..plots import MARKERS, OKABE_ITO, colours, new_figure, plain
from .learning_curves import PANELS, Curve, mean_curve

PARTS = {"train": ("training part", OKABE_ITO[1], "--", "s"), "valid": ("validation part", OKABE_ITO[0], "-", "o")}


def rates_figure(titles: list[str], estimates: list[dict], folds: list[dict], references: list[dict]):
    """Rates of rows, pooled, with their intervals and their folds.

    Args:
        titles: of the rows.
        estimates: `Estimate` of `uar` and `war` of each row, 0 to 1.
        folds: values of `uar` and `war` on each fold, in percent.
        references: other people's `uar` and `war` in percent, or an empty dict.
    """
    figure = new_figure(1.1 + 0.68 * len(titles))
    for axes, (name, label) in zip(
        figure.subplots(1, 2, sharey=True), {"uar": "UAR (%)", "war": "WAR (%)"}.items(), strict=True
    ):
        for y, (found, by_fold, other) in enumerate(zip(estimates, folds, references, strict=True)):
            _intervals(axes, y, found[name], label=y == 0)
            axes.plot(
                by_fold[name], [y + 0.38] * len(by_fold[name]), "|", color=OKABE_ITO[2], ms=8, mew=2,
                label="folds" * (y == 0),
            )  # fmt: skip
            if name in other:
                first = not any(name in earlier for earlier in references[:y])
                axes.plot(
                    other[name], y, "D", mfc="none", color=OKABE_ITO[3], ms=8, mew=1.6,
                    label="the paper's figure, not ours" * first,
                )  # fmt: skip
        _rows(axes, titles, label)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def differences_figure(titles: list[str], estimates: list[dict]):
    """Differences to the headline row, in percent points, with their intervals."""
    figure = new_figure(1.1 + 0.55 * len(titles))
    panels = {"uar": "UAR, difference in points", "war": "WAR, difference in points"}
    for axes, (name, label) in zip(figure.subplots(1, 2, sharey=True), panels.items(), strict=True):
        for y, found in enumerate(estimates):
            _intervals(axes, y, found[name], label=y == 0)
        axes.axvline(0, color="gray", lw=1, ls="--")
        _rows(axes, titles, label)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _intervals(axes, y: float, found, label: bool) -> None:
    low, high = 100 * np.array(found.utterances)
    axes.plot([low, high], [y, y], lw=6, color=OKABE_ITO[0], label="95 % over utterances" * label, zorder=1)
    axes.plot(100 * found.value, y, "o", ms=8, color="black", mec="white", label="all folds together" * label, zorder=2)
    if found.speakers is not None:
        ends = 100 * np.array(found.speakers)
        axes.plot(ends, [y + 0.2] * 2, "-|", lw=2, ms=8, mew=2, color=OKABE_ITO[5], label="95 % over speakers" * label)


def _rows(axes, titles: list[str], label: str) -> None:
    axes.set(xlabel=label, ylim=(len(titles) - 0.45, -0.5), yticks=range(len(titles)))
    axes.set_yticklabels([textwrap.fill(title, 30) for title in titles])
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="x", color="#cccccc", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def curves_figure(stage: str, runs: list[dict[tuple[str, str], Curve]]):
    """Learning curves of the runs of a stage, thin, with their mean."""
    panels = PANELS[stage]
    figure = new_figure(3.4)
    for axes, (title, pattern) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        tags = sorted({tag for run in runs for _, tag in run if re.fullmatch(pattern, tag)}, key=_number)
        if pattern.startswith("accuracy"):
            looks = zip(tags, colours(len(tags)), cycle(("-", "--", "-.")), cycle(MARKERS), strict=False)
            part_of = {tag: ", not masked" * ("unmasked" in tag) for tag in tags}
            lines = [("valid", tag, f"K = {_number(tag)}{part_of[tag]}", *look) for tag, *look in looks]
        else:
            lines = [(part, tag, *look) for tag in tags for part, look in PARTS.items()]
        for part, tag, name, color, style, marker in lines:
            curves = [run[part, tag] for run in runs if (part, tag) in run]
            for curve in curves if len(curves) > 1 else []:
                axes.plot(curve.updates, curve.values, lw=0.7, color=color, alpha=0.45)
            if curves:
                mean = mean_curve(curves)
                axes.plot(
                    mean.updates, mean.values, style, lw=2.2, color=color, marker=marker, ms=5, label=name,
                    markevery=max(1, len(mean.updates) // 8),
                )  # fmt: skip
        axes.set(title=title, xlabel="updates")
        _frame(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return figure


def speakers_figure(speakers: list[str], recalls: np.ndarray, uars: list[float], classes: list[str]):
    """Recall of each class and UAR for every speaker, in percent; recalls `(speakers, C)` may have NaN."""
    figure = new_figure(3.6)
    axes = figure.subplots()
    x = np.arange(len(speakers))
    axes.hlines(uars, x - 0.35, x + 0.35, color="black", lw=3, label="UAR")
    looks = zip(classes, colours(len(classes)), cycle(MARKERS), strict=False)
    for c, (name, color, marker) in enumerate(looks):
        shift = (c - (len(classes) - 1) / 2) * 0.7 / len(classes)
        axes.plot(x + shift, recalls[:, c], marker, color=color, ms=7, label=plain(name))
    axes.set(ylabel="recall (%)", xticks=x, ylim=(-4, 104), xlim=(-0.6, len(speakers) - 0.4))
    axes.set_xticklabels(map(plain, speakers), rotation=0 if len(speakers) <= 14 else 60)
    _frame(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(classes) + 1)
    return figure


def reliability_figure(found: Reliability):
    """Accuracy of the answers of each bin of confidence, with how many there are."""
    figure = new_figure(3.4)
    left, right = figure.subplots(1, 2)
    middles, width = (found.edges[:-1] + found.edges[1:]) / 2, 100 * np.diff(found.edges)
    used = found.n > 0
    left.plot([0, 100], [0, 100], "--", color="#808080", lw=1.5, label="right as often as sure")
    left.bar(100 * middles[used], 100 * found.accuracy[used], 0.9 * width[used], color=OKABE_ITO[5], label="right")
    left.plot(
        100 * found.confidence[used], 100 * found.accuracy[used], "o", color=OKABE_ITO[0], label="mean confidence"
    )
    left.set(xlabel="confidence (%)", ylabel="right (%)", xlim=(0, 100), ylim=(0, 104))
    left.legend(loc="upper left")
    right.bar(100 * middles, found.n, 0.9 * width, color=OKABE_ITO[0])
    right.set(xlabel="confidence (%)", ylabel="recordings", xlim=(0, 100))
    _frame(left), _frame(right)
    return figure


def embeddings_figure(maps: dict[str, np.ndarray], classes: dict[str, list[str]]):
    """Maps of the utterances: a line of pictures for each of `maps`, points `(N, 2)`, a column for each property."""
    figure = new_figure(0.7 + 2.9 * len(maps))
    panels = figure.subplots(len(maps), len(classes), squeeze=False)
    for i, (name, points) in enumerate(maps.items()):
        for j, (what, values) in enumerate(classes.items()):
            axes, names = panels[i, j], sorted(set(values))
            for value, color, marker in zip(names, colours(len(names)), cycle(MARKERS), strict=False):
                mine = points[np.array(values) == value]
                axes.scatter(*mine.T, s=22, color=color, marker=marker, alpha=0.9, linewidths=0, label=plain(value))
            axes.set(xticks=[], yticks=[], title=what if i == 0 else "", ylabel=name if j == 0 else "")
            axes.spines[:].set_color("#cccccc")
            if i == len(maps) - 1 and len(names) <= len(MARKERS):
                axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=min(4, len(names)), frameon=False,
                            handletextpad=0.1, columnspacing=0.8)  # fmt: skip
    return figure


def _frame(axes) -> None:
    axes.grid(color="#cccccc", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _number(tag: str) -> int:
    digits = "".join(c for c in tag if c.isdigit())
    return int(digits) if digits else 0
