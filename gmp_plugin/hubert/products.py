"""Products of frames and weights on CPUs: by oneDNN, which uses AVX-512 where MKL (on AMD) does not."""

from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
_BF16 = _ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported()
ROWS = 512  # frames of a product that weights are laid out for


class Prepared:
    """What was computed from modules' weights once, for calls without gradients.

    An update in training may leave no trace that could be looked for (torch's fused optimisers write around its version
    counter). So a module loses what was prepared for it as soon as it is called with gradients, and in training mode
    gets nothing: calls with and without gradients may take turns before an update.
    """

    def __init__(self):
        self.known = WeakKeyDictionary()

    def set(self, module: nn.Module, tensor: Tensor) -> None:
        learns = module.training and any(p.requires_grad for p in module.parameters())
        # Inference tensors do not say whether they have changed.
        if not learns and not any(p.is_inference() for p in module.parameters()):
            self.known[module] = _state(module), tensor

    def get(self, module: nn.Module) -> Tensor | None:
        """None if there is nothing, or it is of other weights."""
        if torch.is_grad_enabled():
            self.known.pop(module, None)
            return None
        state, tensor = self.known.get(module, (None, None))
        return tensor if state and state == _state(module) else None


def _state(module: nn.Module) -> list:
    return [(id(p), p.data_ptr(), p.dtype, 0 if p.is_inference() else p._version) for p in module.parameters()]


_PACKED = Prepared()


def pack(model: nn.Module) -> None:
    """Keep the linear layers' weights `packed`, for calls without gradients: 4 % faster, and their memory once more."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            weight = packed(module.weight)
            if weight.is_mkldnn:
                _PACKED.set(module, weight)


def linear(module: nn.Linear, x: Tensor) -> Tensor:
    """`module(x)` of `(M, in)` in the type of its weights."""
    weight = _PACKED.get(module)
    if weight is None or torch.is_autocast_enabled("cpu"):
        weight = module.weight
    return product(x, weight, module.bias)


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


def packed(weight: Tensor) -> Tensor:
    """A weight `(out, in)` laid out as oneDNN multiplies it; itself where it cannot be."""
    kept = weight.dtype == torch.float32 and _ONEDNN or weight.dtype == torch.bfloat16 and _BF16
    if weight.device.type != "cpu" or not kept or torch.is_autocast_enabled("cpu"):
        return weight
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), ROWS)


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
