"""What the three stages' tasks share: manifests, state that travels in checkpoints, figures."""

import functools
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np
import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.tasks import FairseqTask
from omegaconf import II

from .. import frames, provenance
from ..checkpoint_files import ensure_readable, so_far, write_atomically
from ..data.read_ahead import stop_at_exit
from ..data.speech_dataset import SpeechDataset
from ..errors import UserError, exit_with_message
from ..hubert.conv_cache import ConvCache
from ..manifest import Manifest, read_dictionary, read_utterance_labels
from ..plots import confusion_figure

logger = logging.getLogger(__name__)


@dataclass
class SpeechTaskConfig(FairseqDataclass):
    data: Optional[str] = field(default=None, metadata={"help": "folder of one fold, as make_manifest.py writes it"})
    max_sample_size: Optional[int] = field(
        default=None, metadata={"help": "crop longer recordings to this many samples (whole utterances when unset)"}
    )
    random_crop: bool = field(default=True, metadata={"help": "crop training parts at random, else at the start"})
    cache_gb: float = field(
        default=2.0, metadata={"help": "keep the decoded audio of a split in memory, if it is not more than this"}
    )
    conv_cache_gb: float = field(
        default=3.0, metadata={"help": "keep the features of frozen convolutions in memory, up to this size"}
    )
    conv_cache_dir: Optional[str] = field(
        default=None, metadata={"help": "keep them on disk as well, in this folder, for other folds, seeds and runs"}
    )
    seed: int = II("common.seed")
    tensorboard_logdir: Optional[str] = II("common.tensorboard_logdir")
    save_dir: str = II("checkpoint.save_dir")
    max_update: int = II("optimization.max_update")
    train_subset: str = II("dataset.train_subset")
    max_tokens: Optional[int] = II("dataset.max_tokens")
    max_tokens_valid: Optional[int] = II("dataset.max_tokens_valid")
    # Names that fairseq's `get_batch_iterator` looks for. Workers that outlive an epoch would keep
    # an old epoch number, and a resumed run would then see other crops than an undisturbed one.
    reuse_dataloader: bool = field(default=False, metadata={"help": "keep the data loader over epochs"})
    persistent_workers: bool = field(default=False, metadata={"help": "keep the loader's workers over epochs"})
    rebuild_batches: bool = field(default=True, metadata={"help": "put batches together anew in every epoch"})


