"""A model out: as a Hugging Face folder, as ONNX, as int8; and in again."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import REPO, SHARED_CORPORA
from serving import FLESA, GEMO_CLAP, NAMES, STAGE1, STAGE3, save_stage, voice

from gmp_plugin import provenance
from gmp_plugin.calibration import Calibration
from gmp_plugin.cli import main
from gmp_plugin.devices import default_device
from gmp_plugin.errors import UserError
from gmp_plugin.export import OWN, disagreement, export_folder, export_onnx, quantize
from gmp_plugin.export_cost import cost_table
from gmp_plugin.exported import read_folder
from gmp_plugin.files import sha256
from gmp_plugin.manifest import Manifest
from gmp_plugin.model_card import CardText, snippet
from gmp_plugin.onnx_engine import OnnxEngine
from gmp_plugin.recognizer import Recognizer
from gmp_plugin.recognizer_model import read_stage
from gmp_plugin.timeline import Windows

PRE_NORM = {"extractor_mode": "layer_norm", "layer_norm_first": True, "conv_bias": True}
RESULTS = tuple(
    {"fold": str(f), "seed": 1, "uar": 60.0 + 5 * f, "war": 70.0, "macro_f1": 65.0, "n_utterances": 10 + f}
    for f in (1, 2, 3)
)


@pytest.fixture
def seen():
    manifest = Manifest("/secret/folder", ("a.wav", "b.wav"), (16_000, 16_000), "/secret/exp/train.tsv")
    return [provenance.entry(STAGE3, "train", manifest)]


def save_calibration(checkpoint, temperature=2.5):
    rng = np.random.default_rng(0)
    found = Calibration.fit(rng.standard_normal((20, 4)), rng.integers(4, size=20), sha256(checkpoint), "valid.tsv")
    content = json.loads(json.dumps(found.__dict__)) | {"temperature": temperature}
    Path(checkpoint).with_name("calibration.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("stage", "hubert", "model", "normalize"),
    [(STAGE1, PRE_NORM, {}, True), (STAGE3, {}, {}, False), (STAGE3, {}, FLESA, False), (GEMO_CLAP, {}, {}, False)],
)
def test_the_folder_is_the_model(tmp_path, stage, hubert, model, normalize):
    """transformers loads the backbone, Recognizer the whole, to the same numbers."""
    transformers = pytest.importorskip("transformers")
    checkpoint = save_stage(tmp_path / "a.pt", stage, hubert, model, normalize=normalize)
    save_calibration(checkpoint)
    export_folder(read_stage(checkpoint), tmp_path / "folder", CardText(results=RESULTS))
    before, after = Recognizer.load(checkpoint), Recognizer.load(tmp_path / "folder")
    assert after.temperature == before.temperature == 2.5 and after.calibrated
    for seconds in (0.5, 20.0):
        a, b = before(voice(seconds), 16_000, Windows()), after(voice(seconds), 16_000, Windows())
        assert a == b
        np.testing.assert_array_equal(a.timeline.probabilities, b.timeline.probabilities)

    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "folder")
    backbone = transformers.HubertModel.from_pretrained(tmp_path / "folder").eval()
    inputs = extractor(voice(1.0), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        theirs = backbone(inputs.input_values).last_hidden_state
        ours = before.model.hubert(torch.from_numpy(voice(1.0))[None])["x"]
    # transformers adds 1e-7 to the variance of normalised audio, fairseq 1e-5.
    torch.testing.assert_close(theirs, ours, atol=5e-3 if normalize else 1e-4, rtol=1e-3)


def test_the_card_gives_the_folds_and_no_place_of_this_machine(tmp_path, seen):
    checkpoint = save_stage(tmp_path / "a.pt", provenance=seen)
    card = CardText("Emotions of actors", "German, acted.", "CC0-1.0", "EMO-DB", RESULTS)
    export_folder(read_stage(checkpoint), tmp_path / "folder", card)
    text = (tmp_path / "folder" / "README.md").read_text()
    assert "# Emotions of actors" in text and "license: cc0-1.0" in text and "German, acted." in text
    assert "**70.0** ± 5.0 | **70.0** ± 0.0 | **65.0** ± 0.0" in text
    assert f"- {STAGE3}, train: 2 recordings of EMO-DB" in text and "angry, happy, neutral, sad" in text
    for path in (tmp_path / "folder").iterdir():
        assert b"secret" not in path.read_bytes() and str(tmp_path).encode() not in path.read_bytes(), path.name
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == [
        "README.md", "config.json", "head.safetensors", "model.safetensors", "preprocessor_config.json",
        "provenance.json", "recognizer.json",
    ]  # fmt: skip
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []  # nothing half done


def test_published_provenance_names_the_corpus_and_no_folder():
    """Of the last entry; a corpus that is named stays, a folder of this machine goes, absolute or not."""
    roots = ["LibriSpeech", "/data/secret", "data/secret", None, "/data/emodb", "/data/emodb"]
    entries = [{"stage": "s", "split": "train", "manifest": "/a/b.tsv", "root": r, "utterances": []} for r in roots]
    found = provenance.published(entries, "EMO-DB")
    assert [e["root"] for e in found] == ["LibriSpeech", None, None, None, "EMO-DB", "EMO-DB"]
    assert {e["manifest"] for e in found} == {"b.tsv"}
    assert provenance.published(entries, None)[-1]["root"] is None


def test_what_is_there_is_not_replaced_by_accident(tmp_path):
    trained = read_stage(save_stage(tmp_path / "a.pt"))
    export_folder(trained, tmp_path / "folder")
    with pytest.raises(UserError, match="exists already"):
        export_folder(trained, tmp_path / "folder")
    export_folder(trained, tmp_path / "folder", force=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="home holds letter.txt, which is no part of an export; move it"):
        export_folder(trained, tmp_path / "home", force=True)
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"


def test_an_export_is_replaced_whole_and_with_nothing_else(tmp_path, monkeypatch):
    """From inside of it and by a link, too; a folder that somebody keeps under version control stays."""
    first, second = (read_stage(save_stage(tmp_path / f"{seed}.pt", seed=seed)) for seed in (1, 2))
    export_folder(first, tmp_path / "folder")
    (tmp_path / "link").symlink_to("folder")
    export_folder(second, tmp_path / "link", force=True)
    weights = (tmp_path / "folder/head.safetensors").read_bytes()
    monkeypatch.chdir(tmp_path / "folder")
    export_folder(first, ".", force=True)
    assert (tmp_path / "folder/head.safetensors").read_bytes() != weights
    assert {path.name for path in (tmp_path / "folder").iterdir()} == OWN
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.pt", "2.pt", "folder", "link"]
    (tmp_path / "folder/.git").mkdir()
    with pytest.raises(UserError, match="holds .git, which is no part of an export"):
        export_folder(second, tmp_path / "folder", force=True)
    assert (tmp_path / "folder/.git").is_dir()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("recognizer.json", "", "is no JSON"),
        ("recognizer.json", "{}", "no description of an exported recogniser"),
        ("recognizer.json", '{"version": 2}', "newer gmp-plugin"),
        ("recognizer.json", None, "has no recognizer.json: it is no exported recogniser"),
        ("head.safetensors", "", "damaged or missing"),
        ("head.safetensors", None, "damaged or missing"),
        ("config.json", None, "does not exist"),
    ],
)
def test_a_damaged_folder_is_named(tmp_path, file, content, message):
    export_folder(read_stage(save_stage(tmp_path / "a.pt")), tmp_path / "folder")
    (tmp_path / "folder" / file).unlink()
    if content is not None:
        (tmp_path / "folder" / file).write_text(content)
    with pytest.raises(UserError, match=message):
        read_folder(tmp_path / "folder")


@pytest.mark.parametrize(
    ("stage", "hubert", "model", "normalize"),
    [
        (STAGE3, {}, {}, False),
        (STAGE3, PRE_NORM, {"lstm_layers": 2}, True),
        (STAGE1, {"conv_pos": 15, "activation_fn": "relu"}, {}, False),
        (STAGE3, {}, {"head": "cross_entropy"}, True),
        (STAGE3, {}, FLESA, False),
        (STAGE3, {}, {"pooling": "mean"}, False),
        (GEMO_CLAP, {}, {}, False),
    ],
)
def test_onnxruntime_agrees_in_every_batch(tmp_path, stage, hubert, model, normalize):
    """Any number and lengths of rows, more padding than needed: the logits of our model to 1e-4, mostly to 1e-5."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    checkpoint = save_stage(tmp_path / "a.pt", stage, hubert, model, normalize=normalize)
    assert export_onnx(read_stage(checkpoint), tmp_path / "a.onnx") < 1e-4
    recognizer, session = Recognizer.load(checkpoint), onnxruntime.InferenceSession(tmp_path / "a.onnx")
    waves = [voice(s, i) for i, s in enumerate((0.025, 3.0, 1.1, 0.5))]
    expected = [recognizer(wave, 16_000) for wave in waves]
    for batch in ([0], [1], [0, 1, 2, 3], [3, 2]):
        n = np.array([len(waves[i]) for i in batch])
        audio = np.zeros((len(batch), n.max() + 1000 * len(batch)), dtype=np.float32)
        for row, i in zip(audio, batch, strict=True):
            row[: len(waves[i])] = waves[i]
        outputs = dict(zip([o.name for o in session.get_outputs()],
                           session.run(None, {"audio": audio, "n_samples": n}), strict=True))  # fmt: skip
        for row, i in enumerate(batch):
            np.testing.assert_allclose(outputs["logits"][row], expected[i].logits, atol=1e-4)
            shares = list(expected[i].probabilities.values())
            np.testing.assert_allclose(outputs["probabilities"][row], shares, atol=1e-5)
            if stage == STAGE1:
                shares = list(expected[i].gender_probabilities.values())
                np.testing.assert_allclose(outputs["gender_probabilities"][row], shares, atol=1e-5)


