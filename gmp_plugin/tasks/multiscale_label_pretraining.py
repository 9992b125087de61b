"""Stage 2: masked prediction of frame labels at several scales (paper, section 3.2)."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import List, Optional

from fairseq.tasks import register_task

from .. import provenance
from ..errors import UserError, exit_with_message
from ..label_check import summarize_labels
from ..label_record import of_other_centroids, of_other_recordings
from ..manifest import FrameLabels, read_km_dictionary
from .speech_task import SpeechTask, SpeechTaskConfig

logger = logging.getLogger(__name__)


@dataclass
class MultiscaleLabelPretrainingConfig(SpeechTaskConfig):
    label_dir: Optional[str] = field(default=None, metadata={"help": "folder of the .km files; task.data when unset"})
    labels: List[str] = field(
        default_factory=lambda: ["64.km", "512.km", "4096.km"],
        metadata={"help": "label sets by the ends of their file names, as for fairseq's hubert_pretraining"},
    )
    min_sample_size: int = field(default=0, metadata={"help": "leave out recordings with fewer samples"})


@register_task("multiscale_label_pretraining", dataclass=MultiscaleLabelPretrainingConfig)
class MultiscaleLabelPretrainingTask(SpeechTask):
    stage = "multiscale_label_pretraining"

    def __init__(self, cfg):
        super().__init__(cfg)
        self.state.add_factory("scales", self.read_scales)

    @classmethod
    def check_course(cls, cfg, before):
        seen = before.get("provenance", [])
        origin = Path(cfg.label_dir or cfg.data or "") / provenance.FILE
        now = provenance.fitted(provenance.read(origin)) if origin.is_file() else None
        if now and provenance.fitted(seen) and all(e.get("centroids") != now for e in seen):
            raise UserError(
                f"the labels in {origin.parent} are of another k-means than those that "
                f"{cfg.save_dir}/checkpoint_last.pt was trained on; give another checkpoint.save_dir, or remove it"
            )

    def label_dir(self) -> Path:
        return Path(self.cfg.label_dir or self.folder())

    def read_scales(self) -> list[int]:
        """Cluster counts, in the order of `task.labels`."""
        scales = [read_km_dictionary(self.label_dir() / f"dict.{name}.txt") for name in self.cfg.labels]
        if len(set(scales)) != len(scales):
            raise UserError(f"task.labels={list(self.cfg.labels)}: two label sets have the same number of clusters")
        return scales

    @property
    def scales(self) -> list[int]:
        with exit_with_message():
            return self.state.scales

    def targets(self, split, manifest):
        label_dir = self.label_dir()
        if problems := [*of_other_centroids(label_dir), *of_other_recordings(label_dir, split, manifest)]:
            raise UserError(problems[0])
        if (origin := label_dir / provenance.FILE).is_file():
            self.add_provenance(*provenance.read(origin))
        labels = [  # checked while they are read, as check_labels.py does
            FrameLabels.read(label_dir / f"{split}.{name}", manifest, n_clusters)
            for name, n_clusters in zip(self.cfg.labels, self.scales, strict=True)
        ]
        sets = zip(self.cfg.labels, labels, self.scales, strict=True)
        logger.info(f"labels of {split} are in order: {'; '.join(summarize_labels(*one) for one in sets)}")
        return {"frame_labels": labels, "min_sample_size": self.cfg.min_sample_size}
