"""From frames to one vector per utterance."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from . import at_least_float32


def masked_mean(x: Tensor, n_frames: Tensor) -> Tensor:
    """Mean over the first `n_frames[b]` frames of each row: `(B, T, D)`, `(B,)` -> `(B, D)`."""
    valid = torch.arange(x.size(1), device=x.device) < n_frames[:, None]
    return (x * valid[:, :, None].to(x.dtype)).sum(1) / n_frames[:, None].to(x.dtype)


class Pooling(nn.Module):
    """A mean over time between two functions, so that any window of an utterance can be pooled after `frames`.

    `output_dim` is the size of the pooled vector.
    """

    output_dim: int

    def forward(self, x: Tensor, n_frames: Tensor) -> Tensor:
        """`(B, T, D)` with `n_frames` `(B,)` valid frames each -> `(B, output_dim)`."""
        return self.finish(masked_mean(self.frames(x, n_frames), n_frames)).to(x.dtype)

    def frames(self, x: Tensor, n_frames: Tensor) -> Tensor:
        """What the mean is taken of, `(B, T, F)`; padded frames hold anything."""
        return x

    @staticmethod
    def finish(mean: Tensor) -> Tensor:
        """Means `(..., F)` -> pooled vectors `(..., output_dim)`."""
        return mean


class BiLSTMPooling(Pooling):
    """Bidirectional LSTM over the frames, then the mean over time (paper, section 3.1 and Fig. 1).

    Args:
        input_dim: D, size of a frame.
        hidden_dim: units each way; the pooled vector has `2 * hidden_dim`.
        num_layers: stacked BiLSTM layers.
    """

    def __init__(self, input_dim: int, hidden_dim: int = 256, num_layers: int = 1):
        super().__init__()
        self.lstm = nn.LSTM(input_dim, hidden_dim, num_layers, batch_first=True, bidirectional=True)
        self.output_dim = 2 * hidden_dim

    def frames(self, x: Tensor, n_frames: Tensor) -> Tensor:
        # Either way the backward direction starts at each utterance's own last frame.
        if x.device.type == "cpu":
            return self._by_direction(x, n_frames)
        packed = pack_padded_sequence(x, n_frames.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]

    def _by_direction(self, x: Tensor, n_frames: Tensor) -> Tensor:
        """What the LSTM gives for packed utterances, `(B, T, 2 * hidden_dim)`, one direction at a time.

        torch has oneDNN's LSTM for padded batches only, and it is five times as fast as that of packed ones.
        """
        time = torch.arange(x.size(1))
        mirrored = n_frames[:, None] - 1 - time
        mirrored = torch.where(mirrored >= 0, mirrored, time)[:, :, None]  # padding stays at the end

        def mirror(x: Tensor) -> Tensor:
            return x.gather(1, mirrored.expand(-1, -1, x.size(2)))

        def run(x: Tensor, suffix: str) -> Tensor:
            weights = [getattr(self.lstm, name + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            zeros = x.new_zeros(1, x.size(0), self.lstm.hidden_size)
            return torch.lstm(x, (zeros, zeros), weights, True, 1, 0.0, self.training, False, True)[0]

        for layer in range(self.lstm.num_layers):
            x = torch.cat([run(x, f"_l{layer}"), mirror(run(mirror(x), f"_l{layer}_reverse"))], 2)
        return x


class AttentionPooling(Pooling):
    """Mean over the frames, weighted by a softmax over time of tanh(h w) (FLESA, Li et al. 2024).

    w begins at zero, where it is the plain mean.

    Args:
        input_dim: D, size of a frame and of the pooled vector.
    """

    def __init__(self, input_dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(input_dim))
        self.output_dim = input_dim

    def frames(self, x: Tensor, n_frames: Tensor) -> Tensor:
        """Frames times their weights, and the weights: `(B, T, D + 1)`."""
        x = at_least_float32(x)
        weights = torch.tanh(x @ at_least_float32(self.weight)).exp()[:, :, None]  # of 1/e to e: no need of a maximum
        return torch.cat([weights * x, weights], 2)

    @staticmethod
    def finish(mean: Tensor) -> Tensor:
        return mean[..., :-1] / mean[..., -1:]


class MeanPooling(Pooling):
    """Mean over the frames themselves.

    Args:
        input_dim: D, size of a frame and of the pooled vector.
    """

    def __init__(self, input_dim: int):
        super().__init__()
        self.output_dim = input_dim


POOLINGS = {"bilstm": BiLSTMPooling, "attention": AttentionPooling, "mean": MeanPooling}


def make_pooling(kind: str, input_dim: int, hidden_dim: int = 256, num_layers: int = 1) -> Pooling:
    """One of `POOLINGS`; `hidden_dim` and `num_layers` are the BiLSTM's."""
    return BiLSTMPooling(input_dim, hidden_dim, num_layers) if kind == "bilstm" else POOLINGS[kind](input_dim)
