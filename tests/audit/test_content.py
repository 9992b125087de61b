"""Recordings told apart, and copies found, by their sound."""

import os

import numpy as np
import pytest
from conftest import SHARED_CORPORA
from scipy.signal import correlate

from gmp_plugin.audit import content_cache
from gmp_plugin.audit.content import SAME_WAVE, SIMILAR_SPECTRUM, correlation, describe, twins
from gmp_plugin.audit.content_cache import ContentCache
from gmp_plugin.data.audio import read_audio
from gmp_plugin.manifest import Manifest


def noise(seed, n_samples=5000):
    return np.random.default_rng(seed).standard_normal(n_samples).astype(np.float32) / 10


def test_silence_at_the_ends_and_the_sign_of_zero_do_not_matter():
    wave = noise(0)
    wave[100:120] = 0
    other = np.concatenate([np.zeros(5), wave, -np.zeros(9)]).astype(np.float32)
    other[110:115] *= -1
    assert describe(other).digest == describe(wave).digest != describe(wave[1:]).digest
    assert describe(np.zeros(700, np.float32)).digest == ""


@pytest.mark.parametrize("n_samples", [1, 2, 400, 4096])
def test_spectra_have_norm_1(n_samples):
    assert np.linalg.norm(describe(noise(0, n_samples)).spectrum) == pytest.approx(1, abs=1e-5)


def test_the_spectrum_does_not_change_with_shift_gain_polarity_and_offset():
    wave = noise(0)
    changed = 0.01 - 0.3 * np.concatenate([np.zeros(1234, np.float32), wave])
    assert describe(changed).spectrum @ describe(wave).spectrum > 0.995


def test_correlation_is_scipys():
    a, b = noise(0, 3000), noise(1, 2000)
    b[500:900] += a[1000:1400]
    x, y = np.diff(a.astype(float)), np.diff(b.astype(float))
    expected = np.abs(correlate(x, y)).max() / np.sqrt((x**2).sum() * (y**2).sum())
    assert correlation(a, b) == pytest.approx(expected)
    assert correlation(a, -2 * a) == pytest.approx(1)
    assert correlation(np.full(50, 0.5), np.full(70, 0.5)) == 0  # offsets alone


def test_twins_are_found_among_all_or_with_the_first_ones():
    waves = [noise(0), noise(1), noise(0), noise(1) / 3, noise(2), np.zeros(900, np.float32), np.zeros(800, np.float32)]
    contents = [describe(wave) for wave in waves]
    found = twins(contents, waves.__getitem__)
    assert [(t.first, t.second, t.identical) for t in found] == [(0, 2, True), (1, 3, False)]
    assert found[1].correlation == pytest.approx(1, abs=1e-4)
    assert [(t.first, t.second) for t in twins(contents, waves.__getitem__, n=1)] == [(0, 2)]
    assert twins([], waves.__getitem__) == []


@pytest.mark.parametrize("corpus", ["emodb/wav", "ravdess/Actor_07", "librispeech"])
def test_real_recordings_are_told_apart(corpus):
    """Sixty of them: their spectra stay below the limit, as do the waves of the pairs with the nearest ones."""
    files = sorted((SHARED_CORPORA / corpus).rglob("*.flac"))[:60]
    if not files:
        pytest.skip("no real speech")
    files = [file for file in files if file.stem != "03-01-03-01-02-02-07"]  # the same as the one before
    import soundfile

    waves = [soundfile.read(file, dtype="float32")[0] for file in files]
    contents = [describe(wave) for wave in waves]
    similar = np.triu([[a.spectrum @ b.spectrum for a in contents] for b in contents], 1)
    assert similar.max() < SIMILAR_SPECTRUM
    for i, j in zip(*np.unravel_index(np.argsort(similar.ravel())[-5:], similar.shape), strict=True):
        assert correlation(waves[i], waves[j]) < SAME_WAVE / 2


@pytest.fixture
def manifest(tmp_path, write_audio):
    for i in range(3):
        write_audio(tmp_path / f"{i}.wav", 2000 + i, seed=i)
    return Manifest(str(tmp_path), ("0.wav", "1.wav", "2.wav"), (2000, 2001, 2002), "all.tsv")


def test_contents_are_kept_until_a_file_changes(manifest, tmp_path, write_audio, monkeypatch):
    read = []

    def counting(manifest, i):
        read.append(i)
        return read_audio(manifest, i)

    monkeypatch.setattr(content_cache, "read_audio", counting)
    cache = tmp_path / "cache.safetensors"
    first, problems = ContentCache(cache).read(manifest, workers=2)
    assert (sorted(read), problems) == ([0, 1, 2], [])
    again, _ = ContentCache(cache).read(manifest)
    assert len(read) == 3 and all(again[i].digest == first[i].digest for i in range(3))
    np.testing.assert_array_equal(again[1].spectrum, first[1].spectrum)

    write_audio(tmp_path / "1.wav", 2001, seed=9)
    os.utime(tmp_path / "1.wav", ns=(1, 1))
    changed, _ = ContentCache(cache).read(manifest)
    assert read[3:] == [1] and changed[1].digest != first[1].digest
    cache.write_bytes(b"damaged")
    assert ContentCache(cache).read(manifest)[0][2].digest == first[2].digest


def test_unreadable_recordings_are_named_every_time(manifest, tmp_path):
    (tmp_path / "1.wav").unlink()
    for _ in range(2):
        contents, problems = ContentCache(tmp_path / "cache.safetensors").read(manifest)
        assert sorted(contents) == [0, 2]
        assert len(problems) == 1 and problems[0].startswith(f"all.tsv, line 3: {tmp_path / '1.wav'} cannot be read")
