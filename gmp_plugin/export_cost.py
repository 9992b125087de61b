"""What an export costs: other forms of a model beside it, on the same recordings."""

from pathlib import Path

import numpy as np

from . import metrics
from .calibration import expected_calibration_error, softmax
from .devices import default_device
from .labelled import LabelledSet, answer, map_classes
from .recognizer import Recognizer


def cost_table(models: dict[str, str], labelled: LabelledSet, device: str | None = None) -> list[str]:
    """Lines of a Markdown table: size, UAR, WAR, calibration error, and how far each is from the first.

    Args:
        models: title -> path, the first being what the others are compared with.
        labelled: recordings with emotions, new to the model; those of other classes are left out.
        device: of all; the best there is for each when left out.
    """
    rows, first = [], None
    for title, path in models.items():
        recognizer = Recognizer.load(path, device or default_device(path))
        classes = map_classes(labelled.emotions, recognizer.names, {})
        found = answer(recognizer, labelled, np.flatnonzero(classes.numbers >= 0))
        truth = classes.numbers[found.indices]
        counts = metrics.confusion_counts(truth, found.logits.argmax(1), len(recognizer.names))
        ece = expected_calibration_error(softmax(found.logits, recognizer.temperature), truth)
        first = found.logits if first is None else first
        changed = int((found.logits.argmax(1) != first.argmax(1)).sum())
        rates = [f"{100 * rate:.1f}" for rate in (metrics.uar(counts), metrics.war(counts), ece)]
        distance = f"{np.abs(found.logits - first).max():.1e}"
        rows.append(f"| {' | '.join([title, f'{_megabytes(path):.1f} MB', *rates, str(changed), distance])} |")
    return [
        f"On {len(truth)} recordings ({Path(labelled.file).name}), rates in percent:",
        "",
        "| | size | UAR | WAR | calibration error | decisions changed | largest difference of a logit |",
        "|---|--:|--:|--:|--:|--:|--:|",
        *rows,
    ]


def _megabytes(path) -> float:
    path = Path(path)
    files = [path] if path.is_file() else list(path.glob("*.safetensors"))
    return sum(file.stat().st_size for file in files) / 1e6
