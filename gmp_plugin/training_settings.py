"""Settings with which fairseq trains nothing, or never ends: one message, before anything starts.

fairseq 0.12.3 ends most of them with exit status 0, some before it loads a plugin. So they are looked at by a
callback of hydra, which the stages' configurations name.
"""

import logging
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import torch
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.models import MODEL_DATACLASS_REGISTRY
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from hydra.experimental.callback import Callback
from omegaconf import OmegaConf

from .errors import UserError, exit_with_message
from .hubert.checkpoint import read_checkpoint
from .training_config import other_start, plain

# What makes a run another one, by section; None stands for all.
IDENTITY = {
    "common": {"seed"},
    "model": None,
    "criterion": None,
    "task": {"labels", "label_dir", "balanced_sampling", "random_crop", "prompt", "prompts"},
}
MEMORY = {"checkpoint_activations"}  # changes no result

logger = logging.getLogger(__name__)


class CheckSettings(Callback):
    """`hydra.callbacks`: `check_settings` in the process that the user started, before fairseq starts others."""

    def on_job_start(self, config, **kwargs) -> None:
        with exit_with_message():
            check_user_dir(OmegaConf.select(config, "common.user_dir"))
            check_settings(config, torch.cuda.device_count(), os.environ)
            check_gpus(OmegaConf.select(config, "common.cpu"), torch.cuda.device_count(), os.environ)
            check_restart(config)
        # fairseq imports a user_dir's tasks only together with the package, which hydra has imported for this class.
        from . import tasks  # noqa: F401


def check_user_dir(user_dir: str | None) -> None:
    """Raise `UserError` if `common.user_dir` is another copy than the one that Python imports."""
    here = Path(__file__).parent
    if user_dir and Path(user_dir).resolve() != here:
        raise UserError(
            f"common.user_dir={user_dir}, but Python imports gmp_plugin from {here}: give that folder, or install the "
            "other copy (make setup)"
        )


def check_restart(config) -> None:
    """Raise `UserError` if `checkpoint_last.pt` in `checkpoint.save_dir` is of another run than this.

    fairseq would go on from its weights, or end as everything is done already, and leave a model of other settings than
    were asked for. Lengths, batches and learning rates may change, and folders that have been moved.
    """
    last = Path(OmegaConf.select(config, "checkpoint.save_dir") or "") / "checkpoint_last.pt"
    if not last.is_file():
        return
    try:
        before = read_checkpoint(last, mmap=True).get("cfg") or {}
    except UserError:
        return  # a damaged one is set aside later
    changed = []
    for section, keys in IDENTITY.items():
        now, then = (plain(cfg.get(section) or {}) for cfg in (config, before))
        now = _defaults(section, now.get("_name")) | now  # which fairseq fills in later
        both = now.keys() & then.keys() & (keys or now.keys())
        changed += [f"{section}.{k}={now[k]}, there {then[k]}" for k in sorted(both) if not _equal(now[k], then[k])]
    if changed:
        raise UserError(
            f"{last} is of a run with other settings ({'; '.join(changed)}); give the same, or another "
            "checkpoint.save_dir, or remove it"
        )


def _defaults(section: str, name: str | None) -> dict:
    """Of a task, model or criterion of that name; without those that are taken from other settings."""
    from . import tasks  # noqa: F401  (registers them)

    registries = {
        "task": TASK_DATACLASS_REGISTRY, "model": MODEL_DATACLASS_REGISTRY, "criterion": CRITERION_DATACLASS_REGISTRY,
    }  # fmt: skip
    known = registries.get(section, {}).get(name)
    defaults = OmegaConf.to_container(OmegaConf.structured(known), enum_to_str=True) if known else {}
    return {key: value for key, value in defaults.items() if not str(value).startswith("${")}


def _equal(now, then) -> bool:
    """As values are written, 3 and 3.0 or a list and a tuple alike; a path also where the old one is there no more."""
    if isinstance(now, dict) and isinstance(then, dict):
        return all(_equal(now.get(key), then.get(key)) for key in (now.keys() | then.keys()) - MEMORY)
    if isinstance(now, list | tuple) and isinstance(then, list | tuple):
        return len(now) == len(then) and all(map(_equal, now, then))
    if isinstance(now, str) and isinstance(then, str) and os.sep in then:
        return os.path.realpath(now) == os.path.realpath(then) or not os.path.exists(then)
    return now == then or str(now) == str(then)


