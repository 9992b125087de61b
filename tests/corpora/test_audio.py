"""Recordings: what stays, what is resampled (once), and what is refused with a reason."""

import os
import struct
import sys

import numpy as np
import pytest
import soundfile

from gmp_plugin.corpora.audio import BadRecording, common_root, prepare_audio
from gmp_plugin.errors import UserError


def tone(seconds, rate, frequency=440.0, channels=1):
    """A sine at half scale, `(N, channels)`."""
    wave = 0.5 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)
    return np.tile(wave[:, None], (1, channels))


@pytest.fixture
def corpus(tmp_path):
    root = tmp_path / "corpus"
    root.mkdir()
    return root


@pytest.mark.parametrize(("name", "subtype"), [("a.wav", "PCM_16"), ("a.wav", "FLOAT"), ("a.flac", "PCM_16")])
def test_16_khz_mono_stays(corpus, tmp_path, name, subtype):
    soundfile.write(corpus / name, tone(0.5, 16_000), 16_000, subtype=subtype)
    assert prepare_audio(corpus, name, tmp_path / "cache") == (corpus / name, 8000)
    assert not (tmp_path / "cache").exists()


def test_44_khz_stereo_becomes_16_khz_mono_once(corpus, tmp_path):
    stereo = np.concatenate([tone(0.5, 44_100, 440), tone(0.5, 44_100, 1000)], axis=1)
    (corpus / "sub").mkdir()
    soundfile.write(corpus / "sub" / "a.wav", stereo, 44_100)
    path, n_samples = prepare_audio(corpus, "sub/a.wav", tmp_path / "cache")
    assert path == tmp_path / "cache" / "sub" / "a.wav.flac"
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype, info.format) == (16_000, 1, "PCM_16", "FLAC")
    assert n_samples == info.frames == 8000
    # The mean of both channels, sampled at 16 kHz: away from the ends to a part in a hundred.
    expected = (tone(0.5, 16_000, 440) + tone(0.5, 16_000, 1000))[:, 0] / 2
    assert np.abs(soundfile.read(path)[0] - expected)[200:-200].max() < 0.005

    before = os.stat(path)
    assert prepare_audio(corpus, "sub/a.wav", tmp_path / "cache") == (path, n_samples)
    assert (os.stat(path).st_mtime_ns, os.stat(path).st_ino) == (before.st_mtime_ns, before.st_ino)
    assert [p.name for p in path.parent.iterdir()] == ["a.wav.flac"]  # no temporary files


def test_16_khz_stereo_is_mixed(corpus, tmp_path):
    soundfile.write(corpus / "a.wav", tone(0.5, 16_000, channels=2) * [1.0, 0.0], 16_000)
    path, _ = prepare_audio(corpus, "a.wav", tmp_path / "cache")
    assert np.abs(soundfile.read(path)[0] - tone(0.5, 16_000)[:, 0] / 2).max() < 1e-4


