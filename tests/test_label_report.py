"""label_report.py: the numbers against hand-worked ones, the layer table against single layers, and the page."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import tool
from sklearn.metrics import normalized_mutual_info_score

from gmp_plugin.errors import UserError
from gmp_plugin.files import sha256
from gmp_plugin.hubert.checkpoint import load_hubert
from gmp_plugin.hubert.features import LayerFeatures
from gmp_plugin.kmeans import MultiscaleKMeans
from gmp_plugin.label_plots import spectrogram
from gmp_plugin.label_report import LabelSet, _along_first_component
from gmp_plugin.label_statistics import agreement, majority, plane, usage
from gmp_plugin.layer_probe import LayerMeans, probe_layers
from gmp_plugin.manifest import Manifest, Utterance, UtteranceTable


@pytest.fixture
def corpus(labelled_fold, tmp_path):
    """The labelled fold with utterances.tsv above it and a k-means file of its scales: the fold's folder."""
    paths = {p: n for s in ("train", "valid", "test") for p, n in _rows(labelled_fold / f"{s}.tsv")}
    utterances = [Utterance(p, n, "sad", "male", f"s{i % 3}", "1") for i, (p, n) in enumerate(paths.items())]
    UtteranceTable(str(tmp_path / "audio"), tuple(utterances)).write(tmp_path / "utterances.tsv")
    generator = torch.Generator().manual_seed(0)
    centroids = {k: torch.randn(k, 6, generator=generator) for k in (4, 8)}
    counts = {k: torch.ones(k, dtype=torch.int64) for k in (4, 8)}
    km = MultiscaleKMeans(centroids, counts, {4: 1.0, 8: 0.5}, 2, "f" * 64, 100, 1, [{"split": "train"}])
    km.save(tmp_path / "km.safetensors")
    (labelled_fold / "provenance.json").write_text(json.dumps(km.provenance))
    return labelled_fold


def _rows(path):
    manifest = Manifest.read(path)
    return zip(manifest.paths, manifest.n_samples, strict=True)


def report(folder, *options, split="train"):
    """The text of the page."""
    out = folder.parent / "report.html"
    arguments = ["--manifest", folder / f"{split}.tsv", "--labels", folder, "--out", out, "--workers", 1, *options]
    tool("label_report")([str(a) for a in arguments])
    return out.read_text(encoding="utf-8")


def cells(page):
    """Rows of the page's tables, as lists of texts."""
    return [re.findall("<td>(.*?)</td>", row) for row in re.findall("<tr[^>]*>(.*?)</tr>", page)]


def test_usage_by_hand():
    found = usage(np.array([0, 0, 2, 2]), 4)
    assert found.in_use == 2 and found.shares.tolist() == [0.5, 0.5, 0, 0]
    assert found.perplexity == pytest.approx(2)
    assert usage(np.arange(8), 8).perplexity == pytest.approx(8)
    # Shares 1/2, 1/4, 1/4: an entropy of 1.5 bits.
    assert usage(np.array([1, 1, 0, 2]), 3).perplexity == pytest.approx(2**1.5)


def test_agreement_by_hand():
    """Clusters 0 (a a b), 1 (b b), 2 (a): 5 of 6 frames belong to the commonest class of their cluster."""
    labels, classes = np.array([0, 0, 1, 1, 0, 2]), np.array([0, 1, 0])
    found = agreement(labels, classes, np.array([2, 3, 1]))
    assert found.purity == pytest.approx(5 / 6)
    assert found.nmi == pytest.approx(normalized_mutual_info_score([0, 0, 1, 1, 1, 0], labels))


def test_agreement_of_perfect_labels_and_of_none():
    classes, n_frames = np.arange(40) % 2, np.full(40, 10)
    perfect = agreement(np.repeat(classes, n_frames), classes, n_frames)
    assert (perfect.purity, perfect.nmi) == (1, pytest.approx(1))
    assert perfect.chance_nmi < 0.1 and 0.5 <= perfect.chance_purity < 0.7
    nothing = agreement(np.zeros(400, dtype=np.int16), classes, n_frames)
    assert (nothing.purity, nothing.nmi) == (0.5, 0)


