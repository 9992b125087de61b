"""A backbone out: as a file that stock fairseq loads, or as a folder that transformers loads."""

import json
from pathlib import Path

import torch
from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
from omegaconf import OmegaConf
from safetensors.torch import save_file

from .. import frames, provenance
from ..files import atomic_path, atomic_text, refuse_existing, sha256
from .backbone import hubert_config
from .checkpoint import HubertCheckpoint
from .huggingface import from_settings, hf_state_dict


def write_fairseq(checkpoint: HubertCheckpoint, path, force: bool = False) -> None:
    """A HuBERT pretraining checkpoint for stock fairseq: loads strictly, with torch's safe loading.

    fairseq builds a pretraining head whenever it builds a HuBERT. The head is not the backbone's:
    here it is the identity, without label embeddings (`dictionaries` of None, as fairseq does for
    fine-tuning), so the file serves feature extraction and fine-tuning.
    """
    refuse_existing(path, force=force)
    checkpoint.build()  # every tensor there, and of the right shape
    cfg = hubert_config({**checkpoint.settings, "final_dim": 0, "untie_final_proj": False, "target_glu": False})
    task = OmegaConf.structured(
        HubertPretrainingConfig(
            data=".", label_rate=frames.FRAME_RATE, sample_rate=frames.SAMPLE_RATE, normalize=checkpoint.normalize
        )
    )
    dtype = checkpoint.state_dict["encoder.layer_norm.weight"].dtype
    head = {
        "final_proj.weight": torch.eye(cfg.encoder_embed_dim, dtype=dtype),
        "final_proj.bias": torch.zeros(cfg.encoder_embed_dim, dtype=dtype),
    }
    state = {
        "args": None,
        "cfg": {"model": _plain(cfg, "hubert"), "task": _plain(task, "hubert_pretraining")},
        "model": {**checkpoint.state_dict, **head},
        "task_state": {"dictionaries": [None], "provenance": checkpoint.provenance},
        # fairseq's upgrade of old files looks for these; nothing was trained here
        "optimizer_history": [
            {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {"best": None}, "num_updates": 0}
        ],
        "extra_state": {},
    }
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def write_huggingface(checkpoint: HubertCheckpoint, folder, force: bool = False) -> None:
    """A folder for `transformers.HubertModel.from_pretrained`: weights, configurations, model card."""
    folder = Path(folder)
    refuse_existing(folder, force=force)
    checkpoint.build()  # every tensor there, and of the right shape
    config = from_settings(checkpoint.settings, checkpoint.state_dict, checkpoint.path)
    preprocessor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": checkpoint.normalize,
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        # With a group norm over time a mask does not undo padding; transformers' own files agree.
        "return_attention_mask": config["feat_extract_norm"] == "layer",
        "sampling_rate": frames.SAMPLE_RATE,
    }
    tensors = hf_state_dict(checkpoint.state_dict, checkpoint.settings)
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, {"format": "pt"})
    for name, content in (
        ("README.md", model_card(checkpoint, config)),
        (provenance.FILE, json.dumps(checkpoint.provenance)),
        ("preprocessor_config.json", _json(preprocessor)),
        ("config.json", _json(config)),
    ):
        with atomic_text(folder / name) as stream:
            stream.write(content)


def model_card(checkpoint: HubertCheckpoint, config: dict) -> str:
    """The README of a Hugging Face folder: what the weights are, what they have seen, how to use them."""
    seen = [f"- {e['stage']}, {e['split']}: {len(e['utterances'])} utterances" for e in checkpoint.provenance]
    n = sum(tensor.numel() for tensor in checkpoint.state_dict.values())
    source = Path(checkpoint.path)
    return f"""---
library_name: transformers
pipeline_tag: feature-extraction
tags:
- hubert
- speech
- speech-emotion-recognition
---

# HuBERT backbone from {source.name}

Converted by gmp-plugin from `{source.name}` (sha256 `{sha256(source)}`), tensor by tensor. The backbone only:
heads of pretraining or of a classifier are not part of it. The licence is that of the original weights.

| | |
|---|---|
| transformer layers | {config["num_hidden_layers"]} of {config["hidden_size"]}, {config["num_attention_heads"]} heads |
| parameters | {n:,} |
| input | mono audio at {frames.SAMPLE_RATE} Hz, {"normalised per clip" if checkpoint.normalize else "not normalised"} |
| output | {frames.FRAME_RATE:.0f} frames a second |

## Data seen

{chr(10).join(seen) or "- nothing beside what the original weights were trained on"}

## Use

```python
from transformers import AutoFeatureExtractor, HubertModel

extractor = AutoFeatureExtractor.from_pretrained("this folder")
model = HubertModel.from_pretrained("this folder").eval()
inputs = extractor(audio, sampling_rate={frames.SAMPLE_RATE}, return_tensors="pt")
frames = model(inputs.input_values).last_hidden_state
```

{_NORM_NOTE[config["feat_extract_norm"]]} Where audio is normalised, transformers adds 1e-7 to its variance and
fairseq, with which such weights are pretrained, 1e-5: very quiet recordings give slightly different features.
"""


_NORM_NOTE = {
    "group": "One clip at a time: the group norm over time makes the features of a clip depend on its padding.",
    "layer": "Pass the attention mask with padded batches.",
}


def _json(content: dict) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def _plain(cfg, name: str) -> dict:
    return {**OmegaConf.to_container(cfg, resolve=True, enum_to_str=True), "_name": name}
