"""What a stage was trained with: of fairseq's configuration, what decides the course of the training.

Two runs of one experiment differ in their paths and their seed only. Here is what must be equal.
"""

import hashlib
import json
from pathlib import Path

from .hubert.checkpoint import read_checkpoint

SECTIONS = ("task", "model", "criterion", "optimization", "optimizer", "lr_scheduler", "dataset")
MORE = {
    "common": ("fp16", "bf16", "memory_efficient_fp16", "memory_efficient_bf16"),
    "distributed_training": ("distributed_world_size",),
    "checkpoint": ("best_checkpoint_metric", "maximize_best_checkpoint_metric"),
}
RUN = ("data", "label_dir", "save_dir", "tensorboard_logdir", "seed")  # a run's own
MACHINE = (
    "num_workers", "distributed_rank", "cache_gb", "conv_cache_gb", "conv_cache_dir", "reuse_dataloader",
    "persistent_workers",
)  # fmt: skip


def training_config(cfg) -> dict:
    """The sections of a checkpoint's `cfg` that say how it was trained, as plain values."""
    cfg = plain(cfg)
    sections = {name: cfg[name] for name in SECTIONS if cfg.get(name) is not None}
    return sections | {name: {key: cfg[name].get(key) for key in keys} for name, keys in MORE.items() if cfg.get(name)}


def settings(config: dict) -> dict[str, object]:
    """`SECTION.FIELD: value` of a `training_config`, without a run's paths and seed, and without the machine's."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": v for key, v in settings(value).items()}
        elif name == "hubert_path":
            flat[name] = "given" if value else None  # every run has its own, or none has one
        elif name not in RUN + MACHINE:
            flat[name] = value
    return flat


def fingerprint(config: dict) -> str:
    """Hex digest of the `settings`: equal for all folds and seeds of one experiment."""
    return hashlib.sha256(json.dumps(settings(config), sort_keys=True).encode()).hexdigest()


def differences(config: dict, other: dict) -> list[str]:
    """In words, the settings of `config` that are not those of `other`."""
    a, b = settings(config), settings(other)
    return [
        f"{key} is {json.dumps(a[key]) if key in a else 'absent'}, not {json.dumps(b[key]) if key in b else 'absent'}"
        for key in sorted(a.keys() | b.keys())
        if (key in a, a.get(key)) != (key in b, b.get(key))
    ]


def read_training_config(folder) -> dict | None:
    """The `training_config` of a stage's folder, from its checkpoint; None if there is none any more."""
    for name in ("checkpoint_last.pt", "checkpoint_best.pt"):
        if (Path(folder) / name).is_file():
            return training_config(read_checkpoint(Path(folder) / name, mmap=True)["cfg"])
    return None


def other_start(cfg) -> str | None:
    """The setting by which fairseq takes all weights from a file outside of `save_dir`, as
    `checkpoint.continue_once=PATH`; None without one. It does not read there what they have seen."""
    checkpoint = plain(cfg.get("checkpoint") or {})
    given = {key: checkpoint.get(key) for key in ("finetune_from_model", "continue_once", "restore_file")}
    return next((f"checkpoint.{k}={v}" for k, v in given.items() if v and v != "checkpoint_last.pt"), None)


def plain(cfg) -> dict:
    """A configuration, or a section of one, as plain values."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else dict(cfg)
