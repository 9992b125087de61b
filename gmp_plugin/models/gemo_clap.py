"""GEmo-CLAP: emotions by the cosines between a recording and the prompts of the classes."""

import logging
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq.dataclass import ChoiceEnum
from fairseq.models import register_model
from omegaconf import OmegaConf
from torch import Tensor

from ..errors import UserError
from ..modules.contrastive import ContrastiveHead, PromptHead
from ..modules.pooling import POOLINGS
from ..text_encoder import TextEncoder
from .stage_model import UtteranceModel, UtteranceModelConfig

logger = logging.getLogger(__name__)


@dataclass
class GEmoClapModelConfig(UtteranceModelConfig):
    pooling: ChoiceEnum(list(POOLINGS)) = field(default="mean", metadata={"help": "from frames to a vector"})
    projection_dim: int = field(default=512, metadata={"help": "size of the space that audio and text share"})
    text_path: Optional[str] = field(
        default=None, metadata={"help": "RoBERTa to start from: a folder in Hugging Face layout, as roberta-base"}
    )
    text: Any = field(
        default=None, metadata={"help": "without text_path: fields of transformers' RobertaConfig, for fresh weights"}
    )


@register_model("gemo_clap", dataclass=GEmoClapModelConfig)
class GEmoClapModel(UtteranceModel):
    """Utterance encoder and text encoder, each with a projection to the shared space and a temperature.

    The text encoder's settings and tokeniser and the prompts' tokens go into `task.state` as plain values: a
    checkpoint is loaded again without the folder that training started from.
    """

    def __init__(self, cfg: GEmoClapModelConfig, task):
        super().__init__(cfg, task)
        state = task.state.state_dict
        self.text = self.build_text(cfg, state.get("text_encoder"))
        self.prompts: list[list[int]] = state.get("prompts") or self.text.tokenize(task.prompt_texts())
        task.state.merge_state_dict({"text_encoder": self.text.kept, "prompts": self.prompts})
        self.emotion_head = ContrastiveHead(self.pooling.output_dim, cfg.projection_dim)
        self.text_head = ContrastiveHead(self.text.dim, cfg.projection_dim)

    @staticmethod
    def build_text(cfg: GEmoClapModelConfig, kept: dict | None) -> TextEncoder:
        if kept is not None:
            return TextEncoder(**kept)
        if cfg.text_path:
            return TextEncoder.load(cfg.text_path)
        if not cfg.text:
            raise UserError("no text encoder: give model.text_path=ROBERTA, or model.text for fresh weights")
        logger.warning("text encoder from fresh random weights, as model.text describes it: it knows no words")
        return TextEncoder.fresh(OmegaConf.to_container(cfg.text) if OmegaConf.is_config(cfg.text) else dict(cfg.text))

    def use_prompts(self, texts: list[str]) -> None:
        """Recognise other classes: those that these prompts describe."""
        self.prompts = self.text.tokenize(texts)

    def class_embeddings(self) -> Tensor:
        """Of the prompts, each of length 1: `(C, projection_dim)`."""
        return self.text_head(self.text(self.prompts))

    @torch.no_grad()
    def prompt_head(self) -> PromptHead:
        """What recognises the present classes from pooled vectors, without the text encoder."""
        return PromptHead(self.emotion_head, self.class_embeddings())

    def forward(self, source, n_samples=None, ids=None) -> dict:
        """Audio `(B, N)` -> logits `emotion` `(B, C)`, which are scaled cosines; the recordings' `embedding`
        `(B, E)` and the prompts' `classes` `(C, E)`, each of length 1; and `temperatures` `(2,)` of audio and text."""
        embedding, classes = self.emotion_head(self.pool(source, n_samples, ids)), self.class_embeddings()
        temperatures = torch.stack([self.emotion_head.temperature(), self.text_head.temperature()])
        return {
            "emotion": temperatures[0] * embedding @ classes.T,
            "embedding": embedding,
            "classes": classes,
            "temperatures": temperatures,
        }
