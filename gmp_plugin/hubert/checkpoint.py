"""HuBERT checkpoints in: fairseq's own and those of our stages, by safe loading only."""

import argparse
import logging
import pickle
from dataclasses import dataclass, field
from pathlib import Path

import torch
from fairseq.data.dictionary import Dictionary
from fairseq.models.hubert.hubert import HubertConfig
from omegaconf import OmegaConf

from ..errors import UserError
from ..files import sha256
from .backbone import HubertBackbone, hubert_config

logger = logging.getLogger(__name__)

# What fairseq's own HuBERT checkpoints hold beside tensors and plain containers.
SAFE_TYPES = [Dictionary, argparse.Namespace]
PRETRAINING_HEAD = ("final_proj.", "label_embs_concat", "target_glu.")
PREFIX = "hubert."  # of the backbone's parameters in our stage models


@dataclass
class HubertCheckpoint:
    """A backbone as it lies in a file: fairseq settings, input normalisation, tensors, provenance."""

    path: str
    settings: dict
    normalize: bool
    state_dict: dict
    provenance: list = field(default_factory=list)

    def build(self, overrides: dict | None = None, **kwargs) -> HubertBackbone:
        """The model with these weights; `overrides` change settings that leave the shapes alone."""
        backbone = HubertBackbone(hubert_config({**self.settings, **(overrides or {})}), self.normalize, **kwargs)
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
        return sha256(self.path)


def read_checkpoint(path) -> dict:
    """A fairseq checkpoint file as a dict, without running code from it.

    Raises `UserError` for a missing, truncated or foreign file, and for one that holds types
    beyond tensors, plain containers, `Dictionary` and `Namespace`.
    """
    if not Path(path).is_file():
        raise UserError(f"checkpoint {path} does not exist; expected a fairseq HuBERT or a stage checkpoint (.pt)")
    try:
        with torch.serialization.safe_globals(SAFE_TYPES):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first = str(error).strip().split("\n")[0]
        raise UserError(
            f"checkpoint {path} cannot be loaded safely: {first} Expected tensors and plain containers; "
            "a file from an unknown source may run code, so it was not opened further"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError(f"checkpoint {path} is damaged or no torch file: {str(error).splitlines()[0]}") from None
    if not isinstance(state, dict) or "model" not in state:
        raise UserError(f"checkpoint {path} is no fairseq checkpoint: it has no entry 'model'")
    return state


def load_hubert(path) -> HubertCheckpoint:
    """Read the backbone of a fairseq HuBERT checkpoint or of one of our stage checkpoints."""
    state = read_checkpoint(path)
    task_state = state.get("task_state") or {}
    if "hubert" in task_state:
        tensors = {k.removeprefix(PREFIX): v for k, v in state["model"].items() if k.startswith(PREFIX)}
        kept = task_state["hubert"]
        return HubertCheckpoint(
            str(path), kept["settings"], kept["normalize"], tensors, task_state.get("provenance", [])
        )

    model_cfg, task_cfg = _fairseq_configs(state)
    name = model_cfg.get("_name") or model_cfg.get("arch")
    if name != "hubert":
        raise UserError(
            f"checkpoint {path} holds a model of another architecture, {name!r}; expected a HuBERT pretraining "
            "checkpoint or one of our stages"
        )
    settings = {k: v for k, v in model_cfg.items() if k in HubertConfig.__dataclass_fields__ and k != "label_rate"}
    tensors = {k: v for k, v in state["model"].items() if not k.startswith(PRETRAINING_HEAD)}
    return HubertCheckpoint(str(path), settings, bool(task_cfg.get("normalize", False)), tensors)


def backbone_settings(cfg: HubertConfig) -> dict:
    """Plain settings to keep in a checkpoint, from which `hubert_config` makes the same model again."""
    settings = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    return {k: v for k, v in settings.items() if k not in ("_name", "label_rate") and v is not None}


def build_backbone(hubert_path: str | None, hubert: dict | None, kept: dict | None, **kwargs):
    """The backbone of a stage model.

    Args:
        hubert_path: checkpoint to start from.
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
            "no HuBERT to start from: give model.hubert_path=CHECKPOINT, or a *_nano config (fresh weights)"
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
