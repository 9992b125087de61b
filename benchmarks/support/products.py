"""What the matrix products of a model cost at the least on a machine: their number, and the best rate of one."""

import time
from unittest import mock

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from gmp_plugin.hubert.backbone import HubertBackbone


def operations(backbone: HubertBackbone, samples: int, layer: int) -> int:
    """Floating-point operations of the products up to `layer` for a clip of so many samples."""
    # torch counts its own operators, not oneDNN's.
    uncounted = mock.patch("gmp_plugin.hubert.products._ONEDNN", False)
    with torch.no_grad(), uncounted, FlopCounterMode(display=False) as counter:
        backbone(torch.zeros(1, samples, device=next(backbone.parameters()).device), output_layer=layer)
    return counter.get_total_flops()


def best_rate(dtype: torch.dtype, device: str, threads: int, size: int = 2048) -> float:
    """Operations a second of a product of square matrices, the best of several, by the faster of torch's two ways."""
    x, w = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    ways = [lambda: F.linear(x, w)]
    if device == "cpu":
        packed = torch.ops.mkldnn._reorder_linear_weight(w, size)
        ways.append(lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], ""))
    best, before = float("inf"), torch.get_num_threads()
    torch.set_num_threads(threads)
    for way in ways:
        for _ in range(10):
            started = time.perf_counter()
            way()
            if device != "cpu":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - started)
    torch.set_num_threads(before)
    return 2 * size**3 / best
