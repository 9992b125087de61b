"""Stage 3's model."""

from dataclasses import dataclass, field

from fairseq.dataclass import ChoiceEnum
from fairseq.models import register_model

from ..modules.heads import make_head
from .stage_model import UtteranceModel, UtteranceModelConfig


@dataclass
class AMSoftmaxClassificationModelConfig(UtteranceModelConfig):
    head: ChoiceEnum(["am_softmax", "cross_entropy", "linear"]) = field(
        default="am_softmax",
        metadata={
            "help": "AM-softmax; cross_entropy for the ablation; linear: cross-entropy on one linear layer (FLESA)"
        },
    )
    scale: float = field(default=30.0, metadata={"help": "s of AM-softmax"})
    margin: float = field(default=0.2, metadata={"help": "m of AM-softmax"})


@register_model("am_softmax_classification", dataclass=AMSoftmaxClassificationModelConfig)
class AMSoftmaxClassificationModel(UtteranceModel):
    """Utterance encoder with an emotion head."""

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        self.emotion_head = make_head(
            cfg.head, self.pooling.output_dim, cfg.projection_dim, len(task.names("emotion")), cfg.scale, cfg.margin
        )

    def forward(self, source, n_samples=None, ids=None) -> dict:
        """Audio `(B, N)` -> logits `emotion` `(B, C)` without margin, and the `embedding`."""
        embedding, emotion = self.emotion_head(self.pool(source, n_samples, ids))
        return {"emotion": emotion, "embedding": embedding}

    def loss(self, kind: str, logits, target, class_weights=None):
        return self.emotion_head.loss(logits, target, class_weights)
