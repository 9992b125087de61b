"""GEmo-CLAP's criterion: recordings and prompts of a batch against each other; classes in validation."""

from dataclasses import dataclass, field
from typing import Optional

import torch
import torch.nn.functional as F
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from torch import Tensor

from ..errors import UserError, exit_with_message
from ..modules.contrastive import TARGET_NORMS, VARIANTS, agreement, gemo_clap_loss
from ..modules.gather import gather_rows
from .confusion import count_log
from .multitask_emotion_gender import reduce_utterance_metrics

ALPHA = {"sl": 0.8, "ml": 0.9}


@dataclass
class GEmoClapCriterionConfig(FairseqDataclass):
    variant: ChoiceEnum(list(VARIANTS)) = field(
        default="sl", metadata={"help": "sl: one soft target of emotion and gender; ml: a loss for each"}
    )
    alpha: Optional[float] = field(
        default=None, metadata={"help": "share of the emotion, 0 to 1; 0.8 for sl and 0.9 for ml when unset"}
    )
    target_norm: ChoiceEnum(list(TARGET_NORMS)) = field(
        default="softmax", metadata={"help": "how agreements become distributions: softmax, or l1 (their share)"}
    )


@register_criterion("gemo_clap", dataclass=GEmoClapCriterionConfig)
class GEmoClapCriterion(FairseqCriterion):
    """In training the contrastive loss, over the recordings of all ranks.

    In validation the cross-entropy of the emotion among the prompts, also logged as `loss_emotion` in training: it does
    not depend on which recordings happen to be in a batch.
    """

    def __init__(self, task, variant: str, alpha: float | None, target_norm: str):
        super().__init__(task)
        self.variant, self.target_norm = str(variant), str(target_norm)
        self.alpha = ALPHA[self.variant] if alpha is None else alpha
        with exit_with_message():
            if not 0 <= self.alpha <= 1:
                raise UserError(f"criterion.alpha={alpha}: expected 0 to 1")

    def forward(self, model, sample, reduce=True):
        """Loss in nats summed over this rank's recordings, their number, and what to log."""
        output = model(**sample["net_input"])
        emotion, n = sample["emotion"], sample["id"].numel()
        of_classes = F.cross_entropy(output["emotion"], emotion, reduction="sum")
        loss = self.contrast(output, sample) if self.training else of_classes
        log = {"ntokens": sample["ntokens"], "nsentences": n, "sample_size": n}
        log |= {"loss": loss.item(), "loss_emotion": of_classes.item()}
        log |= count_log("emotion", self.task.names("emotion"), emotion, output["emotion"].argmax(-1))
        return loss, n, log

    def contrast(self, output: dict, sample: dict) -> Tensor:
        """Of this rank's recordings and their prompts with those of all ranks; 0 for a batch that is left out."""
        kept = slice(0, 0) if sample.get("left_out") else slice(None)
        labels = torch.stack([sample["emotion"], sample["gender"]], 1)[kept]
        texts = output["classes"][labels[:, 0]]
        # One tensor, so that the ranks gather in one step each way.
        everything, own = gather_rows(torch.cat([output["embedding"][kept], texts], 1))
        audio, texts = everything.chunk(2, 1)
        audio_logits, text_logits = (
            temperature * cosines
            for temperature, cosines in zip(
                output["temperatures"], (audio[own] @ texts.T, texts[own] @ audio.T), strict=True
            )
        )
        labels, _ = gather_rows(labels)
        same_emotion, same_gender = (agreement(kind[own], kind) for kind in labels.T)
        return gemo_clap_loss(
            audio_logits, text_logits, same_emotion, same_gender, self.variant, self.alpha, self.target_norm
        )

    @staticmethod
    def reduce_metrics(logging_outputs) -> None:
        reduce_utterance_metrics(logging_outputs, ("emotion",))

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True
