"""evaluate.py: the result, and embeddings against a forward of single clips; TensorBoard's projector."""

import json

import numpy as np
import pytest
import torch
from conftest import TINY, tool
from fairseq import tasks
from google.protobuf import text_format
from omegaconf import OmegaConf
from sklearn.metrics import silhouette_score
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

import gmp_plugin.tasks  # noqa: F401
from gmp_plugin.data.audio import read_audio
from gmp_plugin.embeddings import Embeddings, silhouettes
from gmp_plugin.errors import UserError
from gmp_plugin.files import sha256
from gmp_plugin.hubert.checkpoint import load_hubert
from gmp_plugin.manifest import Manifest, Utterance, UtteranceTable
from gmp_plugin.training_config import differences, fingerprint, settings, training_config

NAME = "am_softmax_classification"


def config(data, seed=3, **model):
    return {
        "common": {"seed": seed, "tensorboard_logdir": "runs", "fp16": False, "bf16": False},
        "checkpoint": {"save_dir": "exp/stage3"},
        "optimization": {"max_update": 9, "lr": [1e-3]},
        "task": {"_name": NAME, "data": str(data), "num_workers": 2, "seed": seed},
        "model": {"_name": NAME, "hubert": TINY, "hubert_path": None, "lstm_dim": 8, "projection_dim": 6, **model},
        "criterion": {"_name": NAME},
    }


@pytest.fixture
def stage3(fold, tmp_path):
    """A stage-3 model with random weights, and its checkpoint as the trainer would save it."""
    torch.manual_seed(0)
    cfg = OmegaConf.create(config(fold))
    task = tasks.setup_task(cfg.task, from_checkpoint=True)
    model = task.build_model(cfg.model).eval()
    path = tmp_path / "stage3.pt"
    state = {"cfg": OmegaConf.to_container(cfg), "model": model.state_dict(), "task_state": task.state_dict()}
    history = {"num_updates": 9, "optimizer_name": "fused_adam", "lr_scheduler_state": {}}
    torch.save({**state, "args": None, "optimizer_history": [history], "extra_state": {"train_iterator": {}}}, path)
    return model, path


@pytest.fixture
def speakers(fold):
    """`utterances.tsv` one folder above the fold."""
    rows = [(p, n) for s in ("train", "valid", "test") for p, n in _rows(fold / f"{s}.tsv")]
    utterances = [Utterance(p, n, "sad", "male", f"s{i % 2}", "1") for i, (p, n) in enumerate(rows)]
    UtteranceTable("audio", tuple(utterances)).write(fold.parent / "utterances.tsv")


def _rows(path):
    manifest = Manifest.read(path)
    return zip(manifest.paths, manifest.n_samples, strict=True)


def evaluate(fold, checkpoint, *options, out="result.json"):
    arguments = ["--checkpoint", checkpoint, "--manifest", fold / "train.tsv", "--out", fold.parent / out, *options]
    tool("evaluate")([str(a) for a in (*arguments, "--device", "cpu")])
    return json.loads((fold.parent / out).read_text())


def test_the_result_says_what_it_is_of(fold, stage3):
    model, checkpoint = stage3
    result = evaluate(fold, checkpoint, "--fold", "1")
    manifest = Manifest.read(fold / "train.tsv")
    assert (result["fold"], result["seed"]) == ("1", 3) and "ablation" not in result
    assert result["manifest_sha256"] == sha256(manifest.file) and result["checkpoint_sha256"] == sha256(checkpoint)
    with torch.no_grad():
        for i, found in enumerate(result["utterances"]):
            logits = model(read_audio(manifest, i)[None])["emotion"][0]
            assert found["path"] == manifest.paths[i]
            assert found["predicted"] == result["classes"][logits.argmax()]
            assert found["logits"] == pytest.approx(logits.tolist(), abs=1e-4)
    assert result["machine"]["cores"] >= 1 and result["versions"]["torch"] == torch.__version__.split("+")[0]


def test_the_config_of_a_result_knows_neither_seed_nor_paths(fold):
    own, other_run = (training_config(config(*run)) for run in ((fold, 1), ("elsewhere/fold2", 2)))
    assert fingerprint(own) == fingerprint(other_run) and differences(own, other_run) == []
    assert "task.num_workers" not in settings(own) and settings(own)["model.hubert.encoder_layers"] == 4
    wide = training_config(config(fold, lstm_dim=9, head="cross_entropy", hubert_path="hubert.pt"))
    assert fingerprint(own) != fingerprint(wide)
    assert differences(wide, own) == [
        'model.head is "cross_entropy", not absent', 'model.hubert_path is "given", not null',
        "model.lstm_dim is 9, not 8",
    ]  # fmt: skip


