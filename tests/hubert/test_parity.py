"""The backbone beside stock fairseq and transformers: same random weights, true widths, two layers.

Tolerances: all three do the same float32 operations, but sum them in other orders (matrix products
by other libraries, group norm statistics in float64 here, fused attention). One operation on values
of size 1 differs by some 1e-6; through the model that grows to a few 1e-6 at features of size 1 to 4.
Maximum errors found, to fairseq and to transformers:

| | base | large |
|---|---|---|
| convolutions | 1.4e-6 | 2.4e-6 |
| projection | 1.2e-6 | 1.1e-6 |
| positional convolution | 0 | 0 |
| a layer | 1.7e-6 | 2.6e-6 |
| whole model | 3.9e-6 | 3.5e-6 |
| whole model, masked | 4.6e-6 | 3.2e-6 |
"""

import copy

import pytest
import torch
import transformers
from fairseq.models.hubert.hubert import HubertModel
from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig

from gmp_plugin.hubert import backbone as backbone_module
from gmp_plugin.hubert.backbone import HubertBackbone, backbone_settings, hubert_config
from gmp_plugin.hubert.convolution import convolve
from gmp_plugin.hubert.encoder import Packing, encode, transformer_layer
from gmp_plugin.hubert.huggingface import from_settings, hf_state_dict

NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "dropout_input": 0.0}
SIZES = {
    "base": {"encoder_layers": 2},
    "large": {
        "encoder_layers": 2, "encoder_embed_dim": 1024, "encoder_ffn_embed_dim": 4096, "encoder_attention_heads": 16,
        "extractor_mode": "layer_norm", "layer_norm_first": True, "conv_bias": True,
    },
}  # fmt: skip
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
pytestmark = pytest.mark.filterwarnings("ignore")


def stock_model(cfg):
    stock = HubertModel(cfg, HubertPretrainingConfig(), [None])
    stock.remove_pretraining_modules()
    return stock


@pytest.fixture(scope="module", params=SIZES)
def trio(request):
    """Stock fairseq, ours and transformers in evaluation mode, with the same weights."""
    torch.manual_seed(0)
    cfg = hubert_config({**SIZES[request.param], **NO_DROPOUT})
    stock = stock_model(cfg)
    for name, parameter in stock.named_parameters():  # biases and norms start at zero and one, and would hide
        if name.endswith("bias") or "norm" in name or "conv_layers.0.2" in name:
            torch.nn.init.normal_(parameter, 1.0 if name.endswith("weight") else 0.0, 0.1)
    weights, settings = stock.state_dict(), backbone_settings(cfg)
    ours = HubertBackbone(cfg)
    ours.load_state_dict(weights)
    hf = transformers.HubertModel(transformers.HubertConfig(**from_settings(settings, weights)))
    hf.load_state_dict(hf_state_dict(weights, settings, parametrized=True))
    return stock.eval(), ours.eval(), hf.eval()


@pytest.fixture
def wave():
    return torch.randn(2, 8000, generator=torch.Generator().manual_seed(1))


def all_valid(x):
    return Packing.of(torch.tensor([x.size(1)] * x.size(0)), x.size(1))


def close(ours, *others, **tolerance):
    for other in others:
        torch.testing.assert_close(ours, other, **(tolerance or CLOSE))


@torch.inference_mode()
def test_convolutions(trio, wave):
    stock, ours, hf = trio

    def convolved(source):
        return (
            convolve(ours.feature_extractor, source, torch.tensor([8000, 8000])).unflatten(0, (2, 24)).transpose(1, 2)
        )

    close(convolved(wave), stock.feature_extractor(wave), hf.feature_extractor(wave))
    # A recording with an offset: fairseq's own float32 group norm loses digits there, a float64 one does not.
    expected = copy.deepcopy(stock.feature_extractor).double()(wave.double() + 0.5)
    close(convolved(wave + 0.5), expected.float(), atol=2e-5, rtol=1e-5)


@torch.inference_mode()
def test_projection(trio):
    stock, ours, hf = trio
    x = torch.randn(30, 512)
    close(ours.project(x), stock.post_extract_proj(stock.layer_norm(x)), hf.feature_projection(x))


@torch.inference_mode()
def test_positional_convolution(trio):
    stock, ours, hf = trio
    x = torch.randn(2, 40, ours.dim)
    found = encode(ours.encoder, x.flatten(0, 1), all_valid(x), n_layers=0).unflatten(0, (2, 40))
    stocks = x + stock.encoder.pos_conv(x.transpose(1, 2)).transpose(1, 2)
    theirs = x + hf.encoder.pos_conv_embed(x)
    if not stock.encoder.layer_norm_first:
        stocks, theirs = stock.encoder.layer_norm(stocks), hf.encoder.layer_norm(theirs)
    close(found, stocks, theirs)


