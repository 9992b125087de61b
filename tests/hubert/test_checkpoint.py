"""Checkpoints in: what loads, and what is refused with which message."""

import argparse
import os

import pytest
import torch

from gmp_plugin.errors import UserError
from gmp_plugin.hubert.checkpoint import build_backbone, load_hubert


@torch.inference_mode()
def test_fairseqs_own_checkpoint_loads_safely_with_its_dictionary(stock_checkpoint):
    stock, path = stock_checkpoint()
    backbone = load_hubert(path).build().eval()
    wave = torch.randn(1, 3000)
    expected, _ = stock.extract_features(wave, mask=False)
    torch.testing.assert_close(backbone(wave)["x"], expected, atol=2e-6, rtol=1e-5)


def test_old_checkpoint_with_args(stock_checkpoint):
    _, path = stock_checkpoint()
    with torch.serialization.safe_globals([__import__("fairseq").data.Dictionary]):
        state = torch.load(path, weights_only=True)
    model = state.pop("cfg")["model"]
    model["arch"] = model.pop("_name")
    state["args"] = argparse.Namespace(**model, normalize=True)
    torch.save(state, path)
    checkpoint = load_hubert(path)
    assert checkpoint.normalize
    checkpoint.build()


def test_normalisation_travels_with_the_checkpoint(stock_checkpoint):
    assert load_hubert(stock_checkpoint(normalize=True)[1]).build().normalize
    assert not load_hubert(stock_checkpoint(normalize=False)[1]).build().normalize


def test_overrides_change_dropout_but_not_shapes(stock_checkpoint):
    _, path = stock_checkpoint()
    backbone, _ = build_backbone(str(path), {"dropout": 0.3, "feature_grad_mult": 0.0}, None)
    assert backbone.encoder.dropout == 0.3
    assert not any(p.requires_grad for p in backbone.feature_extractor.parameters())
    with pytest.raises(UserError, match="the weights do not fit the architecture"):
        build_backbone(str(path), {"encoder_embed_dim": 64}, None)


def test_missing_truncated_and_foreign_files(tmp_path, stock_checkpoint):
    with pytest.raises(UserError, match="checkpoint .*none.pt does not exist"):
        load_hubert(tmp_path / "none.pt")

    _, path = stock_checkpoint()
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="is damaged or no torch file|cannot be loaded safely"):
        load_hubert(path)

    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="no fairseq checkpoint: it has no entry 'model'"):
        load_hubert(path)

    torch.save({"cfg": {"model": {"_name": "transformer_lm"}, "task": {}}, "model": {}}, path)
    with pytest.raises(UserError, match="another architecture, 'transformer_lm'; expected a HuBERT"):
        load_hubert(path)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/attacked",)

    torch.save({"model": {}, "cfg": Attack()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="cannot be loaded safely: .*"):
        load_hubert(tmp_path / "evil.pt")
    assert not (tmp_path / "attacked").exists()


def test_nothing_to_start_from():
    with pytest.raises(UserError, match="no HuBERT to start from: give model.hubert_path=CHECKPOINT"):
        build_backbone(None, {"mask_prob": 0.1}, None)
