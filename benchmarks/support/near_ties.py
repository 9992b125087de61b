"""Are two label sets the same, but for frames between two centroids?"""

import math

import torch
from torch import Tensor

# The last bits of a model's features: 10 float32 layers on values of size about 1.
FEATURE_ROUNDING = 1e-4


def compare(ours: Tensor, theirs: Tensor, x: Tensor, y: Tensor, centroids: Tensor) -> dict:
    """Labels `(N,)` of two programs from their own features `x` and `y` `(N, D)` of the same frames.

    A frame with two labels is explained if its features are the same to `FEATURE_ROUNDING`, and each label, on
    the program's own features and in float64, is no farther than the nearest centroid and what rounding makes of a
    float32 distance.

    Returns:
        `equal` (share of frames), `differ`, `unexplained`, and `largest_excess`: how much farther than the nearest
        centroid a differing label is at most, as a share of the distance.
    """
    rows = (ours != theirs).nonzero()[:, 0]
    explained = (x[rows] - y[rows]).abs().amax(1) <= FEATURE_ROUNDING if len(rows) else rows.bool()
    largest = 0.0
    for labels, features in ((ours[rows], x[rows]), (theirs[rows], y[rows])):
        for i in range(0, len(rows), 256):
            part = slice(i, i + 256)
            excess, distance, rounding = _excess(features[part], labels[part], centroids)
            explained[part] &= excess <= rounding
            largest = max(largest, (excess / distance.clamp_min(1e-12)).max().item())
    return {
        "frames": len(ours),
        "equal": 1 - len(rows) / len(ours),
        "differ": len(rows),
        "unexplained": int((~explained).sum()),
        "largest_excess": largest,
    }


def _excess(x: Tensor, labels: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squared distance to the label's centroid beyond the least, the least, and the rounding of their difference."""
    x, centroids = x.double(), centroids.double()
    distances = torch.cdist(x, centroids, compute_mode="donot_use_mm_for_euclid_dist").pow(2)
    least, nearest = distances.min(1)
    own = distances.gather(1, labels[:, None])[:, 0]
    # |x|^2 - 2xc + |c|^2 in float32, twice; the error of a sum of D products grows as the root of D
    # (Higham and Mary 2019), and 2 is a safety factor.
    size = x.norm(dim=1) + torch.maximum(centroids[labels].norm(dim=1), centroids[nearest].norm(dim=1))
    rounding = 2 * 2 * math.sqrt(x.size(1)) * 2**-24 * size.pow(2)
    return own - least, least, rounding
