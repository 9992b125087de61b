"""What stages 1 and 3 share: utterances with classes."""

from dataclasses import dataclass, field

from .speech_task import SpeechTask, SpeechTaskConfig


@dataclass
class UtteranceTaskConfig(SpeechTaskConfig):
    balanced_sampling: bool = field(
        default=False, metadata={"help": "draw every emotion equally often in an epoch, rare ones repeatedly"}
    )


class UtteranceTask(SpeechTask):
    """A task whose targets are classes of the utterances; `kinds` names them, as their files end."""

    kinds: tuple[str, ...]

    def targets(self, split, manifest):
        labels = self.class_labels(split, manifest, self.kinds)
        balanced = labels["emotion"] if self.cfg.balanced_sampling and self.trains_on(split) else None
        return {"class_labels": labels, "balance": balanced}
