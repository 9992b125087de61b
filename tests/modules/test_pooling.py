import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gmp_plugin.modules.pooling import POOLINGS, AttentionPooling, BiLSTMPooling, make_pooling, masked_mean


def test_masked_mean_ignores_padding():
    x = torch.randn(2, 5, 3)
    n = torch.tensor([5, 2])
    expected = torch.stack([x[0].mean(0), x[1, :2].mean(0)])
    x[1, 2:] = 1e6
    torch.testing.assert_close(masked_mean(x, n), expected)


@pytest.mark.parametrize("kind", POOLINGS)
def test_an_utterance_pools_to_the_same_vector_alone_and_in_a_batch(kind):
    torch.manual_seed(0)
    pooling = make_pooling(kind, 3, 4)
    for parameter in pooling.parameters():
        torch.nn.init.normal_(parameter)
    clips = [torch.randn(n, 3) for n in (1, 7, 4)]
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=9.0)
    together = pooling(batch, torch.tensor([1, 7, 4]))
    alone = torch.cat([pooling(clip[None], torch.tensor([len(clip)])) for clip in clips])
    torch.testing.assert_close(together, alone)
    assert together.shape == (3, pooling.output_dim) == (3, 8 if kind == "bilstm" else 3)


def test_attention_by_hand():
    """Weights softmax over time of tanh(h w), and the weighted sum, in numpy float64."""
    rng = np.random.default_rng(0)
    x, w, lengths = rng.standard_normal((3, 6, 4)), rng.standard_normal(4), (6, 1, 3)
    expected = []
    for row, n in zip(x, lengths, strict=True):
        e = np.exp(np.tanh(row[:n] @ w))
        expected.append((e / e.sum()) @ row[:n])
    pooling = AttentionPooling(4).double()
    start = pooling(torch.tensor(x), torch.tensor(lengths))
    torch.testing.assert_close(start, masked_mean(torch.tensor(x), torch.tensor(lengths)))
    pooling.weight.data = torch.tensor(w)
    found = pooling(torch.tensor(x), torch.tensor(lengths)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("kind", POOLINGS)
def test_a_window_is_pooled_from_an_utterances_frames(kind):
    """By the same weights as if there were no other frames; the BiLSTM alone looks beyond the window."""
    torch.manual_seed(0)
    pooling = make_pooling(kind, 3, 4)
    for parameter in pooling.parameters():
        torch.nn.init.normal_(parameter)
    x, n = torch.randn(1, 9, 3), torch.tensor([9])
    frames = pooling.frames(x, n)
    torch.testing.assert_close(pooling.finish(frames.mean(1)), pooling(x, n))
    if kind != "bilstm":
        torch.testing.assert_close(pooling.finish(frames[:, 2:6].mean(1)), pooling(x[:, 2:6], torch.tensor([4])))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_bilstm_is_torchs_on_packed_utterances_with_its_gradients(num_layers):
    torch.manual_seed(0)
    pooling = BiLSTMPooling(3, 4, num_layers)
    lengths = torch.tensor([1, 7, 4])
    x = torch.randn(3, 7, 3)

    def packed(x):
        sequence = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        frames, _ = pad_packed_sequence(pooling.lstm(sequence)[0], batch_first=True)
        return torch.stack([row[:n].mean(0) for row, n in zip(frames, lengths, strict=True)])

    found = []
    for function in (packed, lambda x: pooling(x, lengths)):
        leaf = x.clone().requires_grad_()
        pooled = function(leaf)
        gradients = torch.autograd.grad(pooled.square().sum(), [leaf, *pooling.parameters()])
        found.append([pooled.detach(), *gradients])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a)  # float32, sums in another order
