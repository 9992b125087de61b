"""Checkpoints from Hugging Face: what transformers wrote, read here, against transformers' own features."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from gmp_plugin.errors import UserError
from gmp_plugin.hubert.checkpoint import load_hubert

SMALL = {
    "conv_dim": [16] * 7,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
BASE = SMALL
LARGE = {**SMALL, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
# Same float32 operations in another order, on features of size about 1.
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def save(folder, config=BASE, model_class=transformers.HubertModel, do_normalize=False):
    """A model with random weights in `folder`, as its author would leave it there."""
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**config)).eval()
    for name, parameter in model.named_parameters():  # biases and norms start at zero and one
        if name.endswith("bias") or "layer_norm" in name:
            torch.nn.init.normal_(parameter, 1.0 if name.endswith("norm.weight") else 0.0, 0.1)
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=do_normalize).save_pretrained(folder)
    return model


def rewrite(folder, change):
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@torch.inference_mode()
@pytest.mark.parametrize("config", [BASE, LARGE], ids=["base", "large"])
@pytest.mark.parametrize("family", ["Hubert", "Wav2Vec2"])
def test_features_are_those_of_transformers(tmp_path, config, family):
    model = save(tmp_path, config, getattr(transformers, f"{family}Model"))
    backbone = load_hubert(tmp_path).build().eval()
    wave = torch.randn(2, 6000)
    torch.testing.assert_close(backbone(wave)["x"], model(wave).last_hidden_state, **CLOSE)
    hidden = model(wave, output_hidden_states=True).hidden_states
    torch.testing.assert_close(backbone(wave, output_layer=2)["x"], hidden[2], **CLOSE)


@torch.inference_mode()
@pytest.mark.parametrize("family", ["HubertForCTC", "HubertForSequenceClassification", "Wav2Vec2ForPreTraining"])
def test_a_model_with_a_head_gives_its_backbone(tmp_path, family):
    model = save(tmp_path, {**BASE, "vocab_size": 7}, getattr(transformers, family))
    wave = torch.randn(1, 4000)
    expected = getattr(model, model.base_model_prefix)(wave).last_hidden_state
    torch.testing.assert_close(load_hubert(tmp_path).build().eval()(wave)["x"], expected, **CLOSE)


@pytest.mark.parametrize("spelling", ["weight_{}", "parametrizations.weight.original{}"])
def test_both_spellings_of_the_weight_norm(tmp_path, spelling):
    model = save(tmp_path)
    g = model.encoder.pos_conv_embed.conv.parametrizations.weight.original0.data
    v = model.encoder.pos_conv_embed.conv.parametrizations.weight.original1.data
    names = [spelling.format(x) for x in (("g", "v") if "_" in spelling else (0, 1))]

    def respell(tensors):
        kept = {k: t for k, t in tensors.items() if ".conv.parametrizations" not in k and ".conv.weight_" not in k}
        return kept | {f"encoder.pos_conv_embed.conv.{n}": t.clone() for n, t in zip(names, (g, v), strict=True)}

    rewrite(tmp_path, respell)
    state = load_hubert(tmp_path).state_dict
    assert state["encoder.pos_conv.0.weight_g"].equal(g) and state["encoder.pos_conv.0.weight_v"].equal(v)


def test_pickled_weights_and_single_files(tmp_path):
    save(tmp_path)
    expected = load_hubert(tmp_path).state_dict
    tensors = load_file(tmp_path / "model.safetensors")
    for path in (tmp_path / "model.safetensors", tmp_path / "config.json"):
        assert load_hubert(path).state_dict.keys() == expected.keys()
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    for path in (tmp_path, tmp_path / "pytorch_model.bin"):
        loaded = load_hubert(path)
        assert all(loaded.state_dict[k].equal(expected[k]) for k in expected)
        assert loaded.path.endswith("pytorch_model.bin")


@torch.inference_mode()
@pytest.mark.parametrize("do_normalize", [True, False])
def test_normalisation_travels_and_is_applied(tmp_path, do_normalize):
    model = save(tmp_path, LARGE, do_normalize=do_normalize)
    wave = 0.3 * torch.randn(5000) + 0.1
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    inputs = extractor(wave.numpy(), sampling_rate=16_000, return_tensors="pt").input_values
    backbone = load_hubert(tmp_path).build().eval()
    assert backbone.normalize == do_normalize
    # transformers adds 1e-7 to the variance (0.09 here), fairseq 1e-5: a scale of 1.00006
    torch.testing.assert_close(backbone(wave[None])["x"], model(inputs).last_hidden_state, atol=3e-4, rtol=1e-3)


def test_normalisation_inside_a_processor_file(tmp_path):
    save(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"feature_extractor": {"do_normalize": True}}))
    assert load_hubert(tmp_path).normalize


def test_a_folder_that_does_not_say_whether_to_normalise_is_refused(tmp_path):
    save(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match="no preprocessor_config.json, which says whether the model wants normalised"):
        load_hubert(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"sampling_rate": 8000}')
    with pytest.raises(UserError, match="audio at 8000 Hz; expected 16000"):
        load_hubert(tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"conv_pos_batch_norm": True}, "conv_pos_batch_norm is True, which fairseq's HuBERT cannot represent"),
        ({"add_adapter": True}, "add_adapter is True"),
        ({"adapter_attn_dim": 16}, "adapter_attn_dim is 16"),
        ({"feat_proj_layer_norm": False}, "feat_proj_layer_norm is False"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps is 1e-06"),
        ({"feat_extract_activation": "relu"}, "feat_extract_activation is 'relu'"),
        ({"hidden_act": "silu"}, "'silu' is unknown; expected one of gelu"),
        ({"hidden_size": 16}, "the last convolution is as wide as the transformer"),
        ({"model_type": "wavlm"}, "model_type is 'wavlm'; expected one of hubert, wav2vec2"),
    ],
)
def test_what_fairseqs_model_cannot_represent_is_refused(tmp_path, change, message):
    save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=f"config.json: {message}"):
        load_hubert(tmp_path)


def test_broken_folders(tmp_path):
    with pytest.raises(UserError, match="config.json does not exist; expected a folder in Hugging Face layout"):
        load_hubert(tmp_path)
    with pytest.raises(UserError, match="model.safetensors does not exist"):
        load_hubert(tmp_path / "model.safetensors")
    save(tmp_path)
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "kept")
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="damaged or no safetensors file"):
        load_hubert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="has no weights: expected model.safetensors or pytorch_model.bin"):
        load_hubert(tmp_path)
    shutil.copy(tmp_path / "kept", tmp_path / "model.safetensors")
    rewrite(tmp_path, lambda tensors: tensors | {"adapter.weight": torch.zeros(2)})
    with pytest.raises(UserError, match="has tensors that HuBERT does not: adapter.weight"):
        load_hubert(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json is no JSON"):
        load_hubert(tmp_path)


def test_the_hash_is_of_all_that_the_features_depend_on(tmp_path):
    save(tmp_path)
    hashes = [load_hubert(tmp_path).sha256]
    assert load_hubert(tmp_path / "model.safetensors").sha256 == hashes[0]
    for name, change in (
        ("preprocessor_config.json", {"do_normalize": True}),
        ("config.json", {"num_attention_heads": 4}),
        ("config.json", {"hidden_act": "relu"}),
    ):
        content = json.loads((tmp_path / name).read_text())
        (tmp_path / name).write_text(json.dumps(content | change))
        hashes.append(load_hubert(tmp_path).sha256)
    rewrite(tmp_path, lambda tensors: tensors | {"masked_spec_embed": torch.zeros(32)})
    hashes.append(load_hubert(tmp_path).sha256)
    assert len(set(hashes)) == 5
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"transformers_version": "4.0.0"}, indent=4))
    assert load_hubert(tmp_path).sha256 == hashes[-1]


def test_a_checkpoint_without_mask_embedding_gets_always_the_same(tmp_path):
    save(tmp_path, {**BASE, "mask_time_prob": 0.0})
    first, second = (load_hubert(tmp_path).build().mask_emb for _ in range(2))
    assert first.equal(second) and first.std() > 0.1
