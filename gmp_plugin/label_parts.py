"""Labels on the way to their `.km` files: parts that are whole or absent, and their merge.

A manifest is divided into parts of consecutive utterances. The division depends on the manifest alone, never
on who computes: ranks, workers and restarts take whole parts. A part lies in
`OUT/.SPLIT.parts/NUMBER.safetensors`, int32 labels of all scales, with a fingerprint of what made it. When
all parts are there they are written out as `OUT/SPLIT.K.km`, with a record `OUT/SPLIT.labels.json` of what
made them and which utterances they are of, and removed. What labels of other centroids are replaced by is put there
only then, `OUT/provenance.json` included.
"""

import hashlib
import json
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from . import provenance
from .errors import UserError
from .files import atomic_path, atomic_text, sha256
from .frames import SAMPLE_RATE
from .label_record import SUFFIX, read_record
from .manifest import Manifest
from .shards import share

PART_SECONDS = 600.0  # of audio: what an interruption can cost
MAX_PARTS = 4096  # files in a folder; larger corpora get longer parts


def divide(manifest: Manifest, part_seconds: float = PART_SECONDS) -> list[range]:
    """Utterance numbers of every part: consecutive, about `part_seconds` of audio each."""
    ends = np.cumsum(np.asarray(manifest.n_samples, dtype=np.int64))
    size = max(int(part_seconds * SAMPLE_RATE), -(-int(ends[-1]) // MAX_PARTS))
    numbers = (ends - 1) // size  # by the last sample of the utterance, so that every part is used by somebody
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    return [range(a, b) for a, b in zip(starts.tolist(), [*starts[1:].tolist(), len(manifest)], strict=True)]


def fingerprints(
    manifest: Manifest, *, checkpoint_sha256: str, layer: int, dtype: str, centroids: dict
) -> dict[int, str]:
    """Hex digest of everything that the labels of a scale depend on; the manifest's root may move."""
    common = hashlib.sha256(json.dumps([checkpoint_sha256, layer, dtype]).encode())
    for path, n in zip(manifest.paths, manifest.n_samples, strict=True):
        common.update(f"{path}\t{n}\n".encode())
    found = {}
    for k in sorted(centroids):
        digest = common.copy()
        digest.update(centroids[k].contiguous().numpy().tobytes())
        found[k] = digest.hexdigest()
    return found


@dataclass
class LabelParts:
    """The parts of one split under `out`.

    Args:
        fingerprints: of every scale.
        seen: provenance of the centroids.
    """

    out: Path
    manifest: Manifest
    fingerprints: dict[int, str]
    seen: list[dict]
    part_seconds: float = PART_SECONDS

    def __post_init__(self):
        self.scales = sorted(self.fingerprints)
        self.split = Path(self.manifest.file).stem
        self.folder = self.out / f".{self.split}.parts"
        self.record = self.out / f"{self.split}{SUFFIX}"
        self.origin = self.out / provenance.FILE
        self.ranges = divide(self.manifest, self.part_seconds)
        self.stamp = " ".join([*(self.fingerprints[k] for k in self.scales), f"{self.part_seconds}"])
        self.n_frames = self.manifest.n_frames()

    def target(self, k: int) -> Path:
        return self.out / f"{self.split}.{k}.km"

    def path(self, part: int) -> Path:
        return self.folder / f"{part:06d}.safetensors"

    def write(self, part: int, labels: dict[int, np.ndarray]) -> None:
        """Labels `(frames of the part,)` of every scale, in the manifest's order."""
        tensors = {f"labels.{k}": labels[k].astype(np.int32) for k in self.scales}
        with atomic_path(self.path(part)) as temporary:
            save_file(tensors, temporary, metadata={"stamp": self.stamp})

    def read(self, part: int) -> dict[int, np.ndarray] | None:
        """Labels of every scale, or None if the part is absent, damaged or of other centroids or audio."""
        try:
            with safe_open(self.path(part), framework="np") as stream:
                if (stream.metadata() or {}).get("stamp") != self.stamp:
                    return None
                labels = {k: stream.get_tensor(f"labels.{k}") for k in self.scales}
        except (OSError, SafetensorError):
            return None
        r = self.ranges[part]
        expected = int(self.n_frames[r.start : r.stop].sum())
        return labels if all(len(x) == expected for x in labels.values()) else None

    def missing(self, parts=None) -> list[int]:
        """Parts, of all or of some, that are still to be computed."""
        parts = range(len(self.ranges)) if parts is None else parts
        return [part for part in parts if self.read(part) is None]

    def foreign(self) -> bool:
        """Whether some part was left by a run with other centroids, checkpoint, manifest or `part_seconds`."""
        for path in self.folder.glob("[0-9]*.safetensors"):
            try:
                with safe_open(path, framework="np") as stream:
                    if (stream.metadata() or {}).get("stamp") != self.stamp:
                        return True
            except (OSError, SafetensorError):
                continue  # damaged: computed again
        return False

    def is_whole(self, k: int) -> bool:
        """Whether the `.km` file of a scale is there as a run with its fingerprint left it."""
        record, name = read_record(self.out, self.split), self.target(k).name
        try:
            return record["fingerprints"][name] == self.fingerprints[k] and record["files"][name] == sha256(
                self.target(k)
            )
        except (OSError, KeyError):
            return False

    def finished(self) -> bool:
        """Whether all `.km` files are there, and the folder's provenance is that of these centroids."""
        return self.recorded_origin() == self.seen and all(map(self.is_whole, self.scales))

    def recorded_origin(self) -> list[dict] | None:
        """The provenance of the centroids that the folder's labels are of, if it has one."""
        return provenance.read(self.origin) if self.origin.is_file() else None

    def write_origin(self) -> None:
        with atomic_text(self.origin) as stream:
            json.dump(self.seen, stream)

    def complete(self) -> bool:
        """Whether every part is there; cheap, as ranks ask it often."""
        return all(self.path(part).exists() for part in range(len(self.ranges)))

    def merge(self, nshard: int = 1) -> None:
        """Write `SPLIT.K.km` of every scale from the parts and the record of their digests, and remove the parts.

        Several ranks may do it at once: they write the same bytes. Raises `UserError` that names missing parts and,
        for `nshard` ranks, who has to compute them.
        """
        gone = self.folder.with_name(f"{self.folder.name}.merged")
        try:
            self._require_all(nshard)
            self._write_text()
            self._write_record()
            shutil.rmtree(gone, ignore_errors=True)
            self.folder.rename(gone)  # at once, so that a kill while removing leaves no half-empty folder
        except (OSError, UserError):
            if self.folder.is_dir() or not self.finished():
                raise
            return  # another rank was faster
        self.clean()

    def clean(self) -> None:
        """Remove what killed merges left."""
        shutil.rmtree(self.folder.with_name(f"{self.folder.name}.merged"), ignore_errors=True)
        for path in (self.record, *map(self.target, self.scales)):
            for leftover in self.out.glob(f".{path.name}.*.tmp"):
                leftover.unlink(missing_ok=True)

    def _write_record(self) -> None:
        """What is there now. Other scales of the same centroids stay; files of other centroids go."""
        before, centroids = read_record(self.out, self.split), provenance.fitted(self.seen)
        read = [provenance.entry("labels", self.split, self.manifest)]
        others = set(before.get("files", {})) - {self.target(k).name for k in self.scales}
        same = centroids is not None and (before.get("centroids"), before.get("provenance")) == (centroids, read)
        files = {name: before["files"][name] for name in others if same}
        prints = {name: before["fingerprints"][name] for name in files}
        files |= {self.target(k).name: sha256(self.target(k)) for k in self.scales}
        prints |= {self.target(k).name: self.fingerprints[k] for k in self.scales}
        if self.recorded_origin() != self.seen:
            self.write_origin()
        with atomic_text(self.record) as stream:
            record = {"centroids": centroids, "fingerprints": prints, "files": files, "provenance": read}
            json.dump(record, stream, indent=1, sort_keys=True)
        for name in others - set(files):
            (self.out / name).unlink(missing_ok=True)
            scale = name.split(".")[-2]
            if not list(self.out.glob(f"*.{scale}.km")):
                (self.out / f"dict.{scale}.km.txt").unlink(missing_ok=True)

    def _write_text(self) -> None:
        with ExitStack() as stack:
            streams = {k: stack.enter_context(atomic_text(self.target(k))) for k in self.scales}
            words = {k: [str(i) for i in range(k)] for k in self.scales}
            for part, r in enumerate(self.ranges):
                labels = self.read(part)
                if labels is None:
                    raise FileNotFoundError(self.path(part))
                ends = np.cumsum(self.n_frames[r.start : r.stop])[:-1]
                for k, stream in streams.items():
                    text = list(map(words[k].__getitem__, labels[k].tolist()))
                    bounds = [0, *ends.tolist(), len(text)]
                    stream.writelines(" ".join(text[a:b]) + "\n" for a, b in zip(bounds, bounds[1:], strict=False))

    def _require_all(self, nshard: int) -> None:
        missing = self.missing()
        if not missing:
            return
        named = ", ".join(self._describe(part) for part in missing[:5]) + (" ..." if len(missing) > 5 else "")
        remedy = "run dump_km_label.py again, it computes only these"
        if nshard > 1:
            parts = set(missing)
            ranks = [r for r in range(nshard) if parts & set(share(len(self.ranges), r, nshard))]
            remedy = f"run again rank {', '.join(map(str, ranks))} of --nshard {nshard}"
        raise UserError(
            f"{self.split}: {len(missing)} of {len(self.ranges)} parts are missing in {self.folder}: {named}; {remedy}"
        )

    def _describe(self, part: int) -> str:
        r = self.ranges[part]
        return f"{self.path(part).name} (lines {r.start + 2} to {r.stop + 1} of {self.manifest.file})"
