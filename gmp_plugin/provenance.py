"""What an artefact has seen: the record that the leak audit reads.

A provenance is a list of entries, one per stage and split that touched the artefact or one of its
ancestors: `{"stage", "split", "manifest", "utterances"}`, with the utterances' paths as the manifest
names them. Checkpoints carry it in their task state, k-means files in their header, labels in
`provenance.json`.
"""

from .manifest import Manifest


def entry(stage: str, split: str, manifest: Manifest) -> dict:
    """The entry of `stage` having read all of `manifest` as its `split`."""
    return {"stage": stage, "split": split, "manifest": manifest.file, "utterances": list(manifest.paths)}


def merge(*provenances: list[dict]) -> list[dict]:
    """All entries in order, each once."""
    merged = []
    for provenance in provenances:
        merged.extend(e for e in provenance if e not in merged)
    return merged
