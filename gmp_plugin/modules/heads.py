"""Projection heads on the pooled vector."""

import torch.nn.functional as F
from torch import Tensor, nn

from . import at_least_float32
from .am_softmax import AMSoftmax, LinearClassifier


class ProjectionHead(nn.Module):
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

    def loss(self, logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Cross-entropy in nats, summed over the batch, with the classifier's margin; `class_weights` `(C,)`."""
        logits = at_least_float32(self.classifier.training_logits(logits, target))
        return F.cross_entropy(logits, target, weight=class_weights, reduction="sum")


def make_head(kind: str, input_dim: int, projection_dim: int, n_classes: int, scale: float, margin: float):
    """`ProjectionHead` by name: `am_softmax` or `cross_entropy`."""
    classifier = AMSoftmax(projection_dim, n_classes, scale, margin) if kind == "am_softmax" else None
    return ProjectionHead(input_dim, projection_dim, n_classes, classifier)
