"""Recognition metrics from confusion counts.

`counts` is `(C, C)`: row = true class, column = predicted class. Counts add up over batches,
ranks and folds, the metrics do not; so everything here starts from counts.
"""

import numpy as np


def confusion_counts(truth, predicted, n_classes: int) -> np.ndarray:
    """Counts `(C, C)` of integer class numbers `truth` and `predicted`, both `(N,)`."""
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    flat = np.bincount(truth * n_classes + predicted, minlength=n_classes**2)
    return flat.reshape(n_classes, n_classes)


def recalls(counts) -> np.ndarray:
    """Recall of each class, `(C,)`; NaN for a class without utterances."""
    counts = np.asarray(counts, dtype=float)
    with np.errstate(invalid="ignore"):
        return np.diag(counts) / counts.sum(axis=1)


def uar(counts) -> float:
    """Unweighted average recall, over the classes that occur; NaN without any utterance."""
    per_class = recalls(counts)
    occurring = per_class[~np.isnan(per_class)]
    return float(occurring.mean()) if len(occurring) else float("nan")


def war(counts) -> float:
    """Weighted average recall, which is the accuracy; NaN without any utterance."""
    counts = np.asarray(counts, dtype=float)
    total = counts.sum()
    return float(np.trace(counts) / total) if total else float("nan")


def macro_f1(counts) -> float:
    """Mean F1 over the classes that occur as truth or prediction (scikit-learn's macro average)."""
    counts = np.asarray(counts, dtype=float)
    hits = np.diag(counts)
    either = counts.sum(axis=0) + counts.sum(axis=1)
    occurring = either > 0
    return float((2 * hits[occurring] / either[occurring]).mean()) if occurring.any() else float("nan")
