"""What a user names on the command line, as a list of recordings: files, folders, manifests, standard input."""

import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from tempfile import NamedTemporaryFile

from .errors import UserError
from .files import shortened, walk
from .manifest import Manifest, UtteranceTable

# What libsndfile reads and people keep speech in. A file that is named itself is tried whatever its suffix.
SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64",
            ".rf64", ".sph", ".nist"}  # fmt: skip
STDIN = "-"
LONGEST_STEM = 200  # bytes; endings come after it


@dataclass(frozen=True)
class Input:
    """A recording to be: its name in the answers, and its file."""

    name: str
    path: Path


def find_inputs(names: list[str]) -> tuple[list[Input], int]:
    """The recordings behind the names, in order, and how many other files the folders hold.

    A folder gives the audio files in it, at any depth, sorted; a `.tsv` the utterances of a manifest or of an
    `utterances.tsv`; anything else is a file, which may turn out bad later. Raises `UserError` if there are none.
    """
    found, others = [], 0
    for name in names:
        path = Path(name)
        if path.is_dir():
            audio, rest = _folder(path)
            found += [Input(str(file), file) for file in audio]
            others += rest
        elif path.suffix == ".tsv":
            root, paths = _table(path)
            found += [Input(file, Path(root) / file) for file in paths]
        else:
            found.append(Input(name, path))
    if not found:
        raise UserError(f"{', '.join(names)}: no audio files ({others} other files); expected {', '.join(SUFFIXES)}")
    return found, others


def _folder(folder: Path) -> tuple[list[Path], int]:
    audio, others = [], 0
    for file in walk(folder):
        if file.suffix.lower() in SUFFIXES:
            audio.append(file)
        else:
            others += 1
    return audio, others


def _table(path: Path) -> tuple[str, list[str]]:
    if is_table(path):
        table = UtteranceTable.read(path)
        return table.root, [utterance.path for utterance in table.utterances]
    manifest = Manifest.read(path)
    return manifest.root, list(manifest.paths)


def is_table(path) -> bool:
    """Whether a .tsv is an `utterances.tsv`, not a manifest; `UserError` if it is not there."""
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist; expected a manifest or an utterances.tsv")
    with open(path, encoding="utf-8", errors="replace") as stream:
        stream.readline()
        return tuple(stream.readline().rstrip("\r\n").split("\t")) == UtteranceTable.COLUMNS


@contextmanager
def standard_input(inputs: list[Input]) -> Iterator[list[Input]]:
    """The inputs, with `-` replaced by a temporary file that holds what comes on standard input.

    A file, because audio formats are read by jumping; it goes away at the end.
    """
    if not any(item.name == STDIN for item in inputs):
        yield inputs
        return
    if sum(item.name == STDIN for item in inputs) > 1:
        raise UserError("- (standard input) can be given once")
    if sys.stdin.isatty():
        raise UserError("- reads a WAV file from standard input, and that is a terminal: pipe one into it")
    with NamedTemporaryFile(prefix="gmp-ser-") as stream:
        shutil.copyfileobj(sys.stdin.buffer, stream)
        stream.flush()
        yield [Input("standard input", Path(stream.name)) if i.name == STDIN else i for i in inputs]


def file_stems(inputs: list[Input]) -> list[str]:
    """A name of its own for each recording's files: the stem, with its folders or a number where two are the same."""
    stems: list[str] = []
    taken: set[str] = set()
    numbers = defaultdict(lambda: count(2))
    for item in inputs:
        stem = item.path.stem if item.name != STDIN else "standard_input"
        names = [shortened(name, LONGEST_STEM) for name in (stem, item.path.name, "_".join(item.path.parts[-2:]))]
        candidates = chain(names, (f"{names[0]}_{k}" for k in numbers[names[0].lower()]))
        chosen = next(c for c in candidates if c.lower() not in taken)
        taken.add(chosen.lower())
        stems.append(chosen)
    return stems
