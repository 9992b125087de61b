"""Which share of the work is this process's."""

import os

from .errors import UserError

# Rank and number of ranks. srun sets Slurm's; a batch script has SLURM_PROCID and SLURM_NTASKS too, and is alone.
LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))


def rank_and_nshard(rank: int | None = None, nshard: int | None = None, environ=os.environ) -> tuple[int, int]:
    """`(rank, nshard)`: as given, else torchrun's, else those of Slurm's step (srun), else the whole work `(0, 1)`.

    Raises `UserError` for one without the other, and for ranks outside 0..nshard-1.
    """
    source = "--rank and --nshard"
    if (rank is None) != (nshard is None):
        raise UserError("--rank and --nshard go together, as in --nshard 8 --rank 0 (ranks count from 0)")
    if rank is None:
        for names in LAUNCHERS:
            if all(name in environ for name in names):
                source = " and ".join(names)
                rank, nshard = (int(environ[name]) for name in names)
                break
        else:
            return 0, 1
    if not 0 <= rank < nshard:
        raise UserError(f"{source}: rank {rank} of {nshard}; expected 0 <= rank < nshard")
    return rank, nshard


def share(total: int, rank: int, nshard: int) -> range:
    """Items of one rank, consecutive: the division of fairseq's simple_kmeans (`get_shard_range`).

    Empty where there are more ranks than items.
    """
    return range(round(total / nshard * rank), round(total / nshard * (rank + 1)))


def local_device(device: str, environ=os.environ) -> str:
    """`cuda` as this process's own GPU where a launcher started several on a machine."""
    local = environ.get("LOCAL_RANK", environ.get("SLURM_LOCALID"))
    if device != "cuda" or local is None:
        return device
    import torch

    return f"cuda:{int(local) % torch.cuda.device_count()}"


def default_workers(device: str) -> int:
    """`OMP_NUM_THREADS` if set, else the CPU cores that this process may use; 1 beside a GPU, which it keeps busy."""
    if device != "cpu":
        return 1
    limit = int(os.environ.get("OMP_NUM_THREADS") or 0)  # torchrun's, Snakemake's, or the user's
    if hasattr(os, "sched_getaffinity"):
        return limit or len(os.sched_getaffinity(0))
    return limit or os.cpu_count() or 1
