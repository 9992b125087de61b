"""The artefacts of an experiment and what they say they have seen, for the leak audit."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .. import provenance
from ..corpora.audio import CACHE
from ..errors import UserError
from ..files import sha256
from ..hubert.checkpoint import read_checkpoint
from ..kmeans import MultiscaleKMeans
from ..label_record import SUFFIX, of_other_centroids
from ..training_config import other_start

CHECKPOINT, KMEANS, LABELS, RESULT = "checkpoints", "k-means files", "label sets", "results"
WEIGHTS = "other weights"
SKIPPED_FOLDERS = (CACHE, "tensorboard")
LABEL_FILE = re.compile(r"(.+?)(\.\d+)?\.km")
_LABEL_PARTS = re.compile(r"\.(.+)\.parts")


@dataclass
class Artefact:
    """One artefact.

    Args:
        path: relative to the experiment's folder; labels are a folder.
        kind: one of the above.
        fold: as "1"; None if neither its path nor its manifests name one.
        entries: its provenance.
        problems: why it cannot be audited.
        trained: whether it is a checkpoint with a configuration.
        start: the HuBERT that its training started from, as the configuration names it; None for fresh weights.
        n_frames: that k-means was fitted on.
        result: of a result: `fold`, `checkpoint` and `checkpoint_sha256`.
        labelled: splits that labels are of; True for those of which they say which utterances.
    """

    path: str
    kind: str
    fold: str | None = None
    entries: list[dict] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    trained: bool = False
    start: str | None = None
    n_frames: int | None = None
    result: dict = field(default_factory=dict)
    labelled: dict[str, bool] = field(default_factory=dict)


def find_artefacts(exp_dir) -> Iterator[tuple[Path, str]]:
    """Paths and kinds of all artefacts below a folder, in order of names; hidden files are unfinished ones."""
    visited = set()
    for folder, folders, files in os.walk(exp_dir, followlinks=True):
        if (real := os.path.realpath(folder)) in visited:
            folders.clear()  # a link to a folder above it
            continue
        visited.add(real)
        unfinished = any(_LABEL_PARTS.fullmatch(name) for name in folders)
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in SKIPPED_FOLDERS)
        files = sorted(name for name in files if name[0] != ".")
        if unfinished or any(LABEL_FILE.fullmatch(name) for name in files):
            yield Path(folder), LABELS
        for name in files:
            path = Path(folder, name)
            if path.suffix == ".pt":
                yield path, CHECKPOINT
            elif path.suffix == ".safetensors":
                yield path, KMEANS if _is_kmeans(path) else WEIGHTS
            elif name == "result.json":
                yield path, RESULT


class ArtefactReader:
    """Reads artefacts; entries that several carry are kept once.

    Args:
        exp_dir: the experiment's folder.
    """

    def __init__(self, exp_dir):
        self.exp_dir = Path(exp_dir)
        self.entries: dict[bytes, dict] = {}

    def __call__(self, path: Path, kind: str) -> Artefact:
        artefact = Artefact(os.path.relpath(path, self.exp_dir), kind)
        readers = {
            CHECKPOINT: _read_checkpoint, KMEANS: _read_kmeans, LABELS: _read_labels, RESULT: _read_result,
            WEIGHTS: _read_weights,
        }  # fmt: skip
        try:
            entries, own = readers[kind](path, artefact)
            artefact.entries = self.keep(entries, path)
            if not artefact.problems:
                artefact.problems += _incomplete(artefact.entries, own)
        except (UserError, OSError) as error:
            artefact.problems.append(str(error))
        # Its own entry is the last.
        manifests = [entry["manifest"] for entry in reversed(artefact.entries)]
        artefact.fold = next(filter(None, map(_fold, [artefact.path, *manifests])), None)
        return artefact

    def keep(self, entries, where) -> list[dict]:
        """The entries, each as the same object wherever it occurs; `UserError` for what are none."""
        provenance.validate(entries, where)
        return [self.entries.setdefault(_digest(entry), entry) for entry in entries]


def inside(exp_dir, path: str) -> Path | None:
    """The file below the experiment's folder that a configuration names, wherever the folder lay then."""
    parts = Path(path).parts
    for start in reversed(range(len(parts))):
        if re.fullmatch(r"fold[0-9]+", parts[start]):
            return Path(exp_dir, *parts[start:])
    absolute = Path(os.path.abspath(path))
    return absolute if absolute.is_relative_to(os.path.abspath(exp_dir)) else None


