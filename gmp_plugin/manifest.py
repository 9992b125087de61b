"""The files that a corpus is turned into: read, write, validate.

- `utterances.tsv`: first line the root, second line the column names, then one utterance a line:
  `path n_samples emotion gender speaker session`, separated by tabs.
- fairseq manifests `SPLIT.tsv`: first line the root, then `path<TAB>n_samples`.
- utterance labels `SPLIT.emotion`, `SPLIT.gender`: one name a line, in the manifest's order.
- dictionaries `dict.NAME.txt`: `name count`, names sorted; the line number is the class number.
- frame labels `SPLIT.K.km`: one utterance a line, integers separated by single spaces, one per
  frame; with them `dict.K.km.txt` (`0 1` to `K-1 1`).

Everything here raises `UserError` with file and line.
"""

from collections import Counter
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from . import frames
from .errors import UserError
from .files import atomic_text

SPLITS = ("train", "valid", "test")
BLOCK = 1024  # lines of labels that are parsed at once


@dataclass(frozen=True)
class Utterance:
    """One recording with its labels. `path` is relative to the table's root, `n_samples` counts
    samples at 16 kHz; `session` is what folds hold out."""

    path: str
    n_samples: int
    emotion: str
    gender: str
    speaker: str
    session: str

    def validate(self, where: str) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value == "" or any(c in str(value) for c in "\t\r\n"):
                raise UserError(f"{where}: {field.name} is {value!r}; expected text without tabs or line breaks")
        for name in ("emotion", "gender"):
            if len(getattr(self, name).split()) != 1:
                raise UserError(f"{where}: {name} is {getattr(self, name)!r}; expected one word")
        if self.n_samples < frames.RECEPTIVE_FIELD:
            raise UserError(
                f"{where}: {self.path} has {self.n_samples} samples, fewer than one frame "
                f"({frames.RECEPTIVE_FIELD} samples, 25 ms); remove it from the corpus"
            )


@dataclass(frozen=True)
class UtteranceTable:
    """`utterances.tsv`: the root folder and all utterances of a corpus."""

    root: str
    utterances: tuple[Utterance, ...]

    COLUMNS = tuple(f.name for f in fields(Utterance))

    @classmethod
    def read(cls, path) -> "UtteranceTable":
        lines = _lines(path)
        if len(lines) < 2 or tuple(lines[1].split("\t")) != cls.COLUMNS:
            raise UserError(
                f"{path}, line 2: expected the column names {' '.join(cls.COLUMNS)} (tabs); "
                "write the table with manifest_tools/make_manifest.py"
            )
        utterances = []
        for number, line in enumerate(lines[2:], start=3):
            values = line.split("\t")
            if len(values) != len(cls.COLUMNS):
                raise UserError(f"{path}, line {number}: expected {len(cls.COLUMNS)} columns, found {len(values)}")
            values[1] = _positive_int(values[1], f"{path}, line {number}, n_samples")
            utterances.append(Utterance(*values))
        if not utterances:
            raise UserError(f"{path}: no utterance below the column names; make it again with make_manifest.py")
        table = cls(lines[0], tuple(utterances))
        table.validate(path)
        return table

    def write(self, path) -> None:
        self.validate(path)
        with atomic_text(path) as stream:
            print(self.root, file=stream)
            print(*self.COLUMNS, sep="\t", file=stream)
            for utterance in self.utterances:
                print(*astuple(utterance), sep="\t", file=stream)

    def validate(self, where="utterances.tsv") -> None:
        seen = {}
        for number, utterance in enumerate(self.utterances, start=3):
            utterance.validate(f"{where}, line {number}")
            if utterance.path in seen:
                raise UserError(
                    f"{where}, line {number}: {utterance.path} stands in line {seen[utterance.path]} already"
                )
            seen[utterance.path] = number


