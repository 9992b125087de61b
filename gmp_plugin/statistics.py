"""How sure a recognition rate is: bootstrap intervals, and paired tests of two systems on the same utterances.

Everything starts from one number per utterance, its *hit*: the share of the seeds that recognised it, 0 to 1. As
the classes' counts are those of the corpus, the mean over seeds of the UAR is the UAR of the hits: the mean over
classes of the mean hit of the class; and the WAR is the mean hit. The difference of two systems is the same of the
difference of their hits, -1 to 1. So seeds are averaged first, and no interval here tells how much another seed would
change: it tells how much other utterances, or other speakers, would.

- Over utterances: drawn with replacement inside each class, so that every class keeps its count. It takes utterances
  of one speaker for independent, and so is rather too narrow.
- Over speakers: whole speakers are drawn, as new speakers are what a system will meet. No strata: a fold holds one
  or two speakers, and drawing inside such a stratum hides most of the spread.

Intervals are percentiles of the draws, p-values are two-sided. With few speakers (ten in IEMOCAP) both are coarse: the
interval over n speakers is too narrow by about sqrt((n - 1) / n), and no p over n speakers is below 2 / 2^n.
"""

from dataclasses import dataclass

import numpy as np

DRAWS = 10_000
LEVEL = 0.95
SEED = 1  # of the draws: the same results give the same report


@dataclass(frozen=True)
class Estimate:
    """A rate, or a difference of two, with its intervals `(low, high)`; `speakers` is None where they are not known."""

    value: float
    utterances: tuple[float, float]
    speakers: tuple[float, float] | None


@dataclass(frozen=True)
class PairedP:
    """p-values of no difference, by swapping the systems' answers to utterances, or to all of a speaker."""

    utterances: float
    speakers: float | None


def rates(values, truth) -> dict[str, float]:
    """`uar` and `war` of hits, or of differences of hits, `(N,)`; `truth` `(N,)` are class numbers."""
    values, truth = np.asarray(values, dtype=float), np.asarray(truth)
    return {"uar": float(np.mean([values[truth == c].mean() for c in np.unique(truth)])), "war": float(values.mean())}


def estimate(values, truth, speakers=None, draws: int = DRAWS) -> dict[str, Estimate]:
    """`uar` and `war` with their intervals.

    Args:
        values: hits, or differences of hits, `(N,)`.
        truth: class numbers `(N,)`.
        speakers: names or numbers `(N,)`; no interval over a single one.
    """
    found, speakers = rates(values, truth), _several(speakers)
    by_utterance = draw_utterances(values, truth, draws)
    by_speaker = None if speakers is None else draw_speakers(values, truth, speakers, draws)
    return {
        name: Estimate(value, interval(by_utterance[name]), None if by_speaker is None else interval(by_speaker[name]))
        for name, value in found.items()
    }


def _several(speakers):
    return None if speakers is None or len(np.unique(speakers)) < 2 else speakers


def interval(drawn: np.ndarray) -> tuple[float, float]:
    """The middle `LEVEL` of the draws."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def draw_utterances(values, truth, draws: int = DRAWS) -> dict[str, np.ndarray]:
    """`uar` and `war` `(draws,)` of utterances drawn with replacement inside each class."""
    values, truth, rng = np.asarray(values, dtype=float), np.asarray(truth), np.random.default_rng(SEED)
    sums = []
    classes, counts = np.unique(truth, return_counts=True)
    for c, n in zip(classes, counts, strict=True):
        # n draws from n utterances, by how often each of the few different values is drawn.
        levels, weights = np.unique(values[truth == c], return_counts=True)
        sums.append(rng.multinomial(n, weights / n, size=draws) @ levels)
    sums = np.stack(sums, axis=1)
    return {"uar": (sums / counts).mean(axis=1), "war": sums.sum(axis=1) / len(values)}


def draw_speakers(values, truth, speakers, draws: int = DRAWS) -> dict[str, np.ndarray]:
    """`uar` and `war` `(draws,)` of speakers drawn with replacement; the UAR is over the classes that were drawn."""
    sums, counts = _by_speaker(values, truth, speakers)
    n = len(sums)
    times = np.random.default_rng(SEED).multinomial(n, np.full(n, 1 / n), size=draws)
    sums, counts = times @ sums, times @ counts
    with np.errstate(invalid="ignore"):
        uar = np.nanmean(sums / counts, axis=1)
    return {"uar": uar, "war": sums.sum(axis=1) / counts.sum(axis=1)}


def paired_p(difference, truth, speakers=None, draws: int = DRAWS) -> dict[str, PairedP]:
    """p-values of `uar` and `war`: are two systems alike, given the difference of their hits `(N,)`?

    If they are, their answers may be swapped, for each utterance, or for each speaker, without changing what one
    expects (a permutation test of pairs).
    """
    difference, truth, speakers = np.asarray(difference, dtype=float), np.asarray(truth), _several(speakers)
    classes, numbers, counts = np.unique(truth, return_inverse=True, return_counts=True)
    shares = {"uar": 1 / (len(classes) * counts), "war": np.full(len(classes), 1 / len(truth))}
    sums = None if speakers is None else _by_speaker(difference, truth, speakers)[0]
    return {
        name: PairedP(
            sign_flip_p(difference * share[numbers], draws), None if sums is None else sign_flip_p(sums @ share, draws)
        )
        for name, share in shares.items()
    }


def sign_flip_p(contributions, draws: int = DRAWS) -> float:
    """Share of sign patterns under which the sum of `contributions` `(n,)` is as far from 0 as it is, or farther.

    All patterns where there are no more than `draws`; else as many random ones, the observed one counted in.
    """
    contributions = np.asarray(contributions, dtype=float)
    contributions = contributions[contributions != 0]
    # A hair less than the observed sum: the same sum in another order may round otherwise.
    observed = abs(contributions.sum()) - 1e-9 * np.abs(contributions).sum()
    if 2 ** len(contributions) <= draws:
        sums = np.zeros(1)
        for x in contributions:
            sums = np.concatenate([sums + x, sums - x])
        return float(np.mean(np.abs(sums) >= observed))
    # Contributions of one size together: how many of the k have a plus is binomial.
    sizes, ks = np.unique(np.abs(contributions), return_counts=True)
    rng = np.random.default_rng(SEED)
    sums = sum(size * (2 * rng.binomial(k, 0.5, size=draws) - k) for size, k in zip(sizes, ks, strict=True))
    return float((1 + np.sum(np.abs(sums) >= observed)) / (1 + draws))


def holm(ps) -> list[float]:
    """p-values corrected for their number by Holm's method, in the order given; None stays None."""
    order = sorted((i for i, p in enumerate(ps) if p is not None), key=lambda i: ps[i])
    corrected, largest = [None] * len(ps), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * ps[i]))
        corrected[i] = largest
    return corrected


def _by_speaker(values, truth, speakers) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the values and counts of the utterances, `(speakers, classes)` both."""
    classes, c = np.unique(truth, return_inverse=True)
    names, s = np.unique(speakers, return_inverse=True)
    flat, shape = s * len(classes) + c, (len(names), len(classes))
    sums = np.bincount(flat, weights=np.asarray(values, dtype=float), minlength=shape[0] * shape[1])
    return sums.reshape(shape), np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape)