def _read_checkpoint(path: Path, artefact: Artefact) -> tuple[list, tuple]:
    state = read_checkpoint(path, mmap=True)
    cfg = state.get("cfg") or {}
    artefact.trained = bool(cfg)
    artefact.start = (cfg.get("model") or {}).get("hubert_path")
    stage = (cfg.get("task") or {}).get("_name")
    # One that was converted has fairseq's task, in which we train nothing: any entry will do.
    own = (None, None) if stage == "hubert_pretraining" else (stage, "train")
    if stage != "hubert_pretraining" and (start := other_start(cfg)):
        artefact.problems.append(f"it started by {start}, and what those weights have seen is not known")
    return (state.get("task_state") or {}).get("provenance", []), own


def _read_kmeans(path: Path, artefact: Artefact) -> tuple[list, tuple]:
    km = MultiscaleKMeans.load(path)
    artefact.n_frames = km.n_frames
    return km.provenance, ("kmeans", None)


def _read_labels(folder: Path, artefact: Artefact) -> tuple[list, tuple]:
    entries = []
    for path in sorted(folder.iterdir()):
        match = LABEL_FILE.fullmatch(path.name) or _LABEL_PARTS.fullmatch(path.name)
        if match:
            artefact.labelled.setdefault(match[1], False)
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        record = _json(path)
        changed = [name for name, digest in record.get("files", {}).items() if _sha256(folder / name) != digest]
        if changed:
            artefact.problems.append(f"{folder / changed[0]} is gone or was changed since {path.name} was written")
        if "provenance" in record:
            provenance.validate(record["provenance"], path)
            entries += record["provenance"]
            artefact.labelled[path.name.removesuffix(SUFFIX)] = True
    artefact.problems += of_other_centroids(folder)
    origin = folder / provenance.FILE
    return (provenance.read(origin) if origin.is_file() else []) + entries, ("kmeans", None)


def _read_result(path: Path, artefact: Artefact) -> tuple[list, tuple]:
    result = _json(path)
    missing = [key for key in ("checkpoint", "checkpoint_sha256", "provenance") if key not in result]
    if missing:
        raise UserError(f"{path} is no result of evaluate.py: it has no {', '.join(missing)}")
    artefact.result = {key: result.get(key) for key in ("fold", "checkpoint", "checkpoint_sha256")}
    return result["provenance"], ("evaluation", None)


def _read_weights(path: Path, artefact: Artefact) -> tuple[list, tuple]:
    record = path.with_name(provenance.FILE)
    remedy = f"write {path.name} again (convert_hubert.py, gmp-ser export)"
    return provenance.read(record, remedy) if record.is_file() else [], (None, None)


def _incomplete(entries: list[dict], own: tuple) -> list[str]:
    """Whether the artefact's own entry, of a stage and split, is missing; None stands for any."""
    if not entries:
        return ["it carries no provenance"]
    stage, split = own
    if any(stage in (None, e["stage"]) and split in (None, e["split"]) for e in entries):
        return []
    return [f"its provenance lacks its own entry, of stage {stage}{f', split {split}' if split else ''}"]


def _fold(path: str) -> str | None:
    found = [part for part in Path(path).parts if re.fullmatch(r"fold[0-9]+", part)]
    return found[-1].removeprefix("fold") if found else None


def _digest(entry: dict) -> bytes:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).digest()


def _is_kmeans(path: Path) -> bool:
    try:
        with safe_open(path, framework="np") as stream:
            return "kmeans" in (stream.metadata() or {})
    except (OSError, SafetensorError):
        return path.name.startswith("kmeans")


def _json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object")
    return content


def _sha256(path: Path) -> str | None:
    return sha256(path) if path.is_file() else None
