"""Long recordings in chunks that overlap, so that hours need no more memory than a minute.

The decision on a recording of up to `whole` seconds comes from one piece, as in training and evaluation. A longer one
is cut into cores; each is computed with some context on both sides, and only its own frames are kept: every frame of
the recording comes out once. Timelines are always of cores.

That is how these results are defined, and not only a way to save memory. A model that was trained on utterances never
heard an emotion change: in one piece of several utterances its attention, its BiLSTM and its group norm mix them. Of
test utterances put in a row (EMO-DB, nano models of five folds, `benchmarks/long_audio.py`), the frames of one piece
recognise a third, hardly more than chance, those of short cores nearly as many as each utterance alone; and where a
recording is one utterance, cores do as well as one piece.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from . import frames
from .corpora.audio import trim_silence
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
    """Audio `(n,)` at 16 kHz, of whose frames `n_frames` after the first `skip` are kept, and what for."""

    samples: np.ndarray
    skip: int
    n_frames: int
    for_decision: bool = True
    for_timeline: bool = True


@dataclass(frozen=True)
class Chunking:
    """How recordings are cut, in frames: up to `whole` not at all, else cores of `core`, the last one of half to one
    and a half of it, with `context` on both sides where there is any.

    What is decided in one piece loses the silence before and after, if `trim_silence_db` says from where on (see
    `corpora.audio.trim_silence`). Cores keep it: a timeline is of all of the recording."""

    whole: int = int(15 * frames.FRAME_RATE)
    core: int = int(2 * frames.FRAME_RATE)
    context: int = int(0.5 * frames.FRAME_RATE)
    trim_silence_db: float | None = None

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
        """The chunks that a recording of `n_frames` is decided by."""
        return [Span(0, 0, n_frames, n_frames)] if 0 < n_frames <= self.whole else self.cores(n_frames)

    def cores(self, n_frames: int) -> list[Span]:
        """The chunks of its timeline."""
        if n_frames <= 0:
            return []
        result, begin = [], 0
        while n_frames - begin > self.last_core:
            end = begin + self.core
            result.append(Span(max(0, begin - self.context), begin, end, end + self.context))
            begin = end
        return [*result, Span(max(0, begin - self.context), begin, n_frames, n_frames)]

    def cut(self, blocks: Iterable[np.ndarray], timeline: bool = False) -> Iterator[Chunk]:
        """The `spans` of audio that comes in blocks `(n,)` at 16 kHz; no more of it is held than they need.

        The last chunk has the samples after its last frame too, so a recording in one piece is its own audio. With
        `timeline`, the `cores` come as well, where they are others.
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
        if n_frames > 0 and begin:
            yield Chunk(held, begin - start, n_frames)
        elif n_frames > 0:
            yield from self._cut_short(held, n_frames, timeline)

    def _cut_short(self, audio: np.ndarray, n_frames: int, timeline: bool) -> Iterator[Chunk]:
        """Of a recording that is decided in one piece."""
        whole = audio if self.trim_silence_db is None else trim_silence(audio, self.trim_silence_db)
        cores = self.cores(n_frames)
        if not timeline or (len(whole) == len(audio) and len(cores) == 1):
            yield Chunk(whole, 0, frames.n_frames(len(whole)))
            return
        yield Chunk(whole, 0, frames.n_frames(len(whole)), for_timeline=False)
        for s in cores:
            end = len(audio) if s.stop == n_frames else s.start * frames.HOP + frames.n_samples(s.stop - s.start)
            samples = audio[s.start * frames.HOP : end]
            yield Chunk(samples, s.core_start - s.start, s.core_stop - s.core_start, for_decision=False)
