"""Dropout on CPUs, and attention with it, against torch's own."""

import pytest
import torch
import torch.nn.functional as F

from gmp_plugin.hubert import encoder
from gmp_plugin.hubert.dropout import dropout


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
def test_a_share_of_p_is_dropped_and_the_mean_stays(p):
    """Of a million numbers the share is known to 0.05 %; neighbours are dropped independently of each other."""
    torch.manual_seed(1)
    x = torch.ones(1001, 999, requires_grad=True)
    y = dropout(x, p, True)
    dropped = (y == 0).float()
    assert dropped.mean().item() == pytest.approx(p, abs=0.002)
    assert y[y != 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-4)
    assert y.mean().item() == pytest.approx(1, abs=0.01)
    flat = dropped.flatten() - p
    for lag in (1, 2, 3, 4, 999):
        assert (flat[lag:] * flat[:-lag]).mean().item() == pytest.approx(0, abs=0.002)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())


def test_masks_follow_torchs_seed():
    x = torch.ones(10_000)
    torch.manual_seed(3)
    first, second = dropout(x, 0.1, True), dropout(x, 0.1, True)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.1, True), first) and not torch.equal(first, second)


def test_no_dropout_leaves_the_frames_as_they_are_and_1_leaves_none():
    x = torch.randn(3, 5)
    assert torch.equal(dropout(x, 0.1, False), x) and torch.equal(dropout(x, 0.0, True), x)
    assert not dropout(x, 1.0, True).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_with_dropout_is_torchs_attention(monkeypatch, masked, dtype):
    """With a dropout that drops nothing; gradients, too."""
    torch.manual_seed(0)
    monkeypatch.setattr(encoder, "dropout", lambda x, p, training: x)
    qkv = [torch.randn(2, 4, 30, 16, dtype=dtype, requires_grad=True) for _ in range(3)]
    mask = torch.arange(30) < torch.tensor([30, 20])[:, None, None, None] if masked else None
    weight = torch.randn(2, 4, 30, 16)
    results = []
    for attend, p in ((encoder.dropped_attention, 0.1), (F.scaled_dot_product_attention, 0.0)):
        y = attend(*qkv, attn_mask=mask, dropout_p=p)
        results.append([y, *torch.autograd.grad((y * weight).sum(), qkv)])
    close = {"atol": 2e-6, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 5e-2, "rtol": 5e-2}
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, **close)