def test_chance_knows_that_frames_of_an_utterance_belong_together():
    """A cluster per utterance tells the utterance, and by that seems to tell its class."""
    classes, n_frames = np.arange(40) % 2, np.full(40, 10)
    found = agreement(np.repeat(np.arange(40), n_frames), classes, n_frames)
    assert found.purity == found.chance_purity == 1
    assert found.nmi == pytest.approx(found.chance_nmi) and found.nmi > 0.3


def test_majority_of_each_cluster():
    labels = np.array([3, 3, 3, 0, 0], dtype=np.int16)
    assert majority(labels, np.array([1, 1, 0, 0, 0]), 4).tolist() == [0, -1, -1, 1]


def test_a_single_point_has_a_plane():
    """As of a fold whose test part is one utterance."""
    points, name = plane({1: np.ones((1, 8))})
    assert points[1].tolist() == [[0, 0]] and name == "a single point"


def test_plane_keeps_the_largest_scale_apart():
    centroids = {2: np.array([[0.0, 0, 1], [10, 0, 1]]), 4: np.array([[0.0, 0, 1], [10, 0, 1], [0, 1, 1], [10, 1, 1]])}
    points, _ = plane(centroids)
    assert {k: p.shape for k, p in points.items()} == {2: (2, 2), 4: (4, 2)}
    assert np.allclose(np.abs(points[2][0] - points[2][1]), [10, 0])
    assert np.allclose(points[2], points[4][:2])


def test_track_colours_run_the_same_way_at_every_scale():
    line = np.array([[3.0, 1], [-2, 1], [1, 1], [8, 1]])
    small, large = _along_first_component({2: -line[:2], 4: line}).values()
    assert large.tolist() in ([2 / 3, 0, 1 / 3, 1], [1 / 3, 1, 2 / 3, 0])
    assert (small[1] > small[0]) == (large[3] > large[1])  # 2 lies above -3 as 8 above -2


