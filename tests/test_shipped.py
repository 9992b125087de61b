"""Backbones by name."""

import os
import shutil

import pytest
import torch
from conftest import tool

from gmp_plugin import shipped
from gmp_plugin.errors import UserError
from gmp_plugin.hubert.checkpoint import build_backbone, load_hubert
from gmp_plugin.hubert.convert import write_huggingface
from gmp_plugin.manifest import Manifest


@pytest.fixture
def small(stock_checkpoint, tmp_path, monkeypatch):
    """A tiny backbone that is shipped as `small`: its checkpoint file."""
    _, path = stock_checkpoint()
    write_huggingface(load_hubert(path), tmp_path / "weights" / "small")
    (tmp_path / "weights" / "__pycache__").mkdir()
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "weights")
    return path


def test_a_name_gives_the_shipped_weights(small, tmp_path):
    expected = load_hubert(small).state_dict
    shutil.copytree(tmp_path / "weights" / "small", tmp_path / "weights" / "recognizer")
    (tmp_path / "weights" / "recognizer" / "recognizer.json").write_text("{}")  # what gmp-ser predict uses
    assert shipped.shipped_names() == ["small"]
    backbone, _ = build_backbone("small", {"dropout": 0.3}, None)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in backbone.state_dict().items())


def test_the_name_wins_over_a_folder_and_a_path_is_a_path(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    assert load_hubert("small").build()
    for path in ("./small", f"small{os.sep}", tmp_path / "small"):
        with pytest.raises(UserError, match="config.json does not exist"):
            load_hubert(path)


def test_a_wrong_name_says_which_there_are(small):
    with pytest.raises(UserError, match=r"checkpoint smal does not exist; .* comes with the package \(small\)"):
        load_hubert("smal")


def test_tools_take_the_name(small, fold, tmp_path):
    manifest, km = str(fold / "train.tsv"), str(tmp_path / "km.safetensors")
    common = ["--manifest", manifest, "--checkpoint", "small"]
    tool("learn_kmeans")([*common, "--scales", "4", "--kmeans", km, "--labels-out", str(tmp_path / "labels")])
    tool("dump_km_label")([*common, "--kmeans", km, "--out", str(tmp_path / "labels2")])
    tool("dump_hubert_feature")([*common, "--out", str(tmp_path / "features")])
    tool("label_report")(
        ["--manifest", manifest, "--labels", str(tmp_path / "labels"), "--kmeans", km, "--checkpoint", "small",
         "--layers", "all", "--out", str(tmp_path / "report.html")]
    )  # fmt: skip
    assert (tmp_path / "labels" / "train.4.km").read_text() == (tmp_path / "labels2" / "train.4.km").read_text()
    lengths = [int(line) for line in (tmp_path / "features" / "train_0_1.len").read_text().split()]
    assert lengths == Manifest.read(manifest).n_frames().tolist()
    assert "layer 2 of checkpoint" in (tmp_path / "report.html").read_text()
