"""Stage 3: emotion of an utterance, with AM-softmax (paper, section 3.3)."""

from dataclasses import dataclass

from fairseq.tasks import register_task

from .utterance_task import UtteranceTask, UtteranceTaskConfig


@dataclass
class AMSoftmaxClassificationConfig(UtteranceTaskConfig):
    pass


@register_task("am_softmax_classification", dataclass=AMSoftmaxClassificationConfig)
class AMSoftmaxClassificationTask(UtteranceTask):
    stage = "am_softmax_classification"
    kinds = ("emotion",)