def check_gpus(on_cpu: bool, n_gpus: int, environ: Mapping[str, str]) -> None:
    """Raise `UserError` where there is a GPU that torch cannot use: fairseq would train on the CPU and say little."""
    command = shutil.which("nvidia-smi", path=environ.get("PATH"))
    if on_cpu or n_gpus or environ.get("CUDA_VISIBLE_DEVICES") == "" or not command:
        return
    listed = subprocess.run([command, "-L"], capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout.strip():
        raise UserError(
            f"torch {torch.__version__} cannot use the GPU of this machine ({listed.stdout.splitlines()[0].strip()}): "
            "its driver is too old for it. Install another build (pytorch.org/get-started), or train on the CPU: "
            "common.cpu=true, in the workflow device=cpu"
        )


def check_settings(config, n_gpus: int, environ: Mapping[str, str]) -> None:
    """Raise `UserError` for settings that train nothing.

    Args:
        config: fairseq's configuration, an omegaconf one or nested dicts.
        n_gpus: GPUs that this process sees.
        environ: environment variables, of torchrun among them.
    """
    config = OmegaConf.create(config)

    def of(name: str, default=None):
        value = OmegaConf.select(config, name)
        return default if value is None else value

    _check_processes(of, n_gpus, environ)
    _check_length(of)
    _check_batches(of)
    if of("common.amp", False):
        raise UserError(
            "common.amp=true: fairseq's AMP divides the gradients by the loss scale twice; give common.bf16=true"
        )
    frozen = of("model.freeze_finetune_updates", 0)
    if frozen and of("common.fp16", False) and not of("common.fp16_no_flatten_grads", False):
        raise UserError(
            f"model.freeze_finetune_updates={frozen} with common.fp16=true: fairseq trains one flat copy of all "
            "weights, so that Adam counts the updates of the head as HuBERT's; give common.bf16=true, or "
            "common.fp16_no_flatten_grads=true"
        )
    if start := other_start(config):
        raise UserError(
            f"{start}: fairseq takes the weights without the list of recordings that they have seen, and the leak "
            "audit would miss them; give the checkpoint as model.hubert_path, or, to go on with a training, its folder "
            "as checkpoint.save_dir"
        )
    for name in ("memory_efficient_bf16", "memory_efficient_fp16"):
        if of(f"common.{name}", False):
            raise UserError(f"common.{name}=true: fused_adam keeps float32 weights; give common.bf16=true in its place")
    backend = of("distributed_training.ddp_backend", "legacy_ddp")
    several = of("distributed_training.distributed_world_size", 1) > 1
    if several and of("task._name") == "multiscale_label_pretraining" and backend not in ("legacy_ddp", "no_c10d"):
        raise UserError(
            f"distributed_training.ddp_backend={backend} cannot train stage 2, whose heads come after the model's "
            "forward; give legacy_ddp"
        )
    if of("common.suppress_crashes", False):
        raise UserError("common.suppress_crashes=true ends a failed run as if it had trained; leave it out")
    if of("checkpoint.write_checkpoints_asynchronously", False):
        raise UserError(
            "checkpoint.write_checkpoints_asynchronously=true leaves parts of files after a kill, and without iopath "
            "fairseq ends before it trains; leave it out"
        )


def _check_processes(of, n_gpus: int, environ: Mapping[str, str]) -> None:
    world = of("distributed_training.distributed_world_size", 1)
    method = of("distributed_training.distributed_init_method")
    if world < 1:
        raise UserError(f"distributed_training.distributed_world_size={world} starts no process; give 1 or more")
    by_torchrun = "TORCHELASTIC_RUN_ID" in environ
    if by_torchrun and world == 1 and int(environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError(
            f"torchrun started {environ['WORLD_SIZE']} processes, and each of them would train alone, into one folder: "
            f"give distributed_training.distributed_world_size={environ['WORLD_SIZE']}, or +parallel=cpu"
        )
    starts_processes = not of("distributed_training.distributed_no_spawn", False) and not of("common.tpu", False)
    if n_gpus == 0 and starts_processes and (world > 1 or method is not None):
        raise UserError(
            f"distributed_training.distributed_world_size={world}: fairseq starts a process per GPU, and there is no "
            "GPU here; for processes on the CPU: torchrun --standalone --nproc_per_node N --no-python "
            "fairseq-hydra-train ... +parallel=cpu"
        )
    by_others = "MASTER_ADDR" in environ or of("distributed_training.distributed_port", -1) > 0  # torchrun, Slurm
    if 0 < n_gpus < world and starts_processes and method is None and not by_others:
        raise UserError(
            f"distributed_training.distributed_world_size={world}: fairseq starts a process per GPU, and this one "
            f"sees {n_gpus}; give at most as many. A job of the workflow has one; GPUS={world} runs so many at once"
        )


def _check_length(of) -> None:
    updates, epochs = of("optimization.max_update", 0), of("optimization.max_epoch", 0)
    for name, value in (("max_update", updates), ("max_epoch", epochs)):
        if value < 0:
            raise UserError(f"optimization.{name}={value} trains nothing; give a positive number")
    if updates == epochs == 0:
        raise UserError("optimization.max_update=0 without optimization.max_epoch never ends; give one of them")
    rates, warmup = list(of("optimization.lr", [])), of("lr_scheduler.warmup_updates", 0)
    if not rates or max(rates) <= 0:
        raise UserError(f"optimization.lr={rates} trains nothing; give a positive learning rate, as [1e-4]")
    decays = of("lr_scheduler._name") == "polynomial_decay"
    if decays and updates == 0:
        raise UserError(
            "optimization.max_update=0: by polynomial_decay the learning rate falls until max_update; give it"
        )
    if decays and warmup >= updates:
        logger.warning(
            f"lr_scheduler.warmup_updates={warmup} of optimization.max_update={updates}: the learning rate rises to "
            f"the end; a tenth would be {updates // 10}"
        )
    first = 0.0 if decays and warmup else rates[0] / max(warmup, 1)
    least = of("optimization.stop_min_lr", -1.0)
    if first <= least:
        raise UserError(
            f"optimization.stop_min_lr={least} ends the training at its start, where the learning rate is {first:g}; "
            "give less"
        )


def _check_batches(of) -> None:
    frequency = list(of("optimization.update_freq", [1]))
    if not frequency or min(frequency) < 1:
        raise UserError(f"optimization.update_freq={frequency}: expected batches per update, as [1] or [4]")
    sizes = {
        name: of(f"dataset.{name}") for name in ("batch_size", "max_tokens", "batch_size_valid", "max_tokens_valid")
    }
    if sizes["batch_size"] is None and sizes["max_tokens"] is None:
        raise UserError("neither dataset.batch_size (utterances) nor dataset.max_tokens (samples) is given")
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise UserError(f"dataset.{name}={size}: expected a positive number")
