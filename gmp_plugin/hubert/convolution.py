"""HuBERT's convolutional encoder over fairseq's own modules, exact in padded batches."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import frames
from .encoder import gelu, layer_norm
from .products import packed, product

# As `F.layer_norm` in fairseq's datasets. transformers' feature extractor adds 1e-7 instead, which
# shows on quiet recordings only; the weights were pretrained with this one, and the same weights with
# the same setting of normalisation give the same features here whatever file they came in.
NORMALIZE_EPS = 1e-5

# Frames that the row of a batch is rounded up to (1.28 s). oneDNN builds its kernels anew for every
# length, and is slow on odd ones: without this a small model's training takes nearly twice as long.
ROW_FRAMES = 64

# Where no gradient is asked for on a CPU, a clip goes through the layers in pieces whose largest tensor has so many
# numbers (8 MB: 1.28 s of HuBERT), which stay in the processor's caches from one layer to the next.
PIECE_NUMBERS = 2**21
LAST_PIECE_FRAMES = 16  # the last of several pieces is rounded up to these


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
    """fairseq's `ConvFeatureExtractionModel`: audio `(B, N)` -> features of the valid frames, `(M, C)`.

    M is the sum of the clips' frames, clip after clip. Clips of different lengths lie in one row,
    one after the other, so that padding is not computed; on a CPU without gradients each goes alone, in
    pieces. The audio itself is never rounded to bf16.
    """
    if source.device.type == "cpu" and not torch.is_grad_enabled():
        clips = zip(source.float(), n_samples.tolist(), strict=True)
        return torch.cat([_convolve_clip(extractor, clip[:n]) for clip, n in clips])
    x, blocks = source.float()[:, None], list(extractor.conv_layers)
    if isinstance(blocks[0][2], nn.GroupNorm):
        conv, dropout, norm, _ = blocks.pop(0)
        x = gelu(dropout(conv_group_norm(conv, norm, x[:, 0], n_samples)))
        n_samples = frames.n_frames(n_samples, (_kernel_stride(conv),))
    lengths, kernels_strides = n_samples.tolist(), [_kernel_stride(block[0]) for block in blocks]
    index = None
    if len(set(lengths)) > 1:
        x, index = _one_row(x, lengths, kernels_strides)
    for conv, dropout, *norm, _ in blocks:
        if conv.in_channels == 1:
            x = _conv_of_audio(conv, x)
        else:
            x = F.conv1d(x.to(conv.weight.dtype), conv.weight, conv.bias, conv.stride)
        x = dropout(x)
        if norm:  # layer norm over channels, between two transpositions
            x = layer_norm(norm[0][1], x.transpose(1, 2)).transpose(1, 2)
        x = gelu(x)
    if index is not None:
        return x[0].t().index_select(0, index)
    return x[:, :, : frames.n_frames(lengths[0], kernels_strides)].transpose(1, 2).flatten(0, 1)


def _conv_of_audio(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """In float32, and then in the dtype of the model or of autocast."""
    device = x.device.type
    with torch.autocast(device, enabled=False):
        y = F.conv1d(x, conv.weight.float(), None if conv.bias is None else conv.bias.float(), conv.stride)
    return y.to(_dtype(conv, device))


def _dtype(conv: nn.Conv1d, device: str) -> torch.dtype:
    """Of what `conv` gives: the model's, or that of autocast."""
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else conv.weight.dtype


