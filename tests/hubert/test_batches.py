"""A clip's features and its share of the gradient are the same alone and in any padded batch."""

from types import SimpleNamespace

import pytest
import torch
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence

from gmp_plugin.frames import n_frames
from gmp_plugin.hubert.backbone import HubertBackbone, hubert_config
from gmp_plugin.hubert.convolution import conv_group_norm
from gmp_plugin.hubert.encoder import Packing, self_attention


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return HubertBackbone(hubert_config(TINY)).eval()


def batch(model, clips, **kwargs):
    return model(pad_sequence(clips, batch_first=True), torch.tensor([len(c) for c in clips]), **kwargs)


@torch.inference_mode()
def test_at_huberts_real_size_from_a_tenth_of_a_second_to_thirty():
    """The promise, at HuBERT-base: 1e-5 in float32. Only the order of sums differs (matrix sizes)."""
    torch.manual_seed(0)
    model = HubertBackbone(hubert_config({})).eval()
    clips = [(0.02 + i / 10) * torch.randn(int(s * 16_000)) for i, s in enumerate((0.1, 30.0))]
    together = batch(model, clips)
    for i, clip in enumerate(clips):
        alone = model(clip[None])["x"][0]
        assert (together["x"][i, : len(alone)] - alone).abs().max() <= 1e-5
        assert (together["x"][i, len(alone) :] == 0).all()


@torch.inference_mode()
@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(400, 9000), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_any_lengths_in_any_order(tiny, lengths, seed):
    torch.manual_seed(seed)
    clips = [torch.randn(n) for n in lengths]
    together = batch(tiny, clips)
    assert together["n_frames"].tolist() == [n_frames(n) for n in lengths]
    for i, clip in enumerate(clips):
        alone = tiny(clip[None])["x"][0]
        torch.testing.assert_close(together["x"][i, : len(alone)], alone, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_the_masked_attention_of_gpus_gives_what_clip_by_clip_gives(tiny):
    """The branch for other devices, on the CPU: a device that only says it is another."""
    attention = tiny.encoder.layers[0].self_attn
    packing = Packing.of(torch.tensor([9, 4, 1]), 9)
    x = torch.randn(14, tiny.dim)
    elsewhere = x.as_subclass(type("Elsewhere", (torch.Tensor,), {"device": SimpleNamespace(type="elsewhere")}))
    expected = self_attention(attention, x, packing)
    torch.testing.assert_close(self_attention(attention, elsewhere, packing).as_subclass(torch.Tensor), expected)


@torch.inference_mode()
def test_what_lies_in_the_padding_does_not_matter(tiny):
    clips = pad_sequence([torch.randn(7000), torch.randn(3000)], batch_first=True)
    lengths = torch.tensor([7000, 3000])
    zeros = tiny(clips, lengths)["x"]
    clips[1, 3000:] = 100.0
    assert tiny(clips, lengths)["x"].equal(zeros)
    # one clip, and a batch whose clips all end before the tensor does
    for source, n in ((clips[1:], lengths[1:]), (clips.expand(2, -1)[[1, 1]], lengths[[1, 1]])):
        x = tiny(source, n)["x"]
        assert x.shape[1] == n_frames(7000)
        torch.testing.assert_close(x, zeros[1:].expand_as(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_the_folded_group_norm_is_a_group_norm_with_its_gradients(bias):
    """Against the two modules, one clip at a time, on recordings with an offset; in float64 the stock way is exact."""
    torch.manual_seed(0)
    conv, norm = torch.nn.Conv1d(1, 8, 10, stride=5, bias=bias), torch.nn.GroupNorm(8, 8)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    clips = [torch.randn(n) + 3 for n in (400, 1603, 15)]
    lengths = torch.tensor([len(c) for c in clips])
    found = conv_group_norm(conv, norm, pad_sequence(clips, batch_first=True), lengths)
    weights = [torch.randn(8, (n - 10) // 5 + 1) for n in lengths.tolist()]
    sum((found[i, :, : w.size(1)] * w).sum() for i, w in enumerate(weights)).backward()
    gradients = [p.grad.clone() for p in (conv.weight, norm.weight, norm.bias)]
    for module in (conv, norm):
        module.double().zero_grad()
    expected = [norm(conv(clip.double()[None, None]))[0] for clip in clips]
    for i, x in enumerate(expected):
        torch.testing.assert_close(found[i, :, : x.size(1)], x.float(), atol=1e-5, rtol=1e-5)
    sum((x * w).sum() for x, w in zip(expected, weights, strict=True)).backward()
    for gradient, p in zip(gradients, (conv.weight, norm.weight, norm.bias), strict=True):
        torch.testing.assert_close(gradient, p.grad.float(), atol=1e-4, rtol=1e-4)


def test_recomputed_activations_give_the_same_gradients():
    plain = {**TINY, "dropout": 0.0, "attention_dropout": 0.0}
    found = []
    for setting in (False, True):
        torch.manual_seed(0)
        model = HubertBackbone(hubert_config({**plain, "checkpoint_activations": setting})).train()
        batch(model, [torch.ones(900), torch.arange(3000) / 3000])["x"].square().sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-5)


def test_dropped_layers_follow_torchs_seed():
    model = HubertBackbone(hubert_config({**TINY, "encoder_layerdrop": 0.5})).train()
    wave = torch.randn(1, 3000)

    def run(seed):
        torch.manual_seed(seed)
        return model(wave)["x"]

    assert run(1).equal(run(1))
    assert not run(1).equal(run(2))


@torch.inference_mode()
def test_channel_masks_are_seeded_and_zero_whole_channels(monkeypatch):
    model = HubertBackbone(hubert_config({**TINY, "mask_prob": 0.0, "mask_channel_prob": 0.5})).eval()
    seen = []
    monkeypatch.setattr("gmp_plugin.hubert.backbone.encode", lambda encoder, x, *args: seen.append(x) or x)
    clips = [torch.randn(9000), torch.randn(4000)]
    for ids in ([3, 4], [3, 4], [5, 4]):
        batch(model, clips, mask=True, ids=torch.tensor(ids))
    first = seen[0][: n_frames(9000)]
    zero = (first == 0).all(0)
    assert 0 < zero.sum() < model.dim and (first[:, ~zero] != 0).all()
    assert seen[0].equal(seen[1]) and not seen[0].equal(seen[2])
