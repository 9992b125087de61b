"""Labels by the command-line tools, against fairseq's simple_kmeans on the same features."""

import json
from pathlib import Path
from types import SimpleNamespace

import fairseq
import joblib
import numpy as np
import pytest
import torch
from conftest import load_script, tool

from gmp_plugin.errors import UserError
from gmp_plugin.hubert.features import LayerFeatures
from gmp_plugin.kmeans import MultiscaleKMeans
from gmp_plugin.label_record import of_other_centroids
from gmp_plugin.labels import choose_utterances, sample_frames
from gmp_plugin.manifest import FrameLabels, Manifest

SIMPLE_KMEANS = Path(fairseq.__file__).parent / "examples" / "hubert" / "simple_kmeans"


@pytest.fixture
def labelled(fold, stock_checkpoint, tmp_path):
    """A fold labelled at scales 4 and 16 on layer -3 of 4."""
    _, checkpoint = stock_checkpoint()
    manifest, km, out = str(fold / "train.tsv"), str(tmp_path / "km.safetensors"), str(tmp_path / "labels")
    common = ["--manifest", manifest, "--checkpoint", str(checkpoint), "--layer", "-3"]
    tool("learn_kmeans")([*common, "--scales", "4", "16", "--kmeans", km])
    tool("dump_km_label")([*common, "--kmeans", km, "--out", out])
    return SimpleNamespace(fold=fold, checkpoint=checkpoint, manifest=manifest, km=km, out=Path(out), common=common)


@pytest.fixture
def features(labelled, tmp_path):
    """The layer's features as dumped, `(frames, D)`, and their frames per utterance."""
    tool("dump_hubert_feature")([*labelled.common, "--out", str(tmp_path / "features")])
    lengths = [int(line) for line in (tmp_path / "features" / "train_0_1.len").read_text().split()]
    return np.load(tmp_path / "features" / "train_0_1.npy"), lengths


