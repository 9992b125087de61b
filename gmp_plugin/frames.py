"""Samples, frames and layer numbers: the only place that knows how they relate.

HuBERT's convolutional encoder turns audio at 16 kHz into 50 frames a second: hop 320 samples,
receptive field 400 samples, no padding at the ends (Hsu et al. 2021, section 3; fairseq
`ConvFeatureExtractionModel`). All lengths below are in samples or frames, never in seconds.
"""

from .errors import UserError

SAMPLE_RATE = 16_000
KERNELS_STRIDES = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
HOP = 320
RECEPTIVE_FIELD = 400
FRAME_RATE = SAMPLE_RATE / HOP


def n_frames(n_samples, kernels_strides=KERNELS_STRIDES):
    """Frames that `n_samples` samples give; 0 below one receptive field.

    Takes an int, a numpy integer array or an integer tensor, and returns the same kind.
    """
    for kernel, stride in kernels_strides:
        n_samples = (n_samples - kernel) // stride + 1
        n_samples = n_samples * (n_samples > 0)
    return n_samples


def n_samples(n_frames: int) -> int:
    """The fewest samples that give `n_frames` frames (0 for 0)."""
    return (n_frames - 1) * HOP + RECEPTIVE_FIELD if n_frames > 0 else 0


def layer_number(text: str) -> int | float:
    """A layer as it is given on a command line: `9`, `-3`, or a share of the layers as `0.75`."""
    return float(text) if "." in text else int(text)


def resolve_layer(layer: int | float, n_layers: int) -> int:
    """1-based transformer layer from a number that may count from the end: -1 is the last.

    A share above 0 and below 1 is of the layers, whatever their number: 0.75 is layer 9 of 12 and 3 of 4. Raises
    `UserError` outside 1..n_layers and -n_layers..-1. fairseq itself compares the number as it is, so that a negative
    one silently means the last layer.
    """
    if 0 < layer < 1:
        return max(1, round(layer * n_layers))
    resolved = layer if layer > 0 else n_layers + 1 + layer
    if isinstance(layer, float) or layer == 0 or not 1 <= resolved <= n_layers or resolved != int(resolved):
        raise UserError(
            f"layer {layer} is out of range: the model has {n_layers} transformer layers; "
            f"give 1 to {n_layers}, or -{n_layers} to -1 to count from the last"
        )
    return int(resolved)
