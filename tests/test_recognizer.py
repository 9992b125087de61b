"""Recordings in, emotions out: the same answer alone, in a batch, from a file and in memory."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from conftest import REPO
from serving import FLESA, GEMO_CLAP, NAMES, STAGE1, STAGE3, save_stage, voice

from gmp_plugin import frames
from gmp_plugin.chunks import Chunking
from gmp_plugin.corpora.audio import BadRecording
from gmp_plugin.errors import UserError
from gmp_plugin.evaluation import EmotionClassifier
from gmp_plugin.recognizer import PACKAGED, Recognizer
from gmp_plugin.recording import Recording
from gmp_plugin.timeline import Windows

# Logits lie within -30..30. Backbone and BiLSTM are equal to some 1e-6 of their size in any batch.
ATOL = 2e-5


def test_the_package_leaves_the_root_logger_as_it_is():
    """fairseq, when it is imported, has it print what is for debugging."""
    code = (
        "import logging; from gmp_plugin.recognizer import Recognizer; print(logging.root.level, logging.root.handlers)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "30 []\n"  # WARNING


def test_the_workflow_starts_without_torch():
    """Snakemake reads its file for every call and for some jobs: fairseq and torch would take seconds each time."""
    file = (REPO / "examples/iemocap/Snakefile").read_text() + (REPO / "examples/pipeline.smk").read_text()
    imports = re.findall(r"^(?:from gmp_plugin[\w.]* )?import .+$", file, re.MULTILINE)
    code = "\n".join([*imports, "import sys; print([m for m in ('torch', 'fairseq') if m in sys.modules])"])
    assert len(imports) > 8 and subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_stage(tmp_path_factory.mktemp("model") / "checkpoint_best.pt")


@pytest.fixture(scope="module")
def recognizer(checkpoint):
    return Recognizer.load(checkpoint)


@pytest.mark.parametrize(
    ("stage", "model"),
    [
        (STAGE1, {}),
        (STAGE3, {}),
        (STAGE3, FLESA),
        (STAGE3, {"pooling": "mean", "head": "cross_entropy"}),
        (GEMO_CLAP, {}),
    ],
)
@pytest.mark.parametrize("hubert", [{}, {"extractor_mode": "layer_norm", "layer_norm_first": True, "conv_bias": True}])
def test_it_answers_as_the_stage_itself_does(tmp_path, stage, model, hubert):
    """fairseq's own loading of the checkpoint, and softmax by hand; gender where the stage has the head."""
    path = save_stage(tmp_path / "checkpoint.pt", stage, hubert, model, normalize=bool(hubert))
    model = EmotionClassifier.load(path).model
    for seed, seconds in enumerate((0.03, 1.0, 7.3)):
        wave = voice(seconds, seed)
        with torch.no_grad():
            logits = model(torch.from_numpy(wave)[None])
            expected = {k: logits[k][0].double().softmax(-1) for k in NAMES if k in logits}
        answer = Recognizer.load(path)(wave, 16_000)
        assert list(answer.probabilities) == NAMES["emotion"]
        assert list(answer.probabilities.values()) == pytest.approx(expected["emotion"].tolist(), abs=ATOL)
        assert answer.emotion == NAMES["emotion"][int(expected["emotion"].argmax())]
        assert answer.confidence == max(answer.probabilities.values())
        if stage == STAGE1:
            assert list(answer.gender_probabilities.values()) == pytest.approx(expected["gender"].tolist(), abs=ATOL)
        else:
            assert answer.gender is None


def test_batches_do_not_change_results(recognizer, checkpoint):
    waves = [voice(s, i) for i, s in enumerate((0.05, 3.0, 1.0, 16.4, 0.7, 2.2, 31.0))]
    alone = [recognizer(wave, 16_000) for wave in waves]
    for batch_seconds in (1, 10, 500):
        batches = Recognizer.load(checkpoint, batch_seconds=batch_seconds)
        together = list(batches.stream([Recording.of(wave, 16_000) for wave in waves], Windows()))
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(b.logits, a.logits, atol=ATOL)
            assert b.seconds == a.seconds