def test_spectrogram_finds_the_tone():
    wave = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    level = spectrogram(wave)
    assert level.shape == (257, 1 + (16_000 - 400) // 80)
    assert set(level.argmax(axis=0)) == {32}  # 1000 Hz of 8000 Hz in 256 steps


def test_clips_take_turns_of_emotions_at_middling_length(corpus):
    data = LabelSet.read(corpus / "train.tsv", corpus)
    assert sorted(data.classes["emotion"][0][data.choose_clips(4)]) == [0, 1, 2, 3]
    assert len(data.choose_clips(99)) == 8 and data.choose_clips(0) == []


@pytest.mark.parametrize("batch_seconds", [0, 10])
def test_layer_means_are_those_of_single_layers(corpus, stock_checkpoint, batch_seconds):
    manifest, (_, path) = Manifest.read(corpus / "train.tsv"), stock_checkpoint()
    backbone = load_hubert(path).build()
    means = LayerMeans(backbone, [-1, 2], batch_seconds=batch_seconds)
    assert means.layers == [2, 4]
    matrix = means.matrix(manifest)
    for j, layer in enumerate(means.layers):
        expected = [x.mean(0).numpy() for _, x in LayerFeatures(backbone, layer).stream(manifest)]
        np.testing.assert_allclose(matrix[:, j], expected, atol=1e-5)


def test_page_holds_everything(corpus, stock_checkpoint):
    _, checkpoint = stock_checkpoint()
    km = corpus.parent / "km.safetensors"
    page = report(corpus, "--kmeans", km, "--checkpoint", checkpoint, "--layers", "1", "-1", "--clips", "2")
    assert page.count("<img ") == page.count('src="data:image/png;base64,iVBOR') == 3 + 2 + 1
    assert "http" not in page and "<link" not in page and "<script" not in page
    rows = cells(page)
    frames = Manifest.read(corpus / "train.tsv").n_frames()
    assert f"8 utterances, {frames.sum()} frames" in page
    labels = np.concatenate([(3 * np.arange(n) + i) % 4 for i, n in enumerate(frames)])
    shares = np.bincount(labels) / len(labels)
    perplexity = np.exp(-(shares * np.log(shares)).sum())
    assert ["K = 4", "4 of 4", f"{perplexity:.1f}"] in [row[:3] for row in rows]
    speakers = np.repeat(np.arange(8) % 3, frames)
    nmi = normalized_mutual_info_score(speakers, labels)
    assert [["speaker", "3", "4", f"{nmi:.3f}"]] == [
        [*r[:3], r[5]] for r in rows if r[:1] == ["speaker"] and r[2] == "4"
    ]
    scores = probe_layers(Manifest.read(corpus / "train.tsv"), checkpoint, [1, 4])
    assert [[f"{s.layer}", f"{s.uar:.1%}"] for s in scores] == [row[:2] for row in rows if len(row) == 4]
    assert "layer 2 of checkpoint <code>ffffffffffff</code>" in page and "(labels)" not in page
    assert "test.tsv" not in page


def test_the_layer_of_the_labels_is_marked(corpus, stock_checkpoint):
    _, checkpoint = stock_checkpoint()
    path = corpus.parent / "km.safetensors"
    km = MultiscaleKMeans.load(path)
    km.checkpoint_sha256 = sha256(checkpoint)
    km.save(path)
    page = report(corpus, "--kmeans", path, "--checkpoint", checkpoint, "--clips", "0")
    assert [row[0] for row in cells(page) if len(row) == 4] == ["1", "2 (labels)", "3", "4"]


def test_the_test_part_is_neither_read_nor_reported(corpus, stock_checkpoint):
    _, checkpoint = stock_checkpoint()
    shutil.copy(corpus / "train.4.km", corpus / "test.4.km")
    with pytest.raises(UserError, match="test part"):
        report(corpus, split="test")
    (corpus / "test.tsv").unlink()
    assert "Best: layer 1" in report(corpus, "--checkpoint", checkpoint, "--layers", "1", "--clips", "0")
    with pytest.raises(UserError, match="valid part; .* give train.tsv"):
        report(corpus, "--checkpoint", checkpoint, "--force", split="valid")


def test_what_is_not_known_is_said(corpus):
    for name in ("train.gender", "../utterances.tsv"):
        (corpus / name).unlink()
    page = report(corpus, "--clips", "1")
    for text in (
        "gender: not known, because there is no train.gender",
        "speaker: not known, because there is no utterances.tsv",
        "no k-means file was given",
        "no checkpoint was given",
    ):
        assert text in page
    (corpus / "train.emotion").unlink()
    page = report(corpus, "--kmeans", corpus.parent / "km.safetensors", "--force")
    assert "Emotion, gender and speaker are not known" in page and "Colour and area are the cluster" in page


def test_names_are_escaped(corpus):
    text = (corpus / "train.tsv").read_text()
    source = corpus.parent / "audio" / "u3.wav"
    source.rename(source.with_name("<b>&.wav"))
    (corpus / "train.tsv").write_text(text.replace("u3.wav", "<b>&.wav"))
    page = report(corpus, "--clips", "4")
    assert "&lt;b&gt;&amp;.wav" in page and "<b>&" not in page


def test_wrong_input_is_a_user_error(corpus, stock_checkpoint):
    _, checkpoint = stock_checkpoint()
    km = corpus.parent / "km.safetensors"
    with pytest.raises(UserError, match="--layers needs the --checkpoint"):
        report(corpus, "--layers", "1")
    with pytest.raises(UserError, match="expected layer numbers, or all"):
        report(corpus, "--checkpoint", checkpoint, "--layers", "first")
    with pytest.raises(UserError, match="layer 5 is out of range"):
        report(corpus, "--checkpoint", checkpoint, "--layers", "5")
    (corpus / "provenance.json").write_text("[]")
    with pytest.raises(UserError, match="of other centroids than"):
        report(corpus, "--kmeans", km)
    shutil.copy(corpus / "train.tsv", corpus / "valid.tsv")
    with pytest.raises(UserError, match="shares recordings with"):
        report(corpus, "--checkpoint", checkpoint)
    assert not (corpus.parent / "report.html").exists()
    report(corpus, "--clips", "0")
    with pytest.raises(UserError, match="exists already"):
        report(corpus)
