"""Recordings of every kind, good and bad, as they reach the model."""

import io
import os

import numpy as np
import pytest
import soundfile
from serving import voice

from gmp_plugin.corpora.audio import BadRecording, prepare_audio
from gmp_plugin.recording import Meter, Recording


def read(recording):
    """All of it as 16 kHz mono, and the warnings."""
    meter = Meter()
    wave = np.concatenate(list(recording.mono(meter)))
    return wave, meter.warnings(len(wave) / 16_000)


def test_channels_that_cancel_each_other_are_named():
    wave = voice(1.0)
    assert read(Recording.of(np.stack([wave, -wave], axis=1), 16_000))[1] == (
        "nearly silent when mixed: the channels cancel each other, give one of them",
    )
    assert read(Recording.of(np.stack([wave, 0 * wave], axis=1), 16_000))[1] == ()


def write(path, wave, rate=16_000, **options):
    soundfile.write(path, wave, rate, **options)
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.wav", {}), ("a.wav", {"subtype": "FLOAT"}), ("a.wav", {"subtype": "PCM_U8"}), ("a.flac", {}), ("a.ogg", {}),
     ("a.mp3", {}), ("a.aiff", {}), ("a.au", {}), ("a.w64", {})],
)  # fmt: skip
def test_every_format_is_read(tmp_path, name, options):
    wave, warnings = read(Recording.open(write(tmp_path / name, voice(1.0), **options)))
    # Lossy formats pad to their own frames.
    assert len(wave) == pytest.approx(16_000, abs=1200) and warnings == ()
    n = min(len(wave), 16_000)
    lag = np.argmax(np.correlate(wave[:n], voice(1.0)[:n], "full")) - (n - 1)
    assert abs(lag) < 1200
    if name not in ("a.ogg", "a.mp3"):
        np.testing.assert_allclose(wave, voice(1.0), atol=1 / 127)  # of 8 bits


def test_5_1_channels_are_mixed_to_their_mean(tmp_path):
    channels = np.stack([voice(1.0, seed) for seed in range(6)], axis=1)
    wave, _ = read(Recording.open(write(tmp_path / "a.wav", channels, subtype="FLOAT")))
    np.testing.assert_allclose(wave, channels.mean(1), atol=1e-6)


def test_8_khz_stereo_comes_out_at_16_khz(tmp_path):
    stereo = np.stack([voice(2.0, rate=8000)] * 2, axis=1)
    recording = Recording.open(write(tmp_path / "a.wav", stereo, 8000))
    assert recording.seconds == 2.0
    assert len(read(recording)[0]) == 32_000


def test_integers_in_memory_mean_what_they_mean_in_a_file():
    wave = voice(0.6)
    for kind, scale, offset in ((np.int16, 2**15, 0), (np.int32, 2**31, 0), (np.uint8, 2**7, 2**7)):
        given = (np.round(wave.astype(np.float64) * scale) + offset).astype(kind)
        np.testing.assert_allclose(read(Recording.of(given, 16_000))[0], wave, atol=1 / scale)


def test_torch_tensors_are_taken_as_they_are():
    torch = pytest.importorskip("torch")
    found, _ = read(Recording.of(torch.from_numpy(voice(0.6)).requires_grad_(), 16_000))
    np.testing.assert_array_equal(found, voice(0.6))


@pytest.mark.parametrize(
    ("wave", "rate", "message"),
    [
        (np.zeros((2, 16_000)), 16_000, "must be transposed"),
        (np.zeros((10, 2, 2)), 16_000, r"expected samples \(N,\)"),
        (np.array(["a"] * 1000), 16_000, "expected samples"),
        (np.zeros(16_000), 16, "header is damaged"),
        (np.zeros(16_000), 16_000.5, "whole number"),
        (np.zeros(160), 16_000, r"160 samples \(10 ms\), fewer than one frame \(25 ms\)"),
        (np.zeros(0), 16_000, "0 samples"),
    ],
)
def test_what_is_no_recording_is_said(wave, rate, message):
    with pytest.raises(BadRecording, match=message):
        Recording.of(wave, rate)


