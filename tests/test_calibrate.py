"""`gmp-ser calibrate`: a temperature beside the checkpoint, from recordings that training has not seen."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from serving import STAGE3, save_stage

from gmp_plugin import provenance
from gmp_plugin.cli import main
from gmp_plugin.evaluation import EmotionClassifier
from gmp_plugin.export import export_folder
from gmp_plugin.manifest import Manifest
from gmp_plugin.recognizer import Recognizer
from gmp_plugin.recognizer_model import read_stage


def calibrate(checkpoint, manifest, *more):
    return main(["calibrate", "--model", str(checkpoint), "--manifest", str(manifest), *more])


def test_the_temperature_is_found_beside_the_checkpoint(tmp_path, fold, capsys):
    checkpoint = save_stage(tmp_path / "checkpoint.pt")
    assert not Recognizer.load(checkpoint).calibrated
    assert calibrate(checkpoint, fold / "train.tsv") == 0
    content = json.loads((tmp_path / "calibration.json").read_text())
    assert f"temperature {content['temperature']:.3f}; on 8 recordings" in capsys.readouterr().out

    manifest = Manifest.read(fold / "train.tsv")
    logits = EmotionClassifier.load(checkpoint).outputs(manifest)["emotion"].astype(float)
    labels = np.array(
        [["angry", "happy", "neutral", "sad"].index(e) for e in (fold / "train.emotion").read_text().split()]
    )
    found = minimize_scalar(
        lambda t: -log_softmax(logits / t, axis=1)[np.arange(8), labels].mean(), bounds=(0.05, 100), method="bounded"
    )
    assert content["nll_after"] == pytest.approx(found.fun, abs=1e-5)
    assert Recognizer.load(checkpoint).temperature == content["temperature"]

    assert calibrate(checkpoint, fold / "train.tsv") == 2 and "exists already" in capsys.readouterr().err
    save_stage(checkpoint, seed=1)  # trained anew: the old temperature is not its own
    assert not Recognizer.load(checkpoint).calibrated


def test_what_training_has_seen_is_refused_and_the_validation_part_is_not(tmp_path, fold, capsys):
    seen = [provenance.entry(STAGE3, split, Manifest.read(fold / f"{split}.tsv")) for split in ("train", "valid")]
    checkpoint = save_stage(tmp_path / "checkpoint.pt", provenance=seen)
    assert calibrate(checkpoint, fold / "train.tsv") == 2
    assert f"8 recordings were in the training part of {STAGE3}, as u0.wav" in capsys.readouterr().err
    assert calibrate(checkpoint, fold / "valid.tsv") == 0


def test_an_exported_model_is_not_calibrated_afterwards(tmp_path, fold, capsys):
    export_folder(read_stage(save_stage(tmp_path / "a.pt")), tmp_path / "folder")
    assert calibrate(tmp_path / "folder", fold / "valid.tsv") == 2
    assert "is exported, with its temperature inside" in capsys.readouterr().err


def test_a_manifest_without_emotions_is_named(tmp_path, fold, capsys):
    checkpoint = save_stage(tmp_path / "checkpoint.pt")
    (fold / "valid.emotion").unlink()
    assert calibrate(checkpoint, fold / "valid.tsv") == 2
    assert "valid.emotion does not exist" in capsys.readouterr().err
