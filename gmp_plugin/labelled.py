"""Recordings whose emotions are known, of any corpus, in the classes of a model."""

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from . import provenance
from .csv_rows import read_rows
from .errors import UserError
from .inputs import is_table
from .manifest import Manifest, UtteranceTable
from .recognizer import Recognition, Recognizer
from .recording import Recording

LEFT_OUT = "-"  # in the class table: a class that the model does not know


@dataclass(frozen=True)
class LabelledSet:
    """Recordings `root/paths[i]`, N of them, with the corpus's own names of their emotions, and what else is known."""

    file: str
    root: str
    paths: list[str]
    emotions: list[str]
    speakers: list[str] | None = None

    @classmethod
    def read(cls, path) -> "LabelledSet":
        """A manifest with its `.emotion` beside it, an `utterances.tsv`, or a CSV file with `path,emotion[,speaker]`.

        Raises `UserError` with file and line.
        """
        path = Path(path)
        if path.suffix.lower() == ".csv":
            return cls(str(path), str(path.parent.absolute()), *_read_csv(path))
        if is_table(path):
            table = UtteranceTable.read(path)
            columns = zip(*[(u.path, u.emotion, u.speaker) for u in table.utterances], strict=True)
            return cls(str(path), table.root, *map(list, columns))
        manifest, labels = Manifest.read(path), path.with_suffix(".emotion")
        if not labels.is_file():
            raise UserError(f"{labels} does not exist: a manifest needs its emotions beside it, one name a line")
        emotions = [line.strip() for line in labels.read_text(encoding="utf-8").splitlines()]
        if len(emotions) != len(manifest):
            raise UserError(f"{labels} has {len(emotions)} lines, but {path} lists {len(manifest)} utterances")
        speakers = _speakers_beside(path, manifest.paths)
        return cls(str(path), manifest.root, list(manifest.paths), emotions, speakers)

    @property
    def name(self) -> str:
        """For titles: the file's, with its folder's where all such files have the same name."""
        path = Path(self.file).resolve()
        return path.name if path.suffix.lower() == ".csv" else f"{path.parent.name}/{path.name}"

    def seen_in(self, records: list[dict], validation: bool = True) -> dict[str, list[str]]:
        """Recordings that a model with this provenance has seen, by stage (`provenance.seen`)."""
        manifest = Manifest(self.root, tuple(self.paths), (0,) * len(self.paths))
        return provenance.seen(records, manifest, validation)

    def refuse(self, seen: dict[str, list[str]], hint: str) -> None:
        """Raise `UserError` if there are recordings that `seen_in` found."""
        if seen:
            raise UserError(
                f"{self.file}: recordings that the model has seen in training or validation "
                f"({provenance.listed(seen)}); {hint}"
            )

    def recordings(self, indices) -> list:
        """Functions that open the recordings `indices`, for `Recognizer.stream`."""
        return [partial(Recording.open, Path(self.root) / self.paths[i], self.paths[i]) for i in indices]


@dataclass(frozen=True)
class ClassMap:
    """Which of the model's classes a corpus's class is: `numbers` `(N,)`, -1 for recordings that count for none.

    `used` says which names were taken for which class, `left_out` and `unmapped` how many recordings have a class
    that the table leaves out, or that neither table nor model knows.
    """

    numbers: np.ndarray
    used: dict[str, str]
    left_out: dict[str, int] = field(default_factory=dict)
    unmapped: dict[str, int] = field(default_factory=dict)


def read_class_table(path) -> dict[str, str]:
    """`THEIRS OURS` a line, separated by a tab, or a comma, or spaces; `#` begins a comment, `-` leaves out."""
    table = {}
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        separator = next((s for s in "\t," if s in line), None)
        values = [value.strip() for value in line.split(separator) if value.strip()]
        if len(values) != 2:
            raise UserError(f"{path}, line {number}: expected the corpus's class and the model's, found {line!r}")
        if table.setdefault(values[0], values[1]) != values[1]:
            raise UserError(f"{path}, line {number}: {values[0]!r} stands there already, as {table[values[0]]!r}")
    return table


def map_classes(emotions: list[str], names: list[str], table: dict[str, str], where="the class table") -> ClassMap:
    """Class numbers of `emotions` among the model's `names`: by the table, else by the same name."""
    unknown = sorted({ours for ours in table.values() if ours != LEFT_OUT and ours not in names})
    if unknown:
        raise UserError(f"{where}: {', '.join(unknown)} is no class of the model, which has {', '.join(names)}")
    used, numbers, left_out, unmapped = {}, [], Counter(), Counter()
    for emotion in emotions:
        ours = table.get(emotion, emotion)
        if ours in names:
            used[emotion] = ours
        elif ours == LEFT_OUT:
            left_out[emotion] += 1
        else:
            unmapped[emotion] += 1
        numbers.append(names.index(ours) if ours in names else -1)
    if not used:
        raise UserError(
            f"no recording has a class of the model ({', '.join(names)}): the corpus has "
            f"{', '.join(sorted(set(emotions)))}; gmp-ser evaluate takes a table of theirs and the model's, --classes"
        )
    return ClassMap(np.array(numbers), used, dict(left_out), dict(unmapped))


@dataclass(frozen=True)
class Answers:
    """What a model said about the recordings `indices` of a labelled set; `bad` could not be used."""

    indices: np.ndarray
    logits: np.ndarray  # (n, C)
    bad: dict[int, str]


def answer(recognizer: Recognizer, labelled: LabelledSet, indices) -> Answers:
    """Logits of the recordings `indices`, with a progress bar."""
    from tqdm import tqdm

    indices, good, logits, bad = list(map(int, indices)), [], [], {}
    answers = recognizer.stream(labelled.recordings(indices))
    bar = tqdm(zip(indices, answers, strict=True), total=len(indices), unit="recording", disable=None)
    for i, found in bar:
        if isinstance(found, Recognition):
            good.append(i)
            logits.append(found.logits)
        else:
            bad[i] = str(found)
    if not good:
        raise UserError(f"none of the {len(indices)} recordings of {labelled.file} can be used, as: {bad[indices[0]]}")
    return Answers(np.array(good), np.stack(logits), bad)


def _read_csv(path: Path) -> tuple[list[str], list[str], list[str] | None]:
    paths, emotions, speakers, lines = [], [], [], {}
    for line, row in read_rows(path, ("path", "emotion"), "path,emotion[,speaker]"):
        if not row["path"] or not row["emotion"]:
            raise UserError(f"{path}, line {line}: expected a path and an emotion")
        paths.append(row["path"])
        if (first := lines.setdefault(paths[-1], line)) != line:
            raise UserError(f"{path}, line {line}: {paths[-1]} stands in line {first} already; keep one of them")
        emotions.append(row["emotion"])
        speakers.append(row.get("speaker", ""))
    return paths, emotions, speakers if all(speakers) else None


def _speakers_beside(manifest: Path, paths) -> list[str] | None:
    for table in (manifest.parent / "utterances.tsv", manifest.parent.parent / "utterances.tsv"):
        if table.is_file():
            known = {u.path: u.speaker for u in UtteranceTable.read(table).utterances}
            return [known[path] for path in paths] if all(path in known for path in paths) else None
    return None
