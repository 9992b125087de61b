"""Emotion over time, from the frames of one pass: windows that are pooled each like a recording of its own."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from .errors import UserError
from .frames import FRAME_RATE

MAX_WINDOW_SECONDS = 600
ENVELOPE_STEP = 80  # samples: 5 ms
# Files of a timeline (see `timeline_files`): name of the format -> what they end in.
FORMATS = {"csv": ".csv", "textgrid": ".TextGrid", "audacity": ".txt", "png": ".png"}


@dataclass(frozen=True)
class Windows:
    """A grid over frames: bins of `hop` frames tile the recording, and bin k is judged by the `window` frames around
    it, as far as the recording has them."""

    window: int = int(2.0 * FRAME_RATE)
    hop: int = int(0.5 * FRAME_RATE)

    @classmethod
    def of(cls, window_seconds: float, hop_seconds: float) -> "Windows":
        """Rounded to frames of 20 ms; `UserError` for a hop under a frame or over the window."""
        frame_s = 1 / FRAME_RATE
        if not frame_s <= hop_seconds <= window_seconds <= MAX_WINDOW_SECONDS:
            raise UserError(
                f"window {window_seconds:g} s, hop {hop_seconds:g} s: expected a hop of at least {frame_s:g} s, and a "
                f"window of at least the hop and at most {MAX_WINDOW_SECONDS} s"
            )
        return cls(round(window_seconds * FRAME_RATE), round(hop_seconds * FRAME_RATE))

    def frames(self, k: int) -> tuple[int, int]:
        """First frame and end of the window of bin k; they may lie outside the recording."""
        begin = k * self.hop - (self.window - self.hop) // 2
        return begin, begin + self.window


class WindowedMean:
    """Means over windows of frames that arrive in pieces; no more than a window of them is kept."""

    def __init__(self, windows: Windows):
        self.windows = windows
        self.n_frames = 0  # seen
        self.n_bins = 0  # done
        self._held: np.ndarray | None = None  # the last frames seen

    def push(self, frames: np.ndarray) -> np.ndarray:
        """More frames `(n, D)` -> the windows that are complete now, `(k, D)`."""
        self._held = frames if self._held is None else np.concatenate([self._held, frames])
        self.n_frames += len(frames)
        first = self.n_bins
        while self.windows.frames(self.n_bins)[1] <= self.n_frames:
            self.n_bins += 1
        return self._means(first)

    def finish(self) -> np.ndarray:
        """The windows that end where the recording does, `(k, D)`."""
        first, self.n_bins = self.n_bins, -(-self.n_frames // self.windows.hop)
        return self._means(first)

    def _means(self, first: int) -> np.ndarray:
        held = self._held
        begin = self.n_frames - len(held)
        # float64: differences of sums over minutes must not show in the last digits of a short window.
        sums = np.concatenate([np.zeros((1, held.shape[1])), np.cumsum(held, axis=0, dtype=np.float64)])
        edges = np.array([self.windows.frames(k) for k in range(first, self.n_bins)], dtype=np.int64).reshape(-1, 2)
        a, b = (np.clip(edges, 0, self.n_frames) - begin).T
        means = (sums[b] - sums[a]) / (b - a)[:, None]
        self._held = held[max(0, self.windows.frames(self.n_bins)[0] - begin) :]
        return means


@dataclass(frozen=True)
class Segment:
    """A stretch of one emotion; `confidence` is the mean over its bins."""

    start_s: float
    end_s: float
    emotion: str
    confidence: float


@dataclass(frozen=True)
class Timeline:
    """Probabilities of the classes in every bin of a recording.

    `probabilities` `(K, C)`; bin k is `[edges[k], edges[k + 1])` in seconds, `edges` `(K + 1,)` from 0 to the end.
    `envelope` `(n, 2)` holds the lowest and highest sample of every 5 ms.
    """

    names: list[str]
    edges: np.ndarray
    probabilities: np.ndarray
    windows: Windows
    envelope: np.ndarray = field(repr=False)

    @property
    def seconds(self) -> float:
        return float(self.edges[-1])

    @property
    def emotions(self) -> list[str]:
        """The decision in every bin."""
        return [self.names[c] for c in self.probabilities.argmax(1)]

    @property
    def confidences(self) -> np.ndarray:
        """Its probability, `(K,)`."""
        return self.probabilities.max(1)

    def coarse(self, max_bins: int) -> "Timeline":
        """With neighbouring bins averaged, as many together as make it no more than `max_bins`; itself if it is."""
        step = -(-len(self.probabilities) // max_bins)
        if step == 1:
            return self
        starts = np.arange(0, len(self.probabilities), step)
        counts = np.diff(np.append(starts, len(self.probabilities)))
        means = np.add.reduceat(self.probabilities, starts) / counts[:, None]
        return replace(self, edges=np.append(self.edges[starts], self.seconds), probabilities=means)

    def segments(self) -> list[Segment]:
        """Neighbouring bins of one emotion together; they tile the recording."""
        classes = self.probabilities.argmax(1)
        changes = np.flatnonzero(np.diff(classes)) + 1
        bounds = [0, *changes.tolist(), len(classes)]
        return [
            Segment(
                float(self.edges[a]), float(self.edges[b]), self.names[classes[a]], float(self.confidences[a:b].mean())
            )
            for a, b in zip(bounds, bounds[1:], strict=False)
        ]


def bin_edges(n_bins: int, hop: int, seconds: float) -> np.ndarray:
    """Edges `(K + 1,)` in seconds of bins of `hop` frames; the last bin ends with the recording."""
    edges = np.arange(n_bins + 1) * hop / FRAME_RATE
    edges[-1] = seconds
    return edges


class Envelope:
    """Lowest and highest sample of every `ENVELOPE_STEP` samples of audio that passes in blocks."""

    def __init__(self):
        self._rows: list[np.ndarray] = []
        self._rest = np.zeros(0, dtype=np.float32)

    def watch(self, blocks) -> Iterator[np.ndarray]:
        for block in blocks:
            x = np.concatenate([self._rest, block])
            n = len(x) // ENVELOPE_STEP * ENVELOPE_STEP
            self._add(x[:n].reshape(-1, ENVELOPE_STEP))
            self._rest = x[n:]
            yield block

    def _add(self, rows: np.ndarray) -> None:
        if rows.size:
            self._rows.append(np.stack([rows.min(1), rows.max(1)], axis=1))

    def finish(self) -> np.ndarray:
        self._add(self._rest[None])
        return np.concatenate(self._rows)


def write_csv(timeline: Timeline, stream) -> None:
    """One line per bin: start and end in seconds, emotion, its probability, and those of all classes."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["start_s", "end_s", "emotion", "confidence", *timeline.names])
    rows = zip(timeline.edges, timeline.edges[1:], timeline.emotions, timeline.probabilities, strict=False)
    for start, end, emotion, p in rows:
        writer.writerow([f"{start:.3f}", f"{end:.3f}", emotion, f"{p.max():.4f}", *(f"{x:.4f}" for x in p)])


