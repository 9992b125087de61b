"""Which layer holds most emotion: a linear probe on the mean features of each layer."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from . import frames, metrics
from .errors import UserError
from .hubert.backbone import HubertBackbone
from .hubert.checkpoint import load_hubert
from .hubert.encoder import Packing, encode, transformer_layer
from .hubert.features import LayerFeatures
from .manifest import Manifest, read_dictionary, read_utterance_labels


@dataclass(frozen=True)
class LayerScore:
    """Rates of the probe on one layer, 0 to 1: UAR on its own training part, UAR and WAR on the validation part."""

    layer: int
    train_uar: float
    uar: float
    war: float


class LayerMeans(LayerFeatures):
    """Features of several layers, averaged over the frames of a clip: one pass for all layers.

    Args:
        layers: 1-based; negative numbers count from the last. Out of range raises `UserError`.
    """

    def __init__(self, backbone: HubertBackbone, layers: list[int], **kwargs):
        self.layers = sorted({frames.resolve_layer(layer, backbone.n_layers) for layer in layers})
        super().__init__(backbone, self.layers[-1], **kwargs)

    @torch.inference_mode()
    def __call__(self, waves: list[Tensor]) -> list[Tensor]:
        """Clips `(N,)` at 16 kHz -> `(layers, D)` of each, float32."""
        backbone, weight = self.backbone, next(self.backbone.parameters())
        n_samples = torch.tensor([len(wave) for wave in waves], device=weight.device)
        source = pad_sequence(waves, batch_first=True).to(weight)
        n_frames, longest = (frames.n_frames(n, backbone.kernels_strides) for n in (n_samples, source.size(1)))
        packing = Packing.of(n_frames, longest)
        x = encode(backbone.encoder, backbone.project(backbone.convolve(source, n_samples)), packing, 0)
        means = []
        for number, layer in enumerate(backbone.encoder.layers[: self.layer], start=1):
            x = transformer_layer(layer, x, packing)
            if number in self.layers:
                means.append(packing.unpack(x.float()).sum(1) / n_frames[:, None])
        return list(torch.stack(means, dim=1))

    def matrix(self, manifest: Manifest) -> np.ndarray:
        """All utterances of a manifest, `(N, layers, D)`."""
        return np.stack([x.cpu().numpy() for _, x in self.stream(manifest)])


def probe_layers(manifest: Manifest, checkpoint, layers: list[int] | None, device: str = "cpu", **options):
    """Train a probe per layer on `manifest`, measure it on the `valid.tsv` beside it.

    Args:
        layers: all when None.
        options: `workers`, `batch_seconds` and `dtype` of `LayerFeatures`.

    Returns:
        A `LayerScore` per layer, in rising order.

    Raises `UserError` where the validation part is missing or is not apart from the manifest.
    """
    path = Path(manifest.file)
    if path.stem == "test" or path.name == "valid.tsv":
        raise UserError(f"{path} is the {path.stem} part; the layer table trains its probes: give train.tsv")
    valid = Manifest.read(path.with_name("valid.tsv"))
    if set(manifest.paths) & set(valid.paths):
        raise UserError(f"{valid.file} shares recordings with {path}; make the folds again with make_manifest.py")
    dictionary = path.with_name("dict.emotion.txt")
    names = read_dictionary(dictionary)
    truth, valid_truth = (
        read_utterance_labels(Path(m.file).with_suffix(".emotion"), m, names, dictionary) for m in (manifest, valid)
    )
    if len(np.unique(truth)) < 2:
        raise UserError(f"{path} has one emotion only; a probe needs two")
    backbone = load_hubert(checkpoint).build().to(device)
    means = LayerMeans(backbone, layers or list(range(1, backbone.n_layers + 1)), **options)
    x, valid_x = means.matrix(manifest), means.matrix(valid)
    return [
        _score(layer, len(names), (x[:, j], truth), (valid_x[:, j], valid_truth))
        for j, layer in enumerate(means.layers)
    ]


def _score(layer: int, n_classes: int, train, valid) -> LayerScore:
    # Balanced, because the score is the UAR, for which a rare class counts as much as a common one.
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    probe.fit(*train)
    own, held_out = (metrics.confusion_counts(y, probe.predict(x), n_classes) for x, y in (train, valid))
    return LayerScore(layer, metrics.uar(own), metrics.uar(held_out), metrics.war(held_out))
