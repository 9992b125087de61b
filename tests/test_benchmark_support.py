"""What the benchmark of the labels concludes with: near-ties, and the arithmetic of docs/scaling.md."""

import pytest
import torch
from conftest import REPO, load_script

SUPPORT = REPO / "benchmarks" / "support"
compare = load_script(SUPPORT / "near_ties.py").compare
scaling = load_script(SUPPORT / "label_scaling.py")


@pytest.fixture
def frames():
    """Frames `(4, 768)`, the second half way between centroids 0 and 1, the others close to 0, and the centroids."""
    torch.manual_seed(0)
    centroids = torch.randn(6, 768)
    x = centroids[[0, 0, 0, 0]] + 0.1 * torch.randn(4, 768)
    x[1] = centroids[:2].mean(0)
    return x, centroids


def test_a_frame_between_two_centroids_is_explained(frames):
    x, centroids = frames
    found = compare(torch.tensor([0, 0, 0, 0]), torch.tensor([0, 1, 0, 0]), x, x, centroids)
    assert (found["equal"], found["differ"], found["unexplained"]) == (0.75, 1, 0)
    assert found["largest_excess"] < 1e-6


def test_a_wrong_label_is_not_whoever_gave_it(frames):
    x, centroids = frames
    right, wrong = torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 1, 5])
    for pair in ((right, wrong), (wrong, right)):
        found = compare(*pair, x, x, centroids)
        assert (found["differ"], found["unexplained"]) == (2, 2)
        assert found["largest_excess"] > 1


def test_nor_is_one_from_other_features(frames):
    """Each label is right for its own features; but these are not the same frame."""
    x, centroids = frames
    y = x.clone()
    y[1] += 0.01 * (centroids[1] - centroids[0])
    ours, theirs = torch.tensor([0, 0, 0, 0]), torch.tensor([0, 1, 0, 0])
    assert compare(ours, theirs, x, y, centroids)["unexplained"] == 1
    y[1] = x[1] + 1e-5 * (centroids[1] - centroids[0])
    assert compare(ours, theirs, x, y, centroids)["unexplained"] == 0


def test_equal_labels_have_nothing_to_explain(frames):
    x, centroids = frames
    labels = torch.zeros(4, dtype=torch.int64)
    assert compare(labels, labels, x, x, centroids) == {
        "frames": 4, "equal": 1.0, "differ": 0, "unexplained": 0, "largest_excess": 0.0,
    }  # fmt: skip


def test_the_table_of_a_large_corpus():
    result = {
        "machine": {"cores": 2}, "dim": 768, "memory": {"peak_mb_10x": 1200.0},
        "fit": {"scales": [64, 512, 4096], "ours_s": 36.0, "frames": 2**17},
        "stream": {"ours_core_h_per_audio_h": 0.1, "bf16_core_h_per_audio_h": 0.05, "km_bytes_per_frame": 11.0},
    }  # fmt: skip
    # 36 s on 2 cores for an eighth of 256 x 4096 frames
    assert scaling.fit_core_h(result) == pytest.approx(0.16)
    cells = {line.split("|")[1].strip(): line.split("|")[2:4] for line in scaling.table(result).splitlines()}
    for name, expected in {
        "frames": ["180 million", "10.8 billion"],
        "labelling, float32": ["100 core-hours", "6,000 core-hours"],
        "on 128 cores": ["0.78 h", "47 h"],
        "labelling, bfloat16": ["50 core-hours", "3,000 core-hours"],
        "k-means sample": ["5.8 h of audio, 0.6 core-hours", "the same"],
        "memory of the fit": ["3.22 GB for the sample", "the same"],
        "disk: stored features (simple_kmeans)": ["553 GB", "33.2 TB"],
        "disk: 3 `.km` files": ["1.98 GB", "119 GB"],
        "disk: parts, until the merge": ["2.16 GB", "130 GB"],
        "labels in memory, training": ["1.08 GB", "64.8 GB"],
    }.items():
        assert [cell.strip() for cell in cells[name]] == expected
