"""Stage 1: emotion and gender of an utterance (paper, section 3.1)."""

from dataclasses import dataclass

from fairseq.tasks import register_task

from .utterance_task import UtteranceTask, UtteranceTaskConfig


@dataclass
class MultitaskEmotionGenderConfig(UtteranceTaskConfig):
    pass


@register_task("multitask_emotion_gender", dataclass=MultitaskEmotionGenderConfig)
class MultitaskEmotionGenderTask(UtteranceTask):
    stage = "multitask_emotion_gender"
    kinds = ("emotion", "gender")
