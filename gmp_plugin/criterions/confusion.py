"""Confusion counts through fairseq's logging: summed over batches and ranks, metrics derived at the end.

The counts travel as `_KIND:TRUTH:PREDICTED`; fairseq keeps names that start with `_` out of its logs.
"""

import numpy as np
from fairseq.logging import metrics

from ..metrics import confusion_counts, macro_f1, recalls, uar, war


def count_log(kind: str, names: list[str], truth, predicted) -> dict[str, int]:
    """Logging entries for class numbers `truth` and `predicted`, tensors `(B,)`."""
    counts = confusion_counts(truth.cpu().numpy(), predicted.cpu().numpy(), len(names))
    return {f"_{kind}:{t}:{p}": int(counts[i, j]) for i, t in enumerate(names) for j, p in enumerate(names)}


def reduce_counts(logging_outputs: list[dict], kind: str, prefix: str = "") -> None:
    """Sum the counts and derive UAR, WAR, macro-F1 and each class's recall, in percent."""
    keys = [key for key in logging_outputs[0] if key.startswith(f"_{kind}:")]
    for key in keys:
        metrics.log_scalar_sum(key, int(sum(log.get(key, 0) for log in logging_outputs)))
    n_classes = int(len(keys) ** 0.5)

    def derive(function):
        def value(meters):
            counts = np.array([meters[key].sum for key in keys]).reshape(n_classes, n_classes)
            return round(100 * float(function(counts)), 4)

        return value

    metrics.log_derived(f"{prefix}uar", derive(uar))
    metrics.log_derived(f"{prefix}war", derive(war))
    metrics.log_derived(f"{prefix}macro_f1", derive(macro_f1))
    for number, key in enumerate(keys[:: n_classes + 1]):
        name = key.split(":")[1]
        metrics.log_derived(f"{prefix}recall_{name}", derive(lambda counts, i=number: recalls(counts)[i]))
