"""What is known of the utterances of a manifest: emotion, gender and speaker."""

from pathlib import Path

import numpy as np

from .manifest import Manifest, UtteranceTable, read_dictionary, read_utterance_labels


def read_classes(manifest: Manifest) -> tuple[dict[str, tuple[np.ndarray, list[str]]], list[str]]:
    """Class numbers `(N,)` and the classes' names of `emotion`, `gender` and `speaker`, those that are known.

    Emotion and gender come from `SPLIT.emotion` and `SPLIT.gender` beside the manifest, speakers from
    `utterances.tsv` there or one folder up. With them come notes that say which are not known, and why.
    """
    path = Path(manifest.file)
    classes, notes = {}, []
    for name in ("emotion", "gender"):
        file, dictionary = path.with_suffix(f".{name}"), path.with_name(f"dict.{name}.txt")
        if file.is_file() and dictionary.is_file():
            names = read_dictionary(dictionary)
            classes[name] = read_utterance_labels(file, manifest, names, dictionary), names
        else:
            notes.append(f"{name}: not known, because there is no {file.name} with {dictionary.name}")
    speakers, note = _speakers(manifest, [path.parent / "utterances.tsv", path.parent.parent / "utterances.tsv"])
    if note:
        notes.append(f"speaker: not known, because {note}")
    else:
        names, numbers = np.unique(speakers, return_inverse=True)
        classes["speaker"] = numbers, names.tolist()
    return classes, notes


def _speakers(manifest: Manifest, tables: list[Path]) -> tuple[list[str], str]:
    """Speaker of each utterance, or why they are not known."""
    table = next((path for path in tables if path.is_file()), None)
    if table is None:
        return [], "there is no utterances.tsv in the folder above the manifest"
    known = {u.path: u.speaker for u in UtteranceTable.read(table).utterances}
    missing = [path for path in manifest.paths if path not in known]
    if missing:
        return [], f"utterances.tsv does not list {missing[0]}"
    return [known[path] for path in manifest.paths], ""