def test_silence_before_and_after_is_cut(corpus, tmp_path):
    """Half a second of tone between silence 50 dB below, a pause in its midst, at 8 kHz and at 16 kHz."""
    for rate in (8000, 16_000):
        loud, quiet = tone(0.2, rate), 10 ** (-50 / 20) * tone(0.4, rate)
        name = f"{rate}.wav"
        soundfile.write(corpus / name, np.concatenate([quiet, loud, quiet[: rate // 10], loud, quiet]), rate)
        path, n = prepare_audio(corpus, name, tmp_path / "cache", trim_db=40)
        assert path == tmp_path / "cache" / f"{name}.flac"
        assert n == soundfile.info(path).frames == pytest.approx(0.6 * 16_000, abs=0.02 * 16_000)
        assert prepare_audio(corpus, name, tmp_path / "cache", trim_db=60)[1] == pytest.approx(1.3 * 16_000, abs=1)
    soundfile.write(corpus / "silent.wav", np.zeros(8000), 16_000)
    assert prepare_audio(corpus, "silent.wav", tmp_path / "cache", trim_db=40)[1] == 8000


def test_a_changed_source_is_resampled_again(corpus, tmp_path):
    soundfile.write(corpus / "a.wav", tone(0.5, 8000), 8000)
    path, _ = prepare_audio(corpus, "a.wav", tmp_path / "cache")
    soundfile.write(corpus / "a.wav", tone(0.25, 8000), 8000)
    os.utime(corpus / "a.wav", (1, 1))  # older than the cache, and still another recording
    assert prepare_audio(corpus, "a.wav", tmp_path / "cache") == (path, 4000)


def test_another_corpus_does_not_get_this_ones_audio(corpus, tmp_path):
    soundfile.write(corpus / "a.wav", tone(0.5, 8000), 8000)
    prepare_audio(corpus, "a.wav", tmp_path / "cache")
    other = tmp_path / "other"
    other.mkdir()
    soundfile.write(other / "a.wav", tone(0.3, 8000), 8000)
    assert prepare_audio(other, "a.wav", tmp_path / "cache")[1] == 4800


def test_a_damaged_cache_is_made_again(corpus, tmp_path):
    soundfile.write(corpus / "a.wav", tone(0.5, 8000), 8000)
    path, _ = prepare_audio(corpus, "a.wav", tmp_path / "cache")
    path.write_bytes(b"damaged")
    assert prepare_audio(corpus, "a.wav", tmp_path / "cache") == (path, 8000)
    assert soundfile.info(path).frames == 8000


def test_full_scale_is_clipped_not_wrapped(corpus, tmp_path):
    square = np.sign(tone(0.5, 44_100, 300)[:, 0])  # overshoots 1.0 when resampled
    soundfile.write(corpus / "a.wav", square, 44_100)
    path, _ = prepare_audio(corpus, "a.wav", tmp_path / "cache")
    resampled = soundfile.read(path)[0]
    assert np.abs(np.diff(resampled)).max() < 1.9
    assert resampled.max() > 0.99


def test_same_name_with_other_suffix_gets_a_cache_file_of_its_own(corpus, tmp_path):
    soundfile.write(corpus / "a.wav", tone(0.5, 8000), 8000)
    soundfile.write(corpus / "a.flac", tone(0.3, 8000), 8000)
    (one, n_one), (two, n_two) = (prepare_audio(corpus, name, tmp_path / "cache") for name in ("a.wav", "a.flac"))
    assert one != two and (n_one, n_two) == (8000, 4800)


def test_paths_outside_the_root_stay_inside_the_cache(corpus, tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(0.5, 8000), 8000)
    for name in ("../a.wav", str(tmp_path / "a.wav")):
        path, _ = prepare_audio(corpus, name, tmp_path / "cache")
        assert path.is_relative_to(tmp_path / "cache")
        assert path.is_file()


def write_header_size(path, size):
    """Put `size` into the data chunk of a plain WAV file."""
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def make_bad(folder, case):
    path = folder / ("bad.flac" if "flac" in case else "bad.wav")
    rate = 44_100 if "44" in case else 16_000
    if case == "text":
        path.write_text("not audio" * 100)
    elif case == "no bytes":
        path.write_bytes(b"")
    elif case == "no samples":
        soundfile.write(path, np.zeros(0), rate)
    elif case.startswith("short"):
        soundfile.write(path, np.zeros(int(399 * rate / 16_000)), rate)
    elif case.startswith("nan"):
        samples = tone(0.5, rate)
        samples[100] = np.nan
        soundfile.write(path, samples, rate, subtype="FLOAT")
    elif case.startswith("cut"):
        rng = np.random.default_rng(0)
        soundfile.write(path, 0.1 * rng.standard_normal(rate), rate)
        cut(path)
    return path.name


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "does not exist"),
        ("text", "cannot be read as audio"),
        ("no bytes", r"is empty \(0 bytes\)"),
        ("no samples", r"is empty \(0 samples\)"),
        ("short", "has 399 samples at 16000 Hz, fewer than one frame"),
        ("short 44 kHz", "has 399 samples at 16000 Hz, fewer than one frame"),
        ("nan", "not finite"),
        ("nan 44 kHz", "not finite"),
        ("cut wav", "cut off or damaged"),
        ("cut wav 44 kHz", "cut off or damaged"),
        ("cut flac", "cut off or damaged"),
        ("cut flac 44 kHz", "cut off or damaged"),
    ],
)
def test_bad_recordings_are_named_with_a_remedy(corpus, tmp_path, case, message):
    name = make_bad(corpus, case)
    with pytest.raises(BadRecording, match=rf"{corpus / name} .*{message}.*(again|remove|copy).*--skip-bad"):
        prepare_audio(corpus, name, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 16_044])
def test_headers_of_pipes_and_sloppy_writers_are_not_cut_off(corpus, tmp_path, size):
    soundfile.write(corpus / "a.wav", tone(0.5, 16_000), 16_000)
    write_header_size(corpus / "a.wav", size)
    assert prepare_audio(corpus, "a.wav", tmp_path / "cache")[1] == 8000


def test_names_that_cannot_be_kept_are_bad_recordings(corpus, tmp_path):
    latin = os.path.join(os.fsencode(corpus), b"gr\xfc\xdfe.wav")
    soundfile.write(latin, tone(1.0, 16_000), 16_000)
    with pytest.raises(BadRecording, match=r"gr\\xfc\\xdfe.wav has a name that is not UTF-8, .* --skip-bad") as caught:
        prepare_audio(corpus, os.fsdecode(latin), tmp_path / "cache")
    str(caught.value).encode()  # can be printed
    long = corpus / ("a" * 250 + ".wav")
    soundfile.write(long, tone(1.0, 44_100), 44_100)
    with pytest.raises(BadRecording, match="the name is too long for a copy of it that ends in .flac; rename it"):
        prepare_audio(corpus, long.name, tmp_path / "cache")


def test_one_frame_is_enough(corpus, tmp_path):
    soundfile.write(corpus / "a.wav", np.zeros(400), 16_000)
    assert prepare_audio(corpus, "a.wav", tmp_path / "cache")[1] == 400


def test_without_torchaudio_the_message_says_what_to_do(corpus, tmp_path, monkeypatch):
    soundfile.write(corpus / "a.wav", tone(0.5, 8000), 8000)
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    monkeypatch.setitem(sys.modules, "torchaudio.functional", None)
    with pytest.raises(UserError, match="8000 Hz .* torchaudio does not load .*make setup") as info:
        prepare_audio(corpus, "a.wav", tmp_path / "cache")
    assert not isinstance(info.value, BadRecording)  # --skip-bad must not hide it


def test_common_root(tmp_path):
    root, cache = tmp_path / "data" / "corpus", tmp_path / "out" / "audio_cache"
    plain, resampled, outside = root / "a.wav", cache / "b.wav.flac", tmp_path / "data" / "c.wav"
    assert common_root(root, [plain], cache) == root
    assert common_root(root, [resampled], cache) == cache
    assert common_root(root, [plain, resampled], cache) == tmp_path
    assert common_root(root, [plain, outside], cache) == tmp_path / "data"
    assert common_root(root, [plain, root / "out" / "audio_cache" / "b"], root / "out" / "audio_cache") == root
