"""The backbone against stock fairseq, and against itself in padded batches."""

import numpy as np
import pytest
import torch
from conftest import TINY, stock_hubert
from torch.nn.utils.rnn import pad_sequence

from gmp_plugin.errors import UserError
from gmp_plugin.frames import n_frames
from gmp_plugin.hubert.backbone import HubertBackbone, hubert_config
from gmp_plugin.hubert.masking import span_mask

ARCHITECTURES = {
    "base": TINY,
    "large": {**TINY, "extractor_mode": "layer_norm", "layer_norm_first": True, "conv_bias": True},
}
# Float32 sums in another order (mask or none, padded or not) differ in the last bits.
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(params=ARCHITECTURES)
def pair(request):
    """Stock HubertModel and our backbone with the same weights, in evaluation mode."""
    settings = ARCHITECTURES[request.param]
    stock, state = stock_hubert(settings)
    ours = HubertBackbone(hubert_config(settings)).eval()
    wanted = ours.state_dict().keys()
    ours.load_state_dict({k: v for k, v in state["model"].items() if k in wanted})
    return stock, ours


@torch.inference_mode()
@pytest.mark.parametrize("layer", [1, 2, 4, None])
def test_features_of_a_clip_are_fairseqs(pair, layer):
    stock, ours = pair
    wave = torch.randn(1, 9000)
    expected, _ = stock.extract_features(wave, padding_mask=None, mask=False, output_layer=layer)
    torch.testing.assert_close(ours(wave, output_layer=layer)["x"], expected, **CLOSE)


@torch.inference_mode()
def test_negative_layers_count_from_the_end_and_stop_there(pair):
    _, ours = pair
    wave = torch.randn(1, 4000)
    torch.testing.assert_close(ours(wave, output_layer=-3)["x"], ours(wave, output_layer=2)["x"])
    ours.encoder.layers[2].fc1 = None  # a layer above would fail if it ran
    ours(wave, output_layer=-3)
    with pytest.raises(UserError, match="layer 5 is out of range"):
        ours(wave, output_layer=5)


@torch.inference_mode()
@pytest.mark.parametrize("normalize", [False, True])
def test_features_do_not_depend_on_the_batch(pair, normalize):
    _, ours = pair
    ours.normalize = normalize
    clips = [torch.randn(n) * (i + 1) for i, n in enumerate((400, 1600, 16_000, 7333, 719))]
    batch = ours(pad_sequence(clips, batch_first=True), torch.tensor([len(c) for c in clips]))
    for i, clip in enumerate(clips):
        alone = ours(clip[None])["x"][0]
        assert len(alone) == batch["n_frames"][i] == n_frames(len(clip))
        torch.testing.assert_close(batch["x"][i, : len(alone)], alone, **CLOSE)


def test_gradients_do_not_depend_on_padding():
    torch.manual_seed(0)
    ours = HubertBackbone(hubert_config({**TINY, "dropout": 0.0, "attention_dropout": 0.0})).train()
    clips = [torch.randn(n) for n in (1600, 16_000)]

    def gradients(forward):
        ours.zero_grad()
        forward().backward()
        return [p.grad.clone() for p in ours.parameters() if p.grad is not None]

    lengths = torch.tensor([1600, 16_000])
    padded = pad_sequence(clips, batch_first=True)

    def batch():
        out = ours(padded, lengths)
        return sum(out["x"][i, : out["n_frames"][i], 0].sum() for i in range(2))

    together = gradients(batch)
    alone = gradients(lambda: sum(ours(clip[None])["x"][..., 0].sum() for clip in clips))
    for a, b in zip(together, alone, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm() + 1e-4


NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "dropout_input": 0.0}


