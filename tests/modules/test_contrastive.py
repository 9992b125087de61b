"""GEmo-CLAP's targets, losses and temperature against the formulas worked by hand in float64."""

import numpy as np
import pytest
import torch

from gmp_plugin.modules.contrastive import (
    ContrastiveHead,
    LearnedTemperature,
    agreement,
    gemo_clap_loss,
    target_distribution,
)

EMOTION, GENDER = [0, 2, 0, 1, 2], [1, 1, 0, 0, 1]


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def same(labels):
    return np.array([[float(a == b) for b in labels] for a in labels])


def by_hand(audio, text, a, t, variant, alpha, norm):
    """Sum over the rows; a and t are the temperatures' factors."""

    def distribution(matrix):
        return softmax(matrix) if norm == "softmax" else matrix / matrix.sum(1, keepdims=True)

    def kl(p, q):
        return sum(p[i, j] * np.log(p[i, j] / q[i, j]) for i, j in np.ndindex(p.shape) if p[i, j] > 0)

    def loss(matrix):
        p = distribution(matrix)
        return (kl(p, softmax(a * audio @ text.T)) + kl(p, softmax(t * text @ audio.T))) / 2

    emotion, gender = same(EMOTION), same(GENDER)
    if variant == "sl":
        return loss(alpha * emotion + (1 - alpha) * gender)
    return alpha * loss(emotion) + (1 - alpha) * loss(gender)


@pytest.fixture
def pair():
    """Embeddings of five recordings and of their texts."""
    rng = np.random.default_rng(0)
    sides = rng.standard_normal((2, 5, 3))
    return sides / np.linalg.norm(sides, axis=2, keepdims=True)


@pytest.mark.parametrize("variant, alpha", [("sl", 0.8), ("ml", 0.9), ("sl", 1.0), ("ml", 0.0)])
@pytest.mark.parametrize("norm", ["softmax", "l1"])
def test_loss_by_hand(pair, variant, alpha, norm):
    audio, text = pair
    a, t = 1 / 0.07, 5.0
    emotion, gender = (torch.tensor(labels) for labels in (EMOTION, GENDER))
    x, y = torch.tensor(audio), torch.tensor(text)
    found = gemo_clap_loss(
        a * x @ y.T, t * y @ x.T, agreement(emotion, emotion).double(), agreement(gender, gender).double(), variant,
        alpha, norm,
    )  # fmt: skip
    assert found.item() == pytest.approx(by_hand(audio, text, a, t, variant, alpha, norm), rel=1e-12)


def test_targets_by_hand():
    """Four pairs of which one agrees: e / (e + 3) of the mass by softmax, all of it by the share."""
    matrix = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.8, 0.2, 0.0, 1.0]], dtype=torch.float64)
    e = np.exp
    soft = target_distribution(matrix, "softmax").numpy()
    np.testing.assert_allclose(soft[0], np.array([1, e(1), 1, 1]) / (e(1) + 3), rtol=1e-12)
    assert soft[0, 1] < 0.5
    np.testing.assert_allclose(soft[1], e([0.8, 0.2, 0, 1]) / e([0.8, 0.2, 0, 1]).sum(), rtol=1e-12)
    np.testing.assert_allclose(target_distribution(matrix, "l1").numpy(), [[0, 1, 0, 0], [0.4, 0.1, 0, 0.5]])


@pytest.mark.parametrize("variant, alpha", [("sl", 0.8), ("sl", 1.0), ("ml", 1.0)])
@pytest.mark.parametrize("norm", ["softmax", "l1"])
def test_the_loss_is_0_at_its_own_target(norm, variant, alpha):
    """With logits whose softmax is the target, and with no gradient there; ML has one target only where alpha is 1."""
    emotion, gender = (agreement(labels, labels).double() for labels in map(torch.tensor, (EMOTION, GENDER)))
    target = target_distribution(alpha * emotion + (1 - alpha) * gender, norm)
    logits = target.log().clamp(min=-1e4).requires_grad_()
    loss = gemo_clap_loss(logits, logits + 3, emotion, gender, variant, alpha, norm)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    loss.backward()
    assert logits.grad.abs().max() < 1e-12
    assert gemo_clap_loss(logits, logits.roll(1, 1), emotion, gender, variant, alpha, norm) > 0.1


def test_the_temperature_starts_at_its_factor_and_stays_in_its_range():
    temperature = LearnedTemperature()
    assert temperature().item() == pytest.approx(1 / 0.07)
    for tau, factor in ((9.0, 100.0), (-1.0, 1.0), (3.0, np.exp(3))):
        temperature.tau.data.fill_(tau)
        temperature.zero_grad()
        found = temperature()
        found.backward()
        assert found.item() == pytest.approx(factor, rel=1e-6)
        assert temperature.tau.grad.item() == pytest.approx(factor, rel=1e-6)  # it can come back


def test_head_is_two_linear_layers_on_the_unit_sphere():
    torch.manual_seed(0)
    head = ContrastiveHead(4, 6).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    (w, b), (v, c) = ((layer.weight.detach(), layer.bias.detach()) for layer in (head.projection, head.output))
    y = (x @ w.T + b).clamp(min=0) @ v.T + c
    torch.testing.assert_close(head(x).detach(), y / y.norm(dim=1, keepdim=True))
    assert head.bfloat16()(x.bfloat16()).dtype == torch.float32
