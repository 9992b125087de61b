"""HuBERT checkpoints in: fairseq's, Hugging Face's and those of our stages, by safe loading only."""

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from fairseq.models.hubert.hubert import HubertConfig

from ..errors import UserError
from ..files import sha256
from ..shipped import resolve_checkpoint, shipped_names
from .backbone import HubertBackbone, backbone_settings, hubert_config
from .huggingface import read_huggingface
from .safe import load_pickle

logger = logging.getLogger(__name__)

# Tensors of fairseq's pretraining that are not the backbone's: HuBERT's and wav2vec 2.0's.
PRETRAINING_HEAD = (
    "final_proj.", "label_embs_concat", "target_glu.", "quantizer.", "project_q.", "input_quantizer.",
    "_codebook_indices",
)  # fmt: skip
CHECKPOINT_HELP = "HuBERT: fairseq or stage checkpoint, Hugging Face folder, or the name of one that is shipped (small)"
PREFIX = "hubert."  # of the backbone's parameters in our stage models
FINETUNED_PREFIX = "w2v_encoder.w2v_model."  # in fairseq's fine-tuned models
# Legacy settings that old files spell in other types, and one that belongs to the labels.
DROPPED_SETTINGS = ("label_rate", "latent_temp")
# What fairseq's wav2vec 2.0 has beside HuBERT's model, and must not use.
WAV2VEC2_ONLY = {"quantize_input": False, "pos_conv_depth": 1, "crop_seq_to_multiple": 1, "mask_channel_before": False}


