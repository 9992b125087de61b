"""MFCCs on HuBERT's frame grid, against fairseq's simple_kmeans, and labels made of them."""

from pathlib import Path

import fairseq
import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from conftest import load_script, tool

from gmp_plugin import frames
from gmp_plugin.errors import UserError
from gmp_plugin.kmeans import MultiscaleKMeans
from gmp_plugin.manifest import FrameLabels, Manifest
from gmp_plugin.mfcc import MfccFeatures

SIMPLE_KMEANS = Path(fairseq.__file__).parent / "examples" / "hubert" / "simple_kmeans"


def test_every_second_frame_of_fairseqs_mfccs(fold):
    reader = load_script(SIMPLE_KMEANS / "dump_mfcc_feature.py").MfccFeatureReader(frames.SAMPLE_RATE)
    # Its own reading of files needs what torchaudio no longer has.
    reader.read_audio = lambda path, ref_len=None: soundfile.read(path, dtype="float32")[0]
    manifest = Manifest.read(fold / "train.tsv")
    for i, x in MfccFeatures(workers=2).stream(manifest):
        expected = reader.get_feats(str(manifest.audio_path(i)))[::2]
        assert x.shape == (manifest.n_frames()[i], 39)
        np.testing.assert_array_equal(x.numpy(), expected.numpy())


@pytest.mark.parametrize("n_samples", [400, 559, 560, 719, 720, 721, 16_000, 16_079, 16_080])
def test_as_many_frames_as_hubert_whatever_the_length(n_samples):
    (x,) = MfccFeatures()([torch.randn(n_samples)])
    assert len(x) == frames.n_frames(n_samples)


def test_a_frame_is_of_the_samples_that_hubert_sees():
    wave = torch.randn(5000)
    (x,) = MfccFeatures()([wave])
    for t in range(len(x)):
        window = wave[t * frames.HOP : t * frames.HOP + frames.RECEPTIVE_FIELD]
        alone = torchaudio.compliance.kaldi.mfcc(window[None], sample_frequency=16_000)
        torch.testing.assert_close(x[t, :13], alone[0], atol=1e-3, rtol=1e-4)  # logarithms of sums in other order


def test_labels_are_the_nearest_centroids_to_the_mfccs(fold, tmp_path):
    manifest, km, out = str(fold / "train.tsv"), str(tmp_path / "km.safetensors"), tmp_path / "labels"
    tool("learn_kmeans")(["--features", "mfcc", "--manifest", manifest, "--scales", "6", "--kmeans", km])
    tool("dump_km_label")(["--features", "mfcc", "--manifest", manifest, "--kmeans", km, "--out", str(out)])
    kept, manifest = MultiscaleKMeans.load(km), Manifest.read(manifest)
    labels = FrameLabels.read(out / "train.6.km", manifest, 6)
    assert (kept.layer, kept.checkpoint_sha256, kept.provenance[0]["stage"]) == (0, "mfcc", "kmeans")
    for i, x in MfccFeatures().stream(manifest):
        distances = np.linalg.norm(x.double().numpy()[:, None] - kept.centroids[6].double().numpy(), axis=2)
        assert labels[i].tolist() == distances.argmin(1).tolist()


def test_centroids_of_one_source_do_not_label_the_other(fold, tmp_path, stock_checkpoint):
    _, checkpoint = stock_checkpoint()
    sources = {"mfcc": ["--features", "mfcc"], "hubert": ["--checkpoint", str(checkpoint)]}
    common = ["--manifest", str(fold / "train.tsv")]
    for name, source in sources.items():
        tool("learn_kmeans")([*common, *source, "--scales", "4", "--kmeans", f"{tmp_path}/{name}.safetensors"])
    for name, source, message in (
        ("mfcc", "hubert", "fitted on MFCCs; give --features mfcc in place of --checkpoint"),
        ("hubert", "mfcc", "fitted on layer 2 of a HuBERT, not on MFCCs; give its --checkpoint"),
    ):
        with pytest.raises(UserError, match=message):
            arguments = ["--kmeans", f"{tmp_path}/{name}.safetensors", "--out", f"{tmp_path}/labels"]
            tool("dump_km_label")([*common, *sources[source], *arguments])


@pytest.mark.parametrize("name", ["learn_kmeans", "dump_km_label"])
def test_the_source_of_the_features_is_told_once(name, fold, tmp_path):
    arguments = ["--manifest", str(fold / "train.tsv"), "--kmeans", str(tmp_path / "km.safetensors")]
    arguments += ["--out", str(tmp_path)] if name == "dump_km_label" else []
    with pytest.raises(UserError, match="give --checkpoint HUBERT, or --features mfcc"):
        tool(name)(arguments)
    with pytest.raises(UserError, match="--features mfcc needs no HuBERT; leave out --checkpoint x.pt"):
        tool(name)([*arguments, "--features", "mfcc", "--checkpoint", "x.pt"])
