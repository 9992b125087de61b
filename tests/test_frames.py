import numpy as np
import pytest
import torch
from fairseq.models.wav2vec.wav2vec2 import ConvFeatureExtractionModel
from hypothesis import given, settings
from hypothesis import strategies as st

from gmp_plugin import frames
from gmp_plugin.errors import UserError

CONV = ConvFeatureExtractionModel([(1, k, s) for k, s in frames.KERNELS_STRIDES], mode="default")


@given(st.integers(400, 200_000))
@settings(max_examples=60, deadline=None)
def test_frame_count_is_the_length_of_fairseqs_convolutions(n):
    with torch.inference_mode():
        assert frames.n_frames(n) == CONV(torch.zeros(1, n)).shape[-1]


def test_hop_and_receptive_field():
    assert frames.n_frames(399) == 0
    assert frames.n_frames(400) == frames.n_frames(719) == 1
    assert frames.n_frames(720) == 2
    assert frames.FRAME_RATE == 50


@given(st.integers(0, 10_000))
def test_n_samples_is_the_least_that_gives_the_frames(n):
    assert frames.n_frames(frames.n_samples(n)) == n
    assert n == 0 or frames.n_frames(frames.n_samples(n) - 1) == n - 1


def test_arrays_and_tensors_count_like_ints():
    lengths = [0, 399, 400, 719, 720, 16_000, 547_000]
    expected = [frames.n_frames(n) for n in lengths]
    assert frames.n_frames(np.array(lengths)).tolist() == expected
    assert frames.n_frames(torch.tensor(lengths)).tolist() == expected


def test_layers_count_from_one_or_from_the_end():
    assert frames.resolve_layer(-3, 12) == 10
    assert frames.resolve_layer(-1, 12) == frames.resolve_layer(12, 12) == 12
    assert frames.resolve_layer(-12, 12) == frames.resolve_layer(1, 12) == 1


def test_a_share_of_the_layers():
    assert [frames.resolve_layer(0.75, n) for n in (12, 24, 4, 1)] == [9, 18, 3, 1]
    assert [frames.layer_number(text) for text in ("9", "-3", "0.75")] == [9, -3, 0.75]
    for share in (1.0, 0.0, -0.5, 3.0):
        with pytest.raises(UserError, match=f"layer {share} is out of range"):
            frames.resolve_layer(share, 12)


@pytest.mark.parametrize("layer", [0, 13, -13, 1.5])
def test_layer_out_of_range(layer):
    with pytest.raises(UserError, match=f"layer {layer} is out of range: the model has 12"):
        frames.resolve_layer(layer, 12)
