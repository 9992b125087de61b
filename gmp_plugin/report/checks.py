"""Is a result.json what it should be at its place? Every check returns reasons in words, none if all is well."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import metrics
from ..files import sha256
from ..manifest import Manifest, read_dictionary, read_utterance_labels

FIELDS = (
    "fold", "seed", "uar", "war", "macro_f1", "classes", "confusion", "utterances", "manifest_sha256", "checkpoint",
    "checkpoint_sha256", "config", "config_sha256", "provenance",
)  # fmt: skip


@dataclass(frozen=True)
class TestPart:
    """The test part of a fold as it is now: paths and emotions in the manifest's order."""

    file: str
    sha256: str
    classes: list[str]
    paths: list[str]
    emotions: list[str]

    @classmethod
    def read(cls, folder) -> "TestPart":
        path, dictionary = Path(folder) / "test.tsv", Path(folder) / "dict.emotion.txt"
        manifest, names = Manifest.read(path), read_dictionary(dictionary)
        numbers = read_utterance_labels(path.with_suffix(".emotion"), manifest, names, dictionary)
        return cls(
            f"{path.parent.name}/test.tsv", sha256(path), names, list(manifest.paths), [names[n] for n in numbers]
        )


def check_fields(result) -> list[str]:
    if not isinstance(result, dict) or (lacking := [name for name in FIELDS if name not in result]) == list(FIELDS):
        return ["it is no result of evaluate.py"]
    return [f"it lacks {', '.join(lacking)}: evaluate again"] if lacking else []


def check_place(result: dict, fold: str, seed: int) -> list[str]:
    found = [
        f"{name} {result[name]}" for name, here in (("fold", fold), ("seed", seed)) if str(result[name]) != str(here)
    ]
    return [f"it is of {' and '.join(found)}"] if found else []


def check_test_part(result: dict, part: TestPart) -> list[str]:
    """Was it this test part, with these emotions?"""
    if result["classes"] != part.classes:
        return [f"its classes are {', '.join(result['classes'])}, those of the fold {', '.join(part.classes)}"]
    paths, emotions = ([u[key] for u in result["utterances"]] for key in ("path", "truth"))
    if paths != part.paths:
        odd = sorted(set(paths) ^ set(part.paths))
        return [
            f"it is of another manifest than {part.file}: {len(paths)} utterances against {len(part.paths)}"
            + (f", {odd[0]} is in one of them only" if odd else ", in another order")
        ]
    if emotions != part.emotions:
        i = next(i for i, pair in enumerate(zip(emotions, part.emotions, strict=True)) if pair[0] != pair[1])
        return [f"it has {paths[i]} as {emotions[i]}, {part.file} as {part.emotions[i]}"]
    if result["manifest_sha256"] != part.sha256:
        return [f"{part.file} has changed since, its root or its lengths: evaluate again"]
    return []


def check_figures(result: dict) -> list[str]:
    """Do the rates follow from the predictions?"""
    numbers = {name: number for number, name in enumerate(result["classes"])}
    try:
        truth, predicted = ([numbers[u[key]] for u in result["utterances"]] for key in ("truth", "predicted"))
    except KeyError as error:
        return [f"{error} is none of its classes"]
    counts = metrics.confusion_counts(truth, predicted, len(numbers))
    rates = {name: 100 * getattr(metrics, name)(counts) for name in ("uar", "war", "macro_f1")}
    if result["confusion"] != counts.tolist() or any(abs(rates[name] - result[name]) > 1e-6 for name in rates):
        return ["its rates do not follow from its predictions"]
    return []


def check_checkpoint(result: dict, folder: Path) -> list[str]:
    """Is the checkpoint beside it still the one that was evaluated? One that is gone is not missed."""
    path = folder / Path(result["checkpoint"]).name
    if path.is_file() and sha256(path) != result["checkpoint_sha256"]:
        return [f"{path.name} has changed since: evaluate again"]
    return []


def odd_ones(values: dict) -> tuple[object, list]:
    """The value that more than half of the keys have, and the keys with another; without such a value, None and all."""
    if not values:
        return None, []
    value, count = Counter(values.values()).most_common(1)[0]
    if 2 * count <= len(values):
        return None, list(values)
    return value, [key for key, other in values.items() if other != value]


def same_outputs(results: dict) -> list[list]:
    """Groups of keys whose results have the same scores for the same utterances: one can only be a copy of another.

    A model that gives all utterances the same scores has learnt nothing, and may well have a twin.
    """
    groups: dict[tuple, list] = {}
    for key, result in results.items():
        scores = np.array([u["logits"] for u in result["utterances"]])
        if (scores != scores[0]).any():
            groups.setdefault((tuple(u["path"] for u in result["utterances"]), scores.tobytes()), []).append(key)
    return [keys for keys in groups.values() if len(keys) > 1]
