"""HuBERT and wav2vec 2.0 in Hugging Face layout: their configuration and tensor names, in and out.

Source: transformers' `HubertConfig` and `HubertModel` (`Wav2Vec2Model` for wav2vec 2.0).
"""

import json
import logging
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .. import frames, provenance
from ..errors import UserError
from .backbone import conv_layers
from .safe import load_pickle

logger = logging.getLogger(__name__)

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
MODEL_TYPES = ("hubert", "wav2vec2")

# fairseq setting -> (transformers' name, transformers' default, which its config files leave out)
SETTINGS = {
    "encoder_layers": ("num_hidden_layers", 12),
    "encoder_embed_dim": ("hidden_size", 768),
    "encoder_ffn_embed_dim": ("intermediate_size", 3072),
    "encoder_attention_heads": ("num_attention_heads", 12),
    "layer_norm_first": ("do_stable_layer_norm", False),
    "conv_bias": ("conv_bias", False),
    "conv_pos": ("num_conv_pos_embeddings", 128),
    "conv_pos_groups": ("num_conv_pos_embedding_groups", 16),
    "dropout": ("hidden_dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "activation_dropout": ("activation_dropout", 0.1),
    "dropout_input": ("feat_proj_dropout", 0.0),
    "encoder_layerdrop": ("layerdrop", 0.1),
    "mask_prob": ("mask_time_prob", 0.05),
    "mask_length": ("mask_time_length", 10),
    "mask_channel_prob": ("mask_feature_prob", 0.0),
    "mask_channel_length": ("mask_feature_length", 10),
}
EXTRACTOR_MODES = {"default": "group", "layer_norm": "layer"}
ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "tanh": "tanh", "gelu_accurate": "gelu_new"}
# What fairseq's model has in one form only.
FIXED = {
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
    "feat_proj_layer_norm": True,
    "conv_pos_batch_norm": False,
    "add_adapter": False,
    "adapter_attn_dim": None,
}
# modules of one transformer layer, fairseq -> transformers
LAYER = {
    **{f"self_attn.{p}_proj": f"attention.{p}_proj" for p in ("k", "v", "q", "out")},
    "self_attn_layer_norm": "layer_norm",
    "fc1": "feed_forward.intermediate_dense",
    "fc2": "feed_forward.output_dense",
    "final_layer_norm": "final_layer_norm",
}


def to_settings(config: dict, where="config.json") -> dict:
    """fairseq's settings from a Hugging Face configuration; `UserError` for what fairseq's model lacks."""
    if config.get("model_type") not in MODEL_TYPES:
        raise UserError(
            f"{where}: model_type is {config.get('model_type')!r}; expected one of {', '.join(MODEL_TYPES)}"
        )
    for name, only in FIXED.items():
        if config.get(name, only) != only:
            raise UserError(f"{where}: {name} is {config[name]!r}, which fairseq's HuBERT cannot represent ({only!r})")
    settings = {ours: config.get(theirs, default) for ours, (theirs, default) in SETTINGS.items()}
    if not config.get("apply_spec_augment", True):
        settings |= {"mask_prob": 0.0, "mask_channel_prob": 0.0}
    convolutions = zip(
        config.get("conv_dim", [512] * 7),
        config.get("conv_kernel", [k for k, _ in frames.KERNELS_STRIDES]),
        config.get("conv_stride", [s for _, s in frames.KERNELS_STRIDES]),
        strict=True,
    )
    settings["conv_feature_layers"] = str([tuple(c) for c in convolutions])
    settings["extractor_mode"] = _inverse(EXTRACTOR_MODES, config.get("feat_extract_norm", "group"), where)
    settings["activation_fn"] = _inverse(ACTIVATIONS, config.get("hidden_act", "gelu"), where)
    _check_projection(settings, where)
    return settings


