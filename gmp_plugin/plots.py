"""Pictures, as matplotlib figures without a display."""

import numpy as np

# Okabe and Ito's, for colour-blind readers too, darker ones first; a marker or a line style goes with each.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = "osD^vPX*"
WIDTH = 10.0  # inches


def new_figure(height: float):
    """An empty figure, `height` in inches."""
    from matplotlib.figure import Figure  # slow to import

    return Figure(figsize=(WIDTH, height), layout="constrained")


def plain(text: str) -> str:
    """Somebody's words for matplotlib, which takes no names that are not UTF-8, and a formula from between two `$`."""
    return text.encode(errors="replace").decode().replace("$", r"\$")


def colours(n: int) -> list:
    """Colours for n things."""
    if n <= len(OKABE_ITO):
        return list(OKABE_ITO[:n])
    from matplotlib import colormaps

    return list(colormaps["viridis"](np.linspace(0, 1, n)))


def confusion_figure(counts, names: list[str]):
    """Confusion matrix `(C, C)`: shade and number are the row's share, with the count under it."""
    from matplotlib.figure import Figure  # slow to import, and most ranks draw nothing

    counts = np.asarray(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(1.6 + 0.9 * len(names), 1.2 + 0.9 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i in range(len(names)):
        for j in range(len(names)):
            color = "white" if shares[i, j] > 0.55 else "black"
            axes.text(j, i, f"{shares[i, j]:.0%}\n{counts[i, j]}", ha="center", va="center", color=color)
    axes.set(xticks=range(len(names)), yticks=range(len(names)), xlabel="recognised", ylabel="spoken")
    axes.set_xticklabels(map(plain, names), rotation=30, ha="right")
    axes.set_yticklabels(map(plain, names))
    return figure
