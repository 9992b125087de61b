"""Stage 1's model."""

from dataclasses import dataclass

from fairseq.models import register_model

from ..modules.heads import ProjectionHead
from .stage_model import UtteranceModel, UtteranceModelConfig


@dataclass
class MultitaskEmotionGenderModelConfig(UtteranceModelConfig):
    pass


@register_model("multitask_emotion_gender", dataclass=MultitaskEmotionGenderModelConfig)
class MultitaskEmotionGenderModel(UtteranceModel):
    """Utterance encoder with a head for emotion and one for gender."""

    def __init__(self, cfg, task):
        super().__init__(cfg, task)
        self.emotion_head, self.gender_head = (
            ProjectionHead(self.pooling.output_dim, cfg.projection_dim, len(task.names(kind)))
            for kind in ("emotion", "gender")
        )

    def forward(self, source, n_samples=None, ids=None) -> dict:
        """Audio `(B, N)` -> logits `emotion` `(B, C)` and `gender` `(B, 2)`, and the emotion `embedding`."""
        pooled = self.pool(source, n_samples, ids)
        embedding, emotion = self.emotion_head(pooled)
        return {"emotion": emotion, "gender": self.gender_head(pooled)[1], "embedding": embedding}

    def loss(self, kind: str, logits, target, class_weights=None):
        return getattr(self, f"{kind}_head").loss(logits, target, class_weights)
