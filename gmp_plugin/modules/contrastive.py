"""Contrastive losses of audio and text that share labels (GEmo-CLAP, Pan et al., ICASSP 2024).

A batch has B recordings, each with a text. Of the cosines between recordings and texts, scaled by a learned
temperature, every row is a distribution over the batch; it is drawn towards the rows of a matrix that says which pairs
agree.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import at_least_float32

VARIANTS = ("sl", "ml")
TARGET_NORMS = ("softmax", "l1")


class ContrastiveHead(nn.Module):
    """One side, audio or text: projection to the shared space, and the temperature of its rows.

    Args:
        input_dim: size of the side's vectors.
        embedding_dim: size of the shared space, and between the projection's two linear layers.
    """

    def __init__(self, input_dim: int, embedding_dim: int = 512):
        super().__init__()
        self.projection = nn.Linear(input_dim, embedding_dim)
        self.output = nn.Linear(embedding_dim, embedding_dim)
        self.temperature = LearnedTemperature()

    def forward(self, x: Tensor) -> Tensor:
        """`(N, input_dim)` -> embeddings of length 1, `(N, embedding_dim)`, at least float32."""
        # Lengths in float32: bf16 resolves the cosines to 0.004, a quarter of a logit at a temperature of 70.
        return F.normalize(at_least_float32(self.output(F.relu(self.projection(x)))), dim=-1)


class PromptHead(nn.Module):
    """A trained audio side with the embeddings of the classes' prompts: recognition without a text encoder.

    Args:
        audio: the trained `ContrastiveHead`.
        classes: embeddings of the prompts, `(C, E)`, each of length 1.
    """

    def __init__(self, audio: ContrastiveHead, classes: Tensor):
        super().__init__()
        self.audio = audio
        self.register_buffer("classes", classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled vectors `(B, input_dim)` -> embeddings `(B, E)` and logits, the scaled cosines, `(B, C)`."""
        embedding = self.audio(x)
        return embedding, self.audio.temperature() * embedding @ self.classes.T


class LearnedTemperature(nn.Module):
    """The factor exp(tau) of the cosines; tau is learned, and put back wherever it leaves the range of the factor.

    In half precision fairseq trains a float32 copy of tau, which may stay outside for a while; the factor does not.
    """

    def __init__(self, start: float = 1 / 0.07, lowest: float = 1.0, highest: float = 100.0):
        super().__init__()
        self.tau = nn.Parameter(torch.tensor(math.log(start)))
        self.range = math.log(lowest), math.log(highest)

    def forward(self) -> Tensor:
        with torch.no_grad():
            # The parameter itself: a clamp in the forward would leave it without a gradient, and outside for good.
            self.tau.clamp_(*self.range)
        return at_least_float32(self.tau).exp()


def agreement(labels: Tensor, others: Tensor) -> Tensor:
    """1.0 where the labels `(R,)` are those of `others` `(B,)`, else 0.0: `(R, B)`."""
    return (labels[:, None] == others[None, :]).float()


def target_distribution(matrix: Tensor, norm: str) -> Tensor:
    """Rows that sum to 1, from agreements `(R, B)` of 0 to 1; every row has one above 0.

    Args:
        norm: `softmax` as published: where a quarter of the pairs agree, they have less than half of the mass, since
            e^1 is no more than 2.7 e^0; `l1` gives it all to the pairs that agree, in proportion.
    """
    return matrix.softmax(-1) if norm == "softmax" else matrix / matrix.sum(-1, keepdim=True)


def divergence(logits: Tensor, target: Tensor) -> Tensor:
    """KL(target || softmax(logits)) in nats, summed over the rows `(R, B)`; 0 where they are the same."""
    return (torch.xlogy(target, target) - target * logits.log_softmax(-1)).sum()


def symmetric_divergence(audio_logits: Tensor, text_logits: Tensor, target: Tensor) -> Tensor:
    """Mean of the two sides' divergences from one target, `(R, B)` each."""
    return (divergence(audio_logits, target) + divergence(text_logits, target)) / 2


def gemo_clap_loss(
    audio_logits: Tensor, text_logits: Tensor, same_emotion: Tensor, same_gender: Tensor, variant: str, alpha: float,
    norm: str,
) -> Tensor:  # fmt: skip
    """The loss in nats, summed over R of a batch's recordings and their texts.

    Args:
        audio_logits: scaled cosines of these recordings to all texts, `(R, B)`.
        text_logits: those of their texts to all recordings, `(R, B)`.
        same_emotion, same_gender: `agreement` of theirs with all, `(R, B)`.
        variant: `sl`: one loss, on a soft target of both agreements; `ml`: a loss for each.
        alpha: share of the emotion; 1 leaves the gender out (Emo-CLAP).
        norm: of the targets, see `target_distribution`.
    """

    def loss(matrix: Tensor) -> Tensor:
        return symmetric_divergence(audio_logits, text_logits, target_distribution(matrix, norm))

    if variant == "sl":
        return loss(alpha * same_emotion + (1 - alpha) * same_gender)
    return alpha * loss(same_emotion) + (1 - alpha) * loss(same_gender)
