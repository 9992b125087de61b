"""`gmp-ser predict` as its users call it."""

import csv
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import REPO
from serving import STAGE1, save_stage, voice

from gmp_plugin.answers import CsvWriter
from gmp_plugin.cli import main
from gmp_plugin.inputs import Input, file_stems, find_inputs
from gmp_plugin.manifest import Manifest, Utterance, UtteranceTable
from gmp_plugin.recognizer import Recognition


@pytest.fixture
def model(tmp_path):
    return str(save_stage(tmp_path / "model.pt"))


@pytest.fixture
def recordings(tmp_path):
    """A folder as people have them: good and bad recordings, in subfolders, beside other files."""
    folder = tmp_path / "recordings"
    (folder / "more").mkdir(parents=True)
    soundfile.write(folder / "a.wav", voice(1.0), 16_000)
    soundfile.write(folder / "b.flac", np.stack([voice(2.0, 1, 44_100)] * 6, axis=1), 44_100)
    soundfile.write(folder / "more" / "c.wav", voice(0.7, 2, 8000), 8000)
    (folder / "broken.wav").write_bytes(b"RIFF, but no more")
    soundfile.write(folder / "short.wav", voice(0.01), 16_000)
    (folder / "._a.wav").write_bytes(b"macOS")
    (folder / "notes.txt").write_text("not audio by its name")
    return folder


def predict(capsys, *args):
    """Exit code, standard output and standard error."""
    code = main(["predict", *map(str, args)])
    return code, *capsys.readouterr()


def test_a_folder_of_mixed_files(capsys, model, recordings, monkeypatch):
    monkeypatch.chdir(recordings.parent)
    code, out, err = predict(capsys, "--model", model, "recordings")
    rows = out.splitlines()
    assert code == 1
    assert rows[0].split()[:4] == ["recording", "length", "emotion", "sure"]
    assert [row.split()[0] for row in rows[1:]] == [f"recordings/{n}" for n in ("a.wav", "b.flac", "more/c.wav")]
    assert [row.split()[1] for row in rows[1:]] == ["1.0", "2.0", "0.7"]
    assert "error: recordings/broken.wav cannot be read as audio" in err
    assert "short.wav has 160 samples (10 ms), fewer than one frame" in err
    assert "2 of 5 recordings could not be used" in err and "not audio by their names: 1 " in err
    assert "not calibrated" in err


def test_all_good_is_exit_0_and_all_bad_is_1(capsys, model, recordings):
    assert predict(capsys, "--model", model, recordings / "a.wav")[0] == 0
    code, out, err = predict(capsys, "--model", model, recordings / "broken.wav", recordings / "absent.wav")
    assert code == 1 and len(out.splitlines()) == 1 and "absent.wav does not exist" in err


def test_json_lines_and_csv_hold_the_same(capsys, tmp_path, recordings):
    model = save_stage(tmp_path / "stage1.pt", STAGE1)
    _, out, _ = predict(capsys, "--model", model, recordings, "--format", "jsonl")
    objects = [json.loads(line) for line in out.splitlines()]
    assert [("error" in o) for o in objects] == [False, False, True, True, False]
    out = tmp_path / "answers.csv"
    assert predict(capsys, "--model", model, recordings, "--format", "csv", "--out", out)[0] == 1
    for row, o in zip(csv.DictReader(io.StringIO(out.read_text())), objects, strict=True):
        assert row["recording"] == o["recording"] and row["error"] == o.get("error", "")
        if "error" not in o:
            assert (row["emotion"], row["gender"]) == (o["emotion"], o["gender"])
            shares = {name: float(row[f"p_{name}"]) for name in ("angry", "happy", "neutral", "sad", "female", "male")}
            assert shares == o["probabilities"] | o["gender_probabilities"]


def test_an_emotion_and_a_gender_of_one_name():
    stream = io.StringIO()
    names = {"emotion": ["angry", "other"], "gender": ["female", "other"]}
    answer = Recognition(
        "a.wav", 1.0, "angry", 0.75, {"angry": 0.75, "other": 0.25}, gender="female",
        gender_probabilities={"female": 0.875, "other": 0.125},
    )  # fmt: skip
    CsvWriter(stream, names, ["a.wav"]).write("a.wav", answer)
    (row,) = csv.DictReader(io.StringIO(stream.getvalue()))
    shares = {name: float(value) for name, value in row.items() if name.startswith("p_")}
    assert shares == {"p_angry": 0.75, "p_other": 0.25, "p_female": 0.875, "p_gender_other": 0.125}


def test_a_recording_out_of_reach_does_not_end_the_others(capsys, tmp_path, model):
    """By a name that this file system cannot have."""
    out = tmp_path / "answers.csv"
    soundfile.write(tmp_path / "a.wav", voice(1.0), 16_000)
    Manifest(str(tmp_path), ("a.wav", "x" * 300), (16_000, 16_000)).write(tmp_path / "list.tsv")
    code, _, err = predict(capsys, "--model", model, tmp_path / "list.tsv", "--format", "csv", "--out", out)
    assert code == 1 and "cannot be read: File name too long" in err
    assert [bool(row["error"]) for row in csv.DictReader(io.StringIO(out.read_text()))] == [False, True]


def test_an_existing_file_is_kept_without_force(capsys, tmp_path, model, recordings):
    out = tmp_path / "answers.txt"
    out.write_text("mine")
    code, _, err = predict(capsys, "--model", model, recordings / "a.wav", "--out", out)
    assert code == 2 and "exists already; give --force" in err and out.read_text() == "mine"
    assert predict(capsys, "--model", model, recordings / "a.wav", "--out", out, "--force")[0] == 0


