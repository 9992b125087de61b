"""HuBERT's positional convolution, on CPUs by way of the Fourier transform."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .products import Prepared

_SPECTRA = Prepared()


def positional(pos_conv: nn.Sequential, x: Tensor) -> Tensor:
    """fairseq's `pos_conv` (convolution, its last frame cut off where the kernel is even, GELU): `(B, T, D)` -> same.

    With 128 taps over 16 groups the convolution is a twentieth of the operations where it is a product of spectra;
    other devices, and gradients in half precision, go through the module.
    """
    conv = pos_conv[0]
    if x.device.type == "cpu" and isinstance(conv, nn.Conv1d):
        spectra = _SPECTRA.get(conv)  # asked with gradients too, which forgets it
        if not torch.is_grad_enabled() or conv.bias.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"):
            if spectra is None:
                spectra = weight_spectra(conv)
                if not torch.is_grad_enabled():
                    _SPECTRA.set(conv, spectra)
            return pos_conv[-1](fft_convolve(conv, x, spectra))
    return pos_conv(x.transpose(1, 2).to(conv.bias.dtype)).transpose(1, 2)


def fft_convolve(conv: nn.Conv1d, x: Tensor, spectra: Tensor) -> Tensor:
    """`conv` with stride 1 and padding k // 2, the first T frames of it: `(B, T, D)` -> `(B, T, D')` in float32.

    Overlap-save: segments of twice the kernel's length, of which each gives as many frames as it does not share with
    the next (Oppenheim and Schafer, Discrete-Time Signal Processing, section 8.7.3).

    Args:
        spectra: `weight_spectra(conv)`.
    """
    kernel, groups, (n_clips, n_frames, _) = conv.kernel_size[0], conv.groups, x.shape
    size = fft_size(kernel)
    step = size - kernel + 1
    n_segments = -(-n_frames // step)
    left = kernel // 2
    padded = F.pad(x.float().transpose(1, 2), (left, n_segments * step + kernel - 1 - n_frames - left))
    y = torch.fft.rfft(padded.unfold(2, size, step))  # (B, D, segments, frequencies)
    y = y.unflatten(1, (groups, -1)).permute(4, 1, 0, 3, 2)  # (frequencies, groups, B, segments, in)
    y = torch.matmul(y.flatten(2, 3), spectra).unflatten(2, (n_clips, n_segments))
    y = torch.fft.irfft(y.permute(2, 3, 1, 4, 0), n=size)[..., :step]  # (B, segments, groups, out, step)
    y = y.permute(0, 1, 4, 2, 3).flatten(3).flatten(1, 2)[:, :n_frames]
    return y if conv.bias is None else y + conv.bias.float()


def fft_size(kernel: int) -> int:
    """Length of the transforms, a power of two."""
    return 2 ** (2 * kernel - 1).bit_length()


def weight_spectra(conv: nn.Conv1d) -> Tensor:
    """Conjugate spectra of the weights, `(frequencies, groups, in, out)`."""
    weight = current_weight(conv).float().unflatten(0, (conv.groups, -1))  # (groups, out, in, kernel)
    spectra = torch.fft.rfft(weight, n=fft_size(conv.kernel_size[0])).conj()
    return spectra.permute(3, 0, 2, 1).resolve_conj().contiguous()


def current_weight(conv: nn.Conv1d) -> Tensor:
    """`conv.weight`, which weight norm makes only when the module is called."""
    for update in conv._forward_pre_hooks.values():
        update(conv, None)
    return conv.weight
