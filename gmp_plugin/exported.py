"""What is written down beside exported weights: classes, head, temperature, input. Written by `export`, read here."""

import json
from pathlib import Path

import safetensors
import safetensors.torch

from . import frames
from .calibration import RANGE
from .errors import UserError
from .hubert.checkpoint import load_hubert
from .recognizer_model import HEAD_SETTINGS, TrainedModel
from .shipped import FINISHED as RECOGNIZER

HEAD = "head.safetensors"
VERSION = 1


def describe(trained: TrainedModel, about: dict) -> dict:
    """The content of `recognizer.json`, and of an ONNX file's metadata; `about` says more for people."""
    return {
        "format": "gmp-plugin recognizer",
        "version": VERSION,
        "classes": trained.names,
        "head": trained.settings,
        "temperature": trained.temperature,
        "input": {
            "sampling_rate": frames.SAMPLE_RATE,
            "channels": 1,
            "dtype": "float32",
            "range": "-1 to 1; no other normalisation, the model does what it wants itself",
            "minimum_samples": frames.RECEPTIVE_FIELD,
            "frames_per_second": frames.FRAME_RATE,
            "trim_silence_db": trained.trim_silence_db,
        },
        **about,
    }


def check(content, where) -> dict:
    """`content` of a `recognizer.json`; `UserError` if it is not what `describe` gives."""
    try:
        if content["version"] > VERSION:
            raise UserError(f"{where} is of a newer gmp-plugin (version {content['version']}); install that")
        names, temperature = content["classes"], content["temperature"]
        sound = (
            isinstance(names["emotion"], list)
            and all(isinstance(name, str) for classes in names.values() for name in classes)
            and set(names) <= {"emotion", "gender"}
            and set(HEAD_SETTINGS) <= set(content["head"])
            and (temperature is None or RANGE[0] <= temperature <= RANGE[1])
            and ((trim_db := trim_silence_db(content)) is None or trim_db > 0)
        )
    except (KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise UserError(f"{where} is no description of an exported recogniser; export it again with gmp-ser export")
    return content


def trim_silence_db(content: dict) -> float | None:
    """At how many dB the model wants silence cut; None for not at all, as in what was exported before it was known."""
    return content.get("input", {}).get("trim_silence_db")


def read_folder(folder) -> TrainedModel:
    """An exported folder; `UserError` for another one."""
    folder = Path(folder)
    try:
        content = check(json.loads((folder / RECOGNIZER).read_text(encoding="utf-8")), folder / RECOGNIZER)
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no {RECOGNIZER}: it is no exported recogniser (a backbone alone knows no emotions); "
            "expected a folder of gmp-ser export --to hf"
        ) from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder / RECOGNIZER} is no JSON: {error}") from None
    try:
        tensors = safetensors.torch.load_file(folder / HEAD)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{folder / HEAD} is damaged or missing: {error}") from None
    hubert = load_hubert(folder)
    return TrainedModel(
        str(folder), hubert, content["head"], tensors, content["classes"], content["temperature"], hubert.provenance,
        trim_silence_db(content),
    )  # fmt: skip