def from_settings(settings: dict, state_dict: dict, where="the checkpoint") -> dict:
    """A Hugging Face configuration from fairseq's settings and tensors."""
    _check_projection(settings, where)
    config = {theirs: settings[ours] for ours, (theirs, _) in SETTINGS.items()}
    if settings["activation_fn"] not in ACTIVATIONS:
        raise UserError(f"{where}: transformers has no activation_fn {settings['activation_fn']!r}")
    if settings["mask_prob"] == 0:
        # transformers leaves out the mask embedding at probability 0, and the checkpoint has one.
        config |= {"apply_spec_augment": False, "mask_time_prob": SETTINGS["mask_prob"][1]}
    convolutions = conv_layers(settings["conv_feature_layers"])
    dtype = str(state_dict["encoder.layer_norm.weight"].dtype).removeprefix("torch.")
    return config | {
        "architectures": ["HubertModel"],
        "model_type": "hubert",
        "dtype": dtype,
        "torch_dtype": dtype,  # before transformers 4.56
        "conv_dim": [dim for dim, _, _ in convolutions],
        "conv_kernel": [kernel for _, kernel, _ in convolutions],
        "conv_stride": [stride for _, _, stride in convolutions],
        "num_feat_extract_layers": len(convolutions),
        "feat_extract_norm": EXTRACTOR_MODES[settings["extractor_mode"]],
        "feat_extract_activation": FIXED["feat_extract_activation"],
        "feat_proj_layer_norm": FIXED["feat_proj_layer_norm"],
        "hidden_act": ACTIVATIONS[settings["activation_fn"]],
        "layer_norm_eps": FIXED["layer_norm_eps"],
    }


def hf_state_dict(state_dict: dict, settings: dict, parametrized: bool = False) -> dict:
    """fairseq's tensors under transformers' names.

    The weight norm is spelt `weight_g`, `weight_v`, which every version of transformers reads;
    `parametrized` gives the spelling of its modules since torch 2.
    """
    renamed = _rename(state_dict, _modules(settings), "the checkpoint")
    return _respell(renamed, NEW_SPELLING) if parametrized else renamed


def fairseq_state_dict(state_dict: dict, settings: dict, where) -> dict:
    """transformers' tensors, in either spelling and with any head, under fairseq's names."""
    for prefix in MODEL_TYPES:
        if any(k.startswith(f"{prefix}.") for k in state_dict):
            state_dict = {k.removeprefix(f"{prefix}."): v for k, v in state_dict.items() if k.startswith(f"{prefix}.")}
    state_dict = _respell(state_dict, {new: old for old, new in NEW_SPELLING.items()})
    state_dict = _rename(state_dict, {v: k for k, v in _modules(settings).items()}, where)
    if "mask_emb" not in state_dict:
        logger.warning(f"{where} has no mask embedding (masked_spec_embed): it gets random numbers, always the same")
        generator = torch.Generator().manual_seed(0)
        state_dict["mask_emb"] = torch.rand(settings["encoder_embed_dim"], generator=generator)
    return state_dict


