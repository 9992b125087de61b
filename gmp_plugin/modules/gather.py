"""The rows of all ranks, for losses that compare the recordings of a batch with each other."""

import torch
import torch.distributed as dist
from torch import Tensor


def gather_rows(x: Tensor) -> tuple[Tensor, slice]:
    """Rows `(n, D)` of this rank, any number, 0 included -> those of all ranks `(N, D)`, and where these ones are.

    Gradients arrive from the losses of all ranks, as if their sum had been computed on one. Without data parallelism
    the rows are returned as they are.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return x, slice(0, len(x))
    counts = _counts(x)
    start = sum(counts[: dist.get_rank()])
    return _GatherRows.apply(x, counts), slice(start, start + len(x))


def _counts(x: Tensor) -> list[int]:
    own = torch.tensor([len(x)], device=x.device)
    counts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, own)
    return [int(n) for n in counts]


class _GatherRows(torch.autograd.Function):
    # torch.distributed.nn.all_gather wants the same number of rows on every rank.
    @staticmethod
    def forward(ctx, x: Tensor, counts: list[int]) -> Tensor:
        start = sum(counts[: dist.get_rank()])
        ctx.own = slice(start, start + len(x))
        padded = x.new_zeros(max(counts), *x.shape[1:])
        padded[: len(x)] = x
        rows = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(rows, padded)
        return torch.cat([row[:n] for row, n in zip(rows, counts, strict=True)])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient[ctx.own], None
