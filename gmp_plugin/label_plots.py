"""Pictures of frame labels: matplotlib figures without a display, in colours for colour-blind readers too."""

from itertools import cycle

import numpy as np

from .frames import HOP, RECEPTIVE_FIELD, SAMPLE_RATE
from .plots import MARKERS, OKABE_ITO, WIDTH, colours, new_figure

STFT_HOP = 80  # samples: four columns per frame of HuBERT


def usage_figure(usages: dict):
    """Frequencies of the clusters of every scale, most used first, as multiples of an even share."""
    figure = new_figure(3.6)
    axes = figure.subplots()
    for color, style, (k, found) in zip(colours(len(usages)), cycle(("-", "--", "-.")), usages.items(), strict=False):
        shares = found.shares[: found.in_use]
        axes.plot(100 * (np.arange(len(shares)) + 0.5) / k, shares * k, style, color=color, label=f"K = {k}", lw=2)
    axes.axhline(1, color="gray", lw=1, ls=":")
    axes.text(100, 1, "even use ", ha="right", va="bottom", color="dimgray")
    axes.set(yscale="log", xlim=(0, 100), xlabel="clusters, most used first (%)", ylabel="frames, times an even share")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.legend()
    return figure


def agreement_figure(agreements: dict):
    """Bars of purity and normalised mutual information, `agreements[property][K]`, with their chance levels."""
    figure = new_figure(3.6)
    scales = sorted({k for by_scale in agreements.values() for k in by_scale})
    width = 0.8 / len(scales)
    titles = {"purity": "Purity", "nmi": "Normalised mutual information"}
    for axes, (name, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for j, (k, color) in enumerate(zip(scales, colours(len(scales)), strict=True)):
            x = np.arange(len(agreements)) + (j - (len(scales) - 1) / 2) * width
            found = [by_scale[k] for by_scale in agreements.values()]
            values, chance = ([getattr(a, prefix + name) for a in found] for prefix in ("", "chance_"))
            bars = axes.bar(x, values, 0.9 * width, color=color, label=f"K = {k}")
            axes.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
            # White under black, to be seen on every bar.
            axes.hlines(chance, x - 0.45 * width, x + 0.45 * width, color="white", lw=4)
            axes.hlines(chance, x - 0.45 * width, x + 0.45 * width, color="black", lw=1.5, label="chance" * (j == 0))
        axes.set(title=title, xticks=range(len(agreements)))
        axes.set_xticklabels(list(agreements))
        axes.margins(y=0.15)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(scales) + 1)
    return figure


def map_figure(points: dict, counts: dict, majorities: dict | None, names: list[str] | None):
    """Centroids of every scale in a plane.

    Args:
        points: `(K, 2)` of each scale.
        counts: frames `(K,)` of each cluster, shown by the area.
        majorities: class `(K,)` of each cluster, -1 for none, shown by colour and marker; without them the
            colour shows the frames too.
        names: of the classes.
    """
    figure = new_figure(0.42 * WIDTH if len(points) > 1 else 6)
    panels = np.atleast_1d(figure.subplots(1, len(points), sharex=True, sharey=True))
    for axes, (k, xy) in zip(panels, points.items(), strict=True):
        # Area by frames; the mean area shrinks with K, or the dots of a large scale would hide each other.
        area = np.maximum(5, counts[k] / max(1, counts[k].sum()) * k * np.clip(4000 / k, 6, 80))
        used = counts[k] > 0
        if (~used).any():
            axes.scatter(*xy[~used].T, s=12, c="gray", marker="x", lw=0.8)
        if majorities is None:
            shown = axes.scatter(*xy[used].T, s=area[used], c=100 * counts[k][used] / counts[k].sum(), cmap="cividis")
            figure.colorbar(shown, ax=axes, location="bottom", label="frames (%)")
        else:
            for c, (color, marker) in enumerate(zip(colours(len(names)), cycle(MARKERS), strict=False)):
                mine = majorities[k] == c
                axes.scatter(
                    *xy[mine].T, s=area[mine], color=color, marker=marker, alpha=0.8, edgecolors="white", lw=0.4
                )
        axes.set(title=f"K = {k}", xticks=[], yticks=[])
    if majorities is not None:
        from matplotlib.lines import Line2D

        looks = zip(names, colours(len(names)), cycle(MARKERS), strict=False)
        handles = [Line2D([], [], color=c, marker=m, ls="", ms=8, label=n) for n, c, m in looks]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(names))
    return figure


