"""Plain torch modules: no fairseq, no files."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """bf16 and fp16 to float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
