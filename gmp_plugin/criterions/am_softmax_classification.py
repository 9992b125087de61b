"""Stage 3's criterion: the model's emotion loss, AM-softmax (paper, eq. 2 and 3) or cross-entropy."""

from dataclasses import dataclass, field

from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass

from .multitask_emotion_gender import reduce_utterance_metrics, utterance_loss


@dataclass
class AMSoftmaxClassificationCriterionConfig(FairseqDataclass):
    class_weights: ChoiceEnum(["none", "balanced"]) = field(
        default="none", metadata={"help": "balanced: weigh an emotion by the inverse of its share in training"}
    )


@register_criterion("am_softmax_classification", dataclass=AMSoftmaxClassificationCriterionConfig)
class AMSoftmaxClassificationCriterion(FairseqCriterion):
    def __init__(self, task, class_weights: str):
        super().__init__(task)
        self.class_weights = class_weights

    def forward(self, model, sample, reduce=True):
        """Loss in nats summed over the batch, number of utterances, and what to log."""
        balanced = self.training and self.class_weights == "balanced"
        return utterance_loss(self.task, model, sample, {"emotion": 1.0}, balanced)

    @staticmethod
    def reduce_metrics(logging_outputs) -> None:
        reduce_utterance_metrics(logging_outputs, ("emotion",))

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True
