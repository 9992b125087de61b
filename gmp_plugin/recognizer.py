"""A trained model that people can use: recordings in, emotions with probabilities out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from . import frames
from .arguments import check_device
from .calibration import softmax
from .chunks import Chunk, Chunking
from .corpora.audio import BadRecording
from .errors import UserError
from .exported import read_folder
from .hubert.products import pack
from .recognizer_model import read_stage
from .recording import Meter, Recording
from .shipped import FOLDER
from .timeline import Envelope, Timeline, WindowedMean, Windows, bin_edges

PACKAGED = FOLDER / "recognizer"
BATCH_SECONDS = {"cpu": 20.0, "cuda": 120.0}  # more costs memory, and is no faster


@dataclass(frozen=True)
class Recognition:
    """The answer to one recording.

    Attributes:
        name: of the recording.
        seconds: its length.
        emotion: the most probable class.
        confidence: its probability, 0 to 1.
        probabilities: of every class, in the model's order; they sum to 1.
        gender, gender_probabilities: the same of the speaker's gender; None where the model has no head for it.
        warnings: what makes the answer doubtful (silence, clipping, less than half a second), in words.
        logits: emotion logits `(C,)` before the temperature.
        timeline: emotion over time, where it was asked for.
    """

    name: str
    seconds: float
    emotion: str
    confidence: float
    probabilities: dict[str, float]
    gender: str | None = None
    gender_probabilities: dict[str, float] | None = None
    warnings: tuple[str, ...] = ()
    logits: np.ndarray | None = field(default=None, repr=False, compare=False)
    timeline: Timeline | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict:
        """Plain values for JSON, probabilities to 6 digits."""
        result = {
            "recording": self.name,
            "seconds": round(self.seconds, 3),
            "emotion": self.emotion,
            "confidence": round(self.confidence, 6),
            "probabilities": {name: round(p, 6) for name, p in self.probabilities.items()},
        }
        if self.gender is not None:
            result["gender"] = self.gender
            result["gender_probabilities"] = {name: round(p, 6) for name, p in self.gender_probabilities.items()}
        return result | {"warnings": list(self.warnings)}


class Recognizer:
    """Recognises recordings of any length, format, sampling rate and number of channels.

    A recording has the same probabilities alone and in any batch, to 1e-5 in float32 on a CPU, and with or without a
    timeline. The decision on up to 15 s comes from one piece, that on more from chunks (see `chunks`), in bounded
    memory; it is that of the mean over all frames. Timelines are of chunks. A model that was trained on recordings
    without the silence before and after cuts it from such a piece, too.

    Args:
        model: gives frames and logits (`RecognizerModel`, or an exported one).
        names: class names of each kind of head: `emotion`, and `gender` where there is one.
        temperature: of the emotion probabilities; None for a model that was not calibrated, which counts as 1.
        chunking: how long recordings are cut.
        batch_seconds: audio that is computed at once, padding included.
        provenance: what the weights have seen.
        path: where the model came from.
    """

    def __init__(
        self,
        model,
        names: dict[str, list[str]],
        temperature: float | None = None,
        chunking: Chunking | None = None,
        batch_seconds: float = BATCH_SECONDS["cpu"],
        provenance: list | None = None,
        path: str = "",
    ):
        self.model, self.all_names, self.path = model, names, path
        self.calibrated = temperature is not None
        self.temperature = 1.0 if temperature is None else temperature
        self.chunking = chunking or Chunking()
        self.batch_samples = int(batch_seconds * frames.SAMPLE_RATE)
        self.provenance = provenance or []

    @classmethod
    def load(cls, path=None, device: str = "cpu", whole_seconds: float = 15.0, **options) -> "Recognizer":
        """A recogniser from what training or `gmp-ser export` wrote.

        Args:
            path: a checkpoint of stage 1 or 3 (with the `calibration.json` beside it, if it has one), an exported
                folder, or an exported `.onnx` file; the packaged model when left out.
            device: `cpu`, `cuda` or `cuda:N`.
            whole_seconds: recordings of up to this length are computed in one piece.
            options: `batch_seconds`.
        """
        chunking, device = Chunking.of(whole_seconds), check_device(device)
        options.setdefault("batch_seconds", BATCH_SECONDS[device.split(":")[0]])
        if path is None:
            if not PACKAGED.is_dir():
                raise UserError(
                    "this installation has no model of its own; give one with --model: a checkpoint of stage 3 "
                    "(exp/NAME/foldK/seedS/stage3/VARIANT/checkpoint_best.pt), or an exported model"
                )
            path = PACKAGED
        if Path(path).suffix == ".onnx":
            from .onnx_engine import OnnxEngine

            model = OnnxEngine.load(path, device)
            chunking = replace(chunking, trim_silence_db=model.trim_silence_db)
            return cls(
                model, model.names, model.temperature, chunking, provenance=model.provenance, path=str(path), **options
            )
        trained = read_folder(path) if Path(path).is_dir() else read_stage(path)
        model = trained.build().to(device)
        pack(model)
        chunking = replace(chunking, trim_silence_db=trained.trim_silence_db)
        return cls(
            model, trained.names, trained.temperature, chunking, provenance=trained.provenance,
            path=str(path), **options,
        )  # fmt: skip

    @property
    def names(self) -> list[str]:
        """The emotions, in the order of the logits."""
        return self.all_names["emotion"]

    def __call__(self, wave, sample_rate: int, windows: Windows | None = None) -> Recognition:
        """Recognise audio that is in memory.

        Args:
            wave: `(N,)` or `(N, channels)`, numpy or torch: floats within -1..1, or integers of full scale.
            sample_rate: Hz.
            windows: ask for a timeline.

        Raises `UserError` for what is no recording, and for less than 25 ms.
        """
        (answer,) = self.stream([Recording.of(wave, sample_rate)], windows)
        if isinstance(answer, UserError):
            raise answer
        return answer

    def stream(
        self, recordings: Iterable, windows: Windows | None = None, progress: Callable[[float], None] | None = None
    ) -> Iterator[Recognition | BadRecording]:
        """An answer for each recording, in order; `BadRecording` for one that cannot be used.

        Args:
            recordings: paths, `Recording`s, or functions that open one; opened one after the other.
            windows: ask for timelines.
            progress: told the seconds of audio that are done, now and then.
        """
        waiting: list[_Job] = []
        batch: list[tuple[_Job, Chunk]] = []
        for recording in recordings:
            job = _Job(recording, windows, self.chunking)
            waiting.append(job)
            for chunk in job.chunks():
                longest = max(len(chunk.samples), *(len(c.samples) for _, c in batch), 0)
                if batch and longest * (len(batch) + 1) > self.batch_samples:
                    self._compute(batch, progress)
                    batch = []
                batch.append((job, chunk))
            job.read = True
            while waiting and waiting[0].complete:
                yield self._answer(waiting.pop(0))
        self._compute(batch, progress)
        for job in waiting:
            yield self._answer(job)

    def _compute(self, batch: list, progress: Callable | None) -> None:
        if not batch:
            return
        outputs = self.model.frames([chunk.samples for _, chunk in batch])
        for (job, chunk), x in zip(batch, outputs, strict=True):
            pooled = job.push(chunk, x[chunk.skip : chunk.skip + chunk.n_frames])
            if pooled is not None and len(pooled):
                job.logits.append(self.model.logits(pooled)["emotion"])
        if progress:
            progress(sum(chunk.n_frames for _, chunk in batch if chunk.for_decision) / frames.FRAME_RATE)

    def _answer(self, job: "_Job") -> Recognition | BadRecording:
        if job.error is None and job.n_frames == 0:
            job.error = BadRecording(f"{job.name} has no audio of a whole frame ({job.n_samples} samples at 16 kHz)")
        if job.error is not None:
            return job.error
        logits = self.model.logits(job.total[None] / job.n_frames)
        probabilities = softmax(logits["emotion"][0], self.temperature)
        if not np.isfinite(probabilities).all():
            return BadRecording(f"{job.name} has samples too large to compute with (peak {job.meter.peak:.3g})")
        best = int(probabilities.argmax())
        gender = {}
        if "gender" in logits:
            shares = softmax(logits["gender"][0])
            names = self.all_names["gender"]
            gender = {"gender": names[int(shares.argmax())], "gender_probabilities": _named(names, shares)}
        seconds = job.n_samples / frames.SAMPLE_RATE
        return Recognition(
            job.name, seconds, self.names[best], float(probabilities[best]), _named(self.names, probabilities),
            warnings=job.meter.warnings(seconds), logits=logits["emotion"][0], timeline=self._timeline(job, seconds),
            **gender,
        )  # fmt: skip

    def _timeline(self, job: "_Job", seconds: float) -> Timeline | None:
        if job.windowed is None:
            return None
        last = job.windowed.finish()
        logits = np.concatenate([*job.logits, self.model.logits(last)["emotion"]])
        windows = job.windowed.windows
        return Timeline(
            self.names, bin_edges(len(logits), windows.hop, seconds), softmax(logits, self.temperature), windows,
            job.envelope.finish(),
        )  # fmt: skip


class _Job:
    """A recording on its way: how far it is read, what its frames add up to, and what went wrong."""

    def __init__(self, recording, windows: Windows | None, chunking: Chunking):
        self.recording, self.chunking = recording, chunking
        self.name = ""
        self.meter, self.n_samples = Meter(), 0
        self.windowed = None if windows is None else WindowedMean(windows)
        self.envelope = Envelope()
        self.logits: list[np.ndarray] = []  # of the timeline's bins
        self.total, self.n_frames = 0.0, 0
        self.n_computed, self.n_chunks = 0, 0
        self.read, self.error = False, None

    @property
    def complete(self) -> bool:
        return self.read and (self.error is not None or self.n_computed == self.n_chunks)

    def chunks(self) -> Iterator[Chunk]:
        """The recording's chunks; a problem ends them and is kept."""
        try:
            recording = self.recording
            if not isinstance(recording, Recording):
                recording = recording() if callable(recording) else Recording.open(recording)
            self.name = recording.name
            chunking = replace(self.chunking, trim_silence_db=None) if recording.trimmed else self.chunking
            blocks = self._counted(recording.mono(self.meter))
            if self.windowed is not None:
                blocks = self.envelope.watch(blocks)
            for chunk in chunking.cut(blocks, timeline=self.windowed is not None):
                self.n_chunks += 1
                yield chunk
        except BadRecording as error:
            self.error = error

    def _counted(self, blocks) -> Iterator[np.ndarray]:
        for block in blocks:
            self.n_samples += len(block)
            yield block

    def push(self, chunk: Chunk, x: np.ndarray) -> np.ndarray | None:
        """Frames `(n, D)` of the next chunk; the timeline's windows that they complete."""
        self.n_computed += 1
        if chunk.for_decision:
            self.total = self.total + x.sum(0, dtype=np.float64)
            self.n_frames += len(x)
        return self.windowed.push(x) if self.windowed is not None and chunk.for_timeline else None


def _named(names: list[str], probabilities: np.ndarray) -> dict[str, float]:
    return dict(zip(names, map(float, probabilities), strict=True))
