"""What the matrix products of a model cost at the least on a machine: their number, and the best rate of one."""

import time
from unittest import mock

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gmp_plugin.hubert.backbone import HubertBackbone
from gmp_plugin.hubert.products import packed, product


def operations(backbone: HubertBackbone, samples: int, layer: int) -> int:
    """Floating-point operations of the products up to `layer` for a clip of so many samples."""
    fresh = HubertBackbone(backbone.cfg).eval()  # on the CPU, without packed weights
    # torch counts its own products, neither oneDNN's nor those of fused attention.
    own = mock.patch("gmp_plugin.hubert.products._ONEDNN", False)
    with torch.no_grad(), own, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        fresh(torch.zeros(1, samples), output_layer=layer)
    return counter.get_total_flops()


def best_rate(dtype: torch.dtype, device: str, threads: int) -> float:
    """Operations a second of a product of square matrices, the best of several, by the faster of torch's two ways."""
    size = 2048 if device == "cpu" else 8192
    x, w = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    ways = [lambda: F.linear(x, w)]
    if device == "cpu":
        weight = packed(w)
        ways.append(lambda: product(x, weight, None))
    best, before = float("inf"), torch.get_num_threads()
    torch.set_num_threads(threads)
    with torch.inference_mode():
        for way in 10 * ways:
            started = time.perf_counter()
            way()
            if device != "cpu":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - started)
    torch.set_num_threads(before)
    return 2 * size**3 / best