def test_manifests_and_tables_name_recordings(capsys, tmp_path, model, recordings):
    Manifest(str(recordings), ("a.wav",), (16_000,)).write(tmp_path / "test.tsv")
    utterance = Utterance("more/c.wav", 11_200, "sad", "male", "s1", "1")
    UtteranceTable(str(recordings), (utterance,)).write(tmp_path / "utterances.tsv")
    code, out, _ = predict(capsys, "--model", model, tmp_path / "test.tsv", tmp_path / "utterances.tsv")
    assert code == 0 and [row.split()[0] for row in out.splitlines()[1:]] == ["a.wav", "more/c.wav"]


def test_a_timeline_in_every_format(capsys, tmp_path, model, recordings):
    folder = tmp_path / "timeline"
    args = ["--model", model, recordings, "--timeline", folder, "--window", "1", "--hop", "0.2"]
    assert predict(capsys, *args)[0] == 1
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        f"{name}.{end}" for name in "abc" for end in ("csv", "TextGrid", "txt", "png")
    )
    assert len((folder / "b.csv").read_text().splitlines()) == 1 + 10
    assert (folder / "a.png").read_bytes()[:4] == b"\x89PNG"
    code, _, err = predict(capsys, *args)
    assert code == 2 and "a.csv exists already" in err
    assert predict(capsys, *args, "--hop", "3")[0] == 2


def test_recordings_of_one_name_get_timelines_of_their_own():
    def item(name):
        return Input(name, type(REPO)(name))

    assert file_stems([item("a.wav"), item("a.flac"), item("x/A.wav"), item("y/z/a.wav"), item("-")]) == [
        "a", "a.flac", "A.wav", "z_a.wav", "standard_input",
    ]  # fmt: skip
    assert file_stems([item("a/b.wav")] * 5) == ["b", "b.wav", "a_b.wav", "b_2", "b_3"]


def test_names_that_some_program_stumbles_over(capsys, tmp_path, model):
    """Not UTF-8; read as a formula by matplotlib; as long as a name can be: each is answered, with its timeline."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    names = [b"gr\xfc\xdfe.wav", b"u$er_$1$^$.wav", ("語" * 83).encode() + b".wav"]
    soundfile.write(tmp_path / "a.wav", voice(0.6), 16_000)
    for name in names:
        os.link(tmp_path / "a.wav", os.path.join(os.fsencode(folder), name))
    expected = {os.fsencode(folder / os.fsdecode(name)).decode(errors="replace") for name in names}
    for form, read in (("csv", csv.DictReader), ("jsonl", lambda stream: map(json.loads, stream))):
        out = tmp_path / f"answers.{form}"
        args = ["--model", model, folder, "--format", form, "--out", out, "--timeline", tmp_path / form]
        code, _, err = predict(capsys, *args)
        assert code == 0 and "error" not in err
        with open(out, encoding="utf-8") as stream:
            found = {row["recording"].replace("\\udcfc\\udcdf", "\ufffd" * 2) for row in read(stream)}
        assert {name.replace("\udcfc\udcdf", "\ufffd" * 2) for name in found} == expected
        assert len(list((tmp_path / form).iterdir())) == 4 * len(names)
    code, out, err = predict(capsys, "--model", model, folder)
    assert code == 0 and "gr\\udcfc\\udcdfe.wav" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "none.pt", "a.wav"], "checkpoint none.pt does not exist"),
        (["--whole", "1", "a.wav"], "expected 3 to 300 s"),
        (["none.tsv"], "none.tsv does not exist"),
        (["--device", "tpu", "a.wav"], "--device tpu: expected cpu, cuda"),
        (["--device", "cuda:99", "a.wav"], "--device cuda:99: torch"),
        (["{empty}"], "no audio files"),
        (["--model", "small", "a.wav"], "small is a backbone of the package, which knows no emotions"),
        (["--window", "3", "a.wav"], "--window, --hop and --timeline-formats are of a timeline: give --timeline"),
        (["--out", "{empty}", "--force", "a.wav"], "empty is a folder; give a file"),
        (["--timeline", "t", "--window", "nan", "a.wav"], "expected a hop of at least 0.02 s"),
        (["--timeline", "t", "--out", "t/a.csv", "a.wav"], "--out t/a.csv is a file of the timelines"),
    ],
)
def test_what_cannot_begin_ends_with_one_message(capsys, tmp_path, args, message):
    (tmp_path / "empty").mkdir()
    code, out, err = predict(capsys, *[arg.format(empty=tmp_path / "empty") for arg in args])
    assert (code, out) == (2, "") and err.startswith("error: ") and message in err and err.count("\n") == 1


def test_standard_input_of_a_fresh_process(model, recordings):
    """The installed command, with a WAV piped in: nothing but the answer, and a note."""
    run = [sys.executable, "-m", "gmp_plugin.cli", "predict", "--model", model, "--format", "jsonl"]
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    wav = (recordings / "a.wav").read_bytes()
    done = subprocess.run([*run, "-"], input=wav, capture_output=True, env=env)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["recording"], answer["seconds"]) == ("standard input", 1.0)
    assert done.stderr.decode().splitlines() == ["note: the probabilities are not calibrated (gmp-ser calibrate)"]


def test_folders_give_audio_at_any_depth_in_order(recordings):
    found, others = find_inputs([str(recordings)])
    assert [item.path.name for item in found] == ["a.wav", "b.flac", "broken.wav", "short.wav", "c.wav"] and others == 1
