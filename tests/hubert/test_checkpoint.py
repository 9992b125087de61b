"""Checkpoints in: what loads, and what is refused with which message."""

import argparse
import hashlib
import os

import pytest
import torch
from conftest import TINY, tool
from fairseq.models.wav2vec.wav2vec2 import Wav2Vec2Config, Wav2Vec2Model
from omegaconf import OmegaConf

from gmp_plugin.errors import UserError
from gmp_plugin.hubert.backbone import backbone_settings, hubert_config
from gmp_plugin.hubert.checkpoint import build_backbone, load_hubert
from gmp_plugin.hubert.convert import write_huggingface
from gmp_plugin.hubert.safe import load_pickle


@torch.inference_mode()
def test_fairseqs_own_checkpoint_loads_safely_with_its_dictionary(stock_checkpoint):
    stock, path = stock_checkpoint()
    backbone = load_hubert(path).build().eval()
    wave = torch.randn(1, 3000)
    expected, _ = stock.extract_features(wave, mask=False)
    torch.testing.assert_close(backbone(wave)["x"], expected, atol=2e-6, rtol=1e-5)


def test_old_checkpoint_with_args(stock_checkpoint):
    _, path = stock_checkpoint()
    state = load_pickle(path)
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


def test_the_hash_of_a_fairseq_checkpoint_is_that_of_its_file(stock_checkpoint):
    _, path = stock_checkpoint()
    assert load_hubert(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


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
    for trust in (False, True):
        with pytest.raises(UserError, match="is damaged or no torch file"):
            load_hubert(path, trust)
    path.write_text("not a checkpoint")
    for trust in (False, True):
        with pytest.raises(UserError, match="is damaged or no torch file|cannot be loaded safely"):
            load_hubert(path, trust)

    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="no fairseq checkpoint: it has no entry 'model'"):
        load_hubert(path)

    torch.save({"model": [torch.zeros(1)], "cfg": None}, path)
    with pytest.raises(UserError, match="no fairseq checkpoint: it has no entry 'model' with tensors by name"):
        load_hubert(path)

    torch.save({"cfg": {"model": {"_name": "transformer_lm"}, "task": {}}, "model": {}}, path)
    with pytest.raises(UserError, match="another architecture, 'transformer_lm'; expected a HuBERT"):
        load_hubert(path)


@pytest.fixture(params=["evil.pt", "pytorch_model.bin"])
def attack(request, tmp_path, stock_checkpoint):
    """A checkpoint that runs code when it is unpickled without care: its path, and the file that the code makes."""

    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/attacked",)

    _, source = stock_checkpoint()
    state = load_pickle(source)
    if request.param == "evil.pt":
        content = {**state, "extra": Attack()}
    else:
        folder = tmp_path / "hf"
        write_huggingface(load_hubert(source), folder)
        content = {**load_hubert(folder).state_dict, "extra": Attack()}
        for file in folder.iterdir():
            file.rename(tmp_path / file.name)
    torch.save(content, tmp_path / request.param)
    return tmp_path / request.param, tmp_path / "attacked"


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(attack):
    path, attacked = attack
    message = r"cannot be loaded safely: it needs the type posix.system.*If you trust its author.* --trust-pickle"
    with pytest.raises(UserError, match=message):
        load_hubert(path)
    with pytest.raises(UserError, match=message):
        build_backbone(str(path), None, None)
    assert not attacked.exists()


def test_only_the_explicit_switch_loads_it_and_warns(attack, tmp_path, caplog, capsys):
    path, attacked = attack
    if path.suffix == ".pt":
        tool("convert_hubert")(
            ["--checkpoint", str(path), "--to", "fairseq", "--out", f"{tmp_path}/safe.pt", "--trust-pickle"]
        )
        assert load_hubert(tmp_path / "safe.pt").build()  # converted once, it is safe for all
    else:
        with pytest.raises(UserError, match="holds no weights: expected a dict of tensors"):
            load_hubert(path, trust=True)
    assert attacked.exists()
    assert "WITHOUT SAFETY, as you asked: it holds the type posix.system" in caplog.text + capsys.readouterr().err


def test_safe_files_never_need_the_switch(stock_checkpoint, caplog):
    load_hubert(stock_checkpoint()[1], trust=True)
    assert "WITHOUT SAFETY" not in caplog.text


def test_a_configuration_of_omegaconf_is_safe(stock_checkpoint):
    _, path = stock_checkpoint(encoder_layers=3)
    state = load_pickle(path)
    torch.save({**state, "cfg": OmegaConf.create(state["cfg"])}, path)
    assert load_hubert(path).build().n_layers == 3


