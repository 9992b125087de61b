"""The audio files of a corpus: find them, check them, bring them to 16 kHz mono."""

import hashlib
import os
import re
from pathlib import Path

import numpy as np
import soundfile

from .. import frames
from ..errors import UserError
from ..files import MAX_NAME, atomic_path
from ..resampling import resample

SUFFIXES = (".wav", ".flac")
CACHE = "audio_cache"  # folder of the recordings that had to be resampled, beside the manifests
TRIM_BLOCK, TRIM_MARGIN = frames.SAMPLE_RATE // 50, frames.SAMPLE_RATE // 20  # 20 ms and 50 ms, in samples
TRIMMED = " trimmed at {:g} dB"  # how the comment of a copy ends that was, after the stamp of its source
TRIMMED_COMMENT = re.compile(r"[0-9a-f]{64} trimmed at (\S+) dB")
# Some writers put the size of the whole file into the data chunk: a header's length too much.
WAV_SIZE_TOLERANCE = 1024
# Programs that write to a pipe do not know the size and put one of the largest numbers.
WAV_SIZE_UNKNOWN = 0x7FFF0000
UNKNOWN_LENGTH = 2**40  # samples; some formats promise the largest number when they do not know
AGAIN = "encode it again into a file, as by ffmpeg -i INPUT OUTPUT.flac"


class BadRecording(UserError):
    """One recording that cannot be used; the rest of the corpus may be fine."""


def list_audio(*folders) -> list[Path]:
    """The .wav and .flac files directly in the folders, sorted by name; missing folders are empty.

    macOS's `._*` files are left out. Raises `UserError` if a name occurs twice (a.wav and a.flac).
    """
    found = {}
    for folder in folders:
        if not Path(folder).is_dir():
            continue
        for path in sorted(Path(folder).iterdir()):
            if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or not path.is_file():
                continue
            if path.stem in found:
                raise UserError(f"{path} and {found[path.stem]} are the same recording twice; keep one of them")
            found[path.stem] = path
    return [found[stem] for stem in sorted(found)]


