"""EMO-DB, the Berlin database of emotional speech: everything is in the file names.

Burkhardt et al. 2005, http://emodb.bilderbar.info. `03a01Wa` = speaker 03, text a01, emotion
letter W (the German word's), take a. Four of the seven emotions: 339 of 535 recordings.
"""

import re
from pathlib import Path

from ..errors import UserError
from ..manifest import Utterance
from .audio import contents, list_audio

CLASSES = {"W": "angry", "F": "happy", "N": "neutral", "T": "sad"}  # Wut, Freude, neutral, Trauer
IGNORED = "LEA"  # Langeweile (boredom), Ekel (disgust), Angst (fear)
MALE = ("03", "10", "11", "12", "15")
# Five folds, each with one man and one woman, as IEMOCAP's sessions have.
SESSIONS = {
    speaker: str(number)
    for number, pair in enumerate([("03", "08"), ("10", "09"), ("11", "13"), ("12", "14"), ("15", "16")], start=1)
    for speaker in pair
}
NAME = re.compile(rf"(\d\d)[ab]\d\d([{''.join(CLASSES)}{IGNORED}])[a-z]")


def read(root) -> list[Utterance]:
    """The recordings of the four classes in `root` or `root/wav` (.wav or .flac).

    Raises `UserError` for another layout or an audio file whose name is not EMO-DB's.
    """
    root = Path(root)
    utterances = []
    for path in list_audio(root, root / "wav"):
        match = NAME.fullmatch(path.stem)
        if not match or match[1] not in SESSIONS:
            raise UserError(
                f"{path}: expected a name like 03a01Wa (speaker {', '.join(sorted(SESSIONS))}; text; emotion "
                f"{', '.join((*CLASSES, *IGNORED))}; take); move the file elsewhere, or use --corpus csv"
            )
        speaker, letter = match.groups()
        if letter in IGNORED:
            continue
        utterances.append(
            Utterance(
                path=str(path.relative_to(root)),
                n_samples=0,
                emotion=CLASSES[letter],
                gender="male" if speaker in MALE else "female",
                speaker=speaker,
                session=SESSIONS[speaker],
            )
        )
    if not utterances:
        raise UserError(
            f"{root}: no EMO-DB; expected recordings like 03a01Wa.wav (or .flac) there or in {root / 'wav'}, "
            f"found {contents(root)}"
        )
    return utterances
