"""Frozen convolutions are computed once for every clip, and nothing shows it but the time."""

import logging

import pytest
import torch
from conftest import TINY
from torch.nn.utils.rnn import pad_sequence

from gmp_plugin.frames import n_frames
from gmp_plugin.hubert import backbone as backbone_module
from gmp_plugin.hubert.backbone import HubertBackbone, hubert_config
from gmp_plugin.hubert.conv_cache import ConvCache
from gmp_plugin.hubert.convolution import convolve

LENGTHS = (4000, 400, 9000, 7333, 5120)


@pytest.fixture
def computed(monkeypatch):
    """Lengths of the clips that the convolutions have really computed, in order."""
    lengths, convolve = [], backbone_module.convolve

    def counting(extractor, source, n_samples):
        lengths.extend(n_samples.tolist())
        return convolve(extractor, source, n_samples)

    monkeypatch.setattr(backbone_module, "convolve", counting)
    return lengths


@pytest.fixture
def clips():
    torch.manual_seed(1)
    return [0.1 * torch.randn(n) for n in LENGTHS]


def model(cache=None, seed=0, normalize=False, **settings):
    torch.manual_seed(seed)
    frozen = HubertBackbone(hubert_config({**TINY, **settings}), normalize, frozen=True)
    frozen.conv_cache = cache
    return frozen


def features(frozen, clips):
    return frozen.convolve(pad_sequence(clips, batch_first=True), torch.tensor([len(c) for c in clips]))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("extractor_mode", ["default", "layer_norm"])
def test_equal_to_the_bit_in_any_batch_with_a_cache_and_without(clips, tmp_path, computed, normalize, extractor_mode):
    settings = {"normalize": normalize, "extractor_mode": extractor_mode}
    alone = torch.cat([features(model(**settings), [clip]) for clip in clips])
    assert torch.equal(features(model(**settings), clips), alone)
    kept, later = (model(ConvCache(10**9, str(tmp_path)), **settings) for _ in range(2))
    assert torch.equal(features(kept, clips), alone)
    computed.clear()
    assert torch.equal(features(kept, clips[3:]), alone[-n_frames(7333) - n_frames(5120) :])
    assert torch.equal(features(later, clips), alone)  # another process, from disk
    assert computed == []


def test_frozen_features_are_those_of_the_batch_that_trains(clips):
    """Only the sizes of the matrices differ, and with them the order of sums."""
    frozen, thawed = model(), HubertBackbone(hubert_config(TINY))
    thawed.load_state_dict(frozen.state_dict())
    torch.testing.assert_close(features(frozen, clips), features(thawed, clips).detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("extractor_mode", ["default", "layer_norm"])
def test_audio_is_not_rounded_in_half_precision(clips, extractor_mode):
    """Nor where a GPU's way is taken, which is that of training. Rounded, little would be left of these clips."""
    half = model(extractor_mode=extractor_mode)
    first = half.feature_extractor.conv_layers[0][0].weight.data
    first -= first.mean(-1, keepdim=True)  # an offset is nothing to it
    half = half.bfloat16().requires_grad_(True).feature_extractor
    exact = model(extractor_mode=extractor_mode).feature_extractor
    exact.load_state_dict({name: x.float() for name, x in half.state_dict().items()})
    source = pad_sequence([1 + 0.01 * clip for clip in clips], batch_first=True)
    n_samples = torch.tensor(LENGTHS)
    with torch.no_grad():
        expected, alone = (convolve(extractor, source, n_samples) for extractor in (exact, half))
    error, alones = (
        (x.float() - expected).norm() / expected.norm() for x in (convolve(half, source, n_samples), alone)
    )
    assert error < 1.5 * alones < 0.1, (error, alones)


def test_the_rest_of_the_model_trains(clips):
    frozen = model(ConvCache(10**9)).train()
    for _ in range(2):
        frozen.zero_grad()
        frozen(pad_sequence(clips, batch_first=True), torch.tensor(LENGTHS))["x"].square().sum().backward()
    without = {name for name, p in frozen.named_parameters() if p.grad is None}
    assert all(name.startswith(("feature_extractor.", "mask_emb")) for name in without)
    assert any(name.startswith("feature_extractor.") for name in without)


def test_memory_takes_what_comes_first_until_it_is_full(clips, computed):
    sizes = {n: n_frames(n) * 16 * 4 for n in LENGTHS}
    cache = ConvCache(sizes[4000] + sizes[400] + sizes[7333])
    first = features(model(cache), clips)
    assert computed == list(LENGTHS)
    computed.clear()
    assert torch.equal(features(model(cache), clips), first)
    assert computed == [9000, 5120]  # 9000 was too long when it came; then 7333 still had room
    assert sum(x.nbytes for x in cache.memory.values()) == sizes[4000] + sizes[400] + sizes[7333]


def test_a_clip_that_comes_twice_is_kept_once(clips, computed):
    cache = ConvCache(10**9)
    twice = features(model(cache), [clips[0], clips[0]])
    assert torch.equal(*twice.split(n_frames(4000)))
    assert len(cache.memory) == 1 and cache.room == 10**9 - n_frames(4000) * 16 * 4


def test_crops_at_random_places_are_not_kept(clips, computed):
    cache = ConvCache(10**9, shorter_than=5120)
    for _ in range(2):
        features(model(cache), clips)
    assert computed == [*LENGTHS, 9000, 7333, 5120]


def test_nothing_of_another_encoder_is_used(clips, tmp_path):
    for other in ({"seed": 1}, {"normalize": True}, {"extractor_mode": "layer_norm"}):
        for settings in ({}, other):
            expected = features(model(**settings), clips)
            assert torch.equal(features(model(ConvCache(10**9, str(tmp_path)), **settings), clips), expected)
    frozen = model(ConvCache(10**9, str(tmp_path)))
    features(frozen, clips)
    frozen.load_state_dict(model(seed=1).state_dict())
    assert torch.equal(features(frozen, clips), features(model(seed=1), clips))
    half = features(frozen.to(torch.bfloat16), [clip.bfloat16() for clip in clips])
    assert half.dtype == torch.bfloat16
    assert torch.equal(features(frozen, [clip.bfloat16() for clip in clips]), half)


def test_a_damaged_file_is_computed_and_written_again(clips, tmp_path, computed):
    expected = features(model(ConvCache(0, str(tmp_path))), clips)
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == len(clips)
    files[0].write_bytes(files[0].read_bytes()[:50])
    computed.clear()
    for _ in range(2):
        assert torch.equal(features(model(ConvCache(0, str(tmp_path))), clips), expected)
    assert len(computed) == 1


def test_a_folder_that_cannot_be_written_stops_nothing(clips, tmp_path, caplog):
    (tmp_path / "file").touch()
    frozen = model(ConvCache(0, str(tmp_path / "file")))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(features(frozen, clips), features(model(), clips))
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "not kept in" in warning.message
