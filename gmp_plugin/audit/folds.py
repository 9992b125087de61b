"""Leak audit of the folds themselves: what each part holds, before anything was trained."""

from collections import Counter

from ..corpora.folds import natural_key
from .content import Twin
from .corpus import Corpus, listed
from .findings import Leak

_NAMES = {"train": "training", "valid": "validation", "test": "test"}


def in_order(names) -> tuple[str, ...]:
    """Names with numbers as numbers."""
    return tuple(sorted(names, key=natural_key))


def audit_parts(corpus: Corpus) -> list[Leak]:
    """Recordings that stand in two parts of a fold, and speakers of a test part who stand in another part, too.

    Folds of make_manifest.py never divide a speaker, whatever they are by: sessions, speakers, or a number of groups.
    """
    leaks = []
    for fold in corpus.parts:
        for split, other in (("train", "test"), ("valid", "test"), ("train", "valid")):
            part, forbidden = corpus.part(fold, split), corpus.part(fold, other)
            leaks += overlaps(corpus, fold, "manifest", split, part, {other: forbidden}, (_file(corpus, fold, split),))
    return leaks


def overlaps(
    corpus: Corpus, fold: str, stage: str, split: str, names, forbidden: dict[str, frozenset[str]], artefacts: tuple
) -> list[Leak]:
    """Leaks of what has read `names` and may not have read the `forbidden` parts nor heard the test part's speakers."""
    leaks, where = [], (fold, stage, split)
    for other, part in forbidden.items():
        if both := sorted(part & names):
            speakers = in_order(corpus.speakers(both))
            kind = "recording" if len(both) == 1 else "recordings"
            leaks.append(
                Leak(*where, f"{len(both)} {kind} of the {_NAMES[other]} part", tuple(both), speakers, artefacts)
            )
    if "test" in forbidden:
        known = corpus.speakers(forbidden["test"])
        others = sorted(name for name in names - forbidden["test"] if corpus.utterances[name].speaker in known)
        for speaker in in_order(corpus.speakers(others)):
            own = tuple(name for name in others if corpus.utterances[name].speaker == speaker)
            what = f"a speaker of the test part in {len(own)} other recording{'s' * (len(own) > 1)}"
            leaks.append(Leak(*where, what, own, (speaker,), artefacts))
    return leaks


def audit_division(corpus: Corpus) -> list[Leak]:
    """Recordings that are not in exactly one test part, and test parts that are not what `folds.json` holds out."""
    leaks = []
    promised = {fold["folder"].removeprefix("fold"): fold for fold in corpus.record.get("folds", [])}
    file = str(corpus.folder / "folds.json")
    for fold in [fold for fold, parts in corpus.parts.items() if fold in promised and "test" in parts]:
        speakers = corpus.speakers(corpus.part(fold, "test"))
        held_out = set(promised[fold].get("held_out_speakers", speakers))
        if speakers != held_out:
            there, said = (listed(in_order(names), most=8) for names in (speakers, held_out))
            what = f"the test part has speakers {there}, but is said to hold out {said}"
            leaks.append(Leak(fold, "manifest", "test", what, (), in_order(speakers ^ held_out), (file,)))
    if promised.keys() - corpus.parts.keys() or any("test" not in parts for parts in corpus.parts.values()):
        return leaks  # parts that are not there may have the rest
    tested = Counter(name for fold in corpus.parts for name in corpus.part(fold, "test"))
    never = [name for name in corpus.utterances if not tested[name]]
    twice = sorted(name for name, n in tested.items() if n > 1)
    table = str(corpus.folder / "utterances.tsv")
    if never:
        speakers = in_order(corpus.speakers(never))
        leaks.append(Leak("", "manifest", "test", "in no fold's test part", tuple(never), speakers, (table,)))
    if twice:
        folds = ", ".join(corpus.tested_in(twice))
        what = "in the test parts of several folds"
        leaks.append(Leak(folds, "manifest", "test", what, tuple(twice), in_order(corpus.speakers(twice)), (table,)))
    return leaks


def audit_twins(corpus: Corpus, twins: list[Twin]) -> tuple[list[Leak], list[str]]:
    """Leaks where one and the same recording, under two names, is on both sides of a fold, and notes on the others.

    The numbers of `twins` are those of the table.
    """
    names, leaks, notes = list(corpus.utterances), [], []
    for twin in twins:
        pair = (names[twin.first], names[twin.second])
        same = "identical samples" if twin.identical else f"a changed copy, correlation {twin.correlation:.3f}"
        crossing, apart = [], []
        for fold in corpus.parts:
            splits = [next((s for s in corpus.parts[fold] if name in corpus.part(fold, s)), "") for name in pair]
            if "test" in splits and set(splits) & {"train", "valid"}:
                crossing.append(fold)
                known, tested = pair if splits[1] == "test" else pair[::-1]
                split = splits[pair.index(known)]
                what = f"the same recording ({same}) is in the {_NAMES[split]} and, by another name, in the test part"
                speakers = in_order(corpus.speakers(pair))
                leaks.append(
                    Leak(fold, "manifest", split, what, (known, tested), speakers, (_file(corpus, fold, split),))
                )
            elif set(splits) == {"train", "valid"}:
                apart.append(fold)
        if not crossing:
            where = f"; in fold {', '.join(apart)} one trains and the other validates" if apart else ""
            notes.append(f"{pair[0]} and {pair[1]} are the same recording ({same}), on one side in all folds{where}")
    return leaks, notes


def _file(corpus: Corpus, fold: str, split: str) -> str:
    return corpus.manifests[fold][split].file if split in corpus.manifests[fold] else f"fold{fold}/{split}.tsv"
