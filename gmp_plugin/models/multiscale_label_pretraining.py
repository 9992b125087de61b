"""Stage 2's model."""

from dataclasses import dataclass, field

import torch
from fairseq.dataclass import ChoiceEnum
from fairseq.models import register_model

from ..modules.multiscale import MultiscalePrediction
from .stage_model import StageModel, StageModelConfig


@dataclass
class MultiscaleLabelPretrainingModelConfig(StageModelConfig):
    mask_prob: float = field(default=0.80, metadata={"help": "share of frames masked if no spans overlapped"})
    head: ChoiceEnum(["linear", "cosine"]) = field(
        default="linear",
        metadata={"help": "linear: two linear layers with a ReLU per scale (paper); cosine: HuBERT's own"},
    )
    projection_dim: int = field(default=256, metadata={"help": "size between a head's two layers"})


@register_model("multiscale_label_pretraining", dataclass=MultiscaleLabelPretrainingModelConfig)
class MultiscaleLabelPretrainingModel(StageModel):
    """HuBERT with a prediction head per scale. Frames are masked in validation too, as in HuBERT's."""

    min_masks = 2

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        self.prediction = MultiscalePrediction(self.hubert.dim, task.scales, cfg.projection_dim, cfg.head)

    def forward(self, source, n_samples=None, ids=None) -> dict:
        """Audio `(B, N)` -> frames `x` `(B, T, D)`, masks `masked` and `unmasked` of valid frames, bool
        `(B, T)`, and the feature penalty."""
        out = self.hubert(source, n_samples, mask=True, ids=ids, penalty=True)
        x = out["x"]
        valid = torch.arange(x.size(1), device=x.device) < out["n_frames"][:, None]
        masked = out["mask_indices"] if out["mask_indices"] is not None else torch.zeros_like(valid)
        return {"x": x, "masked": masked, "unmasked": valid & ~masked, "features_pen": out["features_pen"]}
