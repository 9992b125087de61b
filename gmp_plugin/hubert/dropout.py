"""Dropout in training on CPUs, where drawing the masks costs more than everything else that dropout does."""

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 2**16  # what one random number of 16 bits can tell apart


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """`F.dropout`; on CPUs with p rounded to 1 / 65536, four masks a random number of 64 bits.

    torch draws a mask from each number there, but on Intel's processors. The numbers are of the same generator.
    """
    dropped = round(p * LEVELS)
    if not training or x.device.type != "cpu" or not 0 < dropped < LEVELS:
        return F.dropout(x, p, training)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[: x.numel()]
    kept = bits >= dropped - LEVELS // 2  # bits are -LEVELS / 2 to LEVELS / 2 - 1
    return x * kept.view(x.shape).to(x.dtype).mul_(LEVELS / (LEVELS - dropped))
