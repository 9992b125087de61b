"""fairseq's simple_kmeans, by its own functions: what a user of stock fairseq runs."""

import contextlib
import importlib.util
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import fairseq
import joblib
import numpy as np
import soundfile
import torch

FOLDER = Path(fairseq.__file__).parent / "examples" / "hubert" / "simple_kmeans"
# The defaults of learn_kmeans.py.
SETTINGS = {
    "init": "k-means++", "max_iter": 100, "batch_size": 10_000, "tol": 0.0, "max_no_improvement": 100,
    "reassignment_ratio": 0.0,
}  # fmt: skip


def load(name: str):
    """One of its scripts as a module."""
    spec = importlib.util.spec_from_file_location(f"simple_kmeans_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with mock.patch.object(sys, "path", [str(FOLDER), *sys.path]):  # they import their neighbours
        spec.loader.exec_module(module)
    return module


def fit(x: np.ndarray, k: int, seed: int, n_init: int):
    """Fit one K on frames `(N, D)`: the model, its seconds, and those spent on initialisations."""
    np.random.seed(seed)
    model = load("learn_kmeans").get_km_model(k, n_init=n_init, **SETTINGS)
    model.verbose = 0
    initialise, init_s = model._init_centroids, 0.0

    def timed(*args, **kwargs):
        nonlocal init_s
        started = time.perf_counter()
        centroids = initialise(*args, **kwargs)
        init_s += time.perf_counter() - started
        return centroids

    model._init_centroids = timed
    started = time.perf_counter()
    model.fit(x)
    return model, time.perf_counter() - started, init_s


class Dump:
    """Features of stock fairseq's HubertModel to a file, then one labelling pass per K.

    Its class `HubertFeatureReader` as it is, but for two things: audio is read by soundfile (fairseq's own reader
    wants `torchaudio.sox_effects`, which torchaudio no longer has), and `.cuda()` does nothing where the CPU is meant.

    Args:
        checkpoint: file that stock fairseq loads.
        layer: 1-based.
    """

    def __init__(self, checkpoint, layer: int, device: str):
        script = load("dump_hubert_feature")
        self.dump_feature, self.paths = script.dump_feature, script.get_path_iterator
        self.dump_label = load("dump_km_label").dump_label
        self.device = device
        with self._device(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.reader = script.HubertFeatureReader(str(checkpoint), layer)
        self.reader.read_audio = lambda path, ref_len=None: soundfile.read(path, dtype="float32")[0]

    def __call__(self, tsv: Path, centroids: dict, out: Path) -> None:
        """Write `OUT/SPLIT_0_1.npy`, and `OUT/K/SPLIT_0_1.km` for centroids `(K, D)` of each K."""
        with self._device():
            self.dump_feature(self.reader, *self.paths(tsv, 1, 0), tsv.stem, 1, 0, out)
            for k, c in centroids.items():
                joblib.dump(SimpleNamespace(cluster_centers_=c.cpu().numpy()), out / f"{k}.bin")
                self.dump_label(out, tsv.stem, out / f"{k}.bin", 1, 0, out / str(k))

    @contextlib.contextmanager
    def _device(self):
        if self.device != "cpu":
            yield
            return
        with (
            mock.patch.object(torch.nn.Module, "cuda", lambda module: module),
            mock.patch.object(torch.Tensor, "cuda", lambda tensor: tensor),
        ):
            yield


def labels(out: Path, split: str, k: int) -> np.ndarray:
    """Labels `(frames,)` that `Dump` wrote."""
    return np.array((out / str(k) / f"{split}_0_1.km").read_text().split(), dtype=np.int64)


def apply_kmeans(centroids: torch.Tensor, folder: Path):
    """Its function: features `(T, D)` of numpy -> labels `(T,)`."""
    joblib.dump(SimpleNamespace(cluster_centers_=centroids.numpy()), folder / "km.bin")
    return load("dump_km_label").ApplyKmeans(folder / "km.bin")
