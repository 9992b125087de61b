"""The synthetic corpus: the same from the same seed, and readable as IEMOCAP."""

import hashlib
import importlib.util
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gmp_plugin.corpora import iemocap, toy
from gmp_plugin.errors import UserError

TOOLS = Path(__file__).resolve().parents[2] / "manifest_tools"


def load_tool(name):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_toy_corpus, make_manifest = load_tool("make_toy_corpus"), load_tool("make_manifest")


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    out = tmp_path_factory.mktemp("toy") / "small"
    make_toy_corpus.main(["--out", str(out), "--hours", "0.02"])
    return out


def digests(root):
    return {p.relative_to(root): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()}


def test_same_seed_same_bytes_in_another_process(small, tmp_path):
    # Another process, because Python's own hash() of a name differs from process to process.
    command = [sys.executable, TOOLS / "make_toy_corpus.py", "--out", tmp_path / "again", "--hours", "0.02"]
    environment = {"PYTHONPATH": str(TOOLS.parent), "PYTHONHASHSEED": "5", "PATH": os.environ["PATH"]}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert digests(tmp_path / "again") == digests(small)


def test_other_seed_other_audio():
    voice, style = toy.Voice.of("Ses01F", 1), toy.STYLES["neu"]
    one, two = (toy.synthesise(voice, style, np.random.default_rng(seed)) for seed in (1, 2))
    assert len(one) != len(two) or (one != two).any()
    assert toy.Voice.of("Ses01F", 2) != voice != toy.Voice.of("Ses02F", 1)


def test_an_utterance_does_not_depend_on_the_others(small, tmp_path):
    toy.write_corpus(tmp_path, 0.05, seed=1)
    same = {t.name for t in toy.plan(0.02, 1) if t in toy.plan(0.05, 1)}
    assert same  # name and label happen to agree for some
    for name in same:
        (one,), (two,) = small.rglob(f"{name}.wav"), tmp_path.rglob(f"{name}.wav")
        assert one.read_bytes() == two.read_bytes()


def test_the_iemocap_reader_takes_it(small):
    utterances = iemocap.read(small)
    assert {u.session for u in utterances} == {f"Session{k}" for k in range(1, 6)}
    by_speaker = defaultdict(set)
    for u in utterances:
        by_speaker[u.speaker].add(u.emotion)
    assert len(by_speaker) == 10
    assert all(emotions == {"angry", "happy", "neutral", "sad"} for emotions in by_speaker.values())
    n_files = len(list(small.rglob("*.wav")))
    assert n_files > len(utterances)  # utterances of other labels are there with their audio
    assert "SYNTHETIC" in (small / "README.txt").read_text()


@pytest.mark.parametrize("hours", [0.001, 0.05, 0.5])
def test_every_dialog_has_turns_of_both_speakers(hours):
    speakers = defaultdict(set)
    for turn in toy.plan(hours, 3):
        speakers[turn.dialog].add(turn.name.split("_")[-1][0])
    assert all(letters == {"F", "M"} for letters in speakers.values())
    assert len(speakers) >= 10


def test_a_longer_plan_has_the_length_and_shares_asked_for():
    turns = toy.plan(1.0, 1)
    assert len({t.name for t in turns}) == len(turns)
    assert len(turns) * toy.MEAN_SECONDS == pytest.approx(3600, rel=0.01)
    shares = Counter(t.label for t in turns)
    assert 0.10 < sum(shares[label] for label in iemocap.IGNORED) / len(turns) < 0.20
    assert min(shares["neu"], shares["hap"] + shares["exc"], shares["ang"], shares["sad"]) > 0.17 * len(turns)


def test_the_audio_is_speech_like(small):
    lengths = []
    for path in small.rglob("*.wav"):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        samples = soundfile.read(path)[0]
        lengths.append(len(samples) / 16_000)
        assert 0.002 < samples.std() < 0.2
    assert min(lengths) >= 0.9 and max(lengths) <= 5.0
    assert np.mean(lengths) == pytest.approx(toy.MEAN_SECONDS, rel=0.2)


def pitch_hz(samples):
    """Median over voiced frames of the autocorrelation's highest peak, in Hz."""
    views = np.lib.stride_tricks.sliding_window_view(samples.astype(float), 1024)[::320] * np.hanning(1024)
    spectra = np.abs(np.fft.rfft(views, 2048)) ** 2
    loud = spectra.sum(axis=1) > spectra.sum(axis=1).max() / 100
    correlation = np.fft.irfft(spectra[loud])[:, 40:230]
    return float(np.median(16_000 / (correlation.argmax(axis=1) + 40)))


def test_gender_and_emotion_reach_the_sound():
    def mean(speaker, label, measure):
        voice = toy.Voice.of(speaker, 1)
        return np.mean([measure(toy.synthesise(voice, toy.STYLES[label], np.random.default_rng(k))) for k in range(12)])

    assert mean("Ses01F", "neu", pitch_hz) > 1.3 * mean("Ses01M", "neu", pitch_hz)
    assert mean("Ses01M", "exc", pitch_hz) > 1.1 * mean("Ses01M", "sad", pitch_hz)
    assert mean("Ses01M", "ang", np.std) > 1.5 * mean("Ses01M", "sad", np.std)


def test_generation_is_quick():
    # Several hundred times real time on one core; 50 leaves room for a busy machine.
    voice, seconds, start = toy.Voice.of("Ses01F", 1), 0.0, time.process_time()
    for k in range(40):
        seconds += len(toy.synthesise(voice, toy.STYLES["hap"], np.random.default_rng(k))) / 16_000
    assert seconds / (time.process_time() - start) > 50


def test_differing_counts_are_printed_and_strict_makes_them_an_error(small, tmp_path, capsys):
    arguments = ["--corpus", "iemocap", "--root", str(small), "--out"]
    make_manifest.main([*arguments, str(tmp_path / "a")])
    printed = capsys.readouterr().out
    assert "not the complete IEMOCAP" in printed
    assert "Session5 happy           442" in printed
    assert (tmp_path / "a" / "folds.json").is_file()
    with pytest.raises(UserError, match="counts differ from the complete IEMOCAP .*expected 1085, found 8"):
        make_manifest.main([*arguments, str(tmp_path / "b"), "--strict"])
    assert not (tmp_path / "b").exists()


def test_the_tool_replaces_toy_corpora_only(small, tmp_path):
    out = tmp_path / "toy"
    out.mkdir()  # empty: taken
    make_toy_corpus.main(["--out", str(out), "--hours", "0.001"])
    with pytest.raises(UserError, match="toy exists already; give --force"):
        make_toy_corpus.main(["--out", str(out), "--hours", "0.001"])
    (out / "old").write_text("x")
    make_toy_corpus.main(["--out", str(out), "--hours", "0.001", "--force"])
    assert not (out / "old").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["toy"]  # no temporary folder stays

    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="precious is not a toy corpus and is left alone"):
        make_toy_corpus.main(["--out", str(precious), "--force"])
    assert (precious / "thesis.tex").exists()


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(toy.soundfile, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        make_toy_corpus.main(["--out", str(tmp_path / "toy"), "--hours", "0.001"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("hours", ["0", "-1", "nan", "inf"])
def test_wrong_hours(tmp_path, hours):
    with pytest.raises(UserError, match="--hours .*more than 0"):
        make_toy_corpus.main(["--out", str(tmp_path / "toy"), "--hours", hours])