@torch.no_grad()
@pytest.mark.parametrize("name", [*NO_DROPOUT, "encoder_layerdrop"])
@pytest.mark.parametrize("size", ARCHITECTURES)
def test_each_dropout_is_where_fairseq_has_it(name, size):
    """Probability 1 takes chance away: a dropped value is zero in both models."""
    settings = {**ARCHITECTURES[size], **NO_DROPOUT}
    stock, state = stock_hubert({**settings, name: 1.0})
    ours = HubertBackbone(hubert_config({**settings, name: 1.0}))
    ours.load_state_dict({k: v for k, v in state["model"].items() if k in ours.state_dict()})
    wave = torch.randn(2, 3000)
    expected = stock.train().extract_features(wave, mask=False)[0]
    found = ours.train()(wave)["x"]
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (found - ours.eval()(wave)["x"]).abs().max() > 1e-3
    torch.testing.assert_close(ours(wave)["x"], stock.eval().extract_features(wave, mask=False)[0], **CLOSE)


def test_normalisation_is_fairseqs(pair):
    stock, ours = pair
    ours.normalize = True
    wave = torch.randn(1, 5000) * 3 + 1
    expected, _ = stock.extract_features(torch.nn.functional.layer_norm(wave, wave.shape), mask=False)
    torch.testing.assert_close(ours(wave)["x"], expected, **CLOSE)


def test_a_recording_shorter_than_a_frame_is_refused(pair):
    with pytest.raises(UserError, match="399 samples is shorter than one frame"):
        pair[1](torch.randn(2, 5000), torch.tensor([5000, 399]))


def test_unknown_settings_and_code_in_settings_are_refused():
    with pytest.raises(UserError, match="unknown settings encoder_layer;"):
        hubert_config({"encoder_layer": 3})
    with pytest.raises(UserError, match="conv_feature_layers"):
        hubert_config({"conv_feature_layers": "__import__('os').system('true')"})
    for other in ({"mask_selection": "uniform"}, {"no_mask_overlap": True}, {"mask_channel_selection": "poisson"}):
        with pytest.raises(UserError, match=f"{next(iter(other))}.*: masks are spans of one length, which may overlap"):
            hubert_config(other)


def test_masks_depend_on_seed_update_and_utterance_alone():
    def mask(ids, seed=1, update=5, lengths=(300, 300)):
        return span_mask(lengths, max(lengths), 0.8, 10, ids, seed, update)

    first = mask([7, 8])
    assert (mask([8, 7])[::-1] == first).all()
    assert (mask([7, 9], lengths=(300, 20))[0] == first[0]).all()  # stock fairseq cuts it to the shortest clip's
    assert (mask([7, 8], seed=2) != first).any()
    assert (mask([7, 8], update=6) != first).any()
    assert (first[0] != first[1]).any()


def test_mask_share_is_huberts():
    """At 0.80 x 10 with overlaps about 1 - exp(-0.8) = 55 % of the frames (fairseq gives the same)."""
    mask = span_mask([1000] * 50, 1000, 0.8, 10, range(50), 1, 1)
    assert mask.mean() == pytest.approx(1 - np.exp(-0.8), abs=0.03)


def test_a_small_share_of_channels_is_small():
    """0.004 x 768 channels are a span of 64 in 20 clips; fairseq ends with an error where it draws none."""
    mask = span_mask([768] * 400, 768, 0.004, 64, range(400), 1, 1, min_masks=0)
    assert mask.mean() == pytest.approx(0.004, rel=0.4)
    assert mask.sum(1).max() <= 64 and (mask.sum(1) == 0).mean() == pytest.approx(0.952, abs=0.03)


@pytest.mark.parametrize("n", [*range(1, 45), 100])
@pytest.mark.parametrize("prob", [0.065, 0.8, 1.0])
def test_clips_shorter_than_a_mask_keep_a_frame(n, prob):
    for i in range(20):
        mask = span_mask([n], n + 3, prob, 10, [i], 1, 1)[0]
        assert not mask[n:].any()
        assert (1 <= mask[:n].sum() < n) if n > 1 else not mask.any()


@torch.inference_mode()
def test_the_feature_penalty_is_computed_where_it_is_asked_for(pair):
    _, ours = pair
    wave = torch.randn(1, 5000)
    assert ours(wave, mask=True, ids=torch.tensor([0]))["features_pen"] is None
    expected = ours.convolve(wave, torch.tensor([5000])).square().mean()
    torch.testing.assert_close(ours(wave, penalty=True)["features_pen"], expected)
