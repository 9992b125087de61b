"""The positional convolution by Fourier transform, and products with packed weights, against torch's own modules."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from fairseq.modules import SamePad
from torch import nn

from gmp_plugin.hubert.backbone import HubertBackbone, hubert_config
from gmp_plugin.hubert.positional import fft_convolve, positional, weight_spectra
from gmp_plugin.hubert.products import linear, pack
from gmp_plugin.optim.fused_adam import FusedAdam


def convolution(kernel, groups=4, channels=24):
    torch.manual_seed(0)
    conv = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=groups)
    return nn.utils.weight_norm(conv, dim=2)


@pytest.mark.parametrize("kernel", [128, 31, 1])
@pytest.mark.parametrize("n_frames", [1, 2, 127, 128, 700])
@torch.no_grad()
def test_transforms_give_the_convolution(kernel, n_frames):
    conv, x = convolution(kernel), torch.randn(3, n_frames, 24)
    exact = convolution(kernel).double()
    exact.load_state_dict(conv.state_dict())
    expected = exact(x.double().transpose(1, 2))[:, :, :n_frames].transpose(1, 2)
    torch.testing.assert_close(fft_convolve(conv, x, weight_spectra(conv)).double(), expected, atol=2e-6, rtol=1e-6)


def validate(model, x):
    """What validation sees: evaluation without gradients."""
    with torch.no_grad():
        return model(x)


def prepare(what):
    """A module, our way to compute it, the plain one, and an input."""
    torch.manual_seed(0)
    if what == "positional":
        module = nn.Sequential(convolution(16), nn.Identity(), nn.GELU())
        plain = lambda x: module(x.transpose(1, 2)).transpose(1, 2)[:, :50]  # noqa: E731
        return module, partial(positional, module), plain, torch.randn(1, 50, 24)
    module = nn.Linear(24, 24)
    return module, partial(linear, module), module, torch.randn(50, 24)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("what", ["positional", "linear"])
def test_weights_that_training_changed_are_used_in_the_next_validation(what, fused):
    """torch's fused optimisers change weights without a trace in their version counter."""
    module, ours, plain, x = prepare(what)
    pack(module.eval())
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.5, fused=fused)
    for _ in range(3):
        torch.testing.assert_close(validate(ours, x), validate(plain, x), atol=1e-5, rtol=1e-5)
        ours(x).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(validate(ours, x), validate(plain, x), atol=1e-5, rtol=1e-5)
    module.load_state_dict({name: 2 * tensor for name, tensor in module.state_dict().items()})
    torch.testing.assert_close(validate(ours, x), validate(plain, x), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("how", ["in training mode", "by our optimiser"])
@pytest.mark.parametrize("what", ["positional", "linear"])
def test_calls_without_gradients_before_an_update_keep_nothing(what, how):
    """As where metrics are computed between a loss and its update."""
    module, ours, plain, x = prepare(what)
    cfg = SimpleNamespace(adam_betas=(0.9, 0.99), adam_eps=1e-8, weight_decay=0.0, lr=[0.5])
    foreign = partial(torch.optim.AdamW, lr=0.5, fused=True)
    optimizer = foreign(module.parameters()) if how == "in training mode" else FusedAdam(cfg, module.parameters())
    module.train(how == "in training mode")
    for _ in range(2):
        loss = ours(x).square().sum()
        pack(module)
        validate(ours, x)
        loss.backward()
        optimizer.step()
        torch.testing.assert_close(validate(ours, x), validate(plain, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"extractor_mode": "layer_norm", "conv_bias": True}, {"conv_pos": 31}])
def test_the_backbone_gives_the_same_with_and_without_gradients(settings, monkeypatch):
    """Without, clips go in pieces through the convolutions, and the positional convolution by transforms."""
    torch.manual_seed(0)
    small = {"encoder_layers": 2, "encoder_embed_dim": 48, "encoder_ffn_embed_dim": 96, "encoder_attention_heads": 4}
    small["conv_feature_layers"] = "[(32,10,5)] + [(32,3,2)] * 4 + [(32,2,2)] * 2"
    model = HubertBackbone(hubert_config({**small, **settings})).eval()
    monkeypatch.setattr("gmp_plugin.hubert.convolution.PIECE_NUMBERS", 32 * 64 * 64)  # pieces of 64 frames
    lengths = torch.tensor([400, 719, 64 * 320 + 80, 64 * 320 + 400, 70_000])
    source = torch.zeros(5, 70_000)
    for row, n in zip(source, lengths, strict=True):
        row[:n] = torch.randn(int(n))
    expected = model(source, lengths)["x"].detach()
    with torch.no_grad():
        torch.testing.assert_close(model(source, lengths)["x"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_weights_give_the_same_products_until_they_change(dtype):
    torch.manual_seed(0)
    layer = nn.Linear(192, 768).to(dtype)
    x = torch.randn(75, 192)
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 2e-2, "rtol": 2e-2}
    pack(layer)
    with torch.no_grad():
        torch.testing.assert_close(linear(layer, x), layer(x.to(dtype)), **tolerance)
        layer.weight.mul_(2)
        torch.testing.assert_close(linear(layer, x), layer(x.to(dtype)), **tolerance)
        pack(layer)
        layer.to(torch.float64)  # the same parameter with other data
        torch.testing.assert_close(linear(layer, x), layer(x.double()))
    layer.float()
    pack(layer)
    linear(layer, x).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernel", [128, 31])
def test_gradients_are_those_of_the_convolution(kernel, dtype):
    """By transforms in float32, by the module in bfloat16; against float64."""
    model = nn.Sequential(convolution(kernel), SamePad(kernel), nn.GELU()).to(dtype)
    exact = nn.Sequential(convolution(kernel).double(), SamePad(kernel), nn.GELU())
    exact.load_state_dict(model.state_dict())
    x = torch.randn(2, 150, 24, dtype=dtype, requires_grad=True)
    weight, found = torch.randn(2, 150, 24).double(), []
    for module, compute in ((model, positional), (exact, lambda m, x: m(x.double().transpose(1, 2)).transpose(1, 2))):
        (compute(module, x) * weight).sum().backward()
        found.append([x.grad.clone(), *(p.grad for p in module.parameters())])
        x.grad = None
    for mine, theirs in zip(*found, strict=True):
        assert mine.dtype == dtype
        assert (mine - theirs).norm() <= (2e-5 if dtype == torch.float32 else 2e-2) * theirs.norm()
