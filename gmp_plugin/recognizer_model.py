"""A finished stage as plain torch: backbone, BiLSTM and heads, without fairseq's task."""

import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .calibration import FILE as CALIBRATION
from .calibration import Calibration
from .errors import UserError
from .files import sha256
from .hubert.checkpoint import HubertCheckpoint, load_hubert, read_checkpoint
from .modules.contrastive import ContrastiveHead, PromptHead
from .modules.heads import make_head
from .modules.pooling import POOLINGS, make_pooling
from .shipped import resolve_checkpoint

KINDS = ("emotion", "gender")
PROMPTS = "prompts"  # the head of GEmo-CLAP
HEAD_SETTINGS = ("pooling", "lstm_dim", "lstm_layers", "projection_dim", "head", "scale")


class Heads(nn.Module):
    """The heads `emotion`, and `gender` where the model has one, on means over frames `(k, F)`.

    Args:
        settings: `HEAD_SETTINGS`.
        names: class names of each kind of head.
        tensors: the trained ones, under the names that `KIND_head.*` has in a checkpoint.
    """

    def __init__(self, settings: dict, names: dict[str, list[str]], tensors: dict[str, Tensor]):
        super().__init__()
        dim, size = pooled_dim(tensors), settings["projection_dim"]
        for kind, classes in names.items():
            if settings["head"] == PROMPTS:
                head = PromptHead(ContrastiveHead(dim, size), torch.zeros(len(classes), size))
            else:
                head = make_head(settings["head"], dim, size, len(classes), settings["scale"], 0.0)
            self.add_module(f"{kind}_head", head)
        self.kinds, self.finish = tuple(names), POOLINGS[settings["pooling"]].finish
        self.load_state_dict(tensors)

    def forward(self, mean: Tensor) -> dict[str, Tensor]:
        """Logits `(k, C)` of each kind."""
        pooled = self.finish(mean)
        return {kind: getattr(self, f"{kind}_head")(pooled)[1] for kind in self.kinds}


def pooled_dim(tensors: dict[str, Tensor]) -> int:
    """Size of a pooled vector, by the first layer of the emotion head; `RuntimeError` where there is none."""
    for layer in ("projection", "audio.projection", "classifier"):
        if f"emotion_head.{layer}.weight" in tensors:
            return tensors[f"emotion_head.{layer}.weight"].size(1)
    raise RuntimeError("no emotion head among the weights")


class RecognizerModel(nn.Module):
    """What a stage learned, under its parameters' names; gives frames, which any window may pool.

    Args:
        hubert: the backbone.
        settings: `HEAD_SETTINGS`.
        names: class names of each kind of head.
        tensors: those of `pooling.*` and `KIND_head.*`.
    """

    def __init__(self, hubert: nn.Module, settings: dict, names: dict[str, list[str]], tensors: dict[str, Tensor]):
        super().__init__()
        self.hubert = hubert
        self.pooling = make_pooling(settings["pooling"], hubert.dim, settings["lstm_dim"], settings["lstm_layers"])
        self.pooling.load_state_dict(_part(tensors, "pooling."))
        self.heads = Heads(settings, names, {k: v for k, v in tensors.items() if not k.startswith("pooling.")})

    @torch.inference_mode()
    def frames(self, waves: list[np.ndarray]) -> list[np.ndarray]:
        """Audio `(N,)` at 16 kHz -> what the pooling takes the mean of, `(T, F)` of each, whatever batch it is in."""
        device = next(self.parameters()).device
        n_samples = torch.tensor([len(wave) for wave in waves], device=device)
        source = pad_sequence([torch.from_numpy(np.ascontiguousarray(wave)) for wave in waves], batch_first=True)
        out = self.hubert(source.to(device), n_samples)
        x = self.pooling.frames(out["x"], out["n_frames"]).float().cpu().numpy()
        return [row[:n] for row, n in zip(x, out["n_frames"].tolist(), strict=True)]

    @torch.inference_mode()
    def logits(self, means: np.ndarray) -> dict[str, np.ndarray]:
        """Means over frames `(k, F)` -> logits `(k, C)` of each kind."""
        device = next(self.parameters()).device
        x = torch.from_numpy(np.asarray(means, dtype=np.float32)).to(device)
        return {kind: logits.float().cpu().numpy() for kind, logits in self.heads(x).items()}


