"""Recordings without labels, for pretraining: found in a folder, divided by speaker."""

import re
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..files import walk
from .audio import CACHE, SUFFIXES, contents

LIBRISPEECH = re.compile(r"(\d+)-\d+-\d+")  # speaker, chapter, number


def find_recordings(root) -> list[str]:
    """Paths of all .wav and .flac files under `root`, relative to it, sorted; hidden ones are left out, and the copies
    that an earlier call with an `--out` inside `root` made.

    Raises `UserError` if there are none.
    """
    root = Path(root)
    found = [str(path.relative_to(root)) for path in walk(root, (CACHE,)) if path.suffix.lower() in SUFFIXES]
    if not found:
        raise UserError(f"{root}: no recording (.wav or .flac) in it or below; found {contents(root)}")
    return sorted(found)


def speaker(path) -> str:
    """The speaker of a recording: the first number of a name like LibriSpeech's, else the folder that it lies in."""
    match = LIBRISPEECH.fullmatch(Path(path).stem)
    return match[1] if match else str(Path(path).parent)


def divide_by_speaker(paths, n_samples, valid_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Positions of the training and of the validation part; no speaker is in both.

    Speakers are drawn by `seed` until they hold `valid_fraction` of the samples. Raises `UserError` if only one
    speaker is there, or the fraction is outside (0, 0.5].
    """
    if not 0 < valid_fraction <= 0.5:
        raise UserError(f"--valid-fraction {valid_fraction}: expected more than 0 and at most 0.5")
    speakers = [speaker(path) for path in paths]
    names = sorted(set(speakers))
    if len(names) < 2:
        raise UserError(
            f"all {len(speakers)} recordings are of one speaker ({names[0]}), and the validation part has to be of "
            "others; speakers are told by LibriSpeech's names (SPEAKER-CHAPTER-NUMBER.flac) or by folders"
        )
    lengths = np.asarray(n_samples)
    held_out, total = set(), 0
    for i in np.random.default_rng(seed).permutation(len(names))[:-1]:  # one is left for training
        if total >= valid_fraction * lengths.sum():
            break
        held_out.add(names[i])
        total += sum(n for n, name in zip(n_samples, speakers, strict=True) if name == names[i])
    valid = [i for i, name in enumerate(speakers) if name in held_out]
    return sorted(set(range(len(speakers))) - set(valid)), valid
