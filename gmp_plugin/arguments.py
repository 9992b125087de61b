"""Checks of command-line values that several tools take."""

import torch

from .errors import UserError

MAX_SEED = 2**32 - 1  # numpy's and scikit-learn's limit


def check_seed(seed: int) -> int:
    """The seed; `UserError` for one that some random generator refuses."""
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"--seed {seed}: expected 0 or more" + (f", at most {MAX_SEED}" if seed > 0 else ""))
    return seed


def check_device(device: str) -> str:
    """`cpu`, `cuda` or `cuda:N`; `UserError` for others, and for a GPU that is not there."""
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise UserError(f"--device {device}: expected cpu, cuda or cuda:N")
    if found.type == "cpu":
        return "cpu"
    count = torch.cuda.device_count()
    if count == 0:
        raise UserError(f"--device {device}: torch {torch.__version__} finds no GPU here; give --device cpu")
    if found.index is not None and found.index >= count:
        raise UserError(f"--device {device}: torch finds {count} GPUs here; give cuda:0 to cuda:{count - 1}")
    return device
