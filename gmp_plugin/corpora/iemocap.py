"""IEMOCAP as it is released: labels in `dialog/EmoEvaluation`, audio in `sentences/wav`.

Busso et al. 2008, https://sail.usc.edu/iemocap/. Four classes as the literature has them, with
excitement counted as happiness: 5531 utterances of ten speakers in five sessions.
"""

import re
from collections import Counter
from pathlib import Path

from ..errors import UserError
from ..manifest import Utterance
from .audio import contents, find_audio

CLASSES = {"neu": "neutral", "hap": "happy", "exc": "happy", "ang": "angry", "sad": "sad"}
IGNORED = ("fru", "xxx", "sur", "fea", "dis", "oth")
GENDERS = {"F": "female", "M": "male"}

# Utterances of the complete corpus, agreed by four public recipes.
KNOWN_CLASSES = {
    "Session1": {"neutral": 384, "happy": 278, "sad": 194, "angry": 229},
    "Session2": {"neutral": 362, "happy": 327, "sad": 197, "angry": 137},
    "Session3": {"neutral": 320, "happy": 286, "sad": 305, "angry": 240},
    "Session4": {"neutral": 258, "happy": 303, "sad": 143, "angry": 327},
    "Session5": {"neutral": 384, "happy": 442, "sad": 245, "angry": 170},
}
KNOWN_GENDERS = {"female": 2649, "male": 2882}

LINE = re.compile(r"\[\d+\.\d+ - \d+\.\d+\]\t(?P<name>\S+)\t(?P<label>\S+)\t\[.*\]\s*")
NAME = re.compile(r"(?P<dialog>Ses(?P<session>\d\d)[FM]_\w+)_(?P<speaker>[FM])\d+")


def read(root) -> list[Utterance]:
    """All utterances of the four classes under `root`, which holds `Session1` to `Session5`.

    Raises `UserError` for another layout, a line that cannot be understood, a name that stands
    twice, or a labelled utterance without audio, with file and line.
    """
    root = Path(root)
    sessions = sorted(path for path in root.iterdir() if re.fullmatch(r"Session\d", path.name))
    if not sessions:
        inner = next(iter(sorted(root.glob("*/Session1"))), None)
        hint = f"; did you mean --root {inner.parent}?" if inner else ""
        raise UserError(
            f"{root}: no IEMOCAP; expected the folders Session1 to Session5, each with dialog/EmoEvaluation/*.txt and "
            f"sentences/wav, found {contents(root)}{hint}"
        )
    utterances, seen = [], {}
    for session in sessions:
        folder = session / "dialog" / "EmoEvaluation"
        # macOS leaves `._Ses01F_impro01.txt` in the archive; the folders Attribute, Categorical
        # and Self-evaluation hold the votes of single annotators.
        files = sorted(path for path in folder.glob("*.txt") if not path.name.startswith("."))
        if not files:
            raise UserError(f"{folder}: expected the label files Ses*.txt, found none; unpack the session again")
        for file in files:
            utterances += _read_dialog(root, session, file, seen)
    if not utterances:
        raise UserError(
            f"{root}: no utterance is labelled {', '.join(CLASSES)}; expected IEMOCAP's EmoEvaluation files"
        )
    return utterances


def _read_dialog(root: Path, session: Path, file: Path, seen: dict) -> list[Utterance]:
    utterances = []
    # Annotators' remarks are free text; only the ASCII summary lines matter.
    for number, line in enumerate(file.read_text(encoding="latin-1").split("\n"), start=1):
        if not line.startswith("["):
            continue
        where = f"{file}, line {number}"
        match = LINE.fullmatch(line)
        if not match:
            raise UserError(f"{where}: expected [start - end]<TAB>name<TAB>label<TAB>[v, a, d], found {line.strip()!r}")
        name, label = match["name"], match["label"]
        if label in IGNORED:
            continue
        if label not in CLASSES:
            raise UserError(f"{where}: label {label!r} is not one of {', '.join((*CLASSES, *IGNORED))}; correct it")
        parts = NAME.fullmatch(name)
        if not parts or int(parts["session"]) != int(session.name[-1]):
            raise UserError(
                f"{where}: expected a name like Ses0{session.name[-1]}F_impro01_M003 in {session.name}, found {name!r}"
            )
        if name in seen:
            raise UserError(f"{where}: {name} stands in {seen[name]} already; remove one of the two")
        seen[name] = where
        folder = session / "sentences" / "wav" / parts["dialog"]
        audio = find_audio(folder, name)
        if audio is None:
            raise UserError(f"{where}: {name} is labelled {label}, but {folder / name}.wav (or .flac) does not exist")
        # The speaker is the last part of the name. `Ses01F` only says who wore the markers.
        letter = parts["speaker"]
        utterances.append(
            Utterance(
                path=str(audio.relative_to(root)),
                n_samples=0,
                emotion=CLASSES[label],
                gender=GENDERS[letter],
                speaker=f"Ses{parts['session']}{letter}",
                session=session.name,
            )
        )
    return utterances


def count_differences(utterances) -> list[tuple[str, int, int]]:
    """`(what, expected, found)` wherever the counts are not those of the complete corpus."""
    found = Counter()
    for u in utterances:
        found.update(["all", u.session, u.emotion, u.gender, f"{u.session} {u.emotion}"])
    expected = Counter(KNOWN_GENDERS)
    for session, classes in KNOWN_CLASSES.items():
        for emotion, count in classes.items():
            for what in ("all", session, emotion, f"{session} {emotion}"):
                expected[what] += count
    return [(w, expected[w], found[w]) for w in sorted(expected | found) if expected[w] != found[w]]