def test_what_makes_an_answer_doubtful_is_said():
    quiet, loud = 1e-4 * voice(1.0), np.clip(20 * voice(1.0), -1, 1)
    assert read(Recording.of(np.zeros(16_000), 16_000))[1] == ("silence: every sample is zero",)
    assert "nearly silent: the peak is -" in read(Recording.of(quiet, 16_000))[1][0]
    assert "clipped: " in read(Recording.of(loud, 16_000))[1][0]
    assert read(Recording.of(voice(0.1), 16_000))[1] == ("short: 0.10 s of audio",)
    assert read(Recording.of(voice(1.0) / np.abs(voice(1.0)).max(), 16_000))[1] == ()  # full scale, nothing cut


def test_clipping_is_found_in_whatever_blocks_it_comes():
    loud = np.clip(20 * voice(1.0), -1, 1)[:, None]
    whole, parts = Meter(), Meter()
    whole.add(loud)
    for block in np.array_split(loud, 333):
        parts.add(block)
    assert parts.n_flat == whole.n_flat > 1000


def bad_files(folder):
    """Name -> what is wrong with it, in a few words of the message."""
    data = io.BytesIO()
    soundfile.write(data, voice(3.0), 16_000, format="FLAC")
    flac, wav = data.getvalue(), write(folder / "good.wav", voice(3.0)).read_bytes()
    nan = voice(1.0)
    nan[5000] = np.nan
    write(folder / "nan.wav", nan, subtype="FLOAT")
    write(folder / "short.wav", voice(0.01))
    write(folder / "none.wav", voice(0))
    contents = {
        "empty.wav": (b"", "0 bytes"),
        "text.wav": (b"Dear diary, " * 50, "cannot be read as audio"),
        "head.wav": (wav[:20], "cannot be read|0 samples|cut off"),
        "cut.wav": (wav[:9000], "cut off"),
        "cut.flac": (flac[: len(flac) // 2], "damaged|cut off"),
        "noise.raw": (wav, "cannot be read"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder.wav").mkdir()
    return {name: words for name, (_, words) in contents.items()} | {
        "nan.wav": "not finite", "short.wav": "fewer than one frame", "none.wav": "0 samples", "folder.wav": "no file",
        "absent.wav": "does not exist",
    }  # fmt: skip


def test_a_bad_file_is_named_with_what_is_wrong(tmp_path):
    for name, words in bad_files(tmp_path).items():
        with pytest.raises(BadRecording, match=words) as info:
            read(Recording.open(tmp_path / name))
        assert name in str(info.value)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_named(tmp_path):
    path = write(tmp_path / "secret.wav", voice(1.0))
    path.chmod(0)
    with pytest.raises(BadRecording, match="permission denied"):
        Recording.open(path)


def test_a_wav_from_a_pipe_does_not_know_its_length(tmp_path):
    """As ffmpeg -f wav - writes it: the largest number for both sizes."""
    data = bytearray(write(tmp_path / "a.wav", voice(1.0)).read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(data)
    assert len(read(Recording.open(tmp_path / "a.wav"))[0]) == 16_000


def test_a_flac_from_a_pipe_is_told_to_be_written_again(tmp_path):
    """An encoder that writes to a pipe leaves the number of samples in the header at 0."""
    data = bytearray(write(tmp_path / "a.flac", voice(1.0)).read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(data)
    message = "does not say how long it is.* encode it again into a file, as by ffmpeg"
    with pytest.raises(BadRecording, match=message):
        read(Recording.open(tmp_path / "a.flac"))
    with pytest.raises(BadRecording, match=message):
        prepare_audio(tmp_path, "a.flac", tmp_path / "cache")


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_damaged_headers_end_in_an_answer_or_a_message(tmp_path, kind):
    """Seeded mutations of the first bytes: never another exception, a hang, or gigabytes."""
    data = io.BytesIO()
    soundfile.write(data, voice(0.5), 16_000, format=kind)
    good, rng, refused = data.getvalue(), np.random.default_rng(1), 0
    for _ in range(400):
        changed = bytearray(good)
        for _ in range(rng.integers(1, 6)):
            place = int(rng.integers(0, 64))
            changed[place] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))]))
        if rng.random() < 0.3:
            changed = changed[: int(rng.integers(1, len(changed)))]
        path = tmp_path / f"a.{kind.lower()}"
        path.write_bytes(changed)
        try:
            wave, _ = read(Recording.open(path))
            assert np.isfinite(wave).all() and len(wave) < 1e8
        except BadRecording:
            refused += 1
    assert 50 < refused < 400
