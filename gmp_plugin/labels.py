"""Audio to frame labels: sample frames, fit the scales, label every frame of a manifest."""

import json
import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import kmeans, provenance
from .errors import UserError
from .files import atomic_text, refuse_existing, sha256
from .hubert.checkpoint import load_hubert
from .hubert.features import LayerFeatures
from .kmeans import MultiscaleKMeans
from .manifest import Manifest, write_km_dictionary

logger = logging.getLogger(__name__)


def sample_frames(features: LayerFeatures, manifest: Manifest, n_frames: int, seed: int) -> Tensor:
    """A uniform sample of `n_frames` frames of the manifest (all, if there are fewer): `(n, D)`.

    Drawn from the frame counts before any audio is read, so it depends on manifest and seed alone.
    """
    offsets = np.concatenate([[0], np.cumsum(manifest.n_frames())])
    n_frames = min(n_frames, int(offsets[-1]))
    chosen = np.sort(np.random.default_rng(seed).choice(offsets[-1], n_frames, replace=False))
    owners = np.searchsorted(offsets, chosen, side="right") - 1
    sample = torch.empty(n_frames, features.backbone.dim)
    for index, x in features.stream(manifest, np.unique(owners).tolist()):
        rows = np.flatnonzero(owners == index)
        sample[rows] = x[torch.from_numpy(chosen[rows] - offsets[index]).to(x.device)].cpu()
    return sample


def learn_kmeans(
    manifest: Manifest,
    checkpoint,
    layer: int,
    scales,
    seed: int = 1,
    max_frames: int | None = None,
    device: str = "cpu",
    backend: str = "torch",
) -> MultiscaleKMeans:
    """Fit all scales on the frames of one manifest: the training part of a fold.

    Args:
        max_frames: frames of the sample; 256 per centroid of the largest scale when left out.
    """
    loaded = load_hubert(checkpoint)
    features = LayerFeatures(loaded.build().to(device), layer)
    total = int(manifest.n_frames().sum())
    wanted = min(total, max_frames or kmeans.FRAMES_PER_CENTROID * max(scales))
    scales = kmeans.check_scales(scales, wanted)
    sample = sample_frames(features, manifest, wanted, seed).to(device)
    logger.info(f"fitting {len(sample)} of {total} frames at scales {scales}")
    centroids, counts, inertia = kmeans.fit(sample, scales, seed, backend)
    own = provenance.entry("kmeans", "train", manifest)
    return MultiscaleKMeans(
        centroids, counts, inertia, features.layer, loaded.sha256, len(sample), seed,
        provenance.merge(loaded.provenance, [own]),
    )  # fmt: skip


def dump_km_label(
    manifest: Manifest, checkpoint, km: MultiscaleKMeans, out, layer: int | None = None, device: str = "cpu",
    force: bool = False,
) -> None:  # fmt: skip
    """Write `OUT/SPLIT.K.km` for every scale, the dictionaries `dict.K.km.txt`, and `provenance.json`.

    SPLIT is the manifest's file name. Checkpoint and layer must be those of the fit.
    """
    out, split = Path(out), Path(manifest.file).stem
    found = sha256(checkpoint) if Path(checkpoint).is_file() else None
    features = LayerFeatures.load(checkpoint, km.layer if layer is None else layer, device)
    if found != km.checkpoint_sha256 or features.layer != km.layer:
        raise UserError(
            f"the centroids were fitted on layer {km.layer} of checkpoint {km.checkpoint_sha256[:12]}..., but these "
            f"features are of layer {features.layer} of {found[:12]}... ({checkpoint}); use the same, or fit again "
            "with learn_kmeans.py"
        )
    targets = {k: out / f"{split}.{k}.km" for k in km.scales}
    refuse_existing(*targets.values(), force=force)
    record = out / "provenance.json"
    if record.is_file() and not force and json.loads(record.read_text()) != km.provenance:
        raise UserError(f"{out} holds labels of other centroids; give another --out, or --force")

    lines = {k: [""] * len(manifest) for k in km.scales}
    for index, x in features.stream(manifest):
        for k, labels in km.assign(x).items():
            lines[k][index] = " ".join(map(str, labels.tolist()))
    for k in km.scales:
        write_km_dictionary(out / f"dict.{k}.km.txt", k)
    with atomic_text(record) as stream:
        json.dump(km.provenance, stream)
    for k, path in targets.items():
        with atomic_text(path) as stream:
            stream.writelines(f"{line}\n" for line in lines[k])
        logger.info(f"wrote {path}: {len(manifest)} utterances, {int(manifest.n_frames().sum())} frames")
