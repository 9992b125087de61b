"""The picture of a timeline."""

from itertools import cycle

import numpy as np

from .plots import WIDTH, colours, new_figure, plain
from .timeline import Timeline

STYLES = ("-", "--", "-.", ":")
COLUMNS = 2000  # of the drawn waveform
LABEL_INCHES = 0.085  # width of a letter
TICK_SECONDS = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)
MAX_TICKS = 12
MAX_POINTS = 400
MAX_SEPARATORS = 200


def timeline_figure(timeline: Timeline, title: str = ""):
    """Waveform, the classes' probabilities over time, and the decision with its confidence; a matplotlib figure.

    Colours are Okabe and Ito's, with a line style each, so that nothing depends on seeing colours. Of long recordings,
    means over neighbouring bins are drawn, and the picture says so.
    """
    fine, timeline = timeline, timeline.coarse(MAX_POINTS)
    figure = new_figure(5.2)
    wave, curves, decision = figure.subplots(3, 1, sharex=True, height_ratios=[1.5, 2.2, 1.1])
    looks = dict(zip(timeline.names, zip(colours(len(timeline.names)), cycle(STYLES), strict=False), strict=True))

    draw_waveform(wave, timeline)
    middles = (timeline.edges[:-1] + timeline.edges[1:]) / 2
    # Out to both ends: the first and the last bin stand for all of their time.
    times = np.concatenate([[0.0], middles, [timeline.seconds]])
    for c, (name, (colour, style)) in enumerate(looks.items()):
        p = 100 * timeline.probabilities[[0, *range(len(middles)), -1], c]
        curves.plot(times, p, style, color=colour, lw=2 if len(times) < 100 else 1.3, label=plain(name))
    curves.set(ylabel="probability (%)", ylim=(-2, 102))
    curves.grid(axis="y", color="0.9")
    figure.legend(
        *curves.get_legend_handles_labels(), loc="outside upper right", ncols=min(8, len(looks)), frameon=False
    )
    draw_decision(decision, timeline, looks)
    decision.set(xlim=(0, timeline.seconds), xlabel="time (s)")
    if timeline.seconds > 120:
        step = next((step for step in TICK_SECONDS if timeline.seconds <= MAX_TICKS * step), TICK_SECONDS[-1])
        decision.set(xlabel="time (h:min:s)" if timeline.seconds >= 3600 else "time (min:s)")
        ticks = np.arange(0, timeline.seconds, step)
        decision.set_xticks(ticks, [clock(tick) for tick in ticks])
    if timeline is not fine:
        decision.set(xlabel=f"{decision.get_xlabel()}; means over {timeline.edges[1]:.3g} s are drawn")
    if title:
        figure.suptitle(plain(title), x=0.01, ha="left", fontsize=12)
    return figure


def draw_waveform(axes, timeline: Timeline) -> None:
    """The envelope, widened to what a column of the picture covers."""
    step = max(1, -(-len(timeline.envelope) // COLUMNS))
    starts = np.arange(0, len(timeline.envelope), step)
    low, high = (f.reduceat(timeline.envelope[:, i], starts) for i, f in enumerate((np.minimum, np.maximum)))
    times = np.append(starts * timeline.seconds / len(timeline.envelope), timeline.seconds)
    axes.fill_between(times, np.append(low, low[-1]), np.append(high, high[-1]), step="post", color="0.35", lw=0)
    peak = max(1e-3, float(np.abs(timeline.envelope).max()))
    axes.set(ylabel="waveform", ylim=(-1.05 * peak, 1.05 * peak), yticks=[])


def draw_decision(axes, timeline: Timeline, looks: dict) -> None:
    """A bar per bin, as high as its confidence, and the emotion's name where there is room."""
    classes = timeline.probabilities.argmax(1)
    for c, (colour, _) in enumerate(looks.values()):
        heights = np.where(classes == c, 100 * timeline.confidences, 0)
        axes.stairs(heights, timeline.edges, color=colour, fill=True, alpha=0.85, lw=0)
    segments = timeline.segments()
    if len(segments) <= MAX_SEPARATORS:
        axes.vlines([s.start_s for s in segments[1:]], 0, 100, color="white", lw=1)
    for segment in segments:
        room = (segment.end_s - segment.start_s) / timeline.seconds * 0.9 * WIDTH
        texts = (f"{segment.emotion}\n{segment.confidence:.0%}", segment.emotion)
        text = next((t for t in texts if LABEL_INCHES * max(map(len, t.split("\n"))) < room), None)
        if text:
            axes.text(
                (segment.start_s + segment.end_s) / 2, 4, plain(text), ha="center", va="bottom", fontsize=9,
                linespacing=1.1, bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1.5},
            )  # fmt: skip
    axes.set(ylabel="decision (%)", ylim=(0, 100))


def clock(seconds: float) -> str:
    """`1:02:03`, or `2:03` under an hour."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{s:02}" if hours else f"{minutes}:{s:02}"