@dataclass
class TrainedModel:
    """A finished stage as it lies in a file or folder.

    `settings` are `HEAD_SETTINGS`, `tensors` those of `pooling.*` and `KIND_head.*`, `names` the classes of each kind,
    `temperature` that of the emotions, None where it was not fitted. `trim_silence_db` is what training's recordings
    were cut at, None for not at all.
    """

    path: str
    hubert: HubertCheckpoint
    settings: dict
    tensors: dict[str, Tensor]
    names: dict[str, list[str]]
    temperature: float | None = None
    provenance: list = field(default_factory=list)
    trim_silence_db: float | None = None

    def build(self) -> RecognizerModel:
        with quiet("fairseq.models.hubert.hubert"):  # it prints its configuration
            hubert = self.hubert.build()
        try:
            model = RecognizerModel(hubert, self.settings, self.names, self.tensors)
        except RuntimeError as error:
            raise UserError(
                f"{self.path}: the heads' weights do not fit their settings: {' '.join(str(error).split())[:600]}"
            ) from None
        return model.eval()


def read_stage(path) -> TrainedModel:
    """A checkpoint of stage 1 or 3, or of a sister system, with the `calibration.json` beside it.

    Of GEmo-CLAP what its text encoder says of the prompts is kept, and the text encoder is not. Raises `UserError` for
    a checkpoint without an emotion head.
    """
    if resolve_checkpoint(str(path)) != str(path):
        raise UserError(
            f"{path} is a backbone of the package, which knows no emotions; train one, or leave --model out"
        )
    state = read_checkpoint(path)
    task_state = state.get("task_state") or {}
    names = {kind: list(task_state[kind]) for kind in KINDS if task_state.get(kind)}
    names = {kind: classes for kind, classes in names.items() if _part(state["model"], f"{kind}_head.")}
    if "emotion" not in names:
        raise UserError(f"checkpoint {path} has no emotion head; expected one of stage 1 or 3, FLESA or GEmo-CLAP")
    model = dict(state["cfg"]["model"])
    settings = {name: model[name] for name in ("lstm_dim", "lstm_layers", "projection_dim")}
    # Stage 1 is trained with cross-entropy and has no setting for it.
    settings |= {"head": str(model.get("head", "cross_entropy")), "scale": float(model.get("scale", 1.0))}
    settings["pooling"] = str(model.get("pooling", "bilstm"))  # of checkpoints that knew no other
    tensors = {k: v for k, v in state["model"].items() if not k.startswith("hubert.")}
    if "text_encoder" in task_state:
        settings["head"], tensors = PROMPTS, _with_prompts(tensors, task_state, settings["projection_dim"])
    return TrainedModel(
        str(path), load_hubert(path), settings, tensors, names, _temperature_beside(path),
        task_state.get("provenance", []), task_state.get("trim_silence_db"),
    )  # fmt: skip


@torch.no_grad()
def _with_prompts(tensors: dict, task_state: dict, size: int) -> dict:
    """GEmo-CLAP's tensors, with the embeddings of its prompts in the place of its text side."""
    from .text_encoder import TextEncoder

    text = TextEncoder(**task_state["text_encoder"])
    text.load_state_dict(_part(tensors, "text."))
    head = ContrastiveHead(text.dim, size)
    head.load_state_dict(_part(tensors, "text_head."))
    audio = {f"emotion_head.audio.{k}": v for k, v in _part(tensors, "emotion_head.").items()}
    pooling = {k: v for k, v in tensors.items() if k.startswith("pooling.")}
    return pooling | audio | {"emotion_head.classes": head.eval()(text.eval()(task_state["prompts"]))}


@contextmanager
def quiet(name: str | None, least: int = logging.WARNING):
    """No message of that logger (None: the root) below a level."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(least)
    try:
        yield
    finally:
        logger.setLevel(level)


def _temperature_beside(checkpoint) -> float | None:
    """The temperature in `calibration.json` beside a checkpoint, if it was fitted for this very file."""
    path = Path(checkpoint).with_name(CALIBRATION)
    if not path.is_file():
        return None
    found = Calibration.load(path)
    return found.temperature if found.checkpoint_sha256 == sha256(checkpoint) else None


def _part(tensors: dict, prefix: str) -> dict:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
