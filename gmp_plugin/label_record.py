"""`SPLIT.labels.json`: what made the label files of a split, and which utterances they are of.

It has `centroids`, the identity of the fit (`kmeans.identity`); `files`, the digest of every label file;
`fingerprints`, the digest of all that it depends on; and `provenance`, an entry with the utterances. The folder's
`provenance.json` is that of the centroids.
"""

import json
from pathlib import Path

from . import provenance
from .manifest import Manifest

SUFFIX = ".labels.json"


def read_record(folder, split: str) -> dict:
    """The record of a split; empty where there is none, as for labels of other tools, or a damaged one."""
    try:
        return json.loads(Path(folder, split + SUFFIX).read_text())
    except (OSError, ValueError):
        return {}


def of_other_recordings(folder, split: str, manifest: Manifest) -> list[str]:
    """A message if the labels of a split were made of other recordings than `manifest` lists, or in another order."""
    made_of = [entry["utterances"] for entry in read_record(folder, split).get("provenance", [])]
    if not made_of or made_of[-1] == list(manifest.paths):
        return []
    return [
        f"{folder}: the labels of {split} are of other recordings than {manifest.file} lists ({len(made_of[-1])}, here "
        f"{len(manifest)}), or of another order; label them again with dump_km_label.py --force"
    ]


def of_other_centroids(folder) -> list[str]:
    """A message for every split whose labels are not of the centroids that the folder's provenance is of."""
    folder = Path(folder)
    origin = folder / provenance.FILE
    centroids = provenance.fitted(provenance.read(origin)) if origin.is_file() else None
    if centroids is None:
        return []  # of other tools, or early ones
    splits = [path.name.removesuffix(SUFFIX) for path in sorted(folder.glob(f"*{SUFFIX}"))]
    return [
        f"{folder}: the labels of {split} are of other centroids than {provenance.FILE} says; label {split}.tsv again "
        "with dump_km_label.py --force"
        for split in splits
        if read_record(folder, split).get("centroids") not in (None, centroids)
    ]
