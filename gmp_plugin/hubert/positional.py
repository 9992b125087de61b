"""HuBERT's positional convolution, on CPUs by way of the Fourier transform."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .products import state_of


def positional(pos_conv: nn.Sequential, x: Tensor) -> Tensor:
    """fairseq's `pos_conv` (convolution, its last frame cut off where the kernel is even, GELU): `(B, T, D)` -> same.

    With 128 taps over 16 groups the convolution is a twentieth of the operations where it is a product of spectra;
    gradients, and other devices, go through the module.
    """
    if x.device.type == "cpu" and not torch.is_grad_enabled() and isinstance(pos_conv[0], nn.Conv1d):
        return pos_conv[-1](fft_convolve(pos_conv[0], x))
    return pos_conv(x.transpose(1, 2).to(pos_conv[0].bias.dtype)).transpose(1, 2)


def fft_convolve(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """`conv` with stride 1 and padding k // 2, the first T frames of it: `(B, T, D)` -> `(B, T, D')` in float32.

    Overlap-save: segments of twice the kernel's length, of which each gives as many frames as it does not share with
    the next (Oppenheim and Schafer, Discrete-Time Signal Processing, section 8.7.3).
    """
    kernel, groups, (n_clips, n_frames, _) = conv.kernel_size[0], conv.groups, x.shape
    size = fft_size(kernel)
    step = size - kernel + 1
    n_segments = -(-n_frames // step)
    left = kernel // 2
    padded = F.pad(x.float().transpose(1, 2), (left, n_segments * step + kernel - 1 - n_frames - left))
    spectra = torch.fft.rfft(padded.unfold(2, size, step))  # (B, D, segments, frequencies)
    spectra = (
        spectra.unflatten(1, (groups, -1)).permute(4, 1, 0, 3, 2).flatten(2, 3)
    )  # (frequencies, G, B * segments, D / G)
    spectra = torch.matmul(spectra, weight_spectra(conv)).unflatten(2, (n_clips, n_segments))
    y = torch.fft.irfft(spectra.permute(2, 3, 1, 4, 0), n=size)[..., :step]  # (B, segments, G, D' / G, step)
    y = y.permute(0, 1, 4, 2, 3).flatten(3).flatten(1, 2)[:, :n_frames]
    return y if conv.bias is None else y + conv.bias.float()


def fft_size(kernel: int) -> int:
    """Length of the transforms, a power of two."""
    return 2 ** (2 * kernel - 1).bit_length()


def weight_spectra(conv: nn.Conv1d) -> Tensor:
    """Conjugate spectra of the weights, `(frequencies, groups, in, out)`; kept while the parameters stay the same."""
    state = [state_of(p) for p in conv.parameters()]
    known = conv.__dict__.get("weight_spectra")
    if None in state or known is None or known[0] != state:
        for hook in conv._forward_pre_hooks.values():  # of weight_norm, which sets conv.weight
            hook(conv, None)
        weight = conv.weight.float().unflatten(0, (conv.groups, -1))  # (groups, out, in, kernel)
        spectra = torch.fft.rfft(weight, n=fft_size(conv.kernel_size[0])).conj()
        known = state, spectra.permute(3, 0, 2, 1).resolve_conj().contiguous()
        conv.__dict__["weight_spectra"] = known
    return known[1]
