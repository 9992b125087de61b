"""Values that no tool can use end with one message, before any work."""

import pytest
import torch
from conftest import tool

from gmp_plugin.arguments import check_device, check_seed
from gmp_plugin.errors import UserError

REQUIRED = {
    "dump_hubert_feature": ["--manifest", "m", "--checkpoint", "c", "--out", "o"],
    "dump_km_label": ["--manifest", "m", "--checkpoint", "c", "--kmeans", "k", "--out", "o"],
    "evaluate": ["--manifest", "m", "--checkpoint", "c", "--out", "o"],
    "label_report": ["--manifest", "m", "--labels", "l", "--out", "o"],
    "learn_kmeans": ["--manifest", "m", "--checkpoint", "c", "--kmeans", "k"],
    "make_toy_corpus": ["--out", "o"],
}


@pytest.mark.parametrize("name", ["dump_hubert_feature", "dump_km_label", "evaluate", "label_report", "learn_kmeans"])
def test_unknown_devices(name):
    with pytest.raises(UserError, match="^--device gpu: expected cpu, cuda or cuda:N$"):
        tool(name)([*REQUIRED[name], "--device", "gpu"])


@pytest.mark.parametrize("name", ["learn_kmeans", "make_toy_corpus"])
def test_negative_seeds(name):
    with pytest.raises(UserError, match="^--seed -1: expected 0 or more$"):
        tool(name)([*REQUIRED[name], "--seed", "-1"])


def test_seeds_that_scikit_learn_refuses():
    with pytest.raises(UserError, match="--seed 4294967296: expected 0 or more, at most 4294967295"):
        check_seed(2**32)
    assert [check_seed(seed) for seed in (0, 2**32 - 1)] == [0, 2**32 - 1]


def test_devices(monkeypatch):
    assert check_device("cpu") == check_device("cpu:0") == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [check_device(name) for name in ("cuda", "cuda:1")] == ["cuda", "cuda:1"]
    with pytest.raises(UserError, match="--device cuda:2: torch finds 2 GPUs here; give cuda:0 to cuda:1"):
        check_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="--device cuda: torch .* finds no GPU here; give --device cpu"):
        check_device("cuda")
    for name in ("mps", "meta", "cuda:x", ""):
        with pytest.raises(UserError, match="expected cpu, cuda or cuda:N"):
            check_device(name)
