"""`gmp-ser calibrate`: a temperature beside the checkpoint, from recordings that training has not seen."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from serving import STAGE3, save_stage

from gmp_plugin import provenance
from gmp_plugin.calibration import expected_calibration_error
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


def test_classes_that_the_model_has_not_are_named(tmp_path, fold, capsys):
    emotions = (fold / "valid.emotion").read_text().split()
    (fold / "valid.emotion").write_text("\n".join(["bored", *emotions[1:]]) + "\n")
    assert calibrate(save_stage(tmp_path / "checkpoint.pt"), fold / "valid.tsv") == 0
    assert "recordings of bored (1) are left out, which are no classes of the model" in capsys.readouterr().err


def save_results(folder, names, n=40):
    """Two folds' results on recordings of their own, sure of themselves and often wrong; logits and class numbers."""
    rng, paths, kept = np.random.default_rng(3), [], []
    for fold in (1, 2):
        truth = rng.integers(len(names), size=n)
        logits = np.round(15 * (np.eye(len(names))[truth] + rng.standard_normal((n, len(names)))), 4)
        utterances = [{"truth": names[t], "logits": z} for t, z in zip(truth, logits.tolist(), strict=True)]
        content = {"fold": str(fold), "uar": 60.0, "war": 60.0, "macro_f1": 60.0, "n_utterances": n,
                   "classes": names, "utterances": utterances, "checkpoint_sha256": str(fold)}  # fmt: skip
        paths.append(folder / f"fold{fold}.json")
        paths[-1].write_text(json.dumps(content))
        kept.append((logits, truth))
    logits, labels = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return paths, logits, labels


def test_a_model_of_all_recordings_has_the_temperature_of_the_folds(tmp_path, capsys):
    """Classes in another order than the model's, too; the card says whose figures it gives, and their calibration."""
    names = ["sad", "neutral", "happy", "angry"]
    checkpoint = save_stage(tmp_path / "all.pt")
    paths, logits, labels = save_results(tmp_path, names)
    args = ["calibrate", "--model", str(checkpoint), "--results", *map(str, paths)]
    assert main(args) == 0
    found = minimize_scalar(
        lambda t: -log_softmax(logits / t, axis=1)[np.arange(80), labels].mean(), bounds=(0.05, 100), method="bounded"
    )
    assert Recognizer.load(checkpoint).temperature == pytest.approx(found.x, rel=1e-3) and found.x > 3
    content = json.loads((tmp_path / "calibration.json").read_text())
    assert (content["n_utterances"], content["manifest"]) == (80, "test parts of 2 models")

    export = ["export", "--model", str(checkpoint), "--to", "hf", "--out", str(tmp_path / "folder"), "--results"]
    assert main([*export, *map(str, paths)]) == 0
    card = (tmp_path / "folder" / "README.md").read_text()
    assert "By cross-validation" in card and "This model is none of those" in card
    assert f"with the temperature of {found.x:.2f} that is used here, {100 * content['ece_after']:.1f} %" in card
    # The error that is not too good: each fold with the other's temperature, by scipy.
    p = np.empty((80, 4))
    for own, other in ((slice(40), slice(40, 80)), (slice(40, 80), slice(40))):
        z, y = logits[other], labels[other]
        t = minimize_scalar(lambda t: -log_softmax(z / t, axis=1)[np.arange(40), y].mean(), bounds=(0.05, 100))  # noqa: B023
        p[own] = softmax(logits[own] / t.x, axis=1)
    error = 100 * expected_calibration_error(p, labels)
    assert f"is {error:.1f} % where each fold has the temperature that suits the others, " in card

    other = json.loads(paths[0].read_text()) | {"classes": ["sad", "joy", "happy", "angry"]}
    seen = json.loads(paths[0].read_text()) | {"seen": {"stage": 3}}
    for content, message in (
        (other, "has the classes sad, joy, happy, angry; the model has angry, happy, neutral, sad"),
        (seen, "is of recordings that its model has seen"),
        ({**other, "fold": None}, "is not the result of a fold; expected those of evaluate.py --fold"),
        ({**other, "checkpoint_sha256": None}, "is not the result of a fold"),
        ({"uar": 1}, "no finished result"),
    ):
        paths[0].write_text(json.dumps(content))
        assert main([*args, "--force"]) == 2 and message in capsys.readouterr().err


def test_an_exported_model_is_not_calibrated_afterwards(tmp_path, fold, capsys):
    export_folder(read_stage(save_stage(tmp_path / "a.pt")), tmp_path / "folder")
    assert calibrate(tmp_path / "folder", fold / "valid.tsv") == 2
    assert "is exported, with its temperature inside" in capsys.readouterr().err


def test_a_manifest_without_emotions_is_named(tmp_path, fold, capsys):
    checkpoint = save_stage(tmp_path / "checkpoint.pt")
    (fold / "valid.emotion").unlink()
    assert calibrate(checkpoint, fold / "valid.tsv") == 2
    assert "valid.emotion does not exist" in capsys.readouterr().err