def test_a_long_recording_is_the_mean_of_its_chunks_frames(recognizer, checkpoint):
    """The definition, written out with the stage's own modules: 2 s cores, 0.5 s of context, one mean, one head."""
    wave = voice(20.917)
    model = EmotionClassifier.load(checkpoint).model
    kept, n = [], frames.n_frames(len(wave))
    bounds = [*range(0, 1000, 100), n]
    with torch.no_grad():
        for a, b in zip(bounds, bounds[1:], strict=False):
            start, stop = max(0, a - 25), min(n, b + 25)
            end = len(wave) if stop == n else stop * 320 + 80
            x = model.hubert(torch.from_numpy(wave[start * 320 : end])[None])["x"]
            kept.append(model.pooling.lstm(x)[0][0, a - start : b - start])
        expected = model.emotion_head(torch.cat(kept).mean(0, keepdim=True))[1][0]
    answer = recognizer(wave, 16_000, Windows.of(2, 0.5))
    np.testing.assert_allclose(answer.logits, expected.numpy(), atol=ATOL)
    # The timeline is of the same frames.
    with torch.no_grad():
        window = torch.cat(kept)[10 * 25 - 37 : 10 * 25 + 63].mean(0, keepdim=True)
        tenth = model.emotion_head(window)[1][0].double().softmax(-1)
    np.testing.assert_allclose(answer.timeline.probabilities[10], tenth, atol=ATOL)


@pytest.mark.parametrize(("rate", "channels", "suffix"), [(16_000, 1, "flac"), (44_100, 2, "wav"), (8000, 6, "wav")])
def test_a_long_file_streamed_from_disk_is_the_file_that_was_loaded(recognizer, tmp_path, rate, channels, suffix):
    wave = np.stack([voice(80.0, seed, rate) for seed in range(channels)], axis=1)
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, wave, rate)
    loaded, _ = soundfile.read(path, dtype="float32")
    (streamed,) = recognizer.stream([path], Windows())
    whole = recognizer(loaded, rate, Windows())
    assert streamed.seconds == whole.seconds == pytest.approx(80.0)
    np.testing.assert_allclose(streamed.logits, whole.logits, atol=ATOL)
    np.testing.assert_allclose(streamed.timeline.probabilities, whole.timeline.probabilities, atol=ATOL)
    assert len(streamed.timeline.probabilities) == 160
    assert streamed.timeline.seconds == streamed.seconds


def test_a_timeline_changes_no_decision_and_is_of_short_cores(recognizer):
    wave = voice(7.0)
    plain, drawn = recognizer(wave, 16_000), recognizer(wave, 16_000, Windows(100, 100))
    np.testing.assert_allclose(drawn.logits, plain.logits, atol=ATOL)
    (x,) = recognizer.model.frames([wave[: frames.n_samples(125)]])
    first = recognizer.model.logits(x[:100].mean(0, dtype=np.float64)[None])["emotion"][0]
    expected = torch.tensor(first, dtype=torch.float64).softmax(-1)
    np.testing.assert_allclose(drawn.timeline.probabilities[0], expected, atol=ATOL)


def test_up_to_the_limit_a_recording_is_computed_in_one_piece(recognizer, checkpoint):
    wave = voice(40.0)
    (x,) = recognizer.model.frames([wave])
    expected = recognizer.model.logits(x.mean(0, dtype=np.float64)[None])["emotion"][0]
    whole = Recognizer.load(checkpoint, whole_seconds=40)(wave, 16_000)
    np.testing.assert_allclose(whole.logits, expected, atol=1e-6)
    assert np.abs(recognizer(wave, 16_000).logits - expected).max() > 1e-3  # 15 s by default


def test_good_recordings_are_answered_beside_bad_ones(recognizer, tmp_path):
    for name, wave in (("a.wav", voice(1.0)), ("b.wav", voice(0.01)), ("d.wav", voice(2.0, 1))):
        soundfile.write(tmp_path / name, wave, 16_000)
    (tmp_path / "c.wav").write_text("no audio")
    answers = list(recognizer.stream([tmp_path / name for name in ("a.wav", "b.wav", "c.wav", "d.wav", "e.wav")]))
    assert [isinstance(answer, BadRecording) for answer in answers] == [False, True, True, False, True]
    assert answers[3].seconds == 2.0


