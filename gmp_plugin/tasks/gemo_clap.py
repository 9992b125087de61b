"""GEmo-CLAP: emotion of an utterance by contrast with prompts, with its gender in the targets."""

import logging
from dataclasses import dataclass, field
from typing import Any

from fairseq.tasks import register_task

from ..text_encoder import prompt_texts
from .utterance_task import UtteranceTask, UtteranceTaskConfig

logger = logging.getLogger(__name__)


@dataclass
class GEmoClapConfig(UtteranceTaskConfig):
    prompt: str = field(default="emotion is {}", metadata={"help": "text of a class; {} stands for its name"})
    prompts: Any = field(default=None, metadata={"help": "whole texts of some classes, as {angry: emotion is anger}"})


@register_task("gemo_clap", dataclass=GEmoClapConfig)
class GEmoClapTask(UtteranceTask):
    stage = "gemo_clap"
    kinds = ("emotion", "gender")
    batch_remedy = ""  # the recordings of a batch are compared: of a smaller one the loss is another

    def prompt_texts(self) -> list[str]:
        """The prompts of the emotions, in the order of their numbers."""
        unused = sorted(set(self.cfg.prompts or ()) - set(self.names("emotion")))
        if unused:
            logger.warning(
                f"task.prompts: {', '.join(unused)}: no class here, which are {', '.join(self.names('emotion'))}"
            )
        return prompt_texts(self.names("emotion"), self.cfg.prompt, self.cfg.prompts)

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False, **kwargs):
        # A rank that has run out of batches repeats one for company; it must not be among those compared.
        sample = {**sample, "left_out": ignore_grad}
        return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad, **kwargs)