def track_figure(wave: np.ndarray, labels: dict, order: dict):
    """A spectrogram with the label track of every scale below it.

    Args:
        wave: audio `(N,)` at 16 kHz.
        labels: `(T,)` of each scale.
        order: position from 0 to 1 of each cluster `(K,)` on the colour scale; neighbours look alike.
    """
    from matplotlib import colormaps

    figure = new_figure(2.4 + 0.5 * len(labels))
    first, *tracks = figure.subplots(len(labels) + 1, 1, sharex=True, height_ratios=[4] + [1] * len(labels))
    level = spectrogram(wave)
    seconds = len(wave) / SAMPLE_RATE
    begin = (RECEPTIVE_FIELD - STFT_HOP) / 2 / SAMPLE_RATE
    first.imshow(
        level, origin="lower", aspect="auto", cmap="magma", vmin=level.max() - 80, vmax=level.max(),
        extent=(begin, begin + level.shape[1] * STFT_HOP / SAMPLE_RATE, 0, SAMPLE_RATE / 2000),
    )  # fmt: skip
    first.set(ylabel="kHz", facecolor="black")
    colors = colormaps["viridis"]
    for axes, (k, track) in zip(tracks, labels.items(), strict=True):
        start = (RECEPTIVE_FIELD - HOP) / 2 / SAMPLE_RATE  # a frame stands for the middle hop of its samples
        times = start + np.arange(len(track) + 1) * HOP / SAMPLE_RATE
        axes.imshow(
            order[k][track][None], aspect="auto", cmap=colors, vmin=0, vmax=1, interpolation="nearest",
            extent=(times[0], times[-1], 0, 1),
        )  # fmt: skip
        changes = np.concatenate([[0], np.flatnonzero(np.diff(track)) + 1, [len(track)]])
        axes.vlines(times[changes[1:-1]], 0, 1, color="white", lw=0.4)
        for a, b in zip(changes, changes[1:], strict=False):
            if (times[b] - times[a]) / seconds * WIDTH > 0.02 + 0.085 * len(str(track[a])):
                shade = order[k][track[a]]
                axes.text(
                    (times[a] + times[b]) / 2, 0.5, str(track[a]), ha="center", va="center", fontsize=7,
                    color="black" if shade > 0.6 else "white",
                )  # fmt: skip
        axes.set(yticks=[], ylim=(0, 1))
        axes.set_ylabel(f"K = {k}", rotation=0, ha="right", va="center")
    (tracks or [first])[-1].set(xlabel="seconds", xlim=(0, seconds))
    return figure


def spectrogram(wave: np.ndarray) -> np.ndarray:
    """Level in dB, `(257, columns)`: 25 ms Hann windows every 5 ms of audio `(N,)` at 16 kHz."""
    windows = np.lib.stride_tricks.sliding_window_view(wave, RECEPTIVE_FIELD)[::STFT_HOP]
    power = np.abs(np.fft.rfft(windows * np.hanning(RECEPTIVE_FIELD), n=512)) ** 2
    return 10 * np.log10(power.T + 1e-10)


def layer_figure(scores: list, chance: float):
    """UAR in percent of the probe of each layer."""
    figure = new_figure(3.2)
    axes = figure.subplots()
    layers = [score.layer for score in scores]
    axes.plot(layers, [100 * s.train_uar for s in scores], "--s", color=OKABE_ITO[4], label="its own training part")
    axes.plot(layers, [100 * s.uar for s in scores], "-o", color=OKABE_ITO[0], lw=2, label="validation part")
    axes.axhline(100 * chance, color="gray", lw=1, ls=":")
    axes.text(layers[-1], 100 * chance, "chance", ha="right", va="bottom", color="dimgray")
    axes.set(xlabel="layer", ylabel="UAR (%)", xticks=layers)
    axes.legend()
    return figure
