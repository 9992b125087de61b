"""Audio to frame labels: sample utterances, fit the scales, label every frame of a manifest."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import kmeans, provenance
from .errors import UserError
from .files import refuse_existing
from .frame_features import FrameFeatures
from .hubert.checkpoint import load_hubert
from .hubert.features import LayerFeatures
from .kmeans import Assigner, MultiscaleKMeans
from .kmeans_fit import one_thread
from .label_parts import PART_SECONDS, LabelParts, fingerprints
from .manifest import Manifest, write_km_dictionary
from .mfcc import MfccFeatures
from .shards import share

logger = logging.getLogger(__name__)

SOURCES = ("hubert", "mfcc")  # of features


@dataclass
class Sample:
    """Features `(frames, D)` of whole utterances of a manifest, in its order; rows
    `offsets[j]:offsets[j + 1]` are those of utterance `indices[j]`."""

    features: Tensor
    indices: list[int]
    offsets: list[int]

    def label(self, assign: Callable) -> dict[int, dict[int, np.ndarray]]:
        """Labels of every scale by utterance number, one utterance at a time, as a dump computes them."""
        bounds = zip(self.offsets, self.offsets[1:], strict=False)
        return {i: assign(self.features[a:b]) for i, (a, b) in zip(self.indices, bounds, strict=True)}


def choose_utterances(manifest: Manifest, n_frames: int, seed: int) -> list[int]:
    """Utterances drawn at random, without replacement, until they hold `n_frames` frames; all, if there are fewer.

    Whole utterances: their features serve for their labels too, and a sample of a large corpus reads
    hours of it, not all.
    """
    order = np.random.default_rng(seed).permutation(len(manifest))
    total = np.cumsum(manifest.n_frames()[order])
    return np.sort(order[: int(np.searchsorted(total, n_frames)) + 1]).tolist()


def sample_frames(features: FrameFeatures, manifest: Manifest, n_frames: int, seed: int) -> Sample:
    """The features of `choose_utterances`, on the CPU."""
    indices = choose_utterances(manifest, n_frames, seed)
    offsets = np.concatenate([[0], np.cumsum(manifest.n_frames()[indices])]).tolist()
    sample = torch.empty(offsets[-1], features.dim)
    for start, (_, x) in zip(offsets, features.stream(manifest, indices), strict=False):
        sample[start : start + len(x)] = x.cpu()
    return Sample(sample, indices, offsets)


def check_source(features: str, checkpoint: str | None) -> None:
    """`UserError` unless `checkpoint` is given for `hubert` and for nothing else."""
    if features == "mfcc" and checkpoint:
        raise UserError(f"--features mfcc needs no HuBERT; leave out --checkpoint {checkpoint}, or --features mfcc")
    if features == "hubert" and not checkpoint:
        raise UserError("give --checkpoint HUBERT, or --features mfcc")


def open_features(checkpoint, layer: int | float, device: str = "cpu", **options) -> tuple[FrameFeatures, list[dict]]:
    """A layer of `checkpoint`, or MFCCs where that is None, and what its weights have seen."""
    if checkpoint is None:
        return MfccFeatures(**options), []
    loaded = load_hubert(checkpoint)
    return LayerFeatures(loaded.build().to(device), layer, source=loaded.sha256, **options), loaded.provenance


def learn_kmeans(
    manifest: Manifest, checkpoint, layer: int | float, scales, out, seed: int = 1, max_frames: int | None = None,
    device: str = "cpu", backend: str = "torch", labels_out=None, force: bool = False, **features_options,
) -> None:  # fmt: skip
    """Fit all scales on the frames of one manifest: the training part of a fold.

    Args:
        checkpoint: HuBERT, of which `layer` is taken; None for MFCCs.
        out: k-means file to write.
        max_frames: frames of the sample; 256 per centroid of the largest scale when left out.
        labels_out: label the manifest as well, as `dump_km_label` does; what was computed for the fit is not
            computed again.
        features_options: `workers`, `batch_seconds` and `dtype` of `FrameFeatures`.

    Raises `UserError` if `out` or labels in `labels_out` exist, unless `force`.
    """
    refuse_existing(out, force=force)
    if labels_out is not None and not force and (origin := Path(labels_out, provenance.FILE)).exists():
        raise UserError(f"{origin} exists already: labels of other centroids; give another folder, or --force")
    features, seen = open_features(checkpoint, layer, device, **features_options)
    total = int(manifest.n_frames().sum())
    wanted = min(total, max_frames or kmeans.FRAMES_PER_CENTROID * max(scales))
    scales = kmeans.check_scales(scales, wanted)
    kmeans.warn_of_few_frames(scales, wanted)
    sample = sample_frames(features, manifest, wanted, seed)
    logger.info(f"fitting {len(sample.features)} of {total} frames at scales {scales}")
    centroids, counts, inertia = kmeans.fit(sample.features.to(device), scales, seed, backend)
    split, n_frames = Path(manifest.file).stem, len(sample.features)
    centroids_id = kmeans.identity(centroids, features.source, features.layer)
    own = provenance.entry("kmeans", split, manifest, sample.indices, n_frames=n_frames, centroids=centroids_id)
    km = MultiscaleKMeans(
        centroids, counts, inertia, features.layer, features.source, len(sample.features), seed,
        provenance.merge(seen, [own]),
    )  # fmt: skip
    km.save(out)
    if labels_out is not None:
        with one_thread():  # as the workers of a dump: BLAS adds up in another order with more
            known = sample.label(features_labeller(km, features.device))
        del sample
        label(label_parts(manifest, km, labels_out, features.dtype), features, km, force=force, known=known)


def dump_km_label(
    manifest: Manifest, checkpoint, km: MultiscaleKMeans, out, layer: int | float | None = None, device: str = "cpu",
    rank: int = 0, nshard: int = 1, force: bool = False, part_seconds: float = PART_SECONDS, **features_options,
) -> None:  # fmt: skip
    """Write `OUT/SPLIT.K.km` for every scale, the dictionaries `dict.K.km.txt`, and `provenance.json`.

    SPLIT is the manifest's file name. Checkpoint and layer must be those of the fit. An interrupted run continues;
    of several ranks, the last to finish puts the files together.

    Args:
        rank, nshard: compute one share of the parts (see `shards`).
        force: replace labels of other centroids.
        part_seconds: audio per part; the same for all ranks.
        features_options: `workers`, `batch_seconds` and `dtype` of `FrameFeatures`.
    """
    if (checkpoint is None) != (km.layer == 0):
        raise UserError(
            "the centroids were fitted on MFCCs; give --features mfcc in place of --checkpoint"
            if km.layer == 0
            else f"the centroids were fitted on layer {km.layer} of a HuBERT, not on MFCCs; give its --checkpoint"
        )
    features, _ = open_features(checkpoint, km.layer if layer is None else layer, device, **features_options)
    if (features.source, features.layer) != (km.checkpoint_sha256, km.layer):
        raise UserError(
            f"the centroids were fitted on layer {km.layer} of checkpoint {km.checkpoint_sha256[:12]}..., but these "
            f"features are of layer {features.layer} of {features.source[:12]}... ({checkpoint}); use the same, or fit "
            "again with learn_kmeans.py"
        )
    label(label_parts(manifest, km, out, features.dtype, part_seconds), features, km, rank, nshard, force)


def label(
    parts: LabelParts, features: FrameFeatures, km: MultiscaleKMeans, rank: int = 0, nshard: int = 1,
    force: bool = False, known: dict | None = None,
) -> None:  # fmt: skip
    """`dump_km_label` with a model that is loaded already.

    Args:
        known: labels `{K: (T,)}` of some utterances, by number, which are not computed again.
    """
    if not claim(parts, force):
        names = " ".join(parts.target(k).name for k in parts.scales)
        logger.info(f"{parts.split}: the labels in {parts.out} are finished already; to make them anew, remove {names}")
        return
    missing = parts.missing(share(len(parts.ranges), rank, nshard))
    logger.info(f"{parts.split}, rank {rank} of {nshard}: {len(missing)} of {len(parts.ranges)} parts to compute")
    _compute(parts, missing, features, features_labeller(km, features.device), known or {})
    # `complete` only counts files; with --force, some may still be of other centroids.
    if parts.complete() and not parts.missing(range(len(parts.ranges))):
        merge(parts, nshard)
    else:
        logger.info(f"{parts.split}: rank {rank} of {nshard} is done; the last rank puts the label files together")


def merge(parts: LabelParts, nshard: int = 1) -> None:
    """Put the parts together; `UserError` names those that are missing."""
    if parts.finished() and not parts.folder.is_dir():
        parts.clean()
        return
    if parts.missing() and parts.foreign():
        raise UserError(
            f"{parts.folder} holds parts of other centroids, scales, manifest, --dtype or --part-seconds; give --merge "
            "the options that the ranks had, or run them again with --force"
        )
    parts.merge(nshard)
    for k in parts.scales:
        logger.info(f"wrote {parts.target(k)}: {len(parts.manifest)} utterances, {int(parts.n_frames.sum())} frames")


def label_parts(
    manifest: Manifest, km: MultiscaleKMeans, out, dtype: str = "float32", part_seconds: float = PART_SECONDS
) -> LabelParts:
    """Where the labels of `manifest` come together, for these centroids."""
    prints = fingerprints(
        manifest, checkpoint_sha256=km.checkpoint_sha256, layer=km.layer, dtype="float32" if km.layer == 0 else dtype,
        centroids=km.centroids,
    )  # fmt: skip
    return LabelParts(Path(out), manifest, prints, km.provenance, part_seconds)


def claim(parts: LabelParts, force: bool) -> bool:
    """Whether there is work to do in `parts.out`, after writing dictionaries and provenance there.

    Raises `UserError` if the folder holds other labels, unless `force`.
    """
    begun = parts.folder.is_dir()
    if not begun and parts.finished():
        parts.clean()
        return False
    origin = parts.recorded_origin()
    if not force:
        if origin not in (None, parts.seen):
            raise UserError(f"{parts.out} holds labels of other centroids; give another --out, or --force")
        if parts.foreign():
            raise UserError(
                f"{parts.folder} was left by a run with other centroids, checkpoint, manifest or part size; "
                "give another --out, or --force"
            )
        present = [parts.target(k) for k in parts.scales if parts.target(k).exists() and not parts.is_whole(k)]
        if present and not begun:
            raise UserError(
                f"{present[0]} exists already, of other centroids or changed since; "
                "give --force to replace it, or another --out"
            )
    for k in parts.scales:
        write_km_dictionary(parts.out / f"dict.{k}.km.txt", k)
    if origin is None:
        parts.write_origin()  # in place of another, the merge does it
    return True


def features_labeller(km: MultiscaleKMeans, device) -> Callable[[Tensor], dict[int, np.ndarray]]:
    """Function: features `(T, D)` -> labels `(T,)` of every scale, as numpy int32."""
    assign = Assigner(km.centroids, device)
    return lambda x: {k: v.to(torch.int32).cpu().numpy() for k, v in assign(x.to(device)).items()}


def _compute(parts: LabelParts, missing: list[int], features: FrameFeatures, labeller: Callable, known: dict) -> None:
    """Compute parts in one stream of utterances, so that the workers do not wait at the end of each part."""
    unknown = [i for part in missing for i in parts.ranges[part] if i not in known]
    stream = features.stream(parts.manifest, unknown, then=labeller, progress=bool(unknown))
    for part in missing:
        rows = [known[i] if i in known else next(stream)[1] for i in parts.ranges[part]]
        parts.write(part, {k: np.concatenate([row[k] for row in rows]) for k in parts.scales})
    next(stream, None)  # closes the progress bar