def read_huggingface(path, trust: bool = False) -> tuple[dict, bool, dict, list, Path]:
    """Read a folder, or one of its weight files, in Hugging Face layout.

    Returns:
        settings, normalize, state dict, provenance, and the file of the weights.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    config = _json(folder / "config.json")
    settings = to_settings(config, folder / "config.json")
    weights = [path] if path.is_file() and path.suffix != ".json" else [folder / name for name in WEIGHTS]
    weights = next((file for file in weights if file.is_file()), None)
    if weights is None:
        raise UserError(f"{folder} has no weights: expected {' or '.join(WEIGHTS)} (sharded ones: save as one file)")
    state_dict = fairseq_state_dict(_tensors(weights, trust), settings, weights)
    record = folder / provenance.FILE
    seen = _json(record, list) if record.is_file() else []
    return settings, _normalize(folder), state_dict, seen, weights


def _normalize(folder: Path) -> bool:
    """`do_normalize` of the feature extractor, in either of the files that transformers keeps it in."""
    if (folder / "preprocessor_config.json").is_file():
        found = _json(folder / "preprocessor_config.json")
    elif (folder / "processor_config.json").is_file():
        found = _json(folder / "processor_config.json").get("feature_extractor", {})
    else:
        raise UserError(
            f"{folder} has no preprocessor_config.json, which says whether the model wants normalised audio; "
            'put it there, or write one with {"do_normalize": true} or false'
        )
    rate = found.get("sampling_rate", frames.SAMPLE_RATE)
    if rate != frames.SAMPLE_RATE:
        raise UserError(f"{folder}: the model wants audio at {rate} Hz; expected {frames.SAMPLE_RATE}")
    return bool(found.get("do_normalize", True))


def _tensors(weights: Path, trust: bool) -> dict:
    if weights.suffix == ".safetensors":
        try:
            return load_file(weights)
        except SafetensorError as error:
            raise UserError(f"{weights} is damaged or no safetensors file: {error}") from None
    tensors = load_pickle(weights, trust)
    if not isinstance(tensors, dict) or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise UserError(f"{weights} holds no weights: expected a dict of tensors, as transformers writes it")
    return tensors


def _json(path: Path, kind: type = dict):
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected a folder in Hugging Face layout")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    if not isinstance(found, kind):
        raise UserError(f"{path}: expected a JSON {kind.__name__}, found a {type(found).__name__}")
    return found


def _check_projection(settings: dict, where) -> None:
    if conv_layers(settings["conv_feature_layers"])[-1][0] == settings["encoder_embed_dim"]:
        raise UserError(
            f"{where}: the last convolution is as wide as the transformer ({settings['encoder_embed_dim']}); there "
            "transformers has a projection and fairseq has none, so neither form says the other"
        )


def _inverse(table: dict, value, where) -> str:
    for ours, theirs in table.items():
        if theirs == value:
            return ours
    raise UserError(f"{where}: {value!r} is unknown; expected one of {', '.join(table.values())}")


def _modules(settings: dict) -> dict[str, str]:
    """Names of modules (and of the one bare parameter), fairseq -> transformers."""
    names = {
        "mask_emb": "masked_spec_embed",
        "layer_norm": "feature_projection.layer_norm",
        "post_extract_proj": "feature_projection.projection",
        "encoder.layer_norm": "encoder.layer_norm",
        "encoder.pos_conv.0": "encoder.pos_conv_embed.conv",
    }
    norm = "2.1" if settings["extractor_mode"] == "layer_norm" else "2"
    for i in range(len(conv_layers(settings["conv_feature_layers"]))):
        block = f"feature_extractor.conv_layers.{i}"
        names |= {f"{block}.0": f"{block}.conv", f"{block}.{norm}": f"{block}.layer_norm"}
    for i in range(settings["encoder_layers"]):
        names |= {f"encoder.layers.{i}.{ours}": f"encoder.layers.{i}.{theirs}" for ours, theirs in LAYER.items()}
    return names


NEW_SPELLING = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}


def _respell(state_dict: dict, spelling: dict) -> dict:
    pattern = re.compile(rf"\.({'|'.join(map(re.escape, spelling))})$")
    return {pattern.sub(lambda m: f".{spelling[m[1]]}", name): tensor for name, tensor in state_dict.items()}


def _rename(state_dict: dict, modules: dict, where) -> dict:
    renamed, unknown = {}, []
    for name, tensor in state_dict.items():
        module, _, parameter = name.rpartition(".")
        if name in modules:
            renamed[modules[name]] = tensor
        elif module in modules:
            renamed[f"{modules[module]}.{parameter}"] = tensor
        else:
            unknown.append(name)
    if unknown:
        raise UserError(f"{where} has tensors that HuBERT does not: {', '.join(unknown[:5])} ({len(unknown)} in all)")
    return renamed
