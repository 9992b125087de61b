"""Folds: no leak, nothing lost, every class validated, the same from any order."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmp_plugin.corpora.folds import make_folds, natural_key
from gmp_plugin.errors import UserError
from gmp_plugin.manifest import Utterance

EMOTIONS = ("angry", "happy", "neutral", "sad")


def utterance(number, speaker, emotion, per_session=2):
    return Utterance(f"{number:05}.wav", 800, emotion, "male", f"s{speaker}", f"Session{speaker // per_session}")


@st.composite
def corpora(draw):
    """4 to 12 speakers in pairs. Each has two happy utterances, so that whoever is held out, the rest
    has a class of two and a validation part is possible; all else is arbitrary."""
    n_speakers = draw(st.integers(4, 12))
    rest = draw(st.lists(st.tuples(st.integers(0, n_speakers - 1), st.sampled_from(EMOTIONS)), max_size=120))
    pairs = [(speaker, "happy") for speaker in range(n_speakers) for _ in range(2)] + rest
    return [utterance(i, speaker, emotion) for i, (speaker, emotion) in enumerate(pairs)]


modes = st.sampled_from(["session", "speaker", 2, "3"])
fractions = st.floats(0.01, 0.5)
seeds = st.integers(0, 5)


@settings(max_examples=150, deadline=None)
@given(corpora(), modes, fractions, seeds)
def test_folds_never_leak_and_lose_nothing(utterances, mode, fraction, seed):
    folds = make_folds(utterances, mode, fraction, seed)
    everything = list(range(len(utterances)))
    assert sorted(i for fold in folds for i in fold.test) == everything  # each is tested once
    for fold in folds:
        assert sorted(fold.train + fold.valid + fold.test) == everything  # a partition, none twice
        tested = {utterances[i].speaker for i in fold.test}
        learned = {utterances[i].speaker for i in fold.train + fold.valid}
        assert not tested & learned
        if mode == "session":
            assert {utterances[i].session for i in fold.test} == set(fold.held_out)
            assert not {utterances[i].session for i in fold.train + fold.valid} & set(fold.held_out)
        else:
            assert tested == set(fold.held_out)


@settings(max_examples=50, deadline=None)
@given(corpora(), fractions, seeds)
def test_a_fold_that_holds_out_nobody(utterances, fraction, seed):
    (fold,) = make_folds(utterances, "none", fraction, seed)
    assert sorted(fold.train + fold.valid) == list(range(len(utterances)))
    assert fold.held_out == fold.test == () and fold.train and fold.valid


@settings(max_examples=150, deadline=None)
@given(corpora(), modes, fractions, seeds)
def test_validation_has_every_class_and_about_the_fraction(utterances, mode, fraction, seed):
    for fold in make_folds(utterances, mode, fraction, seed):
        rest = Counter(utterances[i].emotion for i in fold.train + fold.valid)
        valid = Counter(utterances[i].emotion for i in fold.valid)
        train = Counter(utterances[i].emotion for i in fold.train)
        for emotion, count in rest.items():
            assert train[emotion] >= 1
            assert (valid[emotion] >= 1) == (count >= 2)
            # Within a class the share is kept to one utterance, or one is given.
            assert abs(valid[emotion] - fraction * count) <= 1
        assert abs(len(fold.valid) - fraction * sum(rest.values())) <= 0.5 + len(EMOTIONS)


@settings(max_examples=80, deadline=None)
@given(corpora(), modes, seeds, st.randoms(use_true_random=False))
def test_folds_do_not_depend_on_the_order_of_the_utterances(utterances, mode, seed, random):
    def paths(ordered):
        return [
            (fold.held_out, *(sorted(ordered[i].path for i in part) for part in (fold.train, fold.valid, fold.test)))
            for fold in make_folds(ordered, mode, 0.1, seed)
        ]

    shuffled = list(utterances)
    random.shuffle(shuffled)
    assert paths(shuffled) == paths(utterances)


def big_corpus():
    rng = np.random.default_rng(0)
    return [utterance(i, int(rng.integers(10)), EMOTIONS[rng.integers(4)]) for i in range(2000)]


def test_validation_is_stratified_by_emotion_and_speaker():
    utterances = big_corpus()
    for fold in make_folds(utterances, "session", 0.1, 1):
        rest = Counter((utterances[i].emotion, utterances[i].speaker) for i in fold.train + fold.valid)
        valid = Counter((utterances[i].emotion, utterances[i].speaker) for i in fold.valid)
        assert len(fold.valid) == round(0.1 * sum(rest.values()))
        for stratum, count in rest.items():
            assert abs(valid[stratum] - 0.1 * count) < 1


def test_tiny_strata_keep_the_fraction():
    # 40 speakers with one utterance per class: rounding each stratum for itself would give none.
    utterances = [utterance(4 * s + k, s, emotion) for s in range(40) for k, emotion in enumerate(EMOTIONS)]
    for fold in make_folds(utterances, "session", 0.1, 1):
        assert len(fold.valid) == round(0.1 * (len(utterances) - 8))


def test_the_seed_draws_another_validation_part_but_never_another_test_part():
    utterances = big_corpus()
    one, same, two = (make_folds(utterances, "session", 0.1, seed) for seed in (1, 1, 2))
    assert one == same
    assert [fold.test for fold in one] == [fold.test for fold in two]
    assert all(a.valid != b.valid for a, b in zip(one, two, strict=True))


def test_sessions_come_in_natural_order():
    utterances = [Utterance(f"{s}{k}.wav", 800, "sad", "male", f"s{s}", f"S{s}") for s in (1, 10, 2) for k in range(4)]
    assert [fold.held_out for fold in make_folds(utterances)] == [("S1",), ("S2",), ("S10",)]
    assert sorted(["a10", "a9", "10", "b"], key=natural_key) == ["10", "a9", "a10", "b"]


def test_groups_of_speakers_are_balanced_by_utterances():
    sizes = [100, 50, 50, 40, 30, 30]
    utterances = [utterance(1000 * s + k, s, EMOTIONS[k % 4]) for s, size in enumerate(sizes) for k in range(size)]
    folds = make_folds(utterances, "3", 0.1, 1)
    assert sorted(len(fold.test) for fold in folds) == [90, 100, 110]
    assert sorted(s for fold in folds for s in fold.held_out) == [f"s{s}" for s in range(6)]
    assert folds == make_folds(utterances, 3, 0.1, 1)


@pytest.mark.parametrize("fraction", [0, -0.1, 0.51, float("nan")])
def test_fraction_must_leave_something_for_both_parts(fraction):
    with pytest.raises(UserError, match="valid-fraction .*more than 0 and at most 0.5"):
        make_folds(big_corpus(), "session", fraction)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("11", "expected a number from 2 to 10, as the corpus has 10 speakers"),
        (1, "expected a number from 2 to 10"),
        ("-3", "expected session, speaker, a number"),
        ("actor", "expected session, speaker, a number"),
    ],
)
def test_wrong_folds(mode, message):
    with pytest.raises(UserError, match=message):
        make_folds(big_corpus(), mode)


def test_one_session_is_not_enough_and_speakers_are_offered():
    utterances = [utterance(i, i % 2, EMOTIONS[i % 4]) for i in range(16)]
    with pytest.raises(UserError, match=r"at least 2 sessions, found 1 \(Session0\); use --folds speaker"):
        make_folds(utterances)
    assert len(make_folds(utterances, "speaker")) == 2
    with pytest.raises(UserError, match="at least 2 speakers, found 1"):
        make_folds([utterance(i, 0, "sad") for i in range(8)], "speaker")


def test_a_speaker_in_two_sessions_would_leak():
    utterances = [utterance(i, i % 4, EMOTIONS[i % 3]) for i in range(24)]
    utterances.append(Utterance("more.wav", 800, "sad", "male", "s0", "Session1"))
    with pytest.raises(UserError, match="speaker s0 occurs in the sessions Session0, Session1.*--folds speaker"):
        make_folds(utterances)
    make_folds(utterances, "speaker")


def test_no_validation_part_is_an_error():
    utterances = [utterance(i, 2 * i, emotion) for i, emotion in enumerate(EMOTIONS)]
    with pytest.raises(UserError, match=r"fold 1 \(held out: Session0\) has no validation part"):
        make_folds(utterances)