def test_a_file_that_breaks_off_in_the_middle_is_bad_and_the_next_is_not(recognizer, tmp_path):
    soundfile.write(tmp_path / "a.flac", voice(100.0), 16_000)
    content = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(content[: len(content) * 2 // 3])
    soundfile.write(tmp_path / "b.flac", voice(1.0), 16_000)
    bad, good = recognizer.stream([tmp_path / "a.flac", tmp_path / "b.flac"], Windows())
    assert "a.flac is damaged after 6" in str(bad) or "cut off" in str(bad)
    np.testing.assert_allclose(
        good.logits, recognizer(soundfile.read(tmp_path / "b.flac")[0], 16_000).logits, atol=ATOL
    )


@pytest.mark.parametrize(("wave", "words"), [(np.zeros(16_000), "silence"), (voice(0.3), "short")])
def test_a_doubtful_answer_says_so(recognizer, wave, words):
    answer = recognizer(wave, 16_000, Windows())
    assert words in answer.warnings[0]
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert math.isfinite(answer.timeline.probabilities.sum())


def test_loudness_is_no_matter(recognizer):
    """The first group norm divides by it; even samples far beyond full scale are heard."""
    quiet, loud = recognizer(0.1 * voice(1.0), 16_000), recognizer(1e6 * voice(1.0).astype(np.float64), 16_000)
    assert list(quiet.probabilities.values()) == pytest.approx(list(loud.probabilities.values()), abs=5e-3)


def test_the_answer_is_plain_json(tmp_path):
    answer = Recognizer.load(save_stage(tmp_path / "a.pt", STAGE1))(voice(1.0), 16_000)
    assert json.loads(json.dumps(answer.to_dict())) == answer.to_dict()
    assert list(answer.to_dict()) == ["recording", "seconds", "emotion", "confidence", "probabilities", "gender",
                                      "gender_probabilities", "warnings"]  # fmt: skip


def test_a_temperature_makes_answers_less_sure_and_changes_none(recognizer):
    cooler = Recognizer(recognizer.model, recognizer.all_names, temperature=5.0)
    a, b = recognizer(voice(1.0), 16_000), cooler(voice(1.0), 16_000)
    assert (recognizer.calibrated, cooler.calibrated) == (False, True)
    assert a.emotion == b.emotion and a.confidence > b.confidence
    assert list(b.probabilities.values()) == pytest.approx(
        torch.tensor(a.logits / 5, dtype=torch.float64).softmax(-1).tolist(), abs=1e-6
    )


def test_the_packaged_model():
    """Small enough to ship, calibrated, of known origin, without a place of the machine that it was made on."""
    assert sum(path.stat().st_size for path in PACKAGED.iterdir()) <= 16e6
    recognizer = Recognizer.load()
    assert recognizer.names == ["angry", "happy", "neutral", "sad"] and recognizer.calibrated
    assert {entry["root"] for entry in recognizer.provenance} == {"LibriSpeech", "emodb"}
    answer = recognizer(voice(2.0), 16_000)
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert "**80.5** ± 13.8" in (PACKAGED / "README.md").read_text()  # of the folds, not the fit


def test_without_a_packaged_model_the_message_says_what_to_give(monkeypatch, tmp_path):
    monkeypatch.setattr("gmp_plugin.recognizer.PACKAGED", tmp_path / "none")
    with pytest.raises(UserError, match="give one with --model"):
        Recognizer.load()


def test_a_checkpoint_without_a_head_is_refused(stock_checkpoint):
    with pytest.raises(UserError, match="no emotion head; expected one of stage 1 or 3"):
        Recognizer.load(stock_checkpoint()[1])


def test_memory_does_not_grow_with_the_recording(recognizer):
    """An hour that comes by the second: what is held of it stays below a minute's worth."""
    import tracemalloc

    def blocks(seconds):
        block = voice(1.0)[:, None]
        for _ in range(seconds):
            yield block

    class Counting:
        """Stands for the model: its cost is not what is measured."""

        def frames(self, waves):
            return [np.zeros((frames.n_frames(len(wave)), 48), dtype=np.float32) for wave in waves]

        def logits(self, pooled):
            return {"emotion": np.zeros((len(pooled), 4), dtype=np.float32)}

    peaks = {}
    for seconds in (120, 3600):
        light = Recognizer(Counting(), NAMES, chunking=Chunking())
        tracemalloc.start()
        (answer,) = light.stream([Recording("hour", 16_000, 1, None, lambda s=seconds: blocks(s))], Windows())
        peaks[seconds] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert answer.seconds == seconds and len(answer.timeline.edges) == 2 * seconds + 1
    # The timeline itself and the drawn envelope: 2 kB a second.
    assert peaks[3600] - peaks[120] < 4e3 * 3600
