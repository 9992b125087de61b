"""HuBERT's convolutional encoder over fairseq's own modules, exact in padded batches."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import frames
from .encoder import gelu, layer_norm

# As `F.layer_norm` in fairseq's datasets. transformers' feature extractor adds 1e-7 instead, which
# shows on quiet recordings only; the weights were pretrained with this one, and the same weights
# give the same features here whatever file they came in.
NORMALIZE_EPS = 1e-5


def normalize_clips(source: Tensor, n_samples: Tensor) -> Tensor:
    """Each clip of `(B, N)` to zero mean and unit variance over its valid samples, zeros after them.

    Sums are float64, so that they do not depend on the padding.
    """
    valid = torch.arange(source.size(1), device=source.device) < n_samples[:, None]
    x = source.double() * valid
    x = (x - x.sum(1, keepdim=True) / n_samples[:, None]) * valid
    variance = x.square().sum(1, keepdim=True) / n_samples[:, None]
    return (x * (variance + NORMALIZE_EPS).rsqrt()).float()


def convolve(extractor: nn.Module, source: Tensor, n_samples: Tensor) -> Tensor:
    """fairseq's `ConvFeatureExtractionModel`: audio `(B, N)` -> features `(B, C, T)`.

    Frames past a clip's end are not meaningful. The audio itself is never rounded to bf16: the first
    convolution's input stays float32 in models and under autocast of lower precision.
    """
    x = source.float()[:, None]
    for conv, dropout, *norm, _ in extractor.conv_layers:
        if norm and isinstance(norm[0], nn.GroupNorm):
            x = gelu(dropout(conv_group_norm(conv, norm[0], x[:, 0], n_samples)))
            continue
        x = dropout(_conv(conv, x))
        if norm:  # layer norm over channels, between two transpositions
            x = layer_norm(norm[0][1], x.transpose(1, 2)).transpose(1, 2)
        x = gelu(x)
    return x


def _conv(conv: nn.Conv1d, x: Tensor) -> Tensor:
    return F.conv1d(x.to(conv.weight.dtype), conv.weight, conv.bias, conv.stride)


def conv_group_norm(conv: nn.Conv1d, norm: nn.GroupNorm, source: Tensor, n_samples: Tensor) -> Tensor:
    """Convolution of one input channel and its group norm over the valid frames of each clip, in one step.

    One group per channel, so the norm is a scale and a shift per clip and channel. Both follow from
    the mean and the covariance of the clip's windows, a vector of k and a matrix of k x k numbers
    (k = 10 samples), and go into the weights: the largest tensor of the model is written once.

    Args:
        source: audio `(B, N)`.
        n_samples: valid samples `(B,)`.

    Returns:
        `(B, C, T)` in the dtype of the model or of autocast.
    """
    (kernel,), (stride,) = conv.kernel_size, conv.stride
    n_frames = frames.n_frames(n_samples, ((kernel, stride),))
    windows = source.unfold(1, kernel, stride)  # (B, T, k)
    valid = torch.arange(windows.size(1), device=source.device) < n_frames[:, None]
    with torch.autocast(source.device.type, enabled=False):
        # float64: neither the batch nor an offset of the recording shows in the statistics.
        w = windows.double() * valid[:, :, None]
        mean = w.sum(1) / n_frames[:, None]  # (B, k)
        centred = (w - mean[:, None]) * valid[:, :, None]
        covariance = centred.transpose(1, 2) @ centred / n_frames[:, None, None]  # (B, k, k)
        weight = conv.weight[:, 0].double()  # (C, k)
        variance = ((weight @ covariance) * weight).sum(-1)  # (B, C)
        scale = norm.weight.double() * (variance + norm.eps).rsqrt()
        weight = scale[:, :, None] * weight  # (B, C, k)
        # A bias of the convolution cancels.
        shift = norm.bias.double() - (weight @ mean[:, :, None])[:, :, 0]
        if conv.bias is not None:
            shift = shift + 0 * conv.bias.double()  # keeps its (zero) gradient
        x = torch.baddbmm(shift.float()[:, :, None], weight.float(), windows.float().transpose(1, 2))
    device = source.device.type
    return x.to(torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else conv.weight.dtype)