def _one_row(x: Tensor, lengths: list[int], kernels_strides) -> tuple[Tensor, Tensor]:
    """The clips of `(B, C, T)` as one `(1, C, T')`, and where their output frames will be, `(M,)`.

    Each clip begins at a multiple of all the strides together, where an output frame begins.
    """
    hop = math.prod(stride for _, stride in kernels_strides)
    pieces, index, start = [], [], 0
    for row, n in zip(x, lengths, strict=True):
        gap = -n % hop
        pieces += [row[:, :n], row.new_zeros(row.size(0), gap)]
        index.append(start // hop + torch.arange(frames.n_frames(n, kernels_strides)))
        start += n + gap
    pieces.append(x.new_zeros(x.size(1), -start % (ROW_FRAMES * hop)))
    return torch.cat(pieces, 1)[None], torch.cat(index).to(x.device)


def _convolve_clip(extractor: nn.Module, clip: Tensor) -> Tensor:
    """`convolve` of one clip `(N,)`: features `(T, C)`.

    Frames lie one after the other, so that the windows of a convolution are overlapping rows of them, and the
    convolution is a product.
    """
    blocks = list(extractor.conv_layers)
    kernels_strides = [_kernel_stride(block[0]) for block in blocks]
    kernel, stride = kernels_strides[0]
    conv, first_norm = blocks[0][0], blocks[0][2]
    if isinstance(first_norm, nn.GroupNorm):
        weight, shift = (x[0].float() for x in fold_group_norm(conv, first_norm, clip[None], torch.tensor([len(clip)])))
        norms = [None]
    else:
        weight, shift = conv.weight[:, 0].float(), None if conv.bias is None else conv.bias.float()
        norms = [_layer_norm_of(blocks[0])]
    norms += [_layer_norm_of(block) for block in blocks[1:]]
    dtype = _dtype(conv, "cpu")
    weights = [packed(block[0].weight.permute(0, 2, 1).flatten(1)) for block in blocks[1:]]  # (C, k * C)
    total, pieces = frames.n_frames(len(clip), kernels_strides), []
    longest = max(1, PIECE_NUMBERS * stride // (conv.out_channels * frames.HOP))
    for start in range(0, total, longest):
        n = min(longest, total - start)
        samples = clip[start * frames.HOP : (start + n - 1) * frames.HOP + frames.RECEPTIVE_FIELD]
        if start and n < longest:
            samples = F.pad(samples, (0, (-n % LAST_PIECE_FRAMES) * frames.HOP))
        with torch.autocast("cpu", enabled=False):
            x = F.linear(samples.unfold(0, kernel, stride), weight, shift).to(dtype)
        x = gelu(x if norms[0] is None else layer_norm(norms[0], x))
        for block, weight_, norm, (k, s) in zip(blocks[1:], weights, norms[1:], kernels_strides[1:], strict=True):
            windows = x.as_strided(((len(x) - k) // s + 1, k * x.size(1)), (s * x.size(1), 1))
            x = product(windows, weight_, block[0].bias)
            x = gelu(x if norm is None else layer_norm(norm, x))
        pieces.append(x[:n])
    return torch.cat(pieces)


def _layer_norm_of(block: nn.Sequential) -> nn.LayerNorm | None:
    """The layer norm over channels of a block, where it has one; it stands between two transpositions."""
    return block[2][1] if isinstance(block[2], nn.Sequential) else None


def _kernel_stride(conv: nn.Conv1d) -> tuple[int, int]:
    return conv.kernel_size[0], conv.stride[0]


def conv_group_norm(conv: nn.Conv1d, norm: nn.GroupNorm, source: Tensor, n_samples: Tensor) -> Tensor:
    """Convolution of one input channel and its group norm over the valid frames of each clip, in one step: the largest
    tensor of the model is written once.

    Args:
        source: audio `(B, N)`.
        n_samples: valid samples `(B,)`.

    Returns:
        `(B, C, T)` in the dtype of the model or of autocast.
    """
    weight, shift = fold_group_norm(conv, norm, source, n_samples)
    device = source.device.type
    with torch.autocast(device, enabled=False):
        windows = source.unfold(1, *_kernel_stride(conv)).float()
        x = torch.baddbmm(shift.float()[:, :, None], weight.float(), windows.transpose(1, 2))
    return x.to(_dtype(conv, device))


def fold_group_norm(conv: nn.Conv1d, norm: nn.GroupNorm, source: Tensor, n_samples: Tensor) -> tuple[Tensor, Tensor]:
    """The convolution's weights `(B, C, k)` with the group norm in them, and what is to be added, `(B, C)`; float64.

    One group per channel, so the norm is a scale and a shift per clip and channel. Both follow from
    the mean and the covariance of the clip's windows, a vector of k and a matrix of k x k numbers
    (k = 10 samples).
    """
    kernel, stride = _kernel_stride(conv)
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
    return weight, shift
