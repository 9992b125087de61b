"""make_manifest.py through its main: files written, options, and messages."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gmp_plugin import files
from gmp_plugin.errors import UserError, run_tool
from gmp_plugin.manifest import Manifest, UtteranceTable, read_dictionary, read_utterance_labels

TOOL = Path(__file__).resolve().parents[2] / "manifest_tools" / "make_manifest.py"
SPEC = importlib.util.spec_from_file_location("make_manifest", TOOL)
make_manifest = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make_manifest)

EMOTIONS = ("angry", "happy", "sad")
N_SPEAKERS = 4


@pytest.fixture
def corpus(tmp_path):
    """A CSV corpus: 4 speakers, 3 classes, 4 takes; no fold but speaker and session of its own."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    rows = ["path,emotion,gender,speaker,session"]
    rng = np.random.default_rng(0)
    for speaker in range(N_SPEAKERS):
        for emotion in EMOTIONS:
            for take in range(4):
                name = f"{speaker}_{emotion}_{take}.wav"
                soundfile.write(folder / name, 0.1 * rng.standard_normal(1600 + 10 * take), 16_000)
                gender = ("female", "male")[speaker % 2]
                rows.append(f"{name},{emotion},{gender},s{speaker},day{speaker // 2}")
    (folder / "corpus.csv").write_text("\n".join(rows) + "\n")
    return folder / "corpus.csv"


def run(corpus, out, *options):
    make_manifest.main(["--corpus", "csv", "--root", str(corpus), "--out", str(out), *options])


def tree(out):
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_files_of_every_fold_agree(corpus, tmp_path):
    out = tmp_path / "out"
    run(corpus, out)
    table = UtteranceTable.read(out / "utterances.tsv")
    assert table.root == str(corpus.parent)
    assert len(table.utterances) == 48
    by_path = {u.path: u for u in table.utterances}
    names = ["dict.emotion.txt", "dict.gender.txt"]
    names += [f"{split}.{end}" for split in ("train", "valid", "test") for end in ("tsv", "emotion", "gender")]
    for fold in ("fold1", "fold2"):
        folder = out / fold
        assert sorted(p.name for p in folder.iterdir()) == sorted(names)
        assert (folder / "dict.emotion.txt").read_text() == "angry 16\nhappy 16\nsad 16\n"
        assert (folder / "dict.gender.txt").read_text() == "female 24\nmale 24\n"
        seen = []
        for split in ("train", "valid", "test"):
            manifest = Manifest.read(folder / f"{split}.tsv")
            seen += manifest.paths
            for field in ("emotion", "gender"):
                classes = read_dictionary(folder / f"dict.{field}.txt")
                numbers = read_utterance_labels(
                    folder / f"{split}.{field}", manifest, classes, folder / f"dict.{field}.txt"
                )
                assert [classes[n] for n in numbers] == [getattr(by_path[p], field) for p in manifest.paths]
            for index, (path, n_samples) in enumerate(zip(manifest.paths, manifest.n_samples, strict=True)):
                assert n_samples == by_path[path].n_samples == soundfile.info(manifest.audio_path(index)).frames
        assert sorted(seen) == sorted(by_path)
    assert {by_path[p].session for p in Manifest.read(out / "fold2" / "test.tsv").paths} == {"day1"}
    assert not (out / "fold3").exists()


def test_nobody_held_out_leaves_no_test_files(corpus, tmp_path, capsys):
    run(corpus, tmp_path / "out", "--folds", "none")
    assert "1     nobody    test        0" in capsys.readouterr().out
    parts = [Manifest.read(tmp_path / "out" / "fold1" / f"{split}.tsv") for split in ("train", "valid")]
    assert sum(map(len, parts)) == 48 and not set(parts[0].paths) & set(parts[1].paths)
    assert not list((tmp_path / "out").rglob("test.*"))
    assert json.loads((tmp_path / "out" / "folds.json").read_text())["folds"][0]["held_out_speakers"] == []


def test_record(corpus, tmp_path):
    run(corpus, tmp_path / "out", "--folds", "speaker", "--seed", "7", "--valid-fraction", "0.25")
    record = json.loads((tmp_path / "out" / "folds.json").read_text())
    assert record["corpus"] == "csv"
    assert record["folds_by"] == "speaker"
    assert (record["seed"], record["valid_fraction"], record["utterances"]) == (7, 0.25, 48)
    assert record["counts"] == {"angry": 16, "happy": 16, "sad": 16}
    assert record["skipped"] == []
    assert [fold["folder"] for fold in record["folds"]] == ["fold1", "fold2", "fold3", "fold4"]
    assert record["folds"][2]["held_out"] == ["s2"]
    assert record["folds"][2]["held_out_sessions"] == ["day1"]
    assert record["folds"][2]["held_out_speakers"] == ["s2"]
    assert record["folds"][2]["counts"]["test"] == {"angry": 4, "happy": 4, "sad": 4}
    assert record["folds"][2]["counts"]["valid"] == {"angry": 3, "happy": 3, "sad": 3}


