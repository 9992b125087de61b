"""Weights out: what the tool writes loads with plain transformers and with stock fairseq, unchanged."""

import json
from pathlib import Path

import fairseq
import pytest
import soundfile
import torch
import transformers
from conftest import TINY, load_script, stock_hubert, tool
from fairseq import checkpoint_utils

from gmp_plugin.errors import UserError
from gmp_plugin.hubert.checkpoint import load_hubert
from gmp_plugin.hubert.safe import load_pickle

ARCHITECTURES = {
    "base": {},
    "large": {"extractor_mode": "layer_norm", "layer_norm_first": True, "conv_bias": True},
    "xlarge": {
        "extractor_mode": "layer_norm", "layer_norm_first": True, "encoder_layers": 6, "encoder_embed_dim": 40,
        "encoder_ffn_embed_dim": 160, "mask_prob": 0.0,
    },
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore")


def convert(source, to, out, *more):
    tool("convert_hubert")(["--checkpoint", str(source), "--to", to, "--out", str(out), *more])
    return out


@pytest.fixture(params=ARCHITECTURES)
def stock(request, stock_checkpoint):
    """Stock model and its checkpoint."""
    return stock_checkpoint(normalize=request.param != "base", **ARCHITECTURES[request.param])


def load_stock(path):
    """fairseq's own loading, which is strict."""
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([str(path)])
    return model.eval(), task


def test_fairseq_to_hugging_face_and_back_is_bit_identical(stock, tmp_path):
    model, source = stock
    folder = convert(source, "hf", tmp_path / "hf")
    back = convert(folder, "fairseq", tmp_path / "back.pt")
    again = convert(back, "hf", tmp_path / "again")
    expected, found = model.state_dict(), load_stock(back)[0].state_dict()
    backbone = [k for k in expected if not k.startswith(("final_proj", "label_embs"))]
    assert len(backbone) == len([k for k in found if not k.startswith("final_proj")])
    for name in backbone:
        assert expected[name].dtype == found[name].dtype and expected[name].equal(found[name]), name
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


@torch.inference_mode()
def test_plain_transformers_loads_it_whole_and_gives_fairseqs_features(stock, tmp_path):
    model, source = stock
    folder = convert(source, "hf", tmp_path / "hf")
    loaded, info = transformers.HubertModel.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    wave = torch.randn(2, 5000)
    # Same operations in another order.
    expected, _ = model.extract_features(wave, mask=False)
    torch.testing.assert_close(loaded.eval()(wave).last_hidden_state, expected, atol=1e-5, rtol=1e-5)
    assert loaded.masked_spec_embed.equal(model.mask_emb)


def test_the_folder_says_how_to_prepare_audio(tmp_path, stock_checkpoint):
    for normalize in (True, False):
        _, source = stock_checkpoint(normalize=normalize)
        folder = convert(source, "hf", tmp_path / "hf", "--force")
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
        assert (extractor.do_normalize, extractor.sampling_rate) == (normalize, 16_000)
        assert load_hubert(folder).normalize == normalize
        card = (folder / "README.md").read_text()
        assert ("at 16000 Hz, normalised per clip" in card) == normalize
        assert "hubert.pt" in card and str(tmp_path) not in card


def test_settings_survive_where_both_sides_have_them(tmp_path, stock_checkpoint):
    wanted = {"dropout": 0.2, "attention_dropout": 0.3, "encoder_layerdrop": 0.05, "dropout_input": 0.15}
    wanted |= {"activation_dropout": 0.25, "mask_prob": 0.4, "mask_length": 7, "mask_channel_prob": 0.1}
    _, source = stock_checkpoint(**wanted)
    settings = load_hubert(convert(source, "hf", tmp_path / "hf")).settings
    assert {k: settings[k] for k in wanted} == wanted


@torch.inference_mode()
def test_stock_fairseqs_feature_reader_takes_it(stock, tmp_path, write_audio, monkeypatch):
    """The class of simple_kmeans' dump_hubert_feature.py, without the GPU and the sox that it wants."""
    script = Path(fairseq.__file__).parent / "examples" / "hubert" / "simple_kmeans" / "dump_hubert_feature.py"
    Reader = load_script(script).HubertFeatureReader
    monkeypatch.setattr(torch.nn.Module, "cuda", lambda self: self)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    monkeypatch.setattr(Reader, "read_audio", lambda self, path, ref_len=None: soundfile.read(path)[0])
    model, source = stock
    back = convert(convert(source, "hf", tmp_path / "hf"), "fairseq", tmp_path / "back.pt")
    wave = write_audio(tmp_path / "a.wav", 5000)
    reader = Reader(str(back), 2)
    features = reader.get_feats(str(wave))
    source = torch.from_numpy(soundfile.read(wave, dtype="float32")[0])
    assert reader.task.cfg.normalize == load_hubert(back).normalize
    if reader.task.cfg.normalize:
        source = torch.nn.functional.layer_norm(source, source.shape)
    expected, _ = model.extract_features(source[None], mask=False, output_layer=2)
    assert features.equal(expected[0])


def test_the_fairseq_file_needs_no_allowed_types(tmp_path, stock_checkpoint):
    back = convert(stock_checkpoint()[1], "fairseq", tmp_path / "back.pt")
    with torch.serialization.safe_globals([]):
        state = torch.load(back, weights_only=True)
    assert state["cfg"]["task"]["label_rate"] == 50.0


@pytest.mark.parametrize("to", ["fairseq", "hf"])
def test_a_stage_checkpoint_gives_its_backbone_and_keeps_what_it_has_seen(tmp_path, to):
    model, state = stock_hubert(TINY)
    backbone = {k: v for k, v in state["model"].items() if not k.startswith(("final_proj", "label_embs"))}
    provenance = [{"stage": "stage1", "split": "train", "manifest": "train.tsv", "utterances": ["a.wav", "b.wav"]}]
    torch.save(
        {
            "model": {f"hubert.{k}": v for k, v in backbone.items()} | {"emotion_head.weight": torch.zeros(4)},
            "task_state": {"hubert": {"settings": TINY, "normalize": True}, "provenance": provenance},
            "cfg": {"model": {"_name": "multitask_emotion_gender"}},
        },
        tmp_path / "stage1.pt",
    )
    out = convert(tmp_path / "stage1.pt", to, tmp_path / ("out.pt" if to == "fairseq" else "out"))
    loaded = load_hubert(out)
    assert loaded.normalize and loaded.provenance == provenance
    assert loaded.state_dict.keys() == backbone.keys()
    assert all(loaded.state_dict[k].equal(v) for k, v in backbone.items())
    if to == "hf":
        assert "- stage1, train: 2 utterances" in (out / "README.md").read_text()


def test_nothing_is_replaced_without_force(tmp_path, stock_checkpoint):
    _, source = stock_checkpoint()
    for to, name in (("fairseq", "a.pt"), ("hf", "a")):
        convert(source, to, tmp_path / name)
        with pytest.raises(UserError, match="exists already; give --force"):
            convert(source, to, tmp_path / name)
        convert(source, to, tmp_path / name, "--force")


def test_weights_that_do_not_fit_are_not_written(tmp_path, stock_checkpoint):
    _, source = stock_checkpoint()
    state = load_pickle(source)
    del state["model"]["encoder.layers.1.fc1.bias"]
    torch.save(state, source)
    with pytest.raises(UserError, match="the weights do not fit.*encoder.layers.1.fc1.bias"):
        convert(source, "hf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_half_precision_stays(tmp_path, stock_checkpoint):
    _, source = stock_checkpoint()
    state = load_pickle(source)
    state["model"] = {k: v.half() for k, v in state["model"].items()}
    torch.save(state, source)
    folder = convert(source, "hf", tmp_path / "hf")
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    back = load_hubert(convert(folder, "fairseq", tmp_path / "back.pt"))
    assert all(v.dtype == torch.float16 and v.equal(state["model"][k]) for k, v in back.state_dict.items())


def test_weights_for_others_name_the_corpus_and_no_folder(tmp_path, stock_checkpoint):
    _, path = stock_checkpoint()
    state = load_pickle(path)
    entry = {"stage": "kmeans", "split": "train", "manifest": "/home/me/train.tsv", "root": "/home/me/speech"}
    torch.save({**state, "task_state": {"provenance": [{**entry, "utterances": ["a/1.flac"]}]}}, path)
    for to, out in (("hf", tmp_path / "hf"), ("fairseq", tmp_path / "new.pt")):
        convert(path, to, out, "--corpus", "LibriSpeech")
        expected = {**entry, "manifest": "train.tsv", "root": "LibriSpeech", "utterances": ["a/1.flac"]}
        assert load_hubert(out).provenance == [expected]
