"""What an artefact has seen: the record that the leak audit reads.

A provenance is a list of entries, one per stage and split that touched the artefact or one of its
ancestors: `{"stage", "split", "manifest", "root", "utterances"}`, with the utterances' paths as the manifest
names them, relative to its root. Checkpoints carry it in their task state, k-means files in their header, labels in
`provenance.json`.
"""

import json
from pathlib import Path

from .errors import UserError
from .manifest import Manifest


def entry(stage: str, split: str, manifest: Manifest) -> dict:
    """The entry of `stage` having read all of `manifest` as its `split`."""
    return {
        "stage": stage,
        "split": split,
        "manifest": manifest.file,
        "root": manifest.root,
        "utterances": list(manifest.paths),
    }


def read(path) -> list[dict]:
    """The entries of a `provenance.json`; `UserError` for a damaged one."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); make the labels again with dump_km_label.py") from None


def seen(provenance: list[dict], manifest: Manifest, splits=("train", "valid")) -> dict[str, list[str]]:
    """Utterances of `manifest` that stages read as one of `splits`, by stage."""
    wanted = set(manifest.paths)
    found: dict[str, list[str]] = {}
    for record in provenance:
        if record["split"] in splits and record.get("root") == manifest.root:
            found.setdefault(record["stage"], []).extend(sorted(wanted & set(record["utterances"])))
    return {stage: paths for stage, paths in found.items() if paths}


def merge(*provenances: list[dict]) -> list[dict]:
    """All entries in order, each once."""
    merged = []
    for provenance in provenances:
        merged.extend(e for e in provenance if e not in merged)
    return merged