def write_audacity(timeline: Timeline, stream) -> None:
    """A label track for Audacity (File, Import, Labels): start, end, and the emotion with its confidence."""
    for s in timeline.segments():
        print(f"{s.start_s:.6f}\t{s.end_s:.6f}\t{s.emotion} {s.confidence:.0%}", file=stream)


def write_textgrid(timeline: Timeline, stream) -> None:
    """Praat's long text format with interval tiers `emotion` and `confidence` (percent)."""
    segments, end = timeline.segments(), f"{timeline.seconds:.6f}"
    tiers = {"emotion": [s.emotion for s in segments], "confidence": [f"{s.confidence:.0%}" for s in segments]}
    lines = [
        'File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end}", "tiers? <exists>",
        f"size = {len(tiers)}", "item []:",
    ]  # fmt: skip
    for number, (name, texts) in enumerate(tiers.items(), start=1):
        lines += [
            f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"', "        xmin = 0",
            f"        xmax = {end}", f"        intervals: size = {len(segments)}",
        ]  # fmt: skip
        for i, (segment, text) in enumerate(zip(segments, texts, strict=True), start=1):
            quoted = text.replace('"', '""')
            lines += [
                f"        intervals [{i}]:", f"            xmin = {segment.start_s:.6f}",
                f"            xmax = {segment.end_s:.6f}", f'            text = "{quoted}"',
            ]  # fmt: skip
    print("\n".join(lines), file=stream)
