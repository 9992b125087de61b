"""Linear layers by oneDNN, which on CPUs uses AVX-512 where MKL (on AMD) does not."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakIdKeyDictionary

_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
_PACKED = WeakIdKeyDictionary()  # a layer's weight -> its `state_of`, and what `packed` made of it


def linear(module: nn.Linear, x: Tensor) -> Tensor:
    """`module(x)` of `(M, in)` in the type of its weights."""
    if not torch.is_grad_enabled() and module.weight in _PACKED and not torch.is_autocast_enabled("cpu"):
        state, weight = _PACKED[module.weight]
        if state == state_of(module.weight):
            return product(x, weight, module.bias)
    return product(x, module.weight, module.bias)


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear(x, weight, bias)` of `(M, in)` in the type of the weights; these may be `packed`."""
    if weight.is_mkldnn:
        return _onednn(x.to(weight.dtype), weight, bias)
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        x = x.to(weight.dtype)
    if x.device.type != "cpu" or x.dtype != torch.float32 or not _ONEDNN or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    compute = _OneDnnLinear.apply if torch.is_grad_enabled() else _onednn  # a Function costs as much as 50 frames do
    return compute(x, weight, bias)


def packed(weight: Tensor, rows: int = 512) -> Tensor:
    """A weight `(out, in)` laid out as oneDNN multiplies it, for about that many rows; itself without oneDNN."""
    if weight.device.type != "cpu" or not _ONEDNN or torch.is_autocast_enabled("cpu"):
        return weight
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), rows)


def pack(model: nn.Module) -> None:
    """Keep the linear layers' weights `packed` beside the model, for calls without gradients: 4 % faster, and their
    memory once more. Weights that change afterwards go unpacked again."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and (state := state_of(module.weight)):
            weight = packed(module.weight)
            if weight.is_mkldnn:
                _PACKED[module.weight] = state, weight


def state_of(weight: Tensor) -> tuple | None:
    """What changes whenever the weight does; None where that cannot be told, for tensors made in inference mode."""
    return None if weight.is_inference() else (id(weight), weight.data_ptr(), weight._version)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _OneDnnLinear(torch.autograd.Function):
    """`F.linear` of `(M, in)` by the operator that torch.compile uses, which knows no gradient."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad_x = _onednn(grad, weight.t()) if ctx.needs_input_grad[0] else None
        grad_weight = _onednn(grad.t(), x.t()) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, grad.sum(0) if ctx.needs_input_grad[2] else None