class SpeechTask(FairseqTask):
    """A task over the manifests of one fold.

    `state`, which fairseq keeps in every checkpoint, holds plain values only, so that checkpoints
    load safely: class names, the backbone's settings (`hubert`), the provenance, and at how many dB
    silence was cut (`trim_silence_db`, None for not at all).
    """

    stage: str  # registered name
    batch_remedy = (  # where memory is not enough
        "a smaller dataset.batch_size and as many times more in optimization.update_freq, as dataset.batch_size=4 "
        "optimization.update_freq=[16]; or "
    )

    def __init__(self, cfg):
        super().__init__(cfg)
        self.state.add_factory("provenance", list)
        self.figure_writer = None

    @classmethod
    def setup_task(cls, cfg, from_checkpoint: bool = False, **kwargs):
        if not from_checkpoint:  # training, not the loading of a finished model
            write_atomically()
            stop_at_exit()
            with exit_with_message():
                train = Path(cfg.data or "") / f"{cfg.train_subset}.tsv"
                if rank() == 0:
                    manifest = Manifest.read(train) if train.exists() else None
                    ensure_readable(cfg.save_dir, cls.stage, manifest, cfg.train_subset)
            if torch.distributed.is_initialized():
                torch.distributed.barrier()
            updates, before = so_far(cfg.save_dir)
            seen = before.get("provenance", [])
            with exit_with_message():
                cls.check_course(cfg, before)
            if 0 < cfg.max_update <= updates:
                # fairseq would train one more update before it looks.
                logger.info(f"{cfg.save_dir}: all {updates} updates are done already (optimization.max_update)")
                raise SystemExit(0)
            task = cls(cfg)
            task.add_provenance(*seen)  # fairseq takes up the weights alone, and these have seen all that
            return task
        return cls(cfg)

    @classmethod
    def check_course(cls, cfg, before: dict) -> None:
        """Raise `UserError` if a checkpoint with `before` as its task's state cannot be trained on; {} is none."""

    def folder(self) -> Path:
        if not self.cfg.data:
            raise UserError("task.data is not set: give the folder of one fold, as make_manifest.py writes it")
        folder = Path(self.cfg.data)
        if not folder.is_dir():
            raise UserError(f"task.data={folder} is no folder; make it with manifest_tools/make_manifest.py")
        return folder

    def names(self, kind: str) -> list[str]:
        """Class names of `emotion` or `gender`; the position is the class number."""
        if kind not in self.state.state_dict:
            self.state.merge_state_dict({kind: read_dictionary(self.folder() / f"dict.{kind}.txt")})
        return self.state.state_dict[kind]

    def class_labels(self, split: str, manifest: Manifest, kinds) -> dict:
        folder = self.folder()
        return {
            kind: read_utterance_labels(
                folder / f"{split}.{kind}", manifest, self.names(kind), folder / f"dict.{kind}.txt"
            )
            for kind in kinds
        }

    @functools.cache  # noqa: B019  (a task lives as long as its process)
    def balanced_weights(self, kind: str) -> torch.Tensor:
        """Weight of each class, `(C,)`: N / (C n_c) over the training part, so that the mean weight is 1."""
        train = self.cfg.train_subset
        labels = self.class_labels(train, Manifest.read(self.folder() / f"{train}.tsv"), (kind,))[kind]
        counts = np.bincount(labels, minlength=len(self.names(kind)))
        return torch.tensor(len(labels) / (len(counts) * np.maximum(counts, 1)), dtype=torch.float32)

    def add_provenance(self, *entries: dict) -> None:
        self.state.merge_state_dict({"provenance": provenance.merge(self.state.provenance, entries)})

    def load_dataset(self, split: str, combine: bool = False, **kwargs) -> None:
        with exit_with_message():
            manifest = Manifest.read(self.folder() / f"{split}.tsv")
            trains = self.trains_on(split)
            self.datasets[split] = SpeechDataset(
                manifest,
                max_sample_size=self.cfg.max_sample_size,
                random_crop=self.cfg.random_crop and trains,
                shuffle=trains,
                seed=self.cfg.seed,
                cache_bytes=int(self.cfg.cache_gb * 1e9),
                **self.targets(split, manifest),
            )
            name = "max_tokens" if trains else "max_tokens_valid"
            if limit := self.cfg[name]:
                check_longest(self.datasets[split], limit, f"dataset.{name}")
            self.add_provenance(provenance.entry(self.stage, split, manifest))

    def trains_on(self, split: str) -> bool:
        return split == self.cfg.train_subset

    def targets(self, split: str, manifest: Manifest) -> dict:
        """The targets of a split, as arguments of `SpeechDataset`."""
        raise NotImplementedError

    def build_model(self, cfg, from_checkpoint: bool = False):
        with exit_with_message():
            model = super().build_model(cfg, from_checkpoint)
        if model.hubert.frozen and not from_checkpoint:
            model.hubert.conv_cache = self.conv_cache()
        return model

    def conv_cache(self) -> ConvCache | None:
        """What training remembers of frozen convolutions; None if nothing."""
        size, folder, longest = self.cfg.conv_cache_gb, self.cfg.conv_cache_dir, self.cfg.max_sample_size
        if size <= 0 and not folder:
            return None
        logger.info(
            f"features of the frozen convolutions are computed once and kept: up to {size} GB in memory"
            + (f", all in {folder}" if folder else "")
        )
        crops_from = frames.n_samples(frames.n_frames(longest)) if longest and self.cfg.random_crop else None
        return ConvCache(int(size * 1e9), folder, shorter_than=crops_from)

    def get_batch_iterator(self, dataset, *args, num_shards: int = 1, **kwargs):
        if dataset.shuffle:  # of validation every batch is counted by itself
            dataset.n_ranks = num_shards
        return super().get_batch_iterator(dataset, *args, num_shards=num_shards, **kwargs)

    def train_step(self, sample, *args, **kwargs):
        self.check_read(sample)
        try:
            return super().train_step(sample, *args, **kwargs)
        except RuntimeError as error:
            if "out of memory" not in str(error):
                raise
            # fairseq would leave the batch out and go on: training without the longest recordings, and say nothing.
            raise SystemExit(f"error: {out_of_memory(sample, self.batch_remedy)}") from None

    def valid_step(self, sample, *args, **kwargs):
        self.check_read(sample)
        return super().valid_step(sample, *args, **kwargs)

    @staticmethod
    def check_read(sample: dict) -> None:
        with exit_with_message():
            if "error" in sample:
                raise UserError(sample["error"])

    def max_positions(self) -> None:
        return None

    @property
    def target_dictionary(self) -> None:
        return None

    def post_validate(self, model, stats: dict, agg: dict) -> None:
        """Put the confusion matrix of the emotions into TensorBoard, on rank 0."""
        if not self.cfg.tensorboard_logdir or rank() > 0:
            return
        names = self.state.state_dict.get("emotion")
        if not names or f"_emotion:{names[0]}:{names[0]}" not in agg:
            return
        if self.figure_writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.figure_writer = SummaryWriter(str(Path(self.cfg.tensorboard_logdir) / "valid"))
        counts = [[int(agg[f"_emotion:{truth}:{predicted}"].sum) for predicted in names] for truth in names]
        self.figure_writer.add_figure("confusion/emotion", confusion_figure(counts, names), stats["num_updates"])
        self.figure_writer.flush()


def check_longest(dataset: SpeechDataset, limit: int, name: str) -> None:
    """Raise `UserError` for a recording that no batch of `limit` samples holds: fairseq would train without it."""
    longest = max(np.flatnonzero(dataset.long_enough), key=dataset.num_tokens)
    n = dataset.num_tokens(longest)
    if n > limit:
        path, where = dataset.manifest.paths[longest], dataset.manifest.where(longest)
        raise UserError(
            f"{where}: {path} has {n} samples, {n / frames.SAMPLE_RATE:.1f} s, which no batch of {name}={limit} "
            f"holds; give at least that many, or crop: task.max_sample_size={limit}"
        )


def out_of_memory(sample: dict, batch_remedy: str) -> str:
    n, longest = len(sample["id"]), sample["net_input"]["source"].size(1) / frames.SAMPLE_RATE
    return (
        f"out of memory with {n} recordings of up to {longest:.1f} s at once; give {batch_remedy}"
        "+model.hubert.checkpoint_activations=true, or common.bf16=true, or task.max_sample_size=160000, 10 s"
    )


def rank() -> int:
    """This process's number among those that train together."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
