"""A tiny finished model, for the tests of what users do with one."""

import numpy as np
import torch
from conftest import DATASET, TINY
from fairseq import tasks
from fairseq.models import MODEL_DATACLASS_REGISTRY
from omegaconf import OmegaConf

import gmp_plugin.tasks  # noqa: F401

NAMES = {"emotion": ["angry", "happy", "neutral", "sad"], "gender": ["female", "male"]}
STAGE1, STAGE3, GEMO_CLAP = "multitask_emotion_gender", "am_softmax_classification", "gemo_clap"
FLESA = {"pooling": "attention", "head": "linear"}  # settings of a stage 3


def save_stage(path, stage=STAGE3, hubert=None, model=None, provenance=(), normalize=False, seed=0, **state):
    """A checkpoint of a stage as fairseq's trainer would save it, with random weights; the path.

    `state` is more of the task's.
    """
    torch.manual_seed(seed)
    common = {"seed": 1, "tensorboard_logdir": None}
    root = OmegaConf.create(
        {
            "common": common, "checkpoint": {"save_dir": "none"}, "optimization": {"max_update": 9}, "dataset": DATASET,
            "criterion": {"_name": stage}, "task": {"_name": stage},
        }
    )  # fmt: skip
    settings = {"lstm_dim": 24, "projection_dim": 16, "hubert": {**TINY, **(hubert or {})}, **(model or {})}
    if stage == GEMO_CLAP:
        settings["text"] = {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 24,
        }
    root.model = OmegaConf.merge(OmegaConf.structured(MODEL_DATACLASS_REGISTRY[stage]), {"_name": stage, **settings})
    task = tasks.setup_task(root.task)
    kinds = NAMES if stage == STAGE1 else {"emotion": NAMES["emotion"]}
    task.state.merge_state_dict({**kinds, "provenance": list(provenance), **state})
    built = task.build_model(root.model)
    with torch.no_grad():  # random weights hear hardly a difference between recordings
        for name, parameter in built.named_parameters():
            if name.startswith(("pooling.", "emotion_head.")):
                parameter.mul_(6 if name.startswith("pooling.") else 3)
    task_state = task.state.state_dict
    task_state["hubert"]["normalize"] = normalize
    history = {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {"best": None}, "num_updates": 9}
    torch.save(
        {
            "args": None, "cfg": OmegaConf.to_container(root, resolve=True, enum_to_str=True), "criterion": None,
            "model": built.state_dict(), "optimizer_history": [history], "task_state": task_state,
            "extra_state": {"train_iterator": {"epoch": 1}}, "last_optimizer_state": None,
        },
        path,
    )  # fmt: skip
    return path


def voice(seconds, seed=0, rate=16_000):
    """Something that changes like speech: tones and noise in a rhythm of a few per second, `(N,)` float32."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    knots = np.arange(0, seconds + 1, 0.25)
    pitch, loudness = (np.interp(time, knots, rng.uniform(*bounds, len(knots))) for bounds in ((90, 220), (0, 1)))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    sound = 0.2 * loudness * (np.sin(phase) + 0.5 * np.sin(3 * phase))
    return (sound + 0.02 * rng.standard_normal(len(time))).astype(np.float32)
