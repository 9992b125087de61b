"""Backbones that come with the package, loaded by name: `--checkpoint small`, `model.hubert_path=small`."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "weights"  # a folder in Hugging Face layout for each name
FINISHED = "recognizer.json"  # in a folder that is no backbone to start from, but the recogniser that is shipped


def shipped_names() -> list[str]:
    folders = FOLDER.iterdir() if FOLDER.is_dir() else []
    return sorted(p.name for p in folders if (p / "config.json").is_file() and not (p / FINISHED).is_file())


def resolve_checkpoint(checkpoint):
    """The folder of the shipped backbone that `checkpoint` names; else `checkpoint` itself.

    The name wins over a file or folder of that name in the working directory, so that a command means the same
    weights everywhere; such a file is given as `./small`.
    """
    return FOLDER / checkpoint if isinstance(checkpoint, str) and checkpoint in shipped_names() else checkpoint
