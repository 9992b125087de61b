"""What an artefact has seen: the record that the leak audit reads.

A provenance is a list of entries, one per stage and split that touched the artefact or one of its
ancestors: `{"stage", "split", "manifest", "root", "utterances"}`, with the utterances' paths as the manifest
names them, relative to its root; k-means adds `n_frames`, the frames that it was fitted on, and `centroids`, by which
fits can be told apart. Checkpoints carry it in their task state, k-means files in their header, labels in
`provenance.json`, results among the rest.
"""

import functools
import json
import os
from pathlib import Path

from .corpora import audio
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


def read(path, remedy: str = "make the labels again with dump_km_label.py") -> list[dict]:
    """The entries of a `provenance.json`; `UserError` for a damaged one, with what to do about it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); {remedy}") from None


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


def seen(provenance: list[dict], manifest: Manifest, validation: bool = True) -> dict[str, list[str]]:
    """Utterances of `manifest` that stages read, by stage; without `validation`, what a stage read as `valid` is not.

    As the leak audit has it, whatever is not called `valid` trained. An utterance is known by its file, however its
    path is written. Where files cannot be compared, because an entry names no folder, or one of another machine, or
    because one of them is a resampled copy, it is known by its name: one path ends as the other one does.
    """
    cached = any(_CACHED in f"{manifest.root}/{path}" for path in manifest.paths)
    by_file = {_file(manifest.root, path): path for path in manifest.paths}
    by_name: dict[str, list[tuple[str, str]]] = {}
    for path in manifest.paths:
        name = _name(manifest.root, path)
        by_name.setdefault(os.path.basename(name), []).append((name, path))
    found: dict[str, set[str]] = {}
    for record in provenance:
        root = record.get("root")
        if record["stage"] == "evaluation" or (record["split"] == "valid" and not validation):
            continue
        here = bool(root) and os.path.isabs(root) and os.path.isdir(root)
        for path in record["utterances"]:
            known = [by_file[file]] if here and (file := _file(root, path)) in by_file else []
            if not known and (cached or not here or _CACHED in f"{root}/{path}"):
                name = _name(root, path)
                known = [p for other, p in by_name.get(os.path.basename(name), ()) if _end_alike(name, other)]
            found.setdefault(record["stage"], set()).update(known)
    return {stage: sorted(paths) for stage, paths in found.items() if paths}


def listed(found: dict[str, list[str]]) -> str:
    """What `seen` found, for a message: stages, numbers of recordings, and one of each."""
    return "; ".join(f"{stage}: {len(paths)}, as {paths[0]}" for stage, paths in found.items())


_CACHED = f"/{audio.CACHE}/"


@functools.lru_cache(maxsize=1 << 20)  # entries of several stages name the same files
def _file(root: str, path: str) -> str:
    return os.path.realpath(os.path.join(root, path))


def _name(root: str | None, path: str) -> str:
    """A recording's path, below the corpus's folder or the cache's, without suffixes of audio: `/wav/a`."""
    file = os.path.join("/", root or "", path)
    below = file.rpartition(_CACHED)[2] if _CACHED in file else path
    return audio.stem(f"/{below}").replace("//", "/")


def _end_alike(one: str, other: str) -> bool:
    return one.endswith(other) or other.endswith(one)  # names begin with /: whole folders are compared


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
