"""Stage 3: emotion of an utterance, with AM-softmax (paper, section 3.3)."""

from dataclasses import dataclass

from fairseq.tasks import register_task

from .speech_task import SpeechTask, SpeechTaskConfig


@dataclass
class AMSoftmaxClassificationConfig(SpeechTaskConfig):
    pass


@register_task("am_softmax_classification", dataclass=AMSoftmaxClassificationConfig)
class AMSoftmaxClassificationTask(SpeechTask):
    stage = "am_softmax_classification"

    def targets(self, split, manifest):
        return {"class_labels": self.class_labels(split, manifest, ("emotion",))}
