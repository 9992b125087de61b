"""A small HuBERT from recordings without labels, by the workflow of examples/pretrain_small, at tiny size."""

import json
import subprocess

import numpy as np
import pytest
import soundfile
import torch
import transformers
from conftest import REPO, TINY

from gmp_plugin.hubert.checkpoint import load_hubert
from gmp_plugin.manifest import FrameLabels, Manifest

SNAKEFILE = REPO / "examples" / "pretrain_small" / "Snakefile"


def snakemake(folder, *settings):
    command = ["snakemake", "-s", SNAKEFILE, "--cores", "2", "--directory", folder, "--quiet", "rules"]
    return subprocess.run([*command, "--config", *settings], capture_output=True, text=True)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Both rounds on noise of four speakers: the folder and the settings."""
    folder = tmp_path_factory.mktemp("pretraining")
    (folder / "LibriSpeech").mkdir()
    for i in range(8):
        noise = 0.1 * np.random.default_rng(i).standard_normal(8000 + 500 * i)
        soundfile.write(folder / "LibriSpeech" / f"{i // 2}-1-{i}.flac", noise, 16_000)
    (folder / "LibriSpeech" / "0-1-9.flac").write_bytes(b"")  # left out
    tiny = [f"model.hubert.{k}={v!r}" for k, v in {**TINY, "conv_pos": 8}.items()]
    tiny += ["optimization.max_update=3", "lr_scheduler.warmup_updates=1", "task.max_sample_size=6000"]
    settings = [
        "speech=LibriSpeech", "valid_fraction=0.2", "mfcc_clusters=6", "clusters=5", "layer=2", "name=tiny",
        "device=cpu", "manifest=[--skip-bad]", f"round1={json.dumps(tiny)}", f"round2={json.dumps(tiny)}",
    ]  # fmt: skip
    done = snakemake(folder, *settings)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return folder, settings


def test_rounds_learn_from_mfccs_and_then_from_round_1(course):
    exp = course[0] / "exp" / "tiny"
    states = [torch.load(exp / f"round{r}/model/checkpoint_last.pt", weights_only=True) for r in (1, 2)]
    assert [s["model"]["prediction.heads.6.embedding"].shape[0] for s in states[:1]] == [6]
    assert "prediction.heads.5.embedding" in states[1]["model"]
    assert [s["optimizer_history"][-1]["num_updates"] for s in states] == [3, 3]
    for r, k in ((1, 6), (2, 5)):
        for split in ("train", "valid"):
            manifest = Manifest.read(exp / "data" / f"{split}.tsv")
            assert FrameLabels.read(exp / f"round{r}/labels/{split}.{k}.km", manifest, k)
    assert (
        "HuBERT from exp/tiny/round1/model/checkpoint_last.pt: 4 layers of 32"
        in (exp / "round2/model/train.log").read_text()
    )


@torch.inference_mode()
def test_the_weights_load_here_and_in_transformers_and_say_what_they_have_seen(course):
    folder = course[0] / "exp" / "tiny" / "weights"
    checkpoint = load_hubert(folder)
    trained = load_hubert(course[0] / "exp/tiny/round2/model/checkpoint_last.pt")
    assert all(torch.equal(checkpoint.state_dict[name], tensor) for name, tensor in trained.state_dict.items())
    wave = torch.randn(1, 5000)
    theirs = transformers.HubertModel.from_pretrained(folder).eval()(wave).last_hidden_state
    torch.testing.assert_close(checkpoint.build().eval()(wave)["x"], theirs, atol=1e-5, rtol=1e-5)

    seen = {(e["stage"], e["split"]): e for e in checkpoint.provenance}
    assert set(seen) == {("kmeans", "train")} | {("multiscale_label_pretraining", s) for s in ("train", "valid")}
    for (_, split), entry in seen.items():
        manifest = Manifest.read(course[0] / "exp/tiny/data" / f"{split}.tsv")
        assert entry["utterances"] == list(manifest.paths)
        assert (entry["root"], entry["manifest"]) == ("LibriSpeech", f"{split}.tsv")
    assert str(course[0]) not in (folder / "provenance.json").read_text()


def test_a_second_call_has_nothing_to_do(course):
    folder, settings = course
    again = snakemake(folder, *settings)
    assert "Nothing to be done" in again.stdout + again.stderr


@pytest.mark.parametrize(
    "setting, message",
    [
        ("speech=", "give the recordings, as in --config speech=DIR"),
        ("size=base", "size=base: expected one of nano, small"),
        ("round2_from=round2", "round2_from=round2: expected round1 or fresh"),
    ],
)
def test_wrong_settings(setting, message, tmp_path):
    done = snakemake(tmp_path, "speech=LibriSpeech", setting)
    assert done.returncode != 0 and message in done.stdout + done.stderr
