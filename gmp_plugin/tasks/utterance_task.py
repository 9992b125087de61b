"""What stages 1 and 3 share: utterances with classes."""

from dataclasses import dataclass, field
from pathlib import Path

from ..corpora.audio import trimmed_db
from ..errors import UserError
from ..manifest import read_dictionary
from .speech_task import SpeechTask, SpeechTaskConfig


@dataclass
class UtteranceTaskConfig(SpeechTaskConfig):
    balanced_sampling: bool = field(
        default=False, metadata={"help": "draw every emotion equally often in an epoch, rare ones repeatedly"}
    )


class UtteranceTask(SpeechTask):
    """A task whose targets are classes of the utterances; `kinds` names them, as their files end."""

    kinds: tuple[str, ...]

    @classmethod
    def check_course(cls, cfg, before):
        for kind in cls.kinds:
            path = Path(cfg.data or "") / f"dict.{kind}.txt"
            if kind in before and path.is_file() and (now := read_dictionary(path)) != before[kind]:
                raise UserError(
                    f"{path} has the classes {', '.join(now)}, but {cfg.save_dir}/checkpoint_last.pt was trained on "
                    f"{', '.join(before[kind])}; give another checkpoint.save_dir, or remove it"
                )

    def targets(self, split, manifest):
        labels = self.class_labels(split, manifest, self.kinds)
        if self.trains_on(split):  # a recogniser has to cut what it hears in the same way
            self.state.merge_state_dict({"trim_silence_db": trimmed_db(manifest.audio_path(0))})
        balanced = labels["emotion"] if self.cfg.balanced_sampling and self.trains_on(split) else None
        return {"class_labels": labels, "balance": balanced}