def test_features_are_those_of_stock_fairseq(labelled, features, stock_checkpoint):
    stock, _ = stock_checkpoint()
    manifest = Manifest.read(labelled.manifest)
    assert features[1] == manifest.n_frames().tolist()
    import soundfile

    wave = torch.tensor(soundfile.read(manifest.audio_path(0), dtype="float32")[0])
    with torch.inference_mode():
        expected, _ = stock.extract_features(wave[None], mask=False, output_layer=2)
    np.testing.assert_allclose(features[0][: features[1][0]], expected[0].numpy(), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_labels_are_fairseqs_on_the_same_features_and_centroids(labelled, features, tmp_path):
    ApplyKmeans = load_script(SIMPLE_KMEANS / "dump_km_label.py").ApplyKmeans
    km, manifest = MultiscaleKMeans.load(labelled.km), Manifest.read(labelled.manifest)
    for k in (4, 16):
        joblib.dump(SimpleNamespace(cluster_centers_=km.centroids[k].numpy()), tmp_path / "km.bin")
        expected = ApplyKmeans(tmp_path / "km.bin")(features[0])
        ours = FrameLabels.read(labelled.out / f"train.{k}.km", manifest, k)
        assert ours.values.tolist() == expected.tolist()
        assert (labelled.out / f"dict.{k}.km.txt").read_text() == "".join(f"{i} 1\n" for i in range(k))


def test_sample_is_whole_utterances_drawn_over_the_manifest(labelled, features):
    manifest = Manifest.read(labelled.manifest)
    lengths = manifest.n_frames()
    sample = sample_frames(LayerFeatures.load(labelled.checkpoint, -3), manifest, 60, seed=3)
    assert 60 <= len(sample.features) < 60 + max(lengths)
    rows = np.concatenate([np.arange(lengths[:i].sum(), lengths[: i + 1].sum()) for i in sample.indices])
    assert np.array_equal(sample.features.numpy(), features[0][rows])
    draws = {tuple(choose_utterances(manifest, 60, seed)) for seed in range(20)}
    assert set().union(*draws) == set(range(8)) and len(draws) > 5
    assert choose_utterances(manifest, 10**9, seed=0) == list(range(8))


def test_frames_of_the_fit_are_not_computed_twice(labelled, tmp_path, monkeypatch):
    computed = []
    original = LayerFeatures.__call__
    monkeypatch.setattr(LayerFeatures, "__call__", lambda self, waves: computed.extend(waves) or original(self, waves))
    for max_frames in (60, 10_000):
        computed.clear()
        km, out = tmp_path / f"{max_frames}.safetensors", tmp_path / f"labels{max_frames}"
        tool("learn_kmeans")(
            [*labelled.common, "--scales", "4", "16", "--max-frames", str(max_frames), "--kmeans", str(km),
             "--labels-out", str(out)]
        )  # fmt: skip
        assert len(computed) == 8  # utterances of the manifest
        tool("dump_km_label")([*labelled.common, "--kmeans", str(km), "--out", str(tmp_path / f"plain{max_frames}")])
        for name in ("train.4.km", "train.16.km"):
            assert (out / name).read_bytes() == (tmp_path / f"plain{max_frames}" / name).read_bytes()


def test_few_frames_per_cluster_are_warned_of_once(labelled, tmp_path, capsys):
    tool("learn_kmeans")([*labelled.common, "--scales", "4", "100", "--kmeans", str(tmp_path / "many.safetensors")])
    warning = "scale 100 has 1.5 frames per cluster; its labels will hardly generalise: give smaller --scales"
    assert capsys.readouterr().err.count(warning) == 1


def test_layer_out_of_range(labelled):
    with pytest.raises(UserError, match="layer -5 is out of range: the model has 4 transformer layers"):
        tool("learn_kmeans")([*labelled.common[:-1], "-5", "--kmeans", "other.safetensors"])


def test_labels_of_another_layer_or_checkpoint_are_refused(labelled, stock_checkpoint, tmp_path):
    arguments = [*labelled.common[:-1], "-1", "--kmeans", labelled.km, "--out", str(tmp_path / "new")]
    with pytest.raises(UserError, match=r"fitted on layer 2 of checkpoint .* features are of layer 4"):
        tool("dump_km_label")(arguments)
    _, other = stock_checkpoint(tmp_path / "other.pt", normalize=True)
    arguments = ["--manifest", labelled.manifest, "--checkpoint", str(other), "--kmeans", labelled.km]
    with pytest.raises(UserError, match=r"use the same, or fit again with learn_kmeans.py"):
        tool("dump_km_label")([*arguments, "--out", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


def test_hugging_face_features_that_changed_are_refused(labelled, tmp_path):
    """The weights stay the same, and their file's hash with them."""
    folder = tmp_path / "hf"
    tool("convert_hubert")(["--checkpoint", str(labelled.checkpoint), "--to", "hf", "--out", str(folder)])
    common = ["--manifest", labelled.manifest, "--checkpoint", str(folder), "--kmeans", str(tmp_path / "km.hf")]
    tool("learn_kmeans")([*common, "--layer", "-3", "--scales", "4"])
    preprocessor = folder / "preprocessor_config.json"
    preprocessor.write_text(preprocessor.read_text().replace('"do_normalize": false', '"do_normalize": true'))
    with pytest.raises(UserError, match="the centroids were fitted on layer 2 of checkpoint"):
        tool("dump_km_label")([*common, "--out", str(tmp_path / "new")])


def test_labels_from_hugging_face_files(labelled, tmp_path):
    folder = str(tmp_path / "hf")
    tool("convert_hubert")(["--checkpoint", str(labelled.checkpoint), "--to", "hf", "--out", folder])
    common = ["--manifest", labelled.manifest, "--checkpoint", folder]
    km = str(tmp_path / "hf_km.safetensors")
    tool("learn_kmeans")([*common, "--layer", "-3", "--scales", "4", "16", "--kmeans", km])
    tool("dump_km_label")([*common, "--kmeans", km, "--out", str(tmp_path / "hf_labels")])
    for k in (4, 16):
        assert (tmp_path / "hf_labels" / f"train.{k}.km").read_text() == (labelled.out / f"train.{k}.km").read_text()


def test_existing_labels_are_kept_without_force(labelled):
    arguments = [*labelled.common, "--kmeans", labelled.km, "--out", str(labelled.out)]
    path = labelled.out / "train.16.km"
    before = path.read_text()
    tool("dump_km_label")(arguments)  # finished already
    assert path.read_text() == before
    path.write_text("edited\n")
    with pytest.raises(
        UserError, match="train.16.km exists already, of other centroids or changed since; give --force"
    ):
        tool("dump_km_label")(arguments)
    assert path.read_text() == "edited\n"
    tool("dump_km_label")([*arguments, "--force"])
    assert path.read_text() == before


@pytest.fixture
def other_km(labelled, tmp_path):
    """Other centroids for the same recordings: nothing but their values tells the two fits apart."""
    path = str(tmp_path / "other.safetensors")
    tool("learn_kmeans")([*labelled.common, "--scales", "4", "16", "--seed", "2", "--kmeans", path])
    return path


def test_fits_on_the_same_recordings_are_told_apart(labelled, other_km, tmp_path, capsys):
    """Labels of one folder are of the same centroids, and its `provenance.json` is theirs."""
    valid = ["--manifest", str(labelled.fold / "valid.tsv"), "--checkpoint", str(labelled.checkpoint)]
    out = ["--out", str(labelled.out)]
    with pytest.raises(UserError, match="holds labels of other centroids; give another --out, or --force"):
        tool("dump_km_label")([*valid, "--kmeans", other_km, *out])
    with pytest.raises(UserError, match="labels are of other centroids than|labels in .* are of other centroids than"):
        report = ["--manifest", labelled.manifest, "--labels", str(labelled.out), "--kmeans", other_km]
        tool("label_report")([*report, "--out", str(tmp_path / "labels.html")])
    # Replaced for one split alone: whoever reads the folder hears of it.
    tool("dump_km_label")([*valid, "--kmeans", labelled.km, *out])
    check = ["--data", str(labelled.fold), "--labels", str(labelled.out)]
    tool("check_labels")(check)
    tool("dump_km_label")([*labelled.common, "--kmeans", other_km, *out, "--force"])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        tool("check_labels")(check)
    message = "the labels of valid are of other centroids than provenance.json says; label valid.tsv again"
    assert message in capsys.readouterr().err and message in of_other_centroids(labelled.out)[0]
    tool("dump_km_label")([*valid, "--kmeans", other_km, *out, "--force"])
    tool("check_labels")(check)
    # And who has written the manifest anew, in another order.
    record = labelled.out / "valid.labels.json"
    content = json.loads(record.read_text())
    content["provenance"][0]["utterances"].reverse()
    record.write_text(json.dumps(content))
    with pytest.raises(SystemExit):
        tool("check_labels")(check)
    assert "the labels of valid are of other recordings than" in capsys.readouterr().err


def test_labels_that_are_replaced_stay_until_the_new_ones_are_there(labelled, other_km):
    """With the provenance that says what they have seen."""
    before = {path.name: path.read_bytes() for path in labelled.out.iterdir()}
    again = [*labelled.common, "--kmeans", other_km, "--out", str(labelled.out), "--force", "--nshard", "2"]
    again += ["--part-seconds", "1"]
    tool("dump_km_label")([*again, "--rank", "0"])
    assert {path.name: path.read_bytes() for path in labelled.out.iterdir() if path.is_file()} == before
    tool("dump_km_label")([*again, "--rank", "1"])
    seen = json.loads((labelled.out / "provenance.json").read_text())
    assert seen == MultiscaleKMeans.load(other_km).provenance != json.loads(before["provenance.json"])


def test_scales_one_after_another_and_other_scales_in_their_place(labelled, tmp_path):
    names = {path.name: path.read_bytes() for path in labelled.out.iterdir()}
    out = tmp_path / "out"
    arguments = [*labelled.common, "--kmeans", labelled.km, "--out", str(out)]
    for k in ("4", "16", "4"):
        tool("dump_km_label")([*arguments, "--scales", k])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == names
    tool("dump_km_label")(arguments)  # finished already
    # Other scales in their place: nothing is left that looks like a part of them.
    other = str(tmp_path / "eight.safetensors")
    tool("learn_kmeans")([*labelled.common, "--scales", "8", "--kmeans", other])
    tool("dump_km_label")([*labelled.common, "--kmeans", other, "--out", str(out), "--force"])
    assert {path.name for path in out.iterdir()} == {
        "train.8.km",
        "dict.8.km.txt",
        "train.labels.json",
        "provenance.json",
    }


def test_fit_and_labels_at_once_say_first_what_is_in_the_way(labelled, tmp_path):
    fit = [*labelled.common, "--scales", "4", "16", "--labels-out", str(labelled.out)]
    with pytest.raises(UserError, match=r"label with it by dump_km_label.py --kmeans .*, which goes on where"):
        tool("learn_kmeans")([*fit, "--kmeans", labelled.km])
    with pytest.raises(UserError, match="provenance.json exists already: labels of other centroids"):
        tool("learn_kmeans")([*fit, "--kmeans", str(tmp_path / "new.safetensors")])
    assert not (tmp_path / "new.safetensors").exists()


def test_recording_that_changed_since_the_manifest(labelled, write_audio, tmp_path):
    write_audio(tmp_path / "audio" / "u3.wav", 1000)
    arguments = [*labelled.common, "--kmeans", labelled.km, "--out", str(tmp_path / "new")]
    with pytest.raises(UserError, match=r"train.tsv, line 5: .*u3.wav has 1000 samples, the manifest says"):
        tool("dump_km_label")(arguments)
    assert not list((tmp_path / "new").glob("*.km"))


def test_provenance_tells_what_the_labels_have_seen(labelled):
    km = MultiscaleKMeans.load(labelled.km)
    assert (km.layer, km.scales) == (2, [4, 16])
    assert km.provenance[-1]["stage"] == "kmeans"
    assert km.provenance[-1]["utterances"] == list(Manifest.read(labelled.manifest).paths)
    assert json.loads((labelled.out / "provenance.json").read_text()) == km.provenance


def test_provenance_names_what_the_sample_had_and_what_the_labels_are_of(labelled, tmp_path):
    """For the leak audit: of a sample only the utterances that were drawn, and how many frames that is."""
    tool("learn_kmeans")([*labelled.common, "--scales", "4", "--max-frames", "40", "--kmeans", f"{tmp_path}/some"])
    km, manifest = MultiscaleKMeans.load(tmp_path / "some"), Manifest.read(labelled.manifest)
    chosen = choose_utterances(manifest, 40, seed=1)
    entry = km.provenance[-1]
    assert entry["utterances"] == [manifest.paths[i] for i in chosen] and len(chosen) < len(manifest)
    assert entry["n_frames"] == km.n_frames == manifest.n_frames()[chosen].sum()

    record = json.loads((labelled.out / "train.labels.json").read_text())["provenance"]
    assert [(e["stage"], e["split"], e["utterances"]) for e in record] == [("labels", "train", list(manifest.paths))]