@pytest.mark.skipif(not (SHARED_CORPORA / "emodb").is_dir(), reason="no real speech here")
def test_onnxruntime_agrees_on_real_speech(tmp_path):
    pytest.importorskip("onnxruntime")
    checkpoint = save_stage(tmp_path / "a.pt")
    export_onnx(read_stage(checkpoint), tmp_path / "a.onnx")
    files = sorted((SHARED_CORPORA / "emodb" / "wav").glob("*.flac"))[::30]
    ours, theirs = (list(Recognizer.load(path).stream(files)) for path in (checkpoint, tmp_path / "a.onnx"))
    assert len(ours) >= 10
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(b.logits, a.logits, atol=1e-4)


def test_an_onnx_file_serves_as_the_model_itself(tmp_path):
    """Long recordings and timelines too: the head comes with it."""
    pytest.importorskip("onnxruntime")
    checkpoint = save_stage(tmp_path / "a.pt", STAGE1)
    save_calibration(checkpoint)
    export_onnx(read_stage(checkpoint), tmp_path / "a.onnx")
    a = Recognizer.load(checkpoint)(voice(31.0), 16_000, Windows())
    b = Recognizer.load(tmp_path / "a.onnx")(voice(31.0), 16_000, Windows())
    assert list(b.probabilities.values()) == pytest.approx(list(a.probabilities.values()), abs=1e-5)
    assert list(b.gender_probabilities.values()) == pytest.approx(list(a.gender_probabilities.values()), abs=1e-5)
    np.testing.assert_allclose(b.timeline.probabilities, a.timeline.probabilities, atol=1e-4)


