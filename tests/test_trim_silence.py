"""A model of recordings without the silence before and after hears every recording so."""

import numpy as np
import pytest
import soundfile
from conftest import tool
from serving import save_stage, voice
from training import command, run

from gmp_plugin.corpora.audio import prepare_audio, trimmed_db
from gmp_plugin.export import export_folder, export_onnx
from gmp_plugin.recognizer import Recognizer
from gmp_plugin.recognizer_model import read_stage
from gmp_plugin.timeline import Windows


def spoken(seconds, seed=0):
    """`voice` after half a second and before one of noise 60 dB below it, `(N,)`."""
    quiet = 1e-4 * np.random.default_rng(seed).standard_normal(24_000).astype(np.float32)
    return np.concatenate([quiet[:8000], voice(seconds, seed), quiet[8000:]])


@pytest.fixture
def corpus(tmp_path):
    """Eight recordings of four emotions, two speakers: the table that `make_manifest.py --corpus csv` takes."""
    lines = ["path,emotion,gender,speaker"]
    for i, emotion in enumerate(["angry", "happy", "neutral", "sad"] * 2):
        soundfile.write(tmp_path / f"{i}.wav", spoken(0.5 + i / 10, i), 16_000)
        lines.append(f"{i}.wav,{emotion},{('female', 'male')[i // 4]},s{i // 4}")
    (tmp_path / "corpus.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "corpus.csv"


@pytest.mark.parametrize("trim", [(), ("--trim-silence", "40")])
def test_training_tells_the_recogniser(corpus, tmp_path, trim):
    """From the corpus by the tools to a checkpoint; a file of the corpus, and what training had of it."""
    data = tmp_path / "data"
    settings = ["--folds", "none", "--valid-fraction", "0.5", *trim]
    tool("make_manifest")(["--corpus", "csv", "--root", str(corpus), "--out", str(data), *settings])
    run(*command("stage3", data / "fold1", tmp_path / "model", 1))
    recognizer = Recognizer.load(tmp_path / "model/checkpoint_last.pt")
    assert recognizer.chunking.trim_silence_db == (40 if trim else None)
    prepared, n_samples = prepare_audio(tmp_path, "3.wav", data / "audio_cache", 40 if trim else None)
    assert (n_samples < 16_000) == bool(trim) and trimmed_db(prepared) == (40 if trim else None)
    whole, heard = recognizer.stream([tmp_path / "3.wav", prepared])
    np.testing.assert_allclose(whole.logits, heard.logits, atol=1e-5)


def test_the_answer_is_that_of_the_recording_without_silence(tmp_path):
    """Beside a model with the same weights that was trained on recordings as they are; cut by hand."""
    plain = Recognizer.load(save_stage(tmp_path / "plain.pt"))
    cuts = Recognizer.load(save_stage(tmp_path / "cuts.pt", trim_silence_db=40))
    wave = spoken(2.0)
    by_hand = wave[8000 - 800 : 8000 + 32_000 + 800]  # 50 ms of silence stay
    answer = cuts(wave, 16_000)
    assert answer.seconds == plain(wave, 16_000).seconds == 3.5
    np.testing.assert_allclose(answer.logits, plain(by_hand, 16_000).logits, atol=2e-5)
    assert np.abs(answer.logits - plain(wave, 16_000).logits).max() > 1e-2

    timeline = cuts(wave, 16_000, Windows())
    # the decision, but for rounding: the two are computed in one batch here; the timeline is of all of the recording
    assert (timeline.emotion, timeline.seconds, timeline.warnings) == (answer.emotion, answer.seconds, answer.warnings)
    np.testing.assert_allclose(timeline.logits, answer.logits, atol=2e-5)
    short = spoken(1.0)  # a core alone
    for recording in (wave, short):
        heard, expected = (model(recording, 16_000, Windows()).timeline.probabilities for model in (cuts, plain))
        np.testing.assert_allclose(heard, expected, atol=1e-6)
    long = spoken(16.0)
    np.testing.assert_array_equal(cuts(long, 16_000).logits, plain(long, 16_000).logits)
    silent = np.zeros(16_000, np.float32)
    np.testing.assert_array_equal(cuts(silent, 16_000).logits, plain(silent, 16_000).logits)


def test_a_recording_that_is_marked_as_cut_is_heard_as_it_is(tmp_path):
    """Cut at 90 dB, which takes nothing; the model's 40 dB would take a second and a half."""
    soundfile.write(tmp_path / "a.wav", spoken(1.0), 16_000)
    prepared, n_samples = prepare_audio(tmp_path, "a.wav", tmp_path / "cache", 90)
    assert n_samples == 40_000
    cuts, plain = (Recognizer.load(save_stage(tmp_path / f"{db}.pt", trim_silence_db=db)) for db in (40, None))
    (heard,), (expected,) = cuts.stream([prepared]), plain.stream([prepared])
    np.testing.assert_array_equal(heard.logits, expected.logits)


def test_what_is_exported_cuts_as_well_and_says_so(tmp_path):
    pytest.importorskip("onnxruntime")
    checkpoint = save_stage(tmp_path / "a.pt", trim_silence_db=40)
    export_folder(read_stage(checkpoint), tmp_path / "folder")
    export_onnx(read_stage(checkpoint), tmp_path / "a.onnx")
    expected = Recognizer.load(checkpoint)(spoken(2.0), 16_000).logits
    for path in ("folder", "a.onnx"):
        np.testing.assert_allclose(Recognizer.load(tmp_path / path)(spoken(2.0), 16_000).logits, expected, atol=1e-4)
    assert "silence before and after, 40 dB below" in (tmp_path / "folder/README.md").read_text()
