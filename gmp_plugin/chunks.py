"""Long recordings in chunks that overlap, so that hours need no more memory than a minute.

A recording of up to `whole` seconds is computed in one piece, as in training and evaluation. A longer one is cut into
cores; each is computed with some context on both sides, and only its own frames are kept: every frame of the
recording comes out once. That is how results on long recordings are defined, and not only a way to save memory. A
model that was trained on utterances hears no emotion change: on minutes in one piece its attention, its BiLSTM and
its group norm mix what was said far apart.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from . import frames
from .errors import UserError

MAX_WHOLE_SECONDS = 300


@dataclass(frozen=True)
class Span:
    """A chunk in frames: `[start, stop)` is computed, `[core_start, core_stop)` kept."""

    start: int
    core_start: int
    core_stop: int
    stop: int


@dataclass(frozen=True)
class Chunk:
    """Audio `(n,)` at 16 kHz, of whose frames `n_frames` after the first `skip` are kept."""

    samples: np.ndarray
    skip: int
    n_frames: int


@dataclass(frozen=True)
class Chunking:
    """How recordings are cut, in frames: up to `whole` not at all, else cores of `core`, the last one of half to one
    and a half of it, with `context` on both sides where there is any."""

    whole: int = int(15 * frames.FRAME_RATE)
    core: int = int(5 * frames.FRAME_RATE)
    context: int = int(1 * frames.FRAME_RATE)

    @classmethod
    def of(cls, whole_seconds: float) -> "Chunking":
        """The default with another limit; `UserError` for one that is out of range."""
        least = cls().last_core / frames.FRAME_RATE
        if not least <= whole_seconds <= MAX_WHOLE_SECONDS:
            raise UserError(
                f"recordings of up to {whole_seconds:g} s in one piece: expected {least:g} to {MAX_WHOLE_SECONDS} s"
            )
        return cls(int(whole_seconds * frames.FRAME_RATE))

    @property
    def last_core(self) -> int:
        """The longest a last core can be."""
        return self.core * 3 // 2

    def spans(self, n_frames: int) -> list[Span]:
        """The chunks of a recording of `n_frames`."""
        if n_frames <= self.whole:
            return [Span(0, 0, n_frames, n_frames)] if n_frames > 0 else []
        result, begin = [], 0
        while n_frames - begin > self.last_core:
            end = begin + self.core
            result.append(Span(max(0, begin - self.context), begin, end, end + self.context))
            begin = end
        return [*result, Span(begin - self.context, begin, n_frames, n_frames)]

    def cut(self, blocks: Iterable[np.ndarray]) -> Iterator[Chunk]:
        """The `spans` of audio that comes in blocks `(n,)` at 16 kHz; no more of it is held than they need.

        The last chunk has the samples after its last frame too, so a recording in one piece is its own audio.
        """
        held, start, begin = np.zeros(0, dtype=np.float32), 0, 0  # audio from frame `start` on, core from `begin` on
        more = self.whole  # frames from `begin` on that must be there and more before the next core can be cut
        for block in blocks:
            held = np.concatenate([held, block])
            while start + frames.n_frames(len(held)) - begin > more:
                more = self.last_core
                stop = begin + self.core + self.context
                yield Chunk(held[: frames.n_samples(stop - start)], begin - start, self.core)
                begin += self.core
                held = held[(begin - self.context - start) * frames.HOP :]
                start = begin - self.context
        n_frames = start + frames.n_frames(len(held)) - begin
        if n_frames > 0:
            yield Chunk(held, begin - start, n_frames)
