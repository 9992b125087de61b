"""AM-softmax against the formula worked by hand in float64 (paper, eq. 2 and 3)."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gmp_plugin.modules.am_softmax import AMSoftmax
from gmp_plugin.modules.heads import make_head
from gmp_plugin.modules.multiscale import CosineHead


def by_hand(x, weight, target, s, m):
    """Loss and its gradient with respect to x and weight, in numpy float64."""
    xn, wn = np.linalg.norm(x, axis=1, keepdims=True), np.linalg.norm(weight, axis=1, keepdims=True)
    u, v = x / xn, weight / wn
    cos = u @ v.T
    logits = s * (cos - m * np.eye(len(weight))[target])
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[np.arange(len(x)), target]).sum()
    d = s * (p - np.eye(len(weight))[target])  # d loss / d cos
    dx = (d @ v - (d * cos).sum(1, keepdims=True) * u) / xn
    dw = (d.T @ u - (d * cos).sum(0)[:, None] * v) / wn
    return loss, dx, dw


@pytest.mark.parametrize("s, m", [(30.0, 0.2), (30.0, 0.0), (1.0, 0.5)])
def test_loss_and_gradients_by_hand(s, m):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((7, 5)), rng.standard_normal((4, 5))
    target = rng.integers(0, 4, 7)
    loss, dx, dw = by_hand(x, weight, target, s, m)

    layer = AMSoftmax(5, 4, s, m).double()
    layer.weight.data = torch.tensor(weight)
    inputs = torch.tensor(x, requires_grad=True)
    t = torch.tensor(target)
    ours = F.cross_entropy(layer.training_logits(layer(inputs), t), t, reduction="sum")
    ours.backward()
    assert ours.item() == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(inputs.grad.numpy(), dx, atol=1e-11)
    np.testing.assert_allclose(layer.weight.grad.numpy(), dw, atol=1e-11)


def test_without_margin_it_is_cosine_cross_entropy():
    torch.manual_seed(0)
    head = make_head("am_softmax", 6, 5, 4, scale=30.0, margin=0.0)
    x, target = torch.randn(9, 6), torch.randint(4, (9,))
    embedding, logits = head(x)
    cosine = F.cosine_similarity(embedding[:, None], head.classifier.weight[None], dim=-1)
    expected = F.cross_entropy(30 * cosine, target, reduction="sum")
    assert head.loss(logits, target).item() == pytest.approx(expected.item(), rel=1e-5)


def test_margin_makes_the_true_class_harder_and_leaves_recognition_alone():
    torch.manual_seed(0)
    with_margin = make_head("am_softmax", 6, 5, 4, scale=30.0, margin=0.2)
    without = make_head("am_softmax", 6, 5, 4, scale=30.0, margin=0.0)
    without.load_state_dict(with_margin.state_dict())
    x, target = torch.randn(9, 6), torch.randint(4, (9,))
    logits = with_margin(x)[1]
    assert torch.equal(logits, without(x)[1])
    assert with_margin.loss(logits, target) > without.loss(logits, target)


def test_cross_entropy_head_is_two_linear_layers():
    torch.manual_seed(0)
    head = make_head("cross_entropy", 6, 5, 4, scale=30.0, margin=0.2)
    x, target = torch.randn(9, 6), torch.randint(4, (9,))
    layers = torch.nn.Sequential(head.projection, torch.nn.ReLU(), torch.nn.Linear(5, 4))
    layers[2].load_state_dict(head.classifier.state_dict())
    logits = head(x)[1]
    torch.testing.assert_close(logits, layers(x))
    torch.testing.assert_close(head.loss(logits, target), F.cross_entropy(layers(x), target, reduction="sum"))


def test_cosines_are_float32_under_autocast():
    """bf16 would resolve them to 0.004, a tenth of a logit at s = 30."""
    torch.manual_seed(0)
    x, am, cosine = torch.randn(6, 16), AMSoftmax(16, 4), CosineHead(16, 8, 5)
    with torch.no_grad():
        expected = am(x)
        with torch.autocast("cpu", torch.bfloat16):
            found, of_frames = am(x), cosine(x)
    assert found.dtype == of_frames.dtype == torch.float32
    torch.testing.assert_close(found, expected)