def test_table_on_the_terminal(corpus, tmp_path, capsys):
    run(corpus, tmp_path / "out", "--folds", "2")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["fold", "held", "out", "part", "all", "angry", "happy", "sad", "hours"]
    assert [line.split()[-6] for line in lines[1:7]] == ["train", "valid", "test"] * 2
    assert lines[3].split()[-5:-1] == ["24", "8", "8", "8"]
    assert lines[-1].startswith("wrote 48 utterances, 2 folds")


def test_same_arguments_same_files_other_seed_other_files(corpus, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        run(corpus, tmp_path / name, "--seed", seed)
    a, b, c = (tree(tmp_path / name) for name in "abc")
    assert a == b
    assert a["fold1/valid.tsv"] != c["fold1/valid.tsv"]
    assert a["fold1/test.tsv"] == c["fold1/test.tsv"]


def resample_in_place(path, rate=8000):
    samples, _ = soundfile.read(path)
    soundfile.write(path, samples, rate)


def test_resampled_and_plain_files_share_a_root_and_the_folds_stay(corpus, tmp_path):
    run(corpus, tmp_path / "plain")
    resample_in_place(corpus.parent / "0_happy_1.wav")
    run(corpus, tmp_path / "out")
    table = UtteranceTable.read(tmp_path / "out" / "utterances.tsv")
    assert table.root == str(tmp_path)
    paths = {u.path for u in table.utterances}
    assert "out/audio_cache/0_happy_1.wav.flac" in paths and "corpus/0_happy_2.wav" in paths
    for part in ("fold1/train", "fold1/valid", "fold1/test", "fold2/train", "fold2/valid", "fold2/test"):
        before, after = (Manifest.read(tmp_path / name / f"{part}.tsv").paths for name in ("plain", "out"))
        assert list(before) == [Path(p).name.removesuffix(".flac") for p in after]


def test_all_resampled_lie_under_the_cache_which_a_second_run_uses_again(corpus, tmp_path):
    for path in corpus.parent.glob("*.wav"):
        resample_in_place(path)
    out = tmp_path / "out"
    run(corpus, out)
    table = UtteranceTable.read(out / "utterances.tsv")
    assert table.root == str(out / "audio_cache")
    assert {u.n_samples for u in table.utterances} == {3200, 3220, 3240, 3260}
    times = {p: p.stat().st_mtime_ns for p in (out / "audio_cache").iterdir()}
    assert len(times) == 48
    run(corpus, out, "--force")
    assert times == {p: p.stat().st_mtime_ns for p in (out / "audio_cache").iterdir()}


def test_out_inside_the_root(corpus):
    resample_in_place(corpus.parent / "0_happy_1.wav")
    out = corpus.parent / "out"
    run(corpus, out)
    assert UtteranceTable.read(out / "utterances.tsv").root == str(corpus.parent)
    run(corpus, out, "--force")
    assert len(UtteranceTable.read(out / "utterances.tsv").utterances) == 48


def test_relative_arguments_give_an_absolute_root(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(Path("corpus/corpus.csv"), Path("out"))
    assert UtteranceTable.read(tmp_path / "out" / "utterances.tsv").root == str(corpus.parent)


def test_an_earlier_output_is_kept_without_force(corpus, tmp_path):
    out = tmp_path / "out"
    run(corpus, out, "--folds", "speaker")
    before = tree(out)
    with pytest.raises(UserError, match=r"folds.json exists already; give --force"):
        run(corpus, out)
    assert tree(out) == before


def test_force_leaves_no_fold_of_the_earlier_output(corpus, tmp_path, capsys):
    out = tmp_path / "out"
    run(corpus, out, "--folds", "speaker")
    (out / "fold4" / "train.64.km").write_text("1 2 3\n")
    (out / "notes.txt").write_text("mine")
    run(corpus, out, "--folds", "session", "--force")
    assert sorted(p.name for p in out.iterdir()) == [
        "fold1",
        "fold2",
        "fold4",
        "folds.json",
        "notes.txt",
        "utterances.tsv",
    ]
    assert [p.name for p in (out / "fold4").iterdir()] == ["train.64.km"]  # not ours to delete, but named
    assert "fold4 keeps files that belong to the replaced manifests" in capsys.readouterr().out


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("after", [0, 5, 23])
def test_a_run_killed_on_the_way_never_looks_finished(corpus, tmp_path, monkeypatch, after, force):
    out = tmp_path / "out"
    if force:
        run(corpus, out)
    options = ["--force"] if force else []
    written = []

    def replace_until(source, target):
        if len(written) == after:
            raise OSError("no space left on device")
        written.append(target)
        return original(source, target)

    original = files.os.replace
    monkeypatch.setattr(files.os, "replace", replace_until)
    with pytest.raises(OSError, match="no space"):
        run(corpus, out, *options)
    assert len(written) == after
    assert not (out / "folds.json").exists()
    assert not list(out.rglob("*.tmp"))
    monkeypatch.setattr(files.os, "replace", original)
    run(corpus, out, "--force")
    run(corpus, tmp_path / "fresh")
    assert tree(out) == tree(tmp_path / "fresh")


def test_a_run_killed_between_folds_starts_again_without_force(corpus, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(make_manifest.manifest, "write_split", fail)
        with pytest.raises(OSError, match="no space"):
            run(corpus, tmp_path / "out")
    run(corpus, tmp_path / "out")


def spoil(corpus):
    (corpus.parent / "1_sad_0.wav").write_bytes(b"not audio at all")
    soundfile.write(corpus.parent / "2_sad_1.wav", np.zeros(10), 16_000)


def test_the_first_bad_recording_is_an_error(corpus, tmp_path):
    spoil(corpus)
    with pytest.raises(UserError, match=r"1_sad_0.wav cannot be read as audio.*--skip-bad"):
        run(corpus, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_skip_bad_leaves_them_out_and_lists_each(corpus, tmp_path, capsys):
    spoil(corpus)
    run(corpus, tmp_path / "out", "--skip-bad")
    printed = capsys.readouterr().out
    assert "left out: " in printed and "1_sad_0.wav cannot be read" in printed and "2_sad_1.wav has 10" in printed
    record = json.loads((tmp_path / "out" / "folds.json").read_text())
    assert record["utterances"] == 46 and len(record["skipped"]) == 2
    assert record["counts"]["sad"] == 14
    assert (tmp_path / "out" / "fold1" / "dict.emotion.txt").read_text() == "angry 16\nhappy 16\nsad 14\n"
    table = UtteranceTable.read(tmp_path / "out" / "utterances.tsv")
    for u in table.utterances:  # the labels of those after a gap are still their own
        assert u.path.split("_")[:2] == [u.speaker[1:], u.emotion]
        assert u.n_samples == soundfile.info(Path(table.root) / u.path).frames


def test_skip_bad_does_not_skip_what_only_torchaudio_could_read(corpus, tmp_path, monkeypatch):
    resample_in_place(corpus.parent / "0_happy_1.wav")
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    monkeypatch.setitem(sys.modules, "torchaudio.functional", None)
    with pytest.raises(UserError, match="torchaudio does not load"):
        run(corpus, tmp_path / "out", "--skip-bad")


def test_nothing_usable(corpus, tmp_path):
    for path in corpus.parent.glob("*.wav"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="none of the 48 recordings can be used"):
        run(corpus, tmp_path / "out", "--skip-bad")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--folds", "5"], "--folds 5: expected a number from 2 to 4"),
        (["--folds", "room"], "--folds room: expected session, speaker, a number"),
        (["--valid-fraction", "0"], "--valid-fraction 0.0: expected more than 0 and at most 0.5"),
        (["--seed", "-1"], "--seed -1: expected 0 or more"),
        (["--strict"], "--strict compares with published counts, which are known for iemocap"),
    ],
)
def test_wrong_options_fail_before_the_audio_is_read(corpus, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(make_manifest, "prepare_audio", lambda *_: pytest.fail("the audio was read"))
    with pytest.raises(UserError, match=message):
        run(corpus, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "layout"),
    [("iemocap", "Session1 to Session5"), ("emodb", "recordings like 03a01Wa.wav"), ("ravdess", "Actor_01/03-01-05")],
)
def test_no_match_says_what_was_expected_and_found(tmp_path, name, layout):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=f"{layout}.*found holiday.jpg"):
        make_manifest.main(["--corpus", name, "--root", str(tmp_path), "--out", str(tmp_path / "out")])


def test_missing_root(tmp_path):
    with pytest.raises(UserError, match="--root .*nowhere does not exist"):
        run(tmp_path / "nowhere", tmp_path / "out")


def test_a_file_for_a_folder(corpus, tmp_path):
    with pytest.raises(UserError, match="corpus.csv is a file; --corpus emodb takes the corpus's folder"):
        make_manifest.main(["--corpus", "emodb", "--root", str(corpus), "--out", str(tmp_path / "out")])


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as info:
        make_manifest.main(["--help"])
    assert info.value.code == 0
    assert "python manifest_tools/make_manifest.py --corpus iemocap --root" in capsys.readouterr().out


def test_errors_reach_the_terminal_as_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["make_manifest.py", "--corpus", "emodb", "--root", "nowhere", "--out", "x"])
    assert run_tool(make_manifest.main) == 2
    assert capsys.readouterr().err == (
        "error: --root nowhere does not exist; give the folder (csv: the file) of the corpus\n"
    )


def test_as_a_script(corpus, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, TOOL, "--corpus", "csv", "--root", corpus, "--out", out]
    environment = {"PYTHONPATH": str(TOOL.parents[1]), "PATH": "/usr/bin:/bin"}
    first = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (first.returncode, "wrote 48 utterances" in first.stdout) == (0, True), first.stderr
    second = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert second.returncode == 2
    assert second.stderr.startswith("error: ") and "Traceback" not in second.stderr