def test_embeddings_are_those_of_single_clips(fold, stage3, stock_checkpoint, speakers):
    model, checkpoint = stage3
    _, start = stock_checkpoint()
    path = fold.parent / "embeddings.npz"
    result = evaluate(fold, checkpoint, "--embeddings", path, "--start", start)
    found, manifest = Embeddings.load(path), Manifest.read(fold / "train.tsv")
    assert found.paths == list(manifest.paths) and found.checkpoint_sha256 == result["checkpoint_sha256"]
    assert found.classes["emotion"] == (fold / "train.emotion").read_text().split()
    assert found.classes["gender"] == (fold / "train.gender").read_text().split()
    assert found.classes["speaker"] == ["s0", "s1"] * 4
    backbone = load_hubert(start).build().eval()
    with torch.no_grad():
        for i in range(len(manifest)):
            wave = read_audio(manifest, i)[None]
            np.testing.assert_allclose(found.after[i], model(wave)["embedding"][0], atol=1e-5)
            np.testing.assert_allclose(found.before[i], backbone(wave)["x"][0].mean(0), atol=1e-5)


def test_what_is_not_known_is_left_out(fold, stage3):
    (fold / "dict.gender.txt").unlink()
    evaluate(fold, stage3[1], "--embeddings", fold.parent / "embeddings.npz")
    found = Embeddings.load(fold.parent / "embeddings.npz")
    assert found.before is None and list(found.classes) == ["emotion"]
    with np.load(fold.parent / "embeddings.npz", allow_pickle=False) as file:
        assert sorted(file.files) == ["after", "checkpoint_sha256", "emotion", "paths"]


def test_projector_is_complete_and_replaced_by_the_next(fold, stage3, stock_checkpoint, speakers):
    logdir = fold.parent / "tensorboard"
    (logdir / "valid").mkdir(parents=True)
    _, start = stock_checkpoint()
    for _ in range(2):
        evaluate(fold, stage3[1], "--tensorboard", logdir, "--start", start, "--force")
        run = logdir / "embeddings"
        projector = text_format.Parse((run / "projector_config.pbtxt").read_text(), ProjectorConfig())
        assert [e.tensor_name.split(":")[0] for e in projector.embeddings] == ["before", "after"]
        for embedding, size in zip(projector.embeddings, (32, 6), strict=True):
            assert np.loadtxt(run / embedding.tensor_path, delimiter="\t").shape == (8, size)
            lines = [line.split("\t") for line in (run / embedding.metadata_path).read_text().splitlines()]
            assert lines[0] == ["path", "emotion", "gender", "speaker"]
            assert lines[1] == ["u0.wav", "angry", "female", "s0"] and len(lines) == 9
        assert len(list(run.glob("events.out.tfevents.*"))) == 1  # by which TensorBoard finds the run
    assert sorted(path.name for path in logdir.iterdir()) == ["embeddings", "valid"]


def test_without_classes_the_projector_has_no_header(tmp_path):
    Embeddings(["a.wav", "b.wav"], np.eye(2)).write_projector(tmp_path)
    assert next(tmp_path.rglob("metadata.tsv")).read_text() == "a.wav\nb.wav\n"


def test_silhouettes_are_scikit_learns():
    vectors = np.random.default_rng(0).normal(size=(12, 3))
    classes = {"emotion": list("aabbcc" * 2), "gender": ["male"] * 12, "speaker": [f"s{i}" for i in range(12)]}
    assert silhouettes(vectors, classes) == {"emotion": pytest.approx(silhouette_score(vectors, classes["emotion"]))}


def test_wrong_input_is_a_user_error(fold, stage3, tmp_path):
    with pytest.raises(UserError, match="give --embeddings FILE or --tensorboard DIR"):
        evaluate(fold, stage3[1], "--start", stage3[1])
    path = tmp_path / "embeddings.npz"
    path.write_text("no zip")
    with pytest.raises(UserError, match="exists already"):
        evaluate(fold, stage3[1], "--embeddings", path)
    with pytest.raises(UserError, match="holds no embeddings of evaluate.py"):
        Embeddings.load(path)
    assert not (fold.parent / "result.json").exists()
