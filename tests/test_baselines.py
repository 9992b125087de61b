"""`benchmarks/baselines.py`: what features are worth without fine-tuning, against scikit-learn's own rates."""

import numpy as np
import pytest
import soundfile
import torch
from conftest import REPO, load_script, tool
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from gmp_plugin.errors import UserError
from gmp_plugin.hubert.checkpoint import load_hubert
from gmp_plugin.manifest import Manifest

baselines = load_script(REPO / "benchmarks" / "baselines.py")
SVM = "SVM, RBF, C = 1"


@pytest.fixture
def data(tmp_path):
    """Two folds of a corpus of noises, two emotions of which one is low-pitched; their folder."""
    lines, rng = ["path,emotion,gender,speaker,session"], np.random.default_rng(0)
    for i in range(24):
        wave = np.convolve(0.1 * rng.standard_normal(3000), np.ones(1 + 2 * (i % 3 == 0)), "same")
        soundfile.write(tmp_path / f"{i}.wav", wave, 16_000)
        lines.append(f"{i}.wav,{('happy', 'sad')[i % 3 == 0]},{('female', 'male')[i % 2]},s{i % 4},{i % 4 // 2}")
    (tmp_path / "corpus.csv").write_text("\n".join(lines) + "\n")
    tool("make_manifest")(["--corpus", "csv", "--root", str(tmp_path / "corpus.csv"), "--out", str(tmp_path / "data")])
    return tmp_path / "data"


def by_hand(fold, checkpoint):
    """UAR and WAR in percent of an SVM on the mean of the last layer."""
    parts = {}
    for split in ("train", "valid", "test"):
        manifest, backbone = Manifest.read(fold / f"{split}.tsv"), load_hubert(checkpoint).build().eval()
        waves = [
            torch.from_numpy(soundfile.read(manifest.audio_path(i), dtype="float32")[0]) for i in range(len(manifest))
        ]
        with torch.no_grad():
            x = [backbone(wave[None])["x"][0].mean(0).numpy() for wave in waves]
        parts[split] = np.stack(x), (fold / f"{split}.emotion").read_text().split()
    x, truth = (np.concatenate([parts[split][i] for split in ("train", "valid")]) for i in (0, 1))
    answers = make_pipeline(StandardScaler(), SVC(class_weight="balanced")).fit(x, truth).predict(parts["test"][0])
    return [100 * rate(parts["test"][1], answers) for rate in (balanced_accuracy_score, accuracy_score)]


def test_rates_are_scikit_learns_over_folds_and_models(data, tmp_path, stock_checkpoint, monkeypatch):
    for fold in ("fold1", "fold2"):
        for seed, settings in ((1, {}), (2, {"encoder_layers": 3})):
            path = tmp_path / fold / f"seed{seed}" / "hubert.pt"
            path.parent.mkdir(parents=True)
            stock_checkpoint(path, **settings)
    # Functionals that know every answer.
    monkeypatch.setattr(
        baselines, "egemaps", lambda corpus: np.array([[int(p[:-4]) % 3 == 0] for p in corpus.paths], float)
    )
    rows = baselines.measure(data, {"after": f"{tmp_path}/{{fold}}/seed*/hubert.pt"})
    assert rows["eGeMAPS"][SVM] == {"uar": 100.0, "uar_std": 0.0, "war": 100.0, "war_std": 0.0, "models": 1}
    assert rows["after, layer 3"][SVM]["models"] == 2 and rows["after, layer 4"][SVM]["models"] == 1
    folds = np.array([by_hand(data / fold, tmp_path / fold / "seed1/hubert.pt") for fold in ("fold1", "fold2")])
    (uar, war), (uar_std, war_std) = folds.mean(0), folds.std(0, ddof=1)
    expected = {"uar": uar, "uar_std": uar_std, "war": war, "war_std": war_std, "models": 1}
    assert rows["after, layer 4"][SVM] == pytest.approx(expected, abs=0.051)


def test_a_missing_checkpoint_is_named_before_anything_is_computed(data, tmp_path):
    with pytest.raises(UserError, match="no file fits .*fold1/none.pt"):
        baselines.measure(data, {"after": f"{tmp_path}/{{fold}}/none.pt"})
