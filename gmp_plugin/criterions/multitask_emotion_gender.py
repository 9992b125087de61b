"""Stage 1's criterion (paper, eq. 1): L = alpha L_emotion + (1 - alpha) L_gender."""

import math
from dataclasses import dataclass, field

from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.logging import metrics

from ..errors import UserError, exit_with_message
from .confusion import count_log, reduce_counts


@dataclass
class MultitaskEmotionGenderCriterionConfig(FairseqDataclass):
    class_weights: ChoiceEnum(["none", "balanced"]) = field(
        default="none", metadata={"help": "balanced: weigh an emotion by the inverse of its share in training"}
    )
    alpha: float = field(default=0.9, metadata={"help": "weight of the emotion loss; the gender loss has 1 - alpha"})


@register_criterion("multitask_emotion_gender", dataclass=MultitaskEmotionGenderCriterionConfig)
class MultitaskEmotionGenderCriterion(FairseqCriterion):
    def __init__(self, task, class_weights: str, alpha: float):
        super().__init__(task)
        with exit_with_message():
            if not 0 <= alpha <= 1:
                raise UserError(f"criterion.alpha={alpha}: expected 0 to 1")
        self.class_weights = class_weights
        self.weights = {"emotion": alpha, "gender": 1 - alpha}

    def forward(self, model, sample, reduce=True):
        """Loss in nats summed over the batch, number of utterances, and what to log."""
        balanced = self.training and self.class_weights == "balanced"
        return utterance_loss(self.task, model, sample, self.weights, balanced)

    @staticmethod
    def reduce_metrics(logging_outputs) -> None:
        reduce_utterance_metrics(logging_outputs, ("emotion", "gender"))

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


def utterance_loss(task, model, sample: dict, weights: dict[str, float], balanced: bool = False):
    """Weighted sum of the losses of the kinds of labels in `weights`; `balanced` weighs emotions by class."""
    output = model(**sample["net_input"])
    n = sample["id"].numel()
    class_weights = {"emotion": task.balanced_weights("emotion").to(sample["id"].device)} if balanced else {}
    losses = {kind: model.loss(kind, output[kind], sample[kind], class_weights.get(kind)) for kind in weights}
    loss = sum(weight * losses[kind] for kind, weight in weights.items())
    log = {"loss": loss.item(), "ntokens": sample["ntokens"], "nsentences": n, "sample_size": n}
    for kind, value in losses.items():
        log[f"loss_{kind}"] = value.item()
        log |= count_log(kind, task.names(kind), sample[kind], output[kind].argmax(-1))
    return loss, n, log


def reduce_utterance_metrics(logging_outputs, kinds) -> None:
    """Log losses per utterance in bits, as fairseq does, and the metrics of each kind of label."""
    n = float(sum(log.get("sample_size", 0) for log in logging_outputs))
    for name in ("loss", *(f"loss_{kind}" for kind in kinds)):
        total = float(sum(log.get(name, 0) for log in logging_outputs))
        metrics.log_scalar(name, total / max(n, 1) / math.log(2), n, round=4)
    for kind in kinds:
        reduce_counts(logging_outputs, kind, prefix="" if kind == "emotion" else f"{kind}_")