@dataclass(frozen=True)
class Manifest:
    """A fairseq manifest: root folder, relative paths and lengths in samples, in file order."""

    root: str
    paths: tuple[str, ...]
    n_samples: tuple[int, ...]
    file: str = ""

    def __len__(self) -> int:
        return len(self.paths)

    def where(self, index: int) -> str:
        """File and line of utterance `index`, for messages."""
        return f"{self.file}, line {index + 2}"

    def audio_path(self, index: int) -> Path:
        return Path(self.root) / self.paths[index]

    def n_frames(self) -> np.ndarray:
        """Frames of every utterance, `(N,)`."""
        return frames.n_frames(np.asarray(self.n_samples, dtype=np.int64))

    @classmethod
    def read(cls, path) -> "Manifest":
        lines = _lines(path)
        if not lines or "\t" in lines[0]:
            raise UserError(f"{path}, line 1: expected the root folder alone, found {lines[:1] or 'an empty file'}")
        paths, lengths = [], []
        for number, line in enumerate(lines[1:], start=2):
            values = line.split("\t")
            if len(values) != 2:
                raise UserError(f"{path}, line {number}: expected path<TAB>n_samples, found {line!r}")
            paths.append(values[0])
            lengths.append(_positive_int(values[1], f"{path}, line {number}, n_samples"))
            if lengths[-1] < frames.RECEPTIVE_FIELD:
                raise UserError(
                    f"{path}, line {number}: {values[0]} has {lengths[-1]} samples, fewer than one frame "
                    f"({frames.RECEPTIVE_FIELD} samples, 25 ms); remove the line, and its line in the label files"
                )
        if not paths:
            raise UserError(f"{path}: no utterance after the root line; make it again with make_manifest.py")
        return cls(lines[0], tuple(paths), tuple(lengths), str(path))

    def write(self, path) -> None:
        for name in (self.root, *self.paths):
            if "\t" in name or "\n" in name:
                raise UserError(f"{name!r} has a tab or a line break, which manifests cannot hold; rename it")
        with atomic_text(path) as stream:
            print(self.root, file=stream)
            for name, length in zip(self.paths, self.n_samples, strict=True):
                print(name, length, sep="\t", file=stream)


def write_split(folder, split: str, root: str, utterances) -> None:
    """Write `SPLIT.tsv`, `SPLIT.emotion` and `SPLIT.gender` of one fold into `folder`."""
    folder = Path(folder)
    Manifest(root, tuple(u.path for u in utterances), tuple(u.n_samples for u in utterances)).write(
        folder / f"{split}.tsv"
    )
    for name in ("emotion", "gender"):
        with atomic_text(folder / f"{split}.{name}") as stream:
            for utterance in utterances:
                print(getattr(utterance, name), file=stream)


def write_dictionary(path, names) -> None:
    """Write `name count` lines, sorted by name, from an iterable of names with repetitions."""
    with atomic_text(path) as stream:
        for name, count in sorted(Counter(names).items()):
            print(name, count, file=stream)


def write_km_dictionary(path, n_clusters: int) -> None:
    """Write `dict.K.km.txt`: `0 1` to `K-1 1`, which makes label k the k-th word for fairseq."""
    with atomic_text(path) as stream:
        for cluster in range(n_clusters):
            print(cluster, 1, file=stream)


def read_dictionary(path) -> list[str]:
    """Names in file order; the position is the class number."""
    names = []
    for number, line in enumerate(_lines(path), start=1):
        values = line.split()
        if len(values) != 2 or not values[1].isdigit():
            raise UserError(f"{path}, line {number}: expected `name count`, found {line!r}")
        if values[0] in names:
            raise UserError(f"{path}, line {number}: {values[0]!r} stands there twice")
        names.append(values[0])
    if not names:
        raise UserError(f"{path}: the dictionary is empty")
    return names


def read_km_dictionary(path) -> int:
    """K of a `dict.K.km.txt`, after checking that word k is `k`."""
    names = read_dictionary(path)
    for number, name in enumerate(names, start=1):
        if name != str(number - 1):
            raise UserError(f"{path}, line {number}: expected `{number - 1} 1`, found {name!r}")
    return len(names)


def read_utterance_labels(path, manifest: Manifest, dictionary: list[str], dictionary_path) -> np.ndarray:
    """Class numbers `(N,)` of `SPLIT.emotion` or `SPLIT.gender`, checked against manifest and dictionary."""
    lines = _lines(path)
    _same_count(path, lines, manifest)
    numbers = {name: number for number, name in enumerate(dictionary)}
    for number, line in enumerate(lines, start=1):
        if line not in numbers:
            raise UserError(
                f"{path}, line {number}: label {line!r} is not in {dictionary_path} ({', '.join(dictionary)}); "
                "correct the label, or make the folds again with make_manifest.py"
            )
    return np.array([numbers[line] for line in lines], dtype=np.int64)


