"""Leak audit of label sets: which recordings their lines are of."""

from pathlib import Path

from ..manifest import Manifest
from .artefacts import LABEL_FILE, Artefact
from .corpus import Corpus
from .findings import Leak, Problem
from .folds import in_order


def audit_labels(corpus: Corpus, artefact: Artefact, exp_dir) -> tuple[list[Leak], list[Problem]]:
    """Leaks, and what cannot be audited, of the splits for which no record says which recordings they are of.

    Those with a record have it among their entries.
    """
    leaks, problems, folder = [], [], Path(exp_dir, artefact.path)
    manifests = corpus.manifests.get(artefact.fold, {})
    for split in sorted(split for split, recorded in artefact.labelled.items() if not recorded):
        if split == "test":
            test = corpus.part(artefact.fold, "test")
            what = f"labels of the test part ({len(test)} recordings) lie among those of training"
            speakers = in_order(corpus.speakers(test))
            leaks.append(Leak(artefact.fold, "labels", split, what, tuple(sorted(test)), speakers, (artefact.path,)))
        elif split not in manifests:
            problems.append(Problem(f"nothing says which recordings {split}.*.km are of", (artefact.path,)))
        else:
            files = [f for f in sorted(folder.iterdir()) if (m := LABEL_FILE.fullmatch(f.name)) and m[1] == split]
            different = filter(None, (_difference(file, manifests[split]) for file in files))
            problems += [Problem(message, (artefact.path,)) for message in different]
    return leaks, problems


def _difference(file: Path, manifest: Manifest) -> str | None:
    """How a label file cannot be of the manifest: by its lines, or by the number of labels in one."""
    lines = file.read_bytes().removesuffix(b"\n").split(b"\n")
    if len(lines) != len(manifest):
        return f"{file.name} has {len(lines)} lines, but {manifest.file} lists {len(manifest)} recordings"
    for number, (line, n_frames) in enumerate(zip(lines, manifest.n_frames().tolist(), strict=True), start=1):
        if (n := len(line.split())) != n_frames:
            return (
                f"{file.name}, line {number}: {n} labels, but {manifest.paths[number - 1]} of {manifest.file} has "
                f"{n_frames} frames; they are of other recordings"
            )
    return None
