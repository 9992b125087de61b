"""`gmp-ser evaluate`: any model on any labelled recordings."""

import json
import re

import numpy as np
import pytest
import soundfile
from serving import NAMES, STAGE3, save_stage, voice
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score

from gmp_plugin import provenance
from gmp_plugin.cli import main
from gmp_plugin.errors import UserError
from gmp_plugin.evaluation import evaluate
from gmp_plugin.export import export_folder
from gmp_plugin.labelled import LabelledSet, map_classes, read_class_table
from gmp_plugin.manifest import Manifest, Utterance, UtteranceTable
from gmp_plugin.recognizer_model import read_stage


def run(*args):
    return main(["evaluate", *map(str, args)])


@pytest.fixture
def checkpoint(tmp_path):
    return save_stage(tmp_path / "model.pt")


@pytest.fixture
def foreign(tmp_path):
    """A corpus with names of its own, in 22.05 kHz stereo, one recording broken: its table."""
    rows = ["path,emotion,speaker"]
    names = ["anger", "joy", "neutral", "boredom", "fear"]
    for i in range(15):
        wave = np.stack([voice(0.5 + 0.1 * i, i, 22_050)] * 2, axis=1)
        soundfile.write(tmp_path / f"r{i}.wav", wave, 22_050)
        rows.append(f"r{i}.wav,{names[i % 5]},s{i % 3}")
    (tmp_path / "r5.wav").write_text("broken")
    (tmp_path / "corpus.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "classes.txt").write_text("# theirs ours\nanger\tangry\njoy, happy\nboredom -\n")
    return tmp_path / "corpus.csv"


def test_the_figures_are_those_of_the_workflow(tmp_path, fold, checkpoint, capsys):
    """On a fold's test part, beside evaluate.py; and a row of the result for each utterance."""
    assert run("--model", checkpoint, fold / "test.tsv", "--out", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    expected, _ = evaluate(checkpoint, fold / "test.tsv")
    for key in ("uar", "war", "macro_f1", "recalls", "classes", "confusion", "counts", "manifest_sha256"):
        assert found[key] == expected[key], key
    for a, b in zip(found["utterances"], expected["utterances"], strict=True):
        assert (a["path"], a["truth"], a["predicted"]) == (b["path"], b["truth"], b["predicted"])
        assert a["logits"] == pytest.approx(b["logits"], abs=2e-4)
    assert f"UAR {expected['uar']:.1f} %" in capsys.readouterr().out


def test_a_corpus_with_other_names_and_another_rate(tmp_path, checkpoint, foreign, capsys):
    out = tmp_path / "out"
    assert run("--model", checkpoint, foreign, "--classes", tmp_path / "classes.txt", "--out", out) == 1
    printed, err = capsys.readouterr()
    assert "r5.wav cannot be read as audio" in err
    assert "unmapped classes, counted for nothing: fear 3" in err
    assert "left out classes, counted for nothing: boredom 3" in err
    assert "classes of the model that the corpus has not: sad" in printed
    result = json.loads((out / "result.json").read_text())
    assert result["class_map"] == {"anger": "angry", "joy": "happy", "neutral": "neutral"}
    assert (result["unmapped"], result["left_out"], len(result["bad"])) == ({"fear": 3}, {"boredom": 3}, 1)
    truth, predicted = ([u[key] for u in result["utterances"]] for key in ("truth", "predicted"))
    assert len(truth) == result["n_utterances"] == 8
    assert result["uar"] == pytest.approx(100 * balanced_accuracy_score(truth, predicted))
    assert result["war"] == pytest.approx(100 * accuracy_score(truth, predicted))
    assert result["macro_f1"] == pytest.approx(100 * f1_score(truth, predicted, average="macro"))
    assert result["confusion"] == confusion_matrix(truth, predicted, labels=NAMES["emotion"]).tolist()
    low, high = result["intervals"]["war"]["speakers"]
    assert low <= result["war"] <= high

    page, markdown = ((out / f"evaluation.{end}").read_text() for end in ("html", "md"))
    for text in (page, markdown):
        assert "fear: 3 recordings" in text and "boredom: 3 recordings" in text and "r5.wav cannot be read" in text
        assert "does not say what it has seen" in text
    assert page.count("<svg") == 2 and not re.search(r'(?:src|href)="(?!#|data:)', page)  # one file, needs nothing else
    for picture in re.findall(r"\]\((evaluation/.*?)\)", markdown):
        assert (out / picture).is_file()
    assert run("--model", checkpoint, foreign, "--classes", tmp_path / "classes.txt", "--out", out) == 2
    assert "exists already" in capsys.readouterr().err


def test_recordings_that_training_has_seen_are_no_test(tmp_path, fold, capsys):
    """Of an exported model too, which does not say where they lay."""
    manifest = Manifest.read(fold / "test.tsv")
    checkpoint = save_stage(tmp_path / "a.pt", provenance=[provenance.entry(STAGE3, "train", manifest)])
    export_folder(read_stage(checkpoint), tmp_path / "folder")
    for model in (checkpoint, tmp_path / "folder"):
        assert run("--model", model, fold / "test.tsv") == 2
        assert f"the model has seen in training or validation ({STAGE3}: 2, as u10.wav)" in capsys.readouterr().err
        assert run("--model", model, fold / "test.tsv", "--allow-seen", "--out", tmp_path / "out", "--force") == 0
        assert "this is no test" in capsys.readouterr().err
        assert "These figures are no test" in (tmp_path / "out" / "evaluation.html").read_text()


def test_tables_of_every_kind_name_recordings(tmp_path, fold):
    utterances = tuple(Utterance(f"u{i}.wav", 2000, "angry", "male", f"s{i}", "1") for i in range(2))
    UtteranceTable("/audio", utterances).write(tmp_path / "utterances.tsv")
    labelled = LabelledSet.read(tmp_path / "utterances.tsv")
    assert (labelled.root, labelled.paths, labelled.emotions) == ("/audio", ["u0.wav", "u1.wav"], ["angry", "angry"])
    assert labelled.speakers == ["s0", "s1"]
    assert LabelledSet.read(fold / "test.tsv").speakers is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: column path, emotion is missing; expected path,emotion"),
        ("file,label\na,b\n", "line 1: column path, emotion is missing"),
        ("path,emotion\n", "no line after the header"),
        ("path,emotion\na.wav,\n", "line 2: expected a path and an emotion"),
        ("path,emotion\na.wav,x\nb,c.wav,y\n", "line 3: expected 2 values as in the header, found 3; a value with"),
        ("path,emotion\na.wav,x\nb.wav,y\n" + 'c.wav,"z\nd.wav,z\n', "line 5: unexpected end of data; is a quotation"),
        ("path,emotion\n" + 'c.wav,"' + "z\n" * 70_000, "line .*: field larger than .* not closed"),
        ("path,emotion\na.wav,x\na.wav,y\n", "line 3: a.wav stands in line 2 already; keep one"),
    ],
)
def test_a_bad_table_is_named(tmp_path, content, message):
    (tmp_path / "a.CSV").write_text(content)
    with pytest.raises(UserError, match=message):
        LabelledSet.read(tmp_path / "a.CSV")


