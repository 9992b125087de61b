import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score

from gmp_plugin import metrics

PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


@given(PAIRS)
@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_metrics_agree_with_scikit_learn(pairs):
    truth, predicted = np.array(pairs).T
    counts = metrics.confusion_counts(truth, predicted, 4)
    assert (counts == confusion_matrix(truth, predicted, labels=range(4))).all()
    assert metrics.war(counts) == pytest.approx(accuracy_score(truth, predicted))
    assert metrics.uar(counts) == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert metrics.macro_f1(counts) == pytest.approx(f1_score(truth, predicted, average="macro"))


def test_uar_of_summed_counts_is_not_the_mean_of_batches():
    first = metrics.confusion_counts([0, 0, 0, 1], [0, 0, 0, 0], 2)
    second = metrics.confusion_counts([1, 1], [1, 1], 2)
    assert metrics.uar(first + second) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.uar(first + second) != pytest.approx((metrics.uar(first) + metrics.uar(second)) / 2)


def test_class_without_utterances_has_no_recall_and_no_weight():
    counts = [[2, 0, 0], [0, 1, 1], [0, 0, 0]]
    assert np.isnan(metrics.recalls(counts)[2])
    assert metrics.uar(counts) == pytest.approx(0.75)
