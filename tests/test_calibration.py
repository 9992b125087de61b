"""The temperature and the calibration error, against scipy and against hand-worked numbers."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.special import softmax as scipy_softmax

from gmp_plugin.calibration import (
    RANGE,
    Calibration,
    expected_calibration_error,
    fit_temperature,
    nll,
    reliability,
    softmax,
)
from gmp_plugin.errors import UserError


def overconfident(n=400, scale=30.0, seed=0):
    """Cosines times `scale`, as AM-softmax gives, that are right in two of three."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(4, size=n)
    cosines = rng.uniform(-0.4, 0.4, (n, 4))
    cosines[np.arange(n), labels] += rng.uniform(-0.2, 0.5, n)
    return (scale * cosines).astype(np.float32), labels


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_temperature_is_scipys(seed, scale):
    logits, labels = overconfident(seed=seed, scale=scale)

    def loss(log_t):
        return -log_softmax(logits.astype(float) / np.exp(log_t), axis=1)[np.arange(len(labels)), labels].mean()

    found = minimize_scalar(loss, bounds=np.log(RANGE), method="bounded", options={"xatol": 1e-10})
    assert fit_temperature(logits, labels) == pytest.approx(np.exp(found.x), rel=1e-5)
    assert nll(logits, labels, fit_temperature(logits, labels)) == pytest.approx(found.fun, rel=1e-9)
    np.testing.assert_allclose(softmax(logits, 3.0), scipy_softmax(logits.astype(float) / 3, axis=1), rtol=1e-12)


def test_where_everything_or_nothing_is_right_the_temperature_is_at_its_bound():
    logits = np.eye(4) * 5
    assert fit_temperature(logits, np.arange(4)) == RANGE[0]
    assert fit_temperature(logits, (np.arange(4) + 1) % 4) == RANGE[1]
    assert fit_temperature(np.zeros((3, 4)), np.zeros(3, dtype=int)) in RANGE  # any is as good


def test_where_everything_is_right_nothing_is_fitted():
    """The likelihood would have every answer entirely sure."""
    found = Calibration.fit(np.eye(4) * 5, np.arange(4), "abc", "valid.tsv")
    assert found.temperature == 1.0 and found.nll_after == found.nll_before


def test_calibration_error_by_hand():
    """Bins (0.6, 0.667] with one hit of two, and (0.933, 1] with a miss, of 15."""
    p = np.array([[0.62, 0.38], [0.36, 0.64], [0.96, 0.04]])
    labels = np.array([0, 0, 1])
    expected = (2 * abs(0.5 - 0.63) + 1 * abs(0 - 0.96)) / 3
    assert expected_calibration_error(p, labels) == pytest.approx(expected)
    found = reliability(p, labels)
    assert found.n.tolist() == [0] * 9 + [2, 0, 0, 0, 0, 1]
    assert found.accuracy[9] == 0.5 and found.confidence[9] == pytest.approx(0.63)


def test_certain_answers_fall_into_the_last_bin():
    p = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert reliability(p, np.array([0, 1])).n.tolist() == [0] * 14 + [2]
    assert expected_calibration_error(p, np.array([0, 1])) == 0.5


def test_the_file_keeps_what_was_fitted(tmp_path):
    logits, labels = overconfident()
    found = Calibration.fit(logits, labels, "abc", "valid.tsv")
    assert found.ece_after < found.ece_before / 3 and found.nll_after < found.nll_before
    assert found.ece_after == expected_calibration_error(softmax(logits, found.temperature), labels)
    found.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == found
    assert json.loads((tmp_path / "calibration.json").read_text())["n_utterances"] == 400


@pytest.mark.parametrize("content", ["", "{}", '{"temperature": 1}', "[]"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(UserError, match="calibration.json is no calibration"):
        Calibration.load(tmp_path / "calibration.json")


def test_an_impossible_temperature_is_refused(tmp_path):
    logits, labels = overconfident()
    Calibration.fit(logits, labels, "abc", "valid.tsv").save(tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text()) | {"temperature": -1}
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="temperature -1"):
        Calibration.load(tmp_path / "c.json")