def test_labels_that_do_not_fit_the_manifest_are_named(fold):
    (fold / "test.emotion").write_text("angry\n")
    with pytest.raises(UserError, match="test.emotion has 1 lines, but .*test.tsv lists 2"):
        LabelledSet.read(fold / "test.tsv")


def test_the_class_table_wins_over_equal_names():
    found = map_classes(["sad", "sad", "calm", "x"], NAMES["emotion"], {"sad": "neutral", "calm": "neutral"})
    assert found.numbers.tolist() == [2, 2, 2, -1]
    assert (found.used, found.unmapped) == ({"sad": "neutral", "calm": "neutral"}, {"x": 1})


def test_a_bad_class_table_is_named(tmp_path):
    path = tmp_path / "classes.txt"
    for content, message in (("a b c\n", "line 1: expected"), ("a x\na y\n", "line 2: 'a' stands there already")):
        path.write_text(content)
        with pytest.raises(UserError, match=message):
            read_class_table(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_class_table(tmp_path / "none.txt")
    with pytest.raises(UserError, match="furious is no class of the model, which has angry, happy"):
        map_classes(["a"], NAMES["emotion"], {"a": "furious"})
    with pytest.raises(UserError, match="no recording has a class of the model"):
        map_classes(["a", "b"], NAMES["emotion"], {})


def test_classes_of_several_words(tmp_path):
    """As some corpora have them: what stands before a tab is one name."""
    (tmp_path / "classes.txt").write_text(
        "very angry\tangry\n  # mild ones\na bit sad , -\njoy happy # also\nfear\t\tsad\n"
    )
    table = read_class_table(tmp_path / "classes.txt")
    assert table == {"very angry": "angry", "a bit sad": "-", "joy": "happy", "fear": "sad"}


def test_seen_recordings_are_known_by_their_place_however_it_is_written(tmp_path, write_audio, capsys, monkeypatch):
    """A table by a relative path, and a folder by a link."""
    write_audio(tmp_path / "corpus/a.wav", 8000)
    (tmp_path / "corpus/table.csv").write_text("path,emotion\na.wav,angry\n")
    (tmp_path / "link").symlink_to(tmp_path / "corpus")
    seen = provenance.entry(STAGE3, "train", Manifest(str(tmp_path / "corpus"), ("a.wav",), (8000,), file="train.tsv"))
    model = save_stage(tmp_path / "a.pt", provenance=[seen])
    monkeypatch.chdir(tmp_path / "corpus")
    for table in ("table.csv", "../link/table.csv"):
        assert run("--model", model, table) == 2
        assert f"seen in training or validation ({STAGE3}: 1, as a.wav)" in capsys.readouterr().err
