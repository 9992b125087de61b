"""Any sampling rate to 16 kHz, in one piece and block by block."""

import numpy as np
import pytest

from gmp_plugin.resampling import resample, resample_blocks

RATES = [8000, 11_025, 22_050, 44_100, 48_000, 96_000, 22_051, 7_919]


def tone(seconds, rate, frequency=440.0):
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_stays_the_same_tone(rate):
    """Also at rates that share no factor with 16000."""
    found = resample(tone(1.0, rate), rate)
    assert len(found) == 16_000 and found.dtype == np.float32
    # Away from the ends to one part in a hundred: the filters are short.
    assert np.abs(found - tone(1.0, 16_000))[500:-500].max() < 0.005


@pytest.mark.parametrize("rate", [*RATES, 16_000])
def test_blocks_of_any_length_give_what_the_whole_gives(rate):
    rng = np.random.default_rng(rate)
    wave = rng.standard_normal(int(3.7 * rate)).astype(np.float32)
    cuts = np.sort(rng.integers(0, len(wave), 9))
    blocks = list(resample_blocks(np.split(wave, cuts), rate))
    whole = resample(wave, rate)
    together = np.concatenate(blocks)
    assert together.shape == whole.shape
    # Float32 sums of some hundred products in another order.
    np.testing.assert_allclose(together, whole, atol=2e-6)


def test_little_audio_is_resampled_too():
    for n in (0, 1, 5, 441):
        assert len(np.concatenate([np.zeros(0), *resample_blocks([np.ones(n, np.float32)], 44_100)])) == -(
            -n * 160 // 441
        )
