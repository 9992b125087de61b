"""Projection heads on the pooled vector."""

import torch.nn.functional as F
from torch import Tensor, nn

from . import at_least_float32
from .am_softmax import AMSoftmax, LinearClassifier


class Head(nn.Module):
    """Something with a `classifier`, whose margin is part of the loss."""

    classifier: nn.Module

    def loss(self, logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Cross-entropy in nats, summed over the batch, with the classifier's margin; `class_weights` `(C,)`."""
        logits = at_least_float32(self.classifier.training_logits(logits, target))
        return F.cross_entropy(logits, target, weight=class_weights, reduction="sum")


class ProjectionHead(Head):
    """Two linear layers with a ReLU between; the second may be an AM-softmax (paper, Fig. 1).

    Args:
        input_dim: size of the pooled vector.
        projection_dim: size of the embedding between the two layers.
        n_classes: C.
        classifier: second layer; a linear one (cross-entropy) when left out.
    """

    def __init__(self, input_dim: int, projection_dim: int, n_classes: int, classifier: nn.Module | None = None):
        super().__init__()
        self.projection = nn.Linear(input_dim, projection_dim)
        self.classifier = classifier or LinearClassifier(projection_dim, n_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, input_dim)` -> embedding `(B, projection_dim)` and logits `(B, C)`."""
        embedding = F.relu(self.projection(x))
        return embedding, self.classifier(embedding)


class LinearHead(Head):
    """One linear layer on the pooled vector, which is the embedding itself (FLESA).

    Args:
        input_dim: size of the pooled vector.
        n_classes: C.
    """

    def __init__(self, input_dim: int, n_classes: int):
        super().__init__()
        self.classifier = LinearClassifier(input_dim, n_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, input_dim)` -> the same, and logits `(B, C)`."""
        return x, self.classifier(x)


def make_head(kind: str, input_dim: int, projection_dim: int, n_classes: int, scale: float, margin: float) -> Head:
    """A head by name: `am_softmax`, `cross_entropy`, or `linear`, which is cross-entropy without a projection."""
    if kind == "linear":
        return LinearHead(input_dim, n_classes)
    classifier = AMSoftmax(projection_dim, n_classes, scale, margin) if kind == "am_softmax" else None
    return ProjectionHead(input_dim, projection_dim, n_classes, classifier)
