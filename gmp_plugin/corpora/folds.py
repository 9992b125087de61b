"""Folds: which recordings a model is tested on, and which it may learn from."""

import re
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from ..errors import UserError


@dataclass(frozen=True)
class Fold:
    """One held-out group. `held_out` names its sessions or speakers; `train`, `valid` and `test`
    are positions in the list of utterances, in ascending order."""

    held_out: tuple[str, ...]
    train: tuple[int, ...]
    valid: tuple[int, ...]
    test: tuple[int, ...]


def make_folds(utterances, mode="session", valid_fraction: float = 0.1, seed: int = 1) -> list[Fold]:
    """Folds that hold out each session, each speaker, or each of N groups of speakers once; or one without test part.

    The test part is what is held out; the validation part is `valid_fraction` of the rest, drawn
    by `seed` and stratified by emotion and speaker; training has what remains. The same
    utterances give the same folds, in whatever order they come.

    mode: "session", "speaker", N (number or digits), or "none": a single fold without test part, for a model that is
        to learn from everybody.
    Raises `UserError` for too few sessions or speakers, for a speaker in two sessions, and for a
    fraction outside (0, 0.5].
    """
    if not 0 < valid_fraction <= 0.5:
        raise UserError(f"--valid-fraction {valid_fraction}: expected more than 0 and at most 0.5")
    order = sorted(range(len(utterances)), key=lambda i: utterances[i].path)
    folds = []
    for number, (field, names) in enumerate(_groups(utterances, mode, seed), start=1):
        test = [i for i in order if getattr(utterances[i], field) in names]
        rest = [i for i in order if getattr(utterances[i], field) not in names]
        valid = _draw(rest, utterances, valid_fraction, np.random.default_rng([seed, number]))
        if not valid:
            raise UserError(
                f"fold {number} (held out: {', '.join(names) or 'nobody'}) has no validation part: none of the classes "
                f"has two of the other {len(rest)} utterances; add recordings"
            )
        train = sorted(set(rest) - valid)
        folds.append(Fold(tuple(names), tuple(train), tuple(sorted(valid)), tuple(sorted(test))))
    return folds


def natural_key(name: str) -> list:
    """Sort key with numbers as numbers: speaker2 comes before speaker10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"([0-9]+)", name)]


def _groups(utterances, mode, seed: int) -> list[tuple[str, list[str]]]:
    """`(field, names held out)` of every fold."""
    if mode == "session":
        sessions_of = defaultdict(set)
        for u in utterances:
            sessions_of[u.speaker].add(u.session)
        for speaker, sessions in sessions_of.items():
            if len(sessions) > 1:
                raise UserError(
                    f"speaker {speaker} occurs in the sessions {', '.join(sorted(sessions, key=natural_key))}, so that "
                    "a model would be tested on a voice it was trained on; use --folds speaker, or give the speakers "
                    "of each session names of their own"
                )
    field = "session" if mode == "session" else "speaker"
    names = sorted({getattr(u, field) for u in utterances}, key=natural_key)
    if mode == "none":
        return [(field, [])]
    if len(names) < 2:
        other = "; use --folds speaker" if mode == "session" and len({u.speaker for u in utterances}) > 1 else ""
        raise UserError(f"folds need at least 2 {field}s, found {len(names)} ({', '.join(names)}){other}")
    if mode in ("session", "speaker"):
        return [(field, [name]) for name in names]
    if not re.fullmatch(r"[0-9]+", str(mode)):
        raise UserError(f"--folds {mode}: expected session, speaker, a number of folds, or none")
    if not 2 <= int(mode) <= len(names):
        raise UserError(
            f"--folds {mode}: expected a number from 2 to {len(names)}, as the corpus has {len(names)} speakers and a "
            "speaker is never divided"
        )
    return [(field, group) for group in _balanced(utterances, names, int(mode), seed)]


def _balanced(utterances, speakers, n_groups: int, seed: int) -> list[list[str]]:
    """Groups of speakers with nearly as many utterances each: largest first, to the lightest group."""
    counts = dict.fromkeys(speakers, 0)
    for u in utterances:
        counts[u.speaker] += 1
    shuffled = np.random.default_rng(seed).permutation(len(speakers))  # decides among equals
    groups, loads = [[] for _ in range(n_groups)], [0] * n_groups
    for speaker in sorted((speakers[i] for i in shuffled), key=lambda s: -counts[s]):
        lightest = loads.index(min(loads))
        groups[lightest].append(speaker)
        loads[lightest] += counts[speaker]
    return [sorted(group, key=natural_key) for group in groups]


def _draw(rest, utterances, fraction: float, rng) -> set[int]:
    """The validation part of `rest`: about `fraction` of it, and of every class with two utterances
    at least one, but never all.

    The utterances are laid out by emotion and speaker, shuffled inside, and one is taken each time
    the running total of `fraction` passes a half: that keeps the share right over strata much
    smaller than 1 / fraction, where rounding each for itself would leave most without any.
    """
    shuffled = [rest[i] for i in rng.permutation(len(rest))]
    laid_out = sorted(shuffled, key=lambda i: (utterances[i].emotion, utterances[i].speaker))
    taken = np.floor(np.arange(len(rest) + 1) * fraction + 0.5)
    valid = {i for i, step in zip(laid_out, np.diff(taken), strict=True) if step}
    classes = defaultdict(list)
    for i in shuffled:
        classes[utterances[i].emotion].append(i)
    for members in classes.values():
        if len(members) == 1:
            valid.discard(members[0])  # the only one is worth more in training
        elif valid.isdisjoint(members):
            valid.add(members[0])
    return valid