@torch.inference_mode()
@pytest.mark.parametrize("normalize", [True, False])
def test_wav2vec2_of_fairseq(tmp_path, normalize):
    torch.manual_seed(0)
    settings = {**TINY, "encoder_layers": 2, "quantize_targets": True, "latent_vars": 8, "final_dim": 16}
    cfg = OmegaConf.merge(OmegaConf.structured(Wav2Vec2Config), settings)
    model = Wav2Vec2Model(cfg).eval()
    plain = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    task = {"_name": "audio_pretraining", "normalize": normalize}
    torch.save({"cfg": {"model": {**plain, "_name": "wav2vec2"}, "task": task}, "model": model.state_dict()},
               tmp_path / "w2v.pt")  # fmt: skip
    wave = torch.randn(1, 4000)
    checkpoint = load_hubert(tmp_path / "w2v.pt")
    assert checkpoint.normalize == normalize
    prepared = torch.nn.functional.layer_norm(wave, wave.shape) if normalize else wave
    expected = model(prepared, mask=False, features_only=True)["x"]
    torch.testing.assert_close(checkpoint.build().eval()(wave)["x"], expected, atol=1e-5, rtol=1e-5)


def test_wav2vec2_that_huberts_class_cannot_be_is_refused(tmp_path, stock_checkpoint):
    _, path = stock_checkpoint()
    state = load_pickle(path)
    state["cfg"]["model"] |= {"_name": "wav2vec2", "pos_conv_depth": 5}
    torch.save(state, path)
    with pytest.raises(UserError, match="wav2vec2 with pos_conv_depth=5 is no HuBERT"):
        load_hubert(path)
    for setting in ({"layer_type": "conformer"}, {"conv_pos_batch_norm": True}):
        with pytest.raises(UserError, match="a batch norm makes features depend on the batch"):
            hubert_config(setting)


@pytest.mark.parametrize("kept_as", [dict, lambda cfg: argparse.Namespace(**cfg["model"], **cfg["task"])])
def test_a_fine_tuned_model_gives_its_backbone(stock_checkpoint, kept_as):
    model, path = stock_checkpoint(normalize=True)
    state = load_pickle(path)
    cfg = state["cfg"]
    if kept_as is not dict:
        cfg["model"]["arch"] = cfg["model"].pop("_name")
        del cfg["task"]["_name"]
    state["cfg"] = {"model": {"_name": "hubert_ctc", "w2v_args": kept_as(cfg)}, "task": {}}
    state["model"] = {f"w2v_encoder.w2v_model.{k}": v for k, v in state["model"].items()}
    state["model"]["w2v_encoder.proj.weight"] = torch.zeros(3, 32)
    torch.save(state, path)
    checkpoint = load_hubert(path)
    assert checkpoint.normalize and checkpoint.build().mask_emb.equal(model.mask_emb)


def test_an_empty_file_is_damaged(tmp_path):
    (tmp_path / "empty.pt").touch()
    with pytest.raises(UserError, match="empty.pt is damaged or no torch file"):
        load_hubert(tmp_path / "empty.pt")


def test_a_file_that_is_no_checkpoint_is_not_called_unsafe(tmp_path):
    """Whatever its bytes happen to say to those who read pickles."""
    for content in (b"\x93NUMPY and more", b"RIFF$\xfa\0\0WAVEfmt ", *(bytes([i]) for i in range(256))):
        (tmp_path / "features.npy").write_bytes(content)
        with pytest.raises(UserError, match="features.npy is damaged or no torch file"):
            load_hubert(tmp_path / "features.npy")


def test_what_one_stage_freezes_the_next_may_train(stock_checkpoint):
    _, path = stock_checkpoint(feature_grad_mult=0.1)
    frozen, _ = build_backbone(str(path), {}, None, frozen=True)
    assert not any(p.requires_grad for p in frozen.feature_extractor.parameters())
    thawed, _ = build_backbone(str(path), {}, {"settings": backbone_settings(frozen.cfg), "normalize": False})
    assert thawed.feature_grad_mult == 0.1
    thawed(torch.randn(1, 3000))["x"][..., 0].sum().backward()
    assert all(p.grad is not None for p in thawed.feature_extractor.parameters())


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"dropout": "much"}, "model.hubert: "),
        ({"encoder_attention_heads": 5}, "no multiple of encoder_attention_heads 5"),
        ({"conv_feature_layers": "[(16,10,5"}, "expected a list of"),
        ({"conv_feature_layers": "1+1"}, "expected a list of"),
        ({"conv_feature_layers": "[(16,10,4)] + [(16,3,2)] * 4 + [(16,2,2)] * 2"}, "other kernels and strides"),
    ],
)
def test_impossible_settings_have_one_message(stock_checkpoint, settings, message):
    with pytest.raises(UserError, match=message):
        build_backbone(str(stock_checkpoint()[1]), settings, None)


def test_nothing_to_start_from():
    with pytest.raises(UserError, match="no HuBERT to start from: give model.hubert_path=CHECKPOINT"):
        build_backbone(None, {"mask_prob": 0.1}, None)
