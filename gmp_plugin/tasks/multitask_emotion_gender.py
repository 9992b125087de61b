"""Stage 1: emotion and gender of an utterance (paper, section 3.1)."""

from dataclasses import dataclass

from fairseq.tasks import register_task

from .speech_task import SpeechTask, SpeechTaskConfig


@dataclass
class MultitaskEmotionGenderConfig(SpeechTaskConfig):
    pass


@register_task("multitask_emotion_gender", dataclass=MultitaskEmotionGenderConfig)
class MultitaskEmotionGenderTask(SpeechTask):
    stage = "multitask_emotion_gender"

    def targets(self, split, manifest):
        return {"class_labels": self.class_labels(split, manifest, ("emotion", "gender"))}
