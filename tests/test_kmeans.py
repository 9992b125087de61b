import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import MiniBatchKMeans
from torch.utils._python_dispatch import TorchDispatchMode

from gmp_plugin import kmeans
from gmp_plugin.errors import UserError
from gmp_plugin.kmeans import MultiscaleKMeans
from gmp_plugin.kmeans_fit import with_steps


@pytest.fixture(scope="module")
def x():
    """3000 frames in 12 dimensions around 40 centres of unequal weight."""
    rng = np.random.default_rng(0)
    centres = 3 * rng.standard_normal((40, 12))
    owners = rng.choice(40, 3000, p=rng.dirichlet(np.ones(40)))
    return torch.tensor(centres[owners] + rng.standard_normal((3000, 12)), dtype=torch.float32)


def make(x, scales=(4, 16), **kwargs):
    centroids, counts, inertia = kmeans.fit(x, scales, seed=1, **kwargs)
    return MultiscaleKMeans(centroids, counts, inertia, 2, "abc", len(x), 1, [{"stage": "kmeans"}])


def test_nearest_is_the_least_distance_in_float64(x):
    centroids = x[:50]
    labels, distances = kmeans.nearest(x, centroids)
    exact = torch.cdist(x.double(), centroids.double(), compute_mode="donot_use_mm_for_euclid_dist").pow(2)
    assert torch.equal(labels, exact.argmin(1))
    # |x|^2 - 2xc + |c|^2 loses digits where it nearly cancels.
    np.testing.assert_allclose(distances, exact.min(1).values, atol=1e-3)


def test_counts_and_inertia_are_those_of_the_centroids(x):
    km = make(x)
    for k in km.scales:
        exact = torch.cdist(x.double(), km.centroids[k].double()).pow(2).min(1)
        assert km.counts[k].tolist() == torch.bincount(exact.indices, minlength=k).tolist()
        assert km.inertia[k] == pytest.approx(exact.values.mean().item(), rel=1e-4)
        assert km.counts[k].min() > 0


def test_inertia_is_no_worse_than_scikit_learns_with_the_incumbents_settings(x):
    for k in (4, 16, 128):
        ours = make(x, scales=(4, 16, 128)).inertia[k]
        sk = MiniBatchKMeans(k, batch_size=10_000, n_init=20, tol=0.0, random_state=0, reassignment_ratio=0.0).fit(x)
        assert ours <= 1.01 * -sk.score(x) / len(x)


def test_same_seed_same_centroids(x):
    first, second = make(x), make(x)
    assert all(torch.equal(first.centroids[k], second.centroids[k]) for k in first.scales)


class SumsThatFollowThreads(TorchDispatchMode):
    """Which of them were computed, and whether torch was asked for one order: GPUs have none by themselves."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if any(part in name for part in ("index_add", "cumsum", "scatter", "index_put")):
            self.seen.add((name, torch.are_deterministic_algorithms_enabled()))
        return func(*args, **(kwargs or {}))


def test_same_seed_same_centroids_on_a_gpu(x):
    with SumsThatFollowThreads() as sums:
        make(x, scales=(4, 256))
    assert {name for name, _ in sums.seen} >= {"aten::index_add_", "aten::cumsum"}
    assert all(ordered for _, ordered in sums.seen)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("backend", ["sklearn", "faiss"])
def test_reference_backends(x, backend):
    km, ours = make(x, backend=backend), make(x)
    assert km.scales == [4, 16]
    assert all(0.98 * ours.inertia[k] <= km.inertia[k] < 2 * ours.inertia[k] for k in km.scales)


def test_scales_above_the_restarts_are_as_good_as_faiss(x):
    """1000 clusters: fitted among near centroids only."""
    assert make(x, scales=(16, 1000)).inertia[1000] <= 1.01 * make(x, scales=(1000,), backend="faiss").inertia[1000]


@pytest.mark.parametrize("scales", [(4, 1000), (1000,)])
def test_scales_far_apart_and_a_fine_scale_alone_are_as_good_as_faiss(x, scales):
    """Searched near the centroids of 4 clusters only, 1000 would have 18 % more inertia."""
    ours, faiss = make(x, scales=scales), make(x, scales=(1000,), backend="faiss")
    assert ours.scales == list(scales)
    assert ours.inertia[1000] <= 1.01 * faiss.inertia[1000]


@given(st.sets(st.integers(2, 10**5), min_size=1, max_size=5).map(sorted))
def test_steps_between_scales(scales):
    path = with_steps(scales)
    assert set(scales) <= set(path) and path[0] <= 256
    assert all(a < b and round(b / a) <= 8 for a, b in zip(path, path[1:], strict=False))


def test_fused_labels_are_those_of_float64_whatever_the_call(x):
    """One product for all scales; a clip's labels do not change with what else is labelled."""
    km = make(x)
    fused = km.assign(x[:300])
    for k in km.scales:
        distances = torch.cdist(x[:300].double(), km.centroids[k].double()).pow(2)
        assert torch.equal(fused[k], distances.argmin(1))
        assert torch.equal(km.assign(x[:7])[k], fused[k][:7])


def test_more_clusters_than_distinct_frames():
    x = torch.randn(6, 3).repeat(10, 1)
    centroids, counts, inertia = kmeans.fit(x, (3, 20), seed=0)
    assert centroids[20].shape == (20, 3)
    assert torch.isfinite(centroids[20]).all()
    assert inertia[20] == pytest.approx(0, abs=1e-5)


def test_file_round_trip_and_scales(x, tmp_path):
    km = make(x)
    km.save(tmp_path / "km.safetensors")
    loaded = MultiscaleKMeans.load(tmp_path / "km.safetensors")
    for name in ("counts", "centroids"):
        assert all(torch.equal(getattr(loaded, name)[k], getattr(km, name)[k]) for k in km.scales)
    for name in ("inertia", "layer", "checkpoint_sha256", "n_frames", "seed", "provenance"):
        assert getattr(loaded, name) == getattr(km, name)
    assert loaded.select([16]).scales == [16]
    with pytest.raises(UserError, match=r"scales \[5\] are not in the k-means file, which holds \[4, 16\]"):
        loaded.select([5])


def test_foreign_file(tmp_path):
    (tmp_path / "km.safetensors").write_bytes(b"no safetensors")
    with pytest.raises(UserError, match="km.safetensors is no k-means file of learn_kmeans.py"):
        MultiscaleKMeans.load(tmp_path / "km.safetensors")


def test_impossible_scales():
    with pytest.raises(UserError, match="scale 64 needs at least 64 frames, there are 20"):
        kmeans.check_scales([4, 64], 20)
    with pytest.raises(UserError, match=r"scales \[1, 4\]: expected cluster counts of at least 2"):
        kmeans.check_scales([4, 1], 20)
