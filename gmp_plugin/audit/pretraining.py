"""Leak audit of what training started from: the checkpoint's own provenance, if it has one."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..errors import UserError
from ..hubert.checkpoint import load_hubert
from .artefacts import Artefact, ArtefactReader, inside
from .corpus import Corpus, listed
from .findings import Leak, Problem
from .folds import in_order

UNNAMED = "an unnamed corpus"  # of weights that were published without its name


@dataclass
class Pretrained:
    """The checkpoints that the experiment started from.

    Args:
        checkpoints: provenance by path as named; None for one that cannot be read.
        fresh: whether anything started from fresh weights.
        inside: paths of those that lie in the experiment's folder, relative to it.
    """

    checkpoints: dict[str, list[dict] | None] = field(default_factory=dict)
    fresh: bool = False
    inside: set[str] = field(default_factory=set)

    @property
    def entries(self) -> list[dict]:
        return [entry for entries in self.checkpoints.values() for entry in entries or ()]

    @cached_property
    def _ids(self) -> set[int]:
        return set(map(id, self.entries))

    def has(self, entry: dict) -> bool:
        """Whether an entry, as the reader keeps it, is of the pretraining rather than of a stage."""
        return id(entry) in self._ids

    def files(self, corpus: Corpus) -> list[str]:
        """Recordings of pretraining below other roots than the corpus's, as absolute paths."""
        return [
            os.path.abspath(os.path.join(entry["root"], path))
            for entry in self.entries
            if entry.get("root") and not corpus.same_root(entry["root"])
            for path in entry["utterances"]
        ]


def read_pretrained(exp_dir, named: str | None, artefacts: list[Artefact], reader: ArtefactReader) -> Pretrained:
    """The checkpoint that the experiment names, and those outside of it that its checkpoints' configurations do."""
    trained = [a for a in artefacts if a.trained]
    starts = dict.fromkeys(a.start for a in trained if a.start and inside(exp_dir, a.start) is None)
    pretrained = Pretrained(fresh=any(a.start is None for a in trained))
    for path in ([named] if named else []) + list(starts):
        try:
            pretrained.checkpoints[path] = reader.keep(load_hubert(path).provenance, path)
        except UserError:
            pretrained.checkpoints[path] = None
        if Path(os.path.abspath(path)).is_relative_to(os.path.abspath(exp_dir)):
            pretrained.inside.add(os.path.relpath(path, exp_dir))
    return pretrained


def audit_pretraining(corpus: Corpus, pretrained: Pretrained) -> tuple[list[Leak], list[Problem], list[str]]:
    """Leaks, what cannot be audited, and notes."""
    leaks, problems, notes = [], [], []
    if pretrained.fresh and not pretrained.checkpoints:
        notes.append("training started from fresh weights: there was no pretraining")
    for checkpoint, entries in pretrained.checkpoints.items():
        if entries is None:
            notes.append(f"pretraining data of {checkpoint} unknown: the file is not here or cannot be read")
        elif not entries:
            notes.append(f"pretraining data of {checkpoint} unknown: it carries no provenance")
        for entry in entries or ():
            stage, split, paths = entry["stage"], entry["split"], entry["utterances"]
            root = entry.get("root") or UNNAMED
            names, unknown = corpus.identify(root, paths, other_corpus=True)
            if names:
                where = (", ".join(corpus.tested_in(names)), stage, split)
                what = f"pretraining has read {len(names)} of its {len(paths)} recordings from this corpus"
                speakers = in_order(corpus.speakers(names))
                leaks.append(Leak(*where, what, tuple(sorted(names)), speakers, (checkpoint,)))
            if unknown and corpus.same_root(root):
                table = corpus.folder / "utterances.tsv"
                what = f"stage {stage}, split {split}, has read {listed(unknown)} of the corpus's folder"
                problems.append(Problem(f"{what}, which {table} does not know", (checkpoint,)))
            elif not names:
                files = [os.path.abspath(os.path.join(root, path)) for path in paths]
                n = sum(file in corpus.heard for file in files)
                notes.append(
                    f"pretraining of {checkpoint}, stage {stage}, split {split}: {len(paths)} recordings of "
                    f"{root}, none of this corpus (compared by path, {n} of them by sound)"
                )
    return leaks, problems, notes