def test_int8_is_smaller_and_near(tmp_path):
    pytest.importorskip("onnxruntime")
    checkpoint = save_stage(tmp_path / "a.pt", hubert={"encoder_ffn_embed_dim": 512}, model={"lstm_dim": 64})
    trained = read_stage(checkpoint)
    export_onnx(trained, tmp_path / "a.onnx")
    quantize(tmp_path / "a.onnx", tmp_path / "a.int8.onnx")
    assert (tmp_path / "a.int8.onnx").stat().st_size < 0.6 * (tmp_path / "a.onnx").stat().st_size
    a, b = (Recognizer.load(path)(voice(2.0), 16_000) for path in (checkpoint, tmp_path / "a.int8.onnx"))
    # Weights and activations have 256 steps: a percent of the logits' range of 60.
    np.testing.assert_allclose(b.logits, a.logits, atol=2.0)
    # Its activations are scaled over all that is computed at once, which is one recording.
    engine = OnnxEngine.load(tmp_path / "a.int8.onnx")
    waves = [voice(2.0), 1e20 * voice(1.0)]
    assert (engine.frames(waves)[0] == engine.frames(waves[:1])[0]).all()


def test_a_wrong_export_would_not_be_written(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    trained = read_stage(save_stage(tmp_path / "a.pt"))
    monkeypatch.setattr("gmp_plugin.export.AGREEMENT", 0.0)
    with pytest.raises(UserError, match="logits differ by .*; not written"):
        export_onnx(trained, tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()
    # And the comparison sees a difference.
    other = read_stage(save_stage(tmp_path / "b.pt", seed=1)).build()
    assert disagreement(trained.build(), other) > 0.1
    monkeypatch.setattr("gmp_plugin.export.ONNX_BYTES", 1000)
    with pytest.raises(UserError, match="do not fit into an ONNX file, which holds 2 GB; give --to hf"):
        export_onnx(trained, tmp_path / "a.onnx")


def test_a_gpu_that_onnxruntime_does_not_know(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed")
    export_onnx(read_stage(save_stage(tmp_path / "a.pt")), tmp_path / "a.onnx")
    with pytest.raises(UserError, match="knows no GPU; give --device cpu, or pip install onnxruntime-gpu"):
        OnnxEngine.load(tmp_path / "a.onnx", "cuda")


def test_the_snippet_of_the_card_needs_onnxruntime_and_soundfile_alone(tmp_path):
    pytest.importorskip("onnxruntime")
    checkpoint = save_stage(tmp_path / "a.pt")
    soundfile.write(tmp_path / "recording.wav", np.stack([voice(1.0), voice(1.0, 1)], axis=1), 16_000)
    code = main(["export", "--model", str(checkpoint), "--to", "onnx", "--out", str(tmp_path / "a.onnx"), "--int8"])
    assert code == 0
    text = (tmp_path / "a.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert block == snippet("a.onnx") and snippet("emotion.onnx") in (REPO / "README.md").read_text()
    blocked = "import sys; sys.modules.update(torch=None, gmp_plugin=None, scipy=None, onnx=None)\n"
    done = subprocess.run([sys.executable, "-c", blocked + block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = Recognizer.load(checkpoint)(soundfile.read(tmp_path / "recording.wav")[0], 16_000)
    assert eval(done.stdout) == pytest.approx(expected.probabilities, abs=1e-3)
    assert list(eval(done.stdout)) == NAMES["emotion"]


def test_the_cost_is_measured(tmp_path, fold, capsys):
    """On the fold's test part: the same rates as evaluate.py gives, and a line for each form."""
    pytest.importorskip("onnxruntime")
    from gmp_plugin.evaluation import evaluate

    checkpoint = save_stage(tmp_path / "a.pt")
    out = tmp_path / "a.onnx"
    args = ["export", "--model", checkpoint, "--to", "onnx", "--out", out, "--int8", "--measure", fold / "test.tsv"]
    assert main(list(map(str, args))) == 0
    result, _ = evaluate(checkpoint, fold / "test.tsv")
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [line[0] for line in lines[2:]] == ["| the model itself", "| ONNX", "| ONNX, int8"]
    assert lines[2][2:4] == [f"{result['uar']:.1f}", f"{result['war']:.1f}"] and lines[3][2:4] == lines[2][2:4]
    assert lines[2][5] == "0" and "| ONNX, int8 |" in (tmp_path / "a.md").read_text()


def test_on_a_machine_with_a_gpu_onnx_is_measured_on_its_cpu(monkeypatch):
    """Where the onnxruntime that we install works."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert [default_device(model) for model in (None, "a.pt", "a.onnx", Path("a.int8.onnx"))] == [
        *["cuda"] * 2,
        *["cpu"] * 2,
    ]
    asked = {}
    monkeypatch.setattr(Recognizer, "load", lambda path, device: asked.update({path: device}) or 1 / 0)
    for path in ("a.pt", "a.onnx"):
        for device in (None, "cpu"):
            with pytest.raises(ZeroDivisionError):
                cost_table({"it": path}, None, device)
            assert asked[path] == (device or {"a.pt": "cuda", "a.onnx": "cpu"}[path])


def test_recordings_of_other_classes_are_named_before_anything_is_written(tmp_path, fold, capsys):
    (fold / "test.emotion").write_text("bored\n" * len((fold / "test.emotion").read_text().split()))
    checkpoint, out = save_stage(tmp_path / "a.pt"), tmp_path / "a.onnx"
    args = ["export", "--model", checkpoint, "--to", "onnx", "--out", out, "--measure", fold / "test.tsv"]
    assert main(list(map(str, args))) == 2
    err = capsys.readouterr().err
    assert "no recording has a class of the model" in err and "gmp-ser evaluate takes a table" in err
    assert not list(tmp_path.glob("a.*nnx"))


def test_rates_on_training_data_are_not_published(tmp_path, fold, capsys):
    """Nor is anything written; and the exported file still knows what it has seen."""
    pytest.importorskip("onnxruntime")
    seen = [provenance.entry("multitask", "train", Manifest.read(fold / "train.tsv"))]
    checkpoint, out = save_stage(tmp_path / "a.pt", provenance=seen), tmp_path / "a.onnx"
    args = ["export", "--model", str(checkpoint), "--to", "onnx", "--out", str(out), "--corpus", "Noises", "--int8"]
    assert main([*args, "--measure", str(fold / "train.tsv")]) == 2
    assert "train.tsv: recordings that the model has seen in training" in capsys.readouterr().err
    assert main([*args, "--measure", str(fold / "none.tsv")]) == 2
    assert not list(tmp_path.glob("a.*nnx")) and main(args) == 0
    for exported in (out, tmp_path / "a.int8.onnx"):
        assert main(["evaluate", "--model", str(exported), str(fold / "train.tsv")]) == 2
        assert "that the model has seen in training or validation (multitask: 8, as u0.wav)" in capsys.readouterr().err
        assert str(tmp_path).encode() not in exported.read_bytes()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--to", "onnx", "--out", "a"], "expected a name that ends in .onnx"),
        (["--to", "hf", "--out", "a.onnx"], "expected a name that ends in .onnx"),
        (["--to", "hf", "--out", "a", "--int8"], "go with --to onnx"),
        (["--to", "hf", "--out", "a", "--temperature", "-1"], "--temperature -1.0: expected"),
        (["--to", "hf", "--out", "a", "--results", "no.json"], "no.json is no finished result"),
        (["--to", "hf", "--out", "a.pt", "--force"], "a.pt is no folder; give another --out"),
    ],
)
def test_bad_options_end_with_one_message(capsys, tmp_path, monkeypatch, args, message):
    checkpoint = save_stage(tmp_path / "a.pt")
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--model", str(checkpoint), *args]) == 2
    assert message in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt"]


def test_foreign_files_are_no_models(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    (tmp_path / "text.onnx").write_text("no model")
    x = onnx.helper.make_tensor_value_info("x", 1, [1])
    y = onnx.helper.make_tensor_value_info("y", 1, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "g", [x], [y])
    foreign = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(foreign, tmp_path / "foreign.onnx")
    for name, message in (
        ("text", "cannot be loaded"),
        ("none", "cannot be loaded"),
        ("foreign", "no model of gmp-ser"),
    ):
        with pytest.raises(UserError, match=message):
            Recognizer.load(tmp_path / f"{name}.onnx")


def test_without_the_extra_the_message_says_what_to_install(tmp_path, monkeypatch):
    trained = read_stage(save_stage(tmp_path / "a.pt"))
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install onnx onnxruntime"):
        export_onnx(trained, tmp_path / "a.onnx")
    with pytest.raises(UserError, match=r"to run an exported .onnx model, onnxruntime is needed"):
        Recognizer.load(tmp_path / "a.onnx")


def test_the_packaged_model_is_an_exported_folder(tmp_path, monkeypatch):
    checkpoint = save_stage(tmp_path / "a.pt")
    export_folder(read_stage(checkpoint), tmp_path / "weights")
    monkeypatch.setattr("gmp_plugin.recognizer.PACKAGED", tmp_path / "weights")
    assert Recognizer.load()(voice(1.0), 16_000) == Recognizer.load(checkpoint)(voice(1.0), 16_000)