@torch.inference_mode()
@pytest.mark.parametrize("number", [0, 1])
def test_each_layer(trio, number):
    stock, ours, hf = trio
    x = torch.randn(2, 40, ours.dim)
    found = transformer_layer(ours.encoder.layers[number], x.flatten(0, 1), all_valid(x)).unflatten(0, (2, 40))
    close(found, stock.encoder.layers[number](x.transpose(0, 1))[0].transpose(0, 1), hf.encoder.layers[number](x))


def whole(trio, wave, mask, monkeypatch):
    """Features of the three models as functions, with spans at the same places if `mask`."""
    stock, ours, hf = trio
    spans = torch.zeros(2, 24, dtype=torch.bool)
    spans[0, 3:9] = spans[1, 12:20] = True
    monkeypatch.setattr(backbone_module, "span_mask", lambda *args, **kwargs: spans.numpy())
    monkeypatch.setattr(hf.config, "apply_spec_augment", mask)  # else it masks at random in training
    monkeypatch.setattr(
        stock, "apply_mask", lambda x, *args: (torch.where(spans[:, :, None], stock.mask_emb, x), spans)
    )
    return (
        lambda: stock.extract_features(wave, mask=mask)[0],
        lambda: ours(wave, mask=mask, ids=torch.arange(2))["x"],
        lambda: hf(wave, mask_time_indices=spans if mask else None).last_hidden_state,
    )


@torch.inference_mode()
@pytest.mark.parametrize("mask", [False, True])
def test_whole_model(trio, wave, mask, monkeypatch):
    stock, ours, hf = (run() for run in whole(trio, wave, mask, monkeypatch))
    close(ours, stock, hf)


@pytest.mark.parametrize("mask", [False, True])
def test_gradients(trio, wave, mask, monkeypatch):
    """Of every parameter, in training mode. Found: 2e-6 of a gradient's norm at most; 1e-7 where it is zero but for
    rounding, as that of the keys' bias, to which a softmax is blind."""
    weights = torch.randn(2, 24, trio[1].dim, generator=torch.Generator().manual_seed(2)) / 100
    gradients = []
    for model, run in zip(trio, whole(trio, wave, mask, monkeypatch), strict=True):
        model.train().zero_grad(set_to_none=True)
        (run() * weights).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        model.eval()
    stock, ours, hf = gradients
    assert ours.keys() == stock.keys()
    renamed = hf_state_dict(ours, backbone_settings(trio[1].cfg), parametrized=True)
    assert renamed.keys() == hf.keys()
    for found, expected in ((ours, stock), (renamed, hf)):
        for name, gradient in expected.items():
            assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-6, name


@torch.inference_mode()
def test_padded_batch_of_a_layer_norm_model_is_that_of_transformers(trio, wave):
    """With a group norm, transformers' features of the padded clip depend on the padding; there it has no answer."""
    _, ours, hf = trio
    if ours.cfg.extractor_mode == "default":
        pytest.skip("group norm")
    lengths = torch.tensor([8000, 5000])
    valid = torch.arange(8000) < lengths[:, None]
    out = ours(wave * valid, lengths)
    expected = hf(wave * valid, attention_mask=valid.long()).last_hidden_state
    for i, n in enumerate(out["n_frames"].tolist()):
        close(out["x"][i, :n], expected[i, :n])
    assert (out["x"][1, out["n_frames"][1] :] == 0).all()


@torch.inference_mode()
def test_bf16_is_as_close_to_float32_as_fairseqs(trio, wave, monkeypatch):
    """Rounding to 8 bits costs both some percent; ours may not cost more, and stays in the type that was asked for."""
    _, ours, hf = trio
    exact = whole(trio, wave, True, monkeypatch)[1]()
    halves = [stock_model(ours.cfg).eval(), HubertBackbone(ours.cfg).eval()]
    for model in halves:
        model.load_state_dict(ours.state_dict())
        model.bfloat16()
    expected, found = (run() for run in whole((*halves, hf), wave.bfloat16(), True, monkeypatch)[:2])
    assert found.dtype == torch.bfloat16
    error, stocks = ((x.float() - exact).square().mean().sqrt() for x in (found, expected))
    assert error < 1.1 * stocks < 0.1, (error, stocks)


def test_autocast_to_bf16(trio, wave, monkeypatch):
    """The mask embedding is float32, the frames bf16; gradients come out, in float32."""
    ours = trio[1]
    run = whole(trio, wave, True, monkeypatch)[1]
    with torch.no_grad():
        exact = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run()
    assert (found.float() - exact).square().mean().sqrt() < 0.03
    found.float().sum().backward()
    assert ours.mask_emb.grad.dtype == torch.float32 and ours.mask_emb.grad.abs().sum() > 0
    ours.zero_grad(set_to_none=True)
