"""What stages 1 and 3 share: utterances with classes."""

from dataclasses import dataclass, field

from ..corpora.audio import trimmed_db
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
        if self.trains_on(split):  # a recogniser has to cut what it hears in the same way
            self.state.merge_state_dict({"trim_silence_db": trimmed_db(manifest.audio_path(0))})
        balanced = labels["emotion"] if self.cfg.balanced_sampling and self.trains_on(split) else None
        return {"class_labels": labels, "balance": balanced}
