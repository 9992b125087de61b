"""Frame features of one transformer layer, for whole manifests."""

import logging

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .. import frames
from ..frame_features import FrameFeatures
from .backbone import HubertBackbone
from .checkpoint import load_hubert
from .products import pack

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class LayerFeatures(FrameFeatures):
    """The features of one layer; the layers above it are not computed.

    By default every clip goes through the model alone, on one CPU thread: the last bits of its
    features, and with them its labels, then depend on nothing but the clip. Speed comes from
    `workers`, threads that share the weights and take a clip each.

    Args:
        backbone: model in evaluation mode, on its device.
        layer: 1-based; negative numbers count from the last. Out of range raises `UserError`.
        workers, batch_seconds: see `FrameFeatures`. Batches are faster on a GPU; the features then
            differ in the last bits from those of a clip alone.
        dtype: `float32`, or `bfloat16` for the products (faster); norms and the sums over layers stay float32.
        source: digest of the checkpoint.
    """

    def __init__(
        self, backbone: HubertBackbone, layer: int, workers: int = 1, batch_seconds: float = 0, dtype: str = "float32",
        source: str = "",
    ):  # fmt: skip
        super().__init__(workers, batch_seconds, dtype)
        self.backbone = backbone.eval()
        for module in backbone.modules():
            if isinstance(module, nn.Linear | nn.Conv1d):
                module.to(DTYPES[dtype])
        pack(backbone)
        self.layer = frames.resolve_layer(layer, backbone.n_layers)
        self.source = source
        logger.info(f"features of layer {self.layer} of {backbone.n_layers}, {dtype}")

    @classmethod
    def load(cls, checkpoint, layer: int, device: str = "cpu", **kwargs) -> "LayerFeatures":
        loaded = load_hubert(checkpoint)
        return cls(loaded.build().to(device), layer, source=loaded.sha256, **kwargs)

    @property
    def dim(self) -> int:
        return self.backbone.dim

    @property
    def name(self) -> str:
        return f"layer {self.layer}"

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    @torch.inference_mode()
    def __call__(self, waves: list[Tensor]) -> list[Tensor]:
        """Clips `(N,)` at 16 kHz -> features `(T, D)` of each, float32."""
        n_samples = torch.tensor([len(wave) for wave in waves], device=self.device)
        source = pad_sequence(waves, batch_first=True).to(self.device)
        out = self.backbone(source, n_samples, output_layer=self.layer)
        return [x[:n].float() for x, n in zip(out["x"], out["n_frames"].tolist(), strict=True)]
