"""Training checkpoints that are whole or absent, and a restart that finds the newest whole one."""

import logging
import os
import shutil
from pathlib import Path

from fairseq import checkpoint_utils
from fairseq.file_io import PathManager

from .errors import UserError
from .files import atomic_path
from .hubert.checkpoint import read_checkpoint
from .manifest import Manifest

logger = logging.getLogger(__name__)


class AtomicPathManager(PathManager):
    """fairseq's file access as its checkpoint code uses it, with every file flushed and renamed.

    fairseq 0.12.3 saves one checkpoint under a temporary name, but copies it onto
    `checkpoint_last.pt`: a kill in between leaves a file that no restart can read.
    """

    @staticmethod
    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        with atomic_path(dst_path) as temporary:
            shutil.copyfile(src_path, temporary)
        return True

    @staticmethod
    def rename(src: str, dst: str) -> None:
        with open(src, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(src, dst)


def write_atomically() -> None:
    """Let fairseq's trainer write its checkpoints through `AtomicPathManager`, in this process."""
    checkpoint_utils.PathManager = AtomicPathManager


def ensure_readable(save_dir, stage: str, train: Manifest | None = None, split: str = "train") -> None:
    """Make sure that a restart in `save_dir` finds a whole `checkpoint_last.pt` of this stage, or none.

    Parts of files that a kill has left are removed. A damaged one is set aside, and the newest whole
    checkpoint beside it takes its place. Raises `UserError` if there is none, or if the checkpoint is
    another stage's or was trained on other recordings than `train`, the manifest of `split`: going on
    from another fold's would bring its test part into training.
    """
    last = Path(save_dir) / "checkpoint_last.pt"
    for pattern in ("checkpoint*.pt.tmp", ".checkpoint*.pt.*.tmp"):
        for part in last.parent.glob(pattern):
            part.unlink(missing_ok=True)
    if not last.exists():
        return
    try:
        state = read_checkpoint(last)
    except UserError as error:
        _replace(last, stage, str(error))
        state = read_checkpoint(last)
    found = _stage(state)
    if found != stage:
        raise UserError(
            f"{last} is a checkpoint of {found or 'no stage of ours'}, not of {stage}; give another "
            "checkpoint.save_dir, or remove it"
        )
    trained = [e["utterances"] for e in _provenance(state) if (e["stage"], e["split"]) == (stage, split)]
    if train is not None and trained and trained[-1] != list(train.paths):
        raise UserError(
            f"{last} was trained on other recordings ({len(trained[-1])}) than {train.file} lists ({len(train)}), "
            "perhaps another fold's; give another checkpoint.save_dir, or remove it"
        )


def so_far(save_dir) -> tuple[int, dict]:
    """Updates of `checkpoint_last.pt` in `save_dir`, and its task's state; 0 and nothing without one."""
    last = Path(save_dir) / "checkpoint_last.pt"
    if not last.exists():
        return 0, {}
    state = read_checkpoint(last)
    return _updates(state), _task_state(state)


def _replace(last: Path, stage: str, reason: str) -> None:
    readable = {}
    for path in last.parent.glob("checkpoint*.pt"):
        try:
            state = read_checkpoint(path)
        except UserError:
            continue
        if _stage(state) == stage:
            readable[_updates(state)] = path
    if not readable:
        raise UserError(f"{reason}; nor can any other checkpoint in {last.parent}: remove the folder to start afresh")
    newest = readable[max(readable)]
    last.rename(last.with_suffix(".pt.damaged"))  # kept, as someone may want to look at it
    AtomicPathManager.copy(str(newest), str(last))
    logger.warning(f"{reason}. Going on from {newest}, update {max(readable)}")


def _stage(state: dict) -> str | None:
    return ((state.get("cfg") or {}).get("task") or {}).get("_name")


def _task_state(state: dict) -> dict:
    return state.get("task_state") or {}


def _provenance(state: dict) -> list[dict]:
    return _task_state(state).get("provenance", [])


def _updates(state: dict) -> int:
    return state["optimizer_history"][-1]["num_updates"]
