"""RAVDESS, speech part: everything is in the file names.

Livingstone and Russo 2018, https://zenodo.org/records/1188976. `03-01-05-02-01-02-12` = modality
03 (audio only), channel 01 (speech), emotion 05, intensity, statement, repetition, actor 12 (odd
numbers are men). Four of the eight emotions: 672 of 1440 recordings.
"""

import re
from pathlib import Path

from ..errors import UserError
from ..manifest import Utterance
from .audio import contents, list_audio

CLASSES = {"01": "neutral", "03": "happy", "04": "sad", "05": "angry"}
IGNORED = ("02", "06", "07", "08")  # calm, fearful, disgust, surprised
AUDIO_ONLY, SPEECH = "03", "01"
N_ACTORS = 24
NAME = re.compile(r"(0[1-3])-(0[12])-(0[1-8])-0[12]-0[12]-0[12]-(\d\d)")


def session(actor: int) -> str:
    """Fold group of an actor: five groups of woman-man pairs."""
    return str((actor - 1) // 2 % 5 + 1)


def read(root) -> list[Utterance]:
    """The spoken recordings of the four classes in `root/Actor_01` to `root/Actor_24` (.wav or .flac).

    Raises `UserError` for another layout or an audio file whose name is not RAVDESS's.
    """
    root = Path(root)
    utterances = []
    for folder in sorted(path for path in root.iterdir() if re.fullmatch(r"Actor_\d\d", path.name)):
        for path in list_audio(folder):
            match = NAME.fullmatch(path.stem)
            if not match or f"Actor_{match[4]}" != folder.name or not 1 <= int(match[4]) <= N_ACTORS:
                raise UserError(
                    f"{path}: expected a name like 03-01-05-01-01-01-{folder.name[-2:]} (modality, channel, emotion, "
                    "intensity, statement, repetition, actor 01 to 24); move the file elsewhere"
                )
            modality, channel, emotion, actor = match.groups()
            if (modality, channel) != (AUDIO_ONLY, SPEECH) or emotion in IGNORED:
                continue
            utterances.append(
                Utterance(
                    path=str(path.relative_to(root)),
                    n_samples=0,
                    emotion=CLASSES[emotion],
                    gender="male" if int(actor) % 2 else "female",
                    speaker=actor,
                    session=session(int(actor)),
                )
            )
    if not utterances:
        inner = next(iter(sorted(root.glob("*/Actor_*"))), None)
        hint = f"; did you mean --root {inner.parent}?" if inner else ""
        raise UserError(
            f"{root}: no RAVDESS speech; expected Actor_01/03-01-05-01-01-01-01.wav (or .flac) and so on, "
            f"found {contents(root)}{hint}"
        )
    return utterances
