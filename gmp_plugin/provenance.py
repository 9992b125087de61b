"""What an artefact has seen: the record that the leak audit reads.

A provenance is a list of entries, one per stage and split that touched the artefact or one of its
ancestors: `{"stage", "split", "manifest", "root", "utterances"}`, with the utterances' paths as the manifest
names them, relative to its root; k-means adds `n_frames`, the frames that it was fitted on, and `centroids`, by which
fits can be told apart. Checkpoints carry it in their task state, k-means files in their header, labels in
`provenance.json`, results among the rest.
"""

import json
import os
from pathlib import Path

from .errors import UserError
from .manifest import Manifest

FILE = "provenance.json"  # of a folder of labels, or of weights that we wrote


def entry(stage: str, split: str, manifest: Manifest, indices=None, **more) -> dict:
    """The entry of `stage` having read `manifest`, or of it the utterances `indices`, as its `split`."""
    return {
        "stage": stage,
        "split": split,
        "manifest": manifest.file,
        "root": manifest.root,
        "utterances": list(manifest.paths) if indices is None else [manifest.paths[i] for i in indices],
        **more,
    }


def read(path) -> list[dict]:
    """The entries of a `provenance.json`; `UserError` for a damaged one."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); make the labels again with dump_km_label.py") from None


def validate(entries, where) -> None:
    """`UserError` unless `entries` is a list of entries, with or without a root, as early ones were."""
    kinds = {"stage": str, "split": str, "manifest": str, "utterances": list}
    sound = isinstance(entries, list) and all(
        isinstance(e, dict)
        and all(isinstance(e.get(key), kind) for key, kind in kinds.items())
        and isinstance(e.get("root"), str | None)
        and all(isinstance(path, str) for path in e["utterances"])
        for e in entries
    )
    if not sound:
        raise UserError(f"{where}: the provenance is no list of entries with {', '.join(kinds)}")


def seen(provenance: list[dict], manifest: Manifest, splits=("train", "valid")) -> dict[str, list[str]]:
    """Utterances of `manifest` that stages read as one of `splits`, by stage; of the same root, linked to or not."""
    wanted, place = set(manifest.paths), _place(manifest.root)
    found: dict[str, list[str]] = {}
    for record in provenance:
        if record["split"] in splits and _place(record.get("root")) == place:
            found.setdefault(record["stage"], []).extend(sorted(wanted & set(record["utterances"])))
    return {stage: paths for stage, paths in found.items() if paths}


def _place(root: str | None) -> str | None:
    """A folder without links; a published corpus's name as it is."""
    return os.path.realpath(root) if root and os.path.isabs(root) else root


def merge(*provenances: list[dict]) -> list[dict]:
    """All entries in order, each once."""
    merged = []
    for provenance in provenances:
        merged.extend(e for e in provenance if e not in merged)
    return merged


def fitted(provenance: list[dict]) -> str | None:
    """Which centroids the last k-means of a provenance came to; None where early ones do not say."""
    return next((e.get("centroids") for e in reversed(provenance) if e.get("stage") == "kmeans"), None)


def published(provenance: list[dict], corpus: str | None) -> list[dict]:
    """The entries for weights that others get: with the name of the corpus, or nothing, in place of local folders.

    The corpus is that of the last entry; of others, names of corpora stay, as those of published weights that training
    started from, and folders go.
    """

    def name(root: str | None) -> str | None:
        if root == provenance[-1].get("root"):
            return corpus
        return root if root and Path(root).name == root else None

    return [{**e, "root": name(e.get("root")), "manifest": Path(e["manifest"]).name} for e in provenance]