@dataclass
class HubertCheckpoint:
    """A backbone as it lies in a file: fairseq settings, input normalisation, tensors, provenance.

    `path` is the file of the weights; `settings` is complete, as `backbone_settings` returns it. `only_weights`:
    settings and normalisation lie in other files.
    """

    path: str
    settings: dict
    normalize: bool
    state_dict: dict
    provenance: list = field(default_factory=list)
    only_weights: bool = False

    def __post_init__(self):
        self.settings = backbone_settings(hubert_config(self.settings))

    def build(self, overrides: dict | None = None, **kwargs) -> HubertBackbone:
        """The model with these weights; `overrides` change settings that leave the shapes alone."""
        cfg = hubert_config({**self.settings, **(overrides or {})})
        backbone = HubertBackbone(cfg, self.normalize, **kwargs)
        try:
            backbone.load_state_dict(self.state_dict, strict=True)
        except RuntimeError as error:
            raise UserError(
                f"{self.path}: the weights do not fit the architecture that the file and model.hubert name: "
                f"{' '.join(str(error).split())[:600]}"
            ) from None
        return backbone

    @property
    def sha256(self) -> str:
        """Hex digest of what the features depend on: the file's, or that of weights, settings and normalisation."""
        if not self.only_weights:
            return sha256(self.path)
        whole = json.dumps([sha256(self.path), self.normalize, self.settings], sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()


def read_checkpoint(path, trust: bool = False, mmap: bool = False) -> dict:
    """A fairseq checkpoint file as a dict, without running code from it unless `trust`; see `load_pickle`.

    Raises `UserError` for a missing, truncated or foreign file, and for one that holds types
    beyond those of `safe.SAFE_TYPES`.
    """
    if not Path(path).is_file():
        names = ", ".join(shipped_names())
        raise UserError(
            f"checkpoint {path} does not exist; expected a fairseq HuBERT or a stage checkpoint (.pt), a folder in "
            "Hugging Face layout" + (f", or the name of one that comes with the package ({names})" if names else "")
        )
    state = load_pickle(path, trust, mmap)
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise UserError(f"checkpoint {path} is no fairseq checkpoint: it has no entry 'model' with tensors by name")
    return state


def load_hubert(path, trust: bool = False) -> HubertCheckpoint:
    """Read a backbone, whatever form it comes in.

    Args:
        path: a fairseq checkpoint of HuBERT or wav2vec 2.0, pretrained or fine-tuned; one of our
            stage checkpoints; a folder in Hugging Face layout, or a weight file in one; the name
            of a shipped backbone (see `resolve_checkpoint`).
        trust: run the code that a pickle may bring; see `safe.load_pickle`.
    """
    path = resolve_checkpoint(path)
    if Path(path).is_dir() or Path(path).suffix in (".safetensors", ".bin", ".json"):
        if not Path(path).exists():
            raise UserError(f"checkpoint {path} does not exist; expected a folder or file in Hugging Face layout")
        settings, normalize, tensors, provenance, weights = read_huggingface(path, trust)
        return HubertCheckpoint(str(weights), settings, normalize, tensors, provenance, only_weights=True)

    state = read_checkpoint(path, trust)
    task_state = state.get("task_state") or {}
    provenance = task_state.get("provenance", [])
    if isinstance(task_state.get("hubert"), dict):
        tensors = {k.removeprefix(PREFIX): v for k, v in state["model"].items() if k.startswith(PREFIX)}
        kept = task_state["hubert"]
        return HubertCheckpoint(str(path), kept["settings"], kept["normalize"], tensors, provenance)

    model_cfg, task_cfg = _fairseq_configs(state)
    tensors = state["model"]
    if model_cfg.get("w2v_args") is not None:  # fine-tuned: a task's model around the pretrained one
        model_cfg, task_cfg = _fairseq_configs(_as_state(model_cfg["w2v_args"]))
        tensors = {k.removeprefix(FINETUNED_PREFIX): v for k, v in tensors.items() if k.startswith(FINETUNED_PREFIX)}
    name = model_cfg.get("_name") or model_cfg.get("arch")
    if name not in ("hubert", "wav2vec2"):
        raise UserError(
            f"checkpoint {path} holds a model of another architecture, {name!r}; expected a HuBERT or wav2vec2 "
            "pretraining checkpoint or one of our stages"
        )
    for setting, only in WAV2VEC2_ONLY.items():
        if model_cfg.get(setting, only) != only:
            raise UserError(f"checkpoint {path}: wav2vec2 with {setting}={model_cfg[setting]} is no HuBERT ({only})")
    known = HubertConfig.__dataclass_fields__.keys() - set(DROPPED_SETTINGS)
    settings = {k: v for k, v in model_cfg.items() if k in known and v is not None}
    tensors = {k: v for k, v in tensors.items() if not k.startswith(PRETRAINING_HEAD)}
    return HubertCheckpoint(str(path), settings, bool(task_cfg.get("normalize", False)), tensors, provenance)


def build_backbone(hubert_path: str | None, hubert: dict | None, kept: dict | None, **kwargs):
    """The backbone of a stage model.

    Args:
        hubert_path: checkpoint to start from, in any form that `load_hubert` reads.
        hubert: fairseq `HubertConfig` settings: overrides for a checkpoint, or the whole
            architecture of fresh weights when `hubert_path` is left out.
        kept: what the stage's own checkpoint keeps in its task state, when one is loaded again;
            then the weights come from there and `hubert_path` is not needed.
        kwargs: for `HubertBackbone`.

    Returns:
        The backbone and the provenance of the weights that it starts from.
    """
    hubert = dict(hubert or {})
    if kept is not None:
        return HubertBackbone(hubert_config(kept["settings"]), kept["normalize"], **kwargs), []
    if hubert_path:
        checkpoint = load_hubert(hubert_path)
        backbone = checkpoint.build(hubert, **kwargs)
        logger.info(f"HuBERT from {hubert_path}: {backbone.n_layers} layers of {backbone.dim}")
        return backbone, checkpoint.provenance
    if "encoder_layers" not in hubert:
        raise UserError(
            "no HuBERT to start from: give model.hubert_path=CHECKPOINT (small: the one that comes with the package), "
            "or in model.hubert the architecture of fresh weights"
        )
    logger.warning("HuBERT from fresh random weights, as model.hubert describes it: nothing was pretrained")
    return HubertBackbone(hubert_config(hubert), **kwargs), []


def _fairseq_configs(state: dict) -> tuple[dict, dict]:
    """Model and task settings of a fairseq checkpoint, with `cfg` or with the older `args`."""
    if state.get("cfg") is not None:
        cfg = state["cfg"]
        return dict(cfg.get("model") or {}), dict(cfg.get("task") or {})
    args = vars(state["args"]) if state.get("args") is not None else {}
    return args, args


def _as_state(w2v_args) -> dict:
    """The configuration that a fine-tuned checkpoint keeps of its pretraining, as a checkpoint has it."""
    return {"args": w2v_args} if hasattr(w2v_args, "__dict__") and not hasattr(w2v_args, "get") else {"cfg": w2v_args}
