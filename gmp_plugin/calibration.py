"""Probabilities that mean what they say: a temperature on the logits, and how far off they are.

AM-softmax multiplies cosines by s = 30, which makes nearly every answer 100 % sure. One number, the temperature T of
`softmax(logits / T)`, fitted on recordings that training has not seen, mends that without changing a decision (Guo et
al. 2017, On Calibration of Modern Neural Networks).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .errors import UserError
from .files import atomic_text

BINS = 15  # of equal width over the confidence, as Guo et al. use
RANGE = (0.05, 100.0)  # of T: on recordings that are all recognised, the likelihood grows without end as T falls
FILE = "calibration.json"  # beside the checkpoint


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities `(..., C)`, float64."""
    z = np.asarray(logits, dtype=np.float64) / temperature
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def nll(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood in nats of class numbers `(N,)` under logits `(N, C)`."""
    z = np.asarray(logits, dtype=np.float64) / temperature
    z = z - z.max(-1, keepdims=True)
    return float((np.log(np.exp(z).sum(-1)) - z[np.arange(len(z)), labels]).mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T within `RANGE` with the least `nll` of class numbers `labels` `(N,)` under `logits` `(N, C)`.

    The likelihood is convex in 1 / T; its slope, the mean over recordings of what the model expects the logit to be
    minus the true one's, rises with 1 / T and is brought to zero by bisection.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    true = logits[np.arange(len(logits)), labels]

    def slope(inverse: float) -> float:
        return float(((softmax(logits, 1 / inverse) * logits).sum(-1) - true).mean())

    low, high = 1 / RANGE[1], 1 / RANGE[0]
    if slope(low) >= 0:
        return RANGE[1]
    if slope(high) <= 0:
        return RANGE[0]
    for _ in range(200):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
        if high / low < 1 + 1e-12:
            break
    return 1 / (low * high) ** 0.5


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """ECE of Guo et al.: the mean, weighted by the recordings in a bin, of |accuracy - mean confidence|.

    Args:
        probabilities: `(N, C)`; the confidence is the largest one.
        labels: class numbers `(N,)`.
        bins: of equal width over (0, 1]; a bin has its upper edge.
    """
    found = reliability(probabilities, labels, bins)
    return float((found.n * np.abs(found.accuracy - found.confidence)).sum() / max(1, found.n.sum()))


@dataclass(frozen=True)
class Reliability:
    """What the answers of each bin of confidence are worth; `accuracy` and `confidence` are 0 where `n` is."""

    edges: np.ndarray  # (bins + 1,)
    n: np.ndarray  # (bins,)
    accuracy: np.ndarray
    confidence: np.ndarray


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Recordings, accuracy and mean confidence in bins of confidence; arguments as for the ECE."""
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    confidence, hits = probabilities.max(-1), probabilities.argmax(-1) == labels
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    n = np.bincount(which, minlength=bins)
    divisor = np.maximum(n, 1)
    return Reliability(
        edges, n, np.bincount(which, hits, bins) / divisor, np.bincount(which, confidence, bins) / divisor
    )


@dataclass(frozen=True)
class Calibration:
    """A temperature and what it was fitted on; `ece` and `nll` are of those recordings, without it and with it.

    It is 1 where every one of them was recognised, so that there was nothing to fit."""

    temperature: float
    checkpoint_sha256: str
    manifest: str
    n_utterances: int
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    ece_bins: int = BINS

    @classmethod
    def fit(cls, logits, labels, checkpoint_sha256: str, manifest: str) -> "Calibration":
        found = fit_temperature(logits, labels)
        if found == RANGE[0]:
            found = 1.0  # all are recognised, which does not tell how often such answers are wrong
        losses = [nll(logits, labels, t) for t in (1.0, found)]
        errors = [expected_calibration_error(softmax(logits, t), labels) for t in (1.0, found)]
        return cls(found, checkpoint_sha256, manifest, len(labels), *losses, *errors)

    def save(self, path) -> None:
        with atomic_text(path) as stream:
            json.dump(asdict(self), stream, indent=1)

    @classmethod
    def load(cls, path) -> "Calibration":
        try:
            found = cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"{path} is no calibration ({error}); remove it, and make it again with gmp-ser calibrate"
            ) from None
        if not RANGE[0] <= found.temperature <= RANGE[1]:
            raise UserError(f"{path}: temperature {found.temperature}; expected {RANGE[0]} to {RANGE[1]}")
        return found
