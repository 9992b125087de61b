"""What the stages' models share: a backbone with its settings kept in the task's state."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import BaseFairseqModel
from omegaconf import II, OmegaConf
from torch import Tensor

from ..errors import UserError
from ..hubert.backbone import HubertBackbone
from ..hubert.checkpoint import CHECKPOINT_HELP, backbone_settings, build_backbone
from ..modules.pooling import POOLINGS, make_pooling


@dataclass
class StageModelConfig(FairseqDataclass):
    hubert_path: Optional[str] = field(
        default=None,
        metadata={"help": f"{CHECKPOINT_HELP}, to start from"},
    )
    hubert: Any = field(
        default=None,
        metadata={
            "help": "fairseq HubertConfig settings: overrides for the checkpoint (dropout, layerdrop), or the whole "
            "architecture of fresh weights when hubert_path is not given"
        },
    )
    freeze_feature_extractor: bool = field(default=False, metadata={"help": "keep the convolutional encoder as it is"})
    mask_prob: float = field(
        default=0.0, metadata={"help": "share of frames masked if no spans overlapped; one span at least"}
    )
    mask_length: int = field(default=10, metadata={"help": "length of a masked span in frames"})
    seed: int = II("common.seed")


@dataclass
class UtteranceModelConfig(StageModelConfig):
    pooling: ChoiceEnum(list(POOLINGS)) = field(
        default="bilstm",
        metadata={"help": "from frames to a vector: bilstm and mean (paper), attention (FLESA), or the mean alone"},
    )
    lstm_dim: int = field(default=256, metadata={"help": "units of the BiLSTM each way"})
    lstm_layers: int = field(default=1, metadata={"help": "layers of the BiLSTM"})
    projection_dim: int = field(default=256, metadata={"help": "size between a head's two layers"})
    freeze_finetune_updates: int = field(
        default=0, metadata={"help": "updates of all but HuBERT, before it learns along"}
    )


class StageModel(BaseFairseqModel):
    """`self.hubert` and what a stage puts on it.

    The backbone's settings go into `task.state` as plain values, from which a checkpoint is loaded
    again without the file that training started from.
    """

    min_masks = 1

    def __init__(self, cfg: StageModelConfig, task):
        super().__init__()
        self.hubert = self.build_hubert(cfg, task)

    @classmethod
    def build_model(cls, cfg, task):
        return cls(cfg, task)

    def build_hubert(self, cfg: StageModelConfig, task) -> HubertBackbone:
        if not 0 <= cfg.mask_prob <= 1:
            raise UserError(f"model.mask_prob={cfg.mask_prob}: expected a share of the frames, 0 to 1")
        overrides = OmegaConf.to_container(cfg.hubert) if OmegaConf.is_config(cfg.hubert) else dict(cfg.hubert or {})
        overrides |= {"mask_prob": cfg.mask_prob, "mask_length": cfg.mask_length}
        kept = task.state.state_dict.get("hubert")
        hubert, provenance = build_backbone(
            cfg.hubert_path, overrides, kept, mask_seed=cfg.seed, min_masks=self.min_masks,
            frozen=cfg.freeze_feature_extractor,
        )  # fmt: skip
        task.add_provenance(*provenance)
        task.state.merge_state_dict(
            {"hubert": {"settings": backbone_settings(hubert.cfg), "normalize": hubert.normalize}}
        )
        return hubert


class UtteranceModel(StageModel):
    """HuBERT and pooling, by default BiLSTM and mean over time: one vector per utterance (paper, Fig. 1)."""

    def __init__(self, cfg: UtteranceModelConfig, task):
        super().__init__(cfg, task)
        self.pooling = make_pooling(cfg.pooling, self.hubert.dim, cfg.lstm_dim, cfg.lstm_layers)
        self.freeze_finetune_updates = cfg.freeze_finetune_updates

    def pool(self, source: Tensor, n_samples: Tensor | None = None, ids: Tensor | None = None) -> Tensor:
        """Audio `(B, N)` -> pooled vectors `(B, pooling.output_dim)`; frames are masked in training only."""
        frozen = self.training and self.hubert.num_updates < self.freeze_finetune_updates
        with torch.no_grad() if frozen else nullcontext():
            out = self.hubert(source, n_samples, mask=self.training, ids=ids)
        return self.pooling(out["x"], out["n_frames"])
