"""Leak audit of what stages have read: the entries that artefacts carry."""

from collections import defaultdict
from dataclasses import dataclass, field

from ..corpora.folds import natural_key
from .artefacts import RESULT, Artefact
from .corpus import Corpus, listed
from .findings import Leak, Problem, Seen
from .folds import overlaps
from .pretraining import Pretrained


@dataclass
class CarriedEntry:
    """One entry of a fold, and the artefacts that carry it, in their order.

    Args:
        evaluated: whether it is the evaluation of a result, which may read the test part.
        n_frames: that k-means was fitted on, where that is known.
    """

    fold: str
    entry: dict
    evaluated: bool
    artefacts: list[str] = field(default_factory=list)
    n_frames: int | None = None


def carried_entries(artefacts: list[Artefact], pretrained: Pretrained) -> list[CarriedEntry]:
    """The entries of all artefacts of a fold, but for those of pretraining, in the order of the course."""
    carried: dict[tuple, CarriedEntry] = {}
    for artefact in artefacts:
        for entry in artefact.entries:
            if artefact.fold is None or pretrained.has(entry):
                continue
            evaluated = artefact.kind == RESULT and entry["stage"] == "evaluation"
            one = carried.setdefault(
                (artefact.fold, id(entry), evaluated), CarriedEntry(artefact.fold, entry, evaluated)
            )
            one.artefacts.append(artefact.path)
            one.n_frames = one.n_frames or entry.get("n_frames")
        own = [e for e in artefact.entries if e["stage"] == "kmeans"][-1:]
        if artefact.n_frames and own:  # from before entries said it
            carried[artefact.fold, id(own[0]), False].n_frames = artefact.n_frames
    return list(carried.values())


def audit_entry(corpus: Corpus, carried: CarriedEntry) -> tuple[list[Leak], list[Problem]]:
    """Leaks, and what cannot be audited."""
    fold, entry, artefacts = carried.fold, carried.entry, tuple(carried.artefacts)
    stage, split = entry["stage"], entry["split"]
    names, unknown = corpus.identify(entry.get("root"), entry["utterances"])
    problems = []
    if unknown:
        table = corpus.folder / "utterances.tsv"
        what = f"stage {stage}, split {split}, has read {listed(unknown)}, which {table} does not know"
        problems.append(Problem(what, artefacts))
    if carried.evaluated:
        return [], problems
    # k-means validates on nothing, and whatever is not called `valid` counts as training.
    selection = split == "valid" and stage != "kmeans"
    forbidden = {part: corpus.part(fold, part) for part in (("test",) if selection else ("test", "valid"))}
    return overlaps(corpus, fold, stage, split, names, forbidden, artefacts), problems


def seen(corpus: Corpus, entries: list[CarriedEntry]) -> list[Seen]:
    """Who saw how much, by fold and, in the order of the course, stage and split."""
    groups = defaultdict(list)
    for carried in entries:
        groups[carried.fold, carried.entry["stage"], carried.entry["split"]].append(carried)
    order = {stage: i for i, stage in enumerate(dict.fromkeys(stage for _, stage, _ in groups))}
    rows = []
    for fold, stage, split in sorted(groups, key=lambda key: (natural_key(key[0]), order[key[1]], key[2])):
        group = groups[fold, stage, split]
        names = set().union(*(corpus.identify(c.entry.get("root"), c.entry["utterances"])[0] for c in group))
        n_frames = max((c.n_frames for c in group if c.n_frames), default=None)
        n_artefacts = len({path for c in group for path in c.artefacts})
        rows.append(Seen(fold, stage, split, n_artefacts, len(names), len(corpus.speakers(names)), n_frames))
    return rows