@dataclass(frozen=True)
class FrameLabels:
    """Frame labels of a split at one scale: all utterances in one flat array.

    `values` is `(total frames,)`; utterance i is `values[offsets[i]:offsets[i + 1]]`.
    """

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @classmethod
    def read(cls, path, manifest: Manifest, n_clusters: int) -> "FrameLabels":
        """Read `SPLIT.K.km`, checked to the frame against its manifest. Text is parsed once."""
        labels, problems = cls.examine(path, manifest, n_clusters)
        if problems:
            more = f" ({len(problems)} problems: see check_labels.py)" if len(problems) > 1 else ""
            raise UserError(problems[0] + more)
        return labels

    @classmethod
    def examine(cls, path, manifest: Manifest, n_clusters: int) -> tuple["FrameLabels | None", list[str]]:
        """Labels of `SPLIT.K.km` and what is wrong with them, with file and line; no labels if something is."""
        lines = _lines(path)
        try:
            _same_count(path, lines, manifest)
        except UserError as error:
            return None, [str(error)]
        counts = np.array([line.count(" ") + 1 if line else 0 for line in lines])
        offsets = np.concatenate([[0], np.cumsum(counts)])
        values = np.empty(offsets[-1], np.int16 if n_clusters <= 2**15 else np.int32)
        problems = _wrong_counts(path, manifest, counts)
        for start in range(0, len(lines), BLOCK):  # the numbers of all lines at once would be several times the text
            part = slice(start, min(start + BLOCK, len(lines)))
            own, found = offsets[part.start : part.stop + 1], _integers(" ".join(lines[part]))
            if found is None or len(found) != own[-1] - own[0]:
                wrong = [i for i, line in enumerate(lines) if not all(map(str.isdecimal, line.split(" ")))]
                return None, [f"{path}, line {i + 1}: expected integers separated by single spaces" for i in wrong]
            values[own[0] : own[-1]] = found
            outside = np.flatnonzero(found >= n_clusters)
            owners, first = np.unique(np.searchsorted(own, own[0] + outside, side="right") - 1, return_index=True)
            problems += [
                f"{path}, line {start + i + 1}: label {value} is not in the dictionary (0 to {n_clusters - 1})"
                for i, value in zip(owners.tolist(), found[outside[first]].tolist(), strict=True)
            ]
        return (None if problems else cls(values, offsets)), problems


def _integers(text: str) -> np.ndarray | None:
    """Numbers of a text of digits and spaces, None for any other text."""
    if text.encode().translate(None, b"0123456789 "):
        return None
    return np.fromstring(text, dtype=np.int64, sep=" ")


def _wrong_counts(path, manifest: Manifest, counts: np.ndarray) -> list[str]:
    """Lines whose number of labels is not that of the frames; one message if the label rate is another."""
    expected = manifest.n_frames()
    wrong = np.flatnonzero(counts != expected)
    rate = frames.FRAME_RATE * counts.sum() / expected.sum()
    if len(wrong) > len(manifest) / 2 and not 0.95 < rate / frames.FRAME_RATE < 1.05:
        return [
            f"{path}: {rate:.1f} labels a second of audio ({len(wrong)} of {len(manifest)} lines are wrong), expected "
            f"{frames.FRAME_RATE:.0f} for HuBERT on {frames.SAMPLE_RATE} Hz audio; other features or another sampling "
            "rate: make the labels again with dump_km_label.py"
        ]
    return [
        f"{path}, line {i + 1}: {counts[i]} labels for {manifest.paths[i]}, whose {manifest.n_samples[i]} "
        f"samples give {expected[i]} frames; make the labels again with dump_km_label.py "
        "(50 labels a second, 16 kHz audio)"
        for i in wrong.tolist()
    ]


def _lines(path) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; make it with manifest_tools (see README)") from None
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path} cannot be read as text: {error}") from None
    # Not `splitlines`: it also splits at characters that may stand in a file name.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def _positive_int(text: str, where: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise UserError(f"{where}: expected a positive integer, found {text!r}")
    return int(text)


def _same_count(path, lines, manifest: Manifest) -> None:
    if len(lines) != len(manifest):
        raise UserError(
            f"{path} has {len(lines)} lines, but {manifest.file} lists {len(manifest)} utterances; "
            "make both again from the same corpus"
        )
