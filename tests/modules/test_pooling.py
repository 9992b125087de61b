import torch

from gmp_plugin.modules.pooling import BiLSTMPooling, masked_mean


def test_masked_mean_ignores_padding():
    x = torch.randn(2, 5, 3)
    n = torch.tensor([5, 2])
    expected = torch.stack([x[0].mean(0), x[1, :2].mean(0)])
    x[1, 2:] = 1e6
    torch.testing.assert_close(masked_mean(x, n), expected)


def test_an_utterance_pools_to_the_same_vector_alone_and_in_a_batch():
    torch.manual_seed(0)
    pooling = BiLSTMPooling(3, 4)
    clips = [torch.randn(n, 3) for n in (1, 7, 4)]
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=9.0)
    together = pooling(batch, torch.tensor([1, 7, 4]))
    alone = torch.cat([pooling(clip[None], torch.tensor([len(clip)])) for clip in clips])
    torch.testing.assert_close(together, alone)
    assert together.shape == (3, 8)