def find_audio(folder, name: str) -> Path | None:
    """`folder/name.wav`, or .flac, or None."""
    candidates = (Path(folder) / f"{name}{suffix}" for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def stem(path: str) -> str:
    """The path without suffixes of audio: the cache keeps a.wav as a.wav.flac."""
    path = os.path.normpath(path)
    while os.path.splitext(path)[1].lower() in SUFFIXES:
        path = os.path.splitext(path)[0]
    return path


def contents(folder) -> str:
    """What a folder holds, in a few words, for a message that expected something else."""
    names = sorted(path.name + "/" * path.is_dir() for path in Path(folder).iterdir() if path.name[0] != ".")
    rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + rest if names else "nothing"


def prepare_audio(root, rel_path, cache_dir, trim_db: float | None = None) -> tuple[Path, int]:
    """A 16 kHz mono file with the recording `root/rel_path`, and its length in samples.

    A file that is 16 kHz mono already stays where it is and its own path comes back. Any other, and
    every one with `trim_db` (see `trim_silence`), is decoded, mixed and resampled once to a 16-bit FLAC file under
    `cache_dir`, which a later run uses again as long as the source stays the same. Both paths are absolute.

    Raises `BadRecording` for a file that is missing, not audio, empty, shorter than one frame, cut
    off or not finite; `UserError` if resampling is needed and torchaudio does not load.
    """
    source = Path(os.path.abspath(Path(root) / rel_path))
    info = _info(source)
    if info.samplerate == frames.SAMPLE_RATE and info.channels == 1 and trim_db is None:
        # Headers of PCM in WAV say all there is to know; other formats may break off or hold NaN.
        if info.format not in ("WAV", "WAVEX") or not info.subtype.startswith("PCM"):
            _decode(source, info)
        _check_length(source, info.frames)
        return source, info.frames

    cached = _cache_path(root, source, Path(cache_dir))
    stat = source.stat()
    stamp = hashlib.sha256(os.fsencode(f"{source} {stat.st_size} {stat.st_mtime_ns}")).hexdigest()
    if trim_db is not None:
        stamp += TRIMMED.format(trim_db)
    length = _cached_length(cached, stamp)
    if length is None:
        samples = resample(_decode(source, info), info.samplerate, source)
        if trim_db is not None:
            samples = trim_silence(samples, trim_db)
        _check_length(source, len(samples))
        if len(os.fsencode(cached.name)) > MAX_NAME:
            raise BadRecording(
                f"{source}: the name is too long for a copy of it that ends in .flac; rename it, or leave it out with "
                "--skip-bad"
            )
        with atomic_path(cached) as temporary:
            options = {"samplerate": frames.SAMPLE_RATE, "channels": 1, "subtype": "PCM_16", "format": "FLAC"}
            with soundfile.SoundFile(temporary, "w", **options) as stream:
                stream.comment = stamp  # which source this came from
                stream.write(samples)  # clips what overshoots full scale
        length = len(samples)
    return cached, length


def trim_silence(samples: np.ndarray, down_db: float) -> np.ndarray:
    """`samples` `(N,)` at 16 kHz without the silence before and after: 20 ms more than `down_db` below the loudest.

    50 ms of it stay. A recording that is silent throughout stays as it is.
    """
    whole = len(samples) // TRIM_BLOCK * TRIM_BLOCK
    power = np.square(samples[:whole].astype(np.float64)).reshape(-1, TRIM_BLOCK).mean(1)
    (loud,) = np.nonzero(power > power.max(initial=0) * 10 ** (-down_db / 10))
    if not len(loud):
        return samples
    start, stop = loud[0] * TRIM_BLOCK - TRIM_MARGIN, (loud[-1] + 1) * TRIM_BLOCK + TRIM_MARGIN
    return samples[max(0, start) : stop]


def trimmed_db(path) -> float | None:
    """At how many dB `prepare_audio` cut the silence of a file; None for any other file."""
    try:
        with soundfile.SoundFile(os.fsencode(path)) as stream:  # bytes: names need not be UTF-8
            found = TRIMMED_COMMENT.fullmatch(stream.comment)
    except (soundfile.SoundFileError, OSError):
        return None
    return float(found[1]) if found else None


def common_root(root, paths, cache_dir) -> Path:
    """The folder that manifests name in their first line: one that all of `paths` lie under.

    The corpus itself if nothing was resampled, the cache if everything was, else the deepest
    folder above both. All absolute.
    """
    for folder in (root, cache_dir):
        folder = Path(os.path.abspath(folder))
        if all(path.is_relative_to(folder) for path in paths):
            return folder
    return Path(os.path.commonpath([path.parent for path in paths]))


def _info(source: Path):
    if any("\udc80" <= letter <= "\udcff" for letter in str(source)):  # Python's way to write bytes that are no UTF-8
        raise BadRecording(
            f"{os.fsencode(source).decode(errors='backslashreplace')} has a name that is not UTF-8, which manifests "
            "cannot hold; rename it, or leave it out with --skip-bad"
        )
    try:
        if not source.is_file():
            raise BadRecording(f"{source} does not exist; copy it there, or leave it out with --skip-bad")
        if source.stat().st_size == 0:
            raise BadRecording(f"{source} is empty (0 bytes); copy it again, or leave it out with --skip-bad")
        info = soundfile.info(source)
    except OSError as error:  # a folder above it that is closed, or a name that is too long
        raise BadRecording(
            f"{source} cannot be read ({error.strerror}); make it readable, or leave it out with --skip-bad"
        ) from None
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: what ends in .raw has no header
        raise BadRecording(
            f"{source} cannot be read as audio ({getattr(error, 'error_string', error)}); expected WAV or FLAC: copy "
            "or convert it again, or leave it out with --skip-bad"
        ) from None
    if info.frames >= UNKNOWN_LENGTH:
        raise BadRecording(f"{source} does not say how long it is; {AGAIN}, or leave it out with --skip-bad")
    if info.frames == 0:
        raise BadRecording(f"{source} is empty (0 samples); copy it again, or leave it out with --skip-bad")
    missing = missing_bytes(info.extra_info)
    if missing:
        _raise_cut_off(source, missing)
    return info


def missing_bytes(extra_info: str) -> str | None:
    """What a WAV file promises and lacks, in words; None if it is whole, by libsndfile's log of its header.

    libsndfile trims the length to what is there, and notes it in that log alone.
    """
    for promised, there in re.findall(r"^data *: (\d+) \(should be (\d+)\)", extra_info, re.MULTILINE):
        if int(there) + WAV_SIZE_TOLERANCE < int(promised) < WAV_SIZE_UNKNOWN:
            return f"{there} of {promised} bytes are there"
    return None


def _decode(source: Path, info) -> np.ndarray:
    """All samples mixed to mono, `(N,)` float32."""
    try:
        samples, _ = soundfile.read(source, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        _raise_cut_off(source, error.error_string)
    if len(samples) != info.frames:
        _raise_cut_off(source, f"{len(samples)} of {info.frames} samples are there")
    if not np.isfinite(samples).all():
        raise BadRecording(
            f"{source} holds samples that are not finite (NaN or infinity); make the file again, or leave it out "
            "with --skip-bad"
        )
    return samples.mean(axis=1)


def _raise_cut_off(source, reason):
    raise BadRecording(f"{source} is cut off or damaged ({reason}); copy it again, or leave it out with --skip-bad")


def _check_length(source, n_samples: int) -> None:
    if n_samples < frames.RECEPTIVE_FIELD:
        raise BadRecording(
            f"{source} has {n_samples} samples at {frames.SAMPLE_RATE} Hz, fewer than one frame "
            f"({frames.RECEPTIVE_FIELD} samples, 25 ms); remove it, or leave it out with --skip-bad"
        )


def _cache_path(root, source: Path, cache_dir: Path) -> Path:
    """Where the resampled `source` goes. Its suffix stays in the name: a.wav and a.mp3 differ."""
    root = Path(os.path.abspath(root))
    inside = source.relative_to(root) if source.is_relative_to(root) else Path("elsewhere", *source.parts[1:])
    return Path(os.path.abspath(cache_dir)) / inside.with_name(f"{inside.name}.flac")


def _cached_length(cached: Path, stamp: str) -> int | None:
    if not cached.is_file():
        return None
    try:
        with soundfile.SoundFile(cached) as stream:
            return stream.frames if stream.comment == stamp else None
    except soundfile.LibsndfileError:
        return None
