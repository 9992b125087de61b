"""Intervals and paired tests: against scipy.stats, scikit-learn and hand-worked cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from gmp_plugin import statistics


@pytest.fixture(scope="module")
def corpus():
    """Two systems, three seeds each, on 240 utterances of eight speakers: truth, predictions (seeds, N), speakers."""
    rng = np.random.default_rng(0)
    truth = rng.choice(4, size=240, p=[0.4, 0.3, 0.2, 0.1])
    speakers = np.repeat(np.arange(8), 30)
    easy = rng.random(8)[speakers] * 0.6 + 0.2

    def predict(bonus):
        right = rng.random((3, 240)) < easy + bonus
        return np.where(right, truth, rng.integers(0, 4, size=(3, 240)))

    return truth, predict(0.0), predict(0.08), speakers


def hits(truth, predicted):
    return (predicted == truth).mean(axis=0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
@pytest.mark.filterwarnings("ignore:y_pred contains classes", "ignore:A single label was found")
def test_rates_of_hits_are_the_means_over_seeds(answers):
    truth, *seeds = np.array(answers).T
    found = statistics.rates(hits(truth, np.array(seeds)), truth)
    assert found["uar"] == pytest.approx(np.mean([balanced_accuracy_score(truth, seed) for seed in seeds]))
    assert found["war"] == pytest.approx(np.mean([accuracy_score(truth, seed) for seed in seeds]))


def test_interval_over_utterances_is_scipys_bootstrap_of_the_classes(corpus):
    truth, predicted, _, _ = corpus
    values = hits(truth, predicted)
    classes = [values[truth == c] for c in range(4)]

    def uar(*samples, axis):
        return np.mean([sample.mean(axis=axis) for sample in samples], axis=0)

    def war(*samples, axis):
        return np.concatenate(samples, axis=axis).mean(axis=axis)

    found = statistics.estimate(values, truth)
    for name, function in (("uar", uar), ("war", war)):
        expected = stats.bootstrap(classes, function, n_resamples=10_000, method="percentile", rng=1)
        # Two runs of 10 000 draws: their ends differ by about a fiftieth of the standard error.
        assert found[name].utterances == pytest.approx(
            tuple(expected.confidence_interval), abs=0.12 * expected.standard_error
        )
        drawn = statistics.draw_utterances(values, truth)[name]
        assert drawn.std(ddof=1) == pytest.approx(expected.standard_error, rel=0.05)


def test_interval_over_speakers_is_scipys_bootstrap_of_the_speakers(corpus):
    truth, predicted, _, speakers = corpus
    values = hits(truth, predicted)

    def uar(drawn, axis):
        def one(chosen):
            rows = np.concatenate([np.flatnonzero(speakers == s) for s in chosen.astype(int)])
            return statistics.rates(values[rows], truth[rows])["uar"]

        return np.apply_along_axis(one, axis, drawn)

    expected = stats.bootstrap((np.arange(8.0),), uar, n_resamples=3000, method="percentile", rng=1)
    found = statistics.estimate(values, truth, speakers)["uar"].speakers
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.15 * expected.standard_error)
    alone = statistics.estimate(values, truth, np.zeros(len(truth)))["uar"]
    assert alone.speakers is None and alone.utterances is not None
    assert statistics.paired_p(values - 0.5, truth, np.zeros(len(truth)))["war"].speakers is None
    names = np.array(list("abcdefgh"))[speakers]
    assert statistics.estimate(values, truth, names)["uar"].speakers == found


def test_two_speakers_by_hand():
    """a: 1 of 1 and 0 of 1, b: 1 of 1 and 1 of 3. Four equally likely draws: aa, ab, ba, bb."""
    truth, speakers = np.array([0, 1, 0, 1, 1, 1]), np.array(list("aabbbb"))
    drawn = statistics.draw_speakers(np.array([1, 0, 1, 1, 0, 0]), truth, speakers)
    for name, values in {"uar": (1 / 2, (1 + 1 / 4) / 2, (1 + 1 / 3) / 2), "war": (2 / 4, 3 / 6, 4 / 8)}.items():
        assert set(np.round(drawn[name], 9)) == set(np.round(values, 9))
    assert np.mean(drawn["uar"] == 0.5) == pytest.approx(1 / 4, abs=0.02)


def test_a_class_that_no_drawn_speaker_has_is_left_out():
    drawn = statistics.draw_speakers([1, 1, 0], [0, 0, 1], list("aab"))["uar"]
    assert set(drawn) == {0, 0.5, 1}


def test_sure_and_constant_cases_have_no_spread():
    truth = np.array([0, 0, 1])
    found = statistics.estimate(np.ones(3), truth, [1, 2, 1])
    assert found["uar"] == statistics.Estimate(1, (1, 1), (1, 1))
    assert statistics.estimate(np.ones(3), truth)["war"].speakers is None
    assert statistics.paired_p(np.zeros(3), truth, [1, 2, 1])["uar"] == statistics.PairedP(1, 1)


def test_paired_p_is_scipys_permutation_test(corpus):
    truth, first, second, speakers = corpus
    a, b = hits(truth, first), hits(truth, second)
    share = 1 / (4 * np.bincount(truth))[truth]

    def difference(x, y, axis):
        return ((x - y) * share).sum(axis=axis)

    found = statistics.paired_p(b - a, truth, speakers)["uar"]
    expected = stats.permutation_test((b, a), difference, permutation_type="samples", n_resamples=9999, rng=1)
    assert found.utterances == pytest.approx(expected.pvalue, abs=4 * (expected.pvalue / 10_000) ** 0.5)
    sums = [[((x * share)[speakers == s]).sum() for s in range(8)] for x in (b, a)]
    exact = stats.permutation_test(
        sums, lambda x, y, axis: (x - y).sum(axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    assert found.speakers == pytest.approx(exact.pvalue)


def test_interval_of_a_difference_is_that_of_the_pairs(corpus):
    truth, first, second, _ = corpus
    difference = hits(truth, second) - hits(truth, first)

    def war(x, axis):
        return x.mean(axis=axis)

    expected = stats.bootstrap([difference], war, n_resamples=10_000, method="percentile", rng=1)
    found = statistics.estimate(difference, np.zeros(240, dtype=int))["war"]
    assert found.value == pytest.approx(difference.mean())
    assert found.utterances == pytest.approx(tuple(expected.confidence_interval), abs=0.12 * expected.standard_error)


def test_sign_flips_by_hand():
    """+3 and +1: the sums are 4, 2, -2 and -4, of which two are as far from 0 as 4."""
    assert statistics.sign_flip_p([3, 1]) == 0.5
    assert statistics.sign_flip_p([3, -1]) == 1
    assert statistics.sign_flip_p([1] * 5) == pytest.approx(2 / 32)
    assert statistics.sign_flip_p([0.0, 0.0]) == 1
    # 40 equal ones: random patterns instead of 2^40, against the binomial test.
    signs = [1] * 28 + [-1] * 12
    assert statistics.sign_flip_p(signs) == pytest.approx(stats.binomtest(28, 40).pvalue, abs=0.005)
    assert statistics.sign_flip_p([1] * 60) == pytest.approx(1 / 10_001)


def test_no_difference_is_found_in_one_of_twenty_cases():
    rng = np.random.default_rng(0)
    truth = np.arange(60) % 3
    ps = [statistics.paired_p(rng.standard_normal(60), truth, draws=999)["uar"].utterances for _ in range(400)]
    assert np.mean(np.array(ps) <= 0.05) == pytest.approx(0.05, abs=0.033)  # three standard errors
    assert np.mean(np.array(ps) <= 0.5) == pytest.approx(0.5, abs=0.075)


def test_holm_by_hand():
    """Sorted 0.01, 0.03, 0.04 times 3, 2, 1: the last may not be below the one before it."""
    assert statistics.holm([0.04, 0.01, None, 0.03]) == pytest.approx([0.06, 0.03, None, 0.06])
    assert statistics.holm([0.9, 0.8]) == [1, 1] and statistics.holm([]) == []
