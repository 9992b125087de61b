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
from .modules.heads import make_head
from .modules.pooling import BiLSTMPooling

KINDS = ("emotion", "gender")
HEAD_SETTINGS = ("lstm_dim", "lstm_layers", "projection_dim", "head", "scale")


class Heads(nn.Module):
    """The heads `emotion`, and `gender` where the model has one, on pooled vectors `(k, D)`."""

    def __init__(self, settings: dict, names: dict[str, list[str]]):
        super().__init__()
        for kind, classes in names.items():
            head = make_head(
                settings["head"], 2 * settings["lstm_dim"], settings["projection_dim"], len(classes),
                settings["scale"], 0.0,
            )  # fmt: skip
            self.add_module(f"{kind}_head", head)
        self.kinds = tuple(names)

    def forward(self, pooled: Tensor) -> dict[str, Tensor]:
        """Logits `(k, C)` of each kind."""
        return {kind: getattr(self, f"{kind}_head")(pooled)[1] for kind in self.kinds}


class RecognizerModel(nn.Module):
    """What a stage learned, under its parameters' names; gives frames, which any window may pool.

    Args:
        hubert: the backbone.
        settings: `HEAD_SETTINGS`.
        names: class names of each kind of head.
    """

    def __init__(self, hubert: nn.Module, settings: dict, names: dict[str, list[str]]):
        super().__init__()
        self.hubert = hubert
        self.pooling = BiLSTMPooling(hubert.dim, settings["lstm_dim"], settings["lstm_layers"])
        self.heads = Heads(settings, names)

    @torch.inference_mode()
    def frames(self, waves: list[np.ndarray]) -> list[np.ndarray]:
        """Audio `(N,)` at 16 kHz -> the BiLSTM's output `(T, D)` of each, whatever batch it comes in."""
        device = next(self.parameters()).device
        n_samples = torch.tensor([len(wave) for wave in waves], device=device)
        source = pad_sequence([torch.from_numpy(np.ascontiguousarray(wave)) for wave in waves], batch_first=True)
        out = self.hubert(source.to(device), n_samples)
        x = self.pooling.frames(out["x"], out["n_frames"]).float().cpu().numpy()
        return [row[:n] for row, n in zip(x, out["n_frames"].tolist(), strict=True)]

    @torch.inference_mode()
    def logits(self, pooled: np.ndarray) -> dict[str, np.ndarray]:
        """Pooled vectors `(k, D)` -> logits `(k, C)` of each kind."""
        device = next(self.parameters()).device
        x = torch.from_numpy(np.asarray(pooled, dtype=np.float32)).to(device)
        return {kind: logits.float().cpu().numpy() for kind, logits in self.heads(x).items()}


@dataclass
class TrainedModel:
    """A finished stage as it lies in a file or folder.

    `settings` are `HEAD_SETTINGS`, `tensors` those of `pooling.*` and `KIND_head.*`, `names` the classes of each kind,
    `temperature` that of the emotions, None where it was not fitted.
    """

    path: str
    hubert: HubertCheckpoint
    settings: dict
    tensors: dict[str, Tensor]
    names: dict[str, list[str]]
    temperature: float | None = None
    provenance: list = field(default_factory=list)

    def build(self) -> RecognizerModel:
        with quiet("fairseq.models.hubert.hubert"):  # it prints its configuration
            model = RecognizerModel(self.hubert.build(), self.settings, self.names)
        try:
            model.pooling.load_state_dict(_part(self.tensors, "pooling."))
            model.heads.load_state_dict({k: v for k, v in self.tensors.items() if not k.startswith("pooling.")})
        except RuntimeError as error:
            raise UserError(
                f"{self.path}: the heads' weights do not fit their settings: {' '.join(str(error).split())[:600]}"
            ) from None
        return model.eval()


def read_stage(path) -> TrainedModel:
    """A checkpoint of stage 1 or 3, with the `calibration.json` beside it.

    Raises `UserError` for a checkpoint without an emotion head.
    """
    state = read_checkpoint(path)
    task_state = state.get("task_state") or {}
    names = {kind: list(task_state[kind]) for kind in KINDS if task_state.get(kind)}
    names = {kind: classes for kind, classes in names.items() if f"{kind}_head.projection.weight" in state["model"]}
    if "emotion" not in names:
        raise UserError(f"checkpoint {path} has no emotion head; expected one of stage 1 or 3")
    model = dict(state["cfg"]["model"])
    settings = {name: model[name] for name in HEAD_SETTINGS[:3]}
    # Stage 1 is trained with cross-entropy and has no setting for it.
    settings |= {"head": str(model.get("head", "cross_entropy")), "scale": float(model.get("scale", 1.0))}
    tensors = {k: v for k, v in state["model"].items() if not k.startswith("hubert.")}
    return TrainedModel(
        str(path), load_hubert(path), settings, tensors, names, _temperature_beside(path),
        task_state.get("provenance", []),
    )  # fmt: skip


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
