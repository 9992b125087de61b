"""Which recordings a model has seen: what evaluation and calibration go by."""

import pytest

from gmp_plugin import provenance
from gmp_plugin.manifest import Manifest


def manifest(root, *paths):
    return Manifest(str(root), paths, (8000,) * len(paths), file="part.tsv")


def entry(root, *paths, stage="stage3", split="train"):
    made = provenance.entry(stage, split, manifest(root, *paths))
    return {**made, "root": root and str(root)}


@pytest.fixture
def corpus(tmp_path):
    for name in ("corpus/a.wav", "corpus/b.wav", "other/a.wav", "data/audio_cache/a.wav.flac"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "corpus"


@pytest.mark.parametrize("split", ["train", "train_10pct", "all", "test", "valid"])
def test_whatever_a_stage_read_was_seen(corpus, split):
    """Also a test part that chose the best epoch; but not one that was tested on."""
    log = [entry(corpus, "a.wav", split=split), entry(corpus, "b.wav", stage="evaluation", split="test")]
    assert provenance.seen(log, manifest(corpus, "a.wav", "b.wav")) == {"stage3": ["a.wav"]}
    trained = provenance.seen(log, manifest(corpus, "a.wav", "b.wav"), validation=False)
    assert trained == ({} if split == "valid" else {"stage3": ["a.wav"]})


def test_a_file_is_the_same_however_its_path_is_written(corpus, tmp_path):
    (tmp_path / "link").symlink_to(corpus)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/x.wav").symlink_to(corpus / "a.wav")
    log = [entry(corpus, "a.wav")]
    for root, path in ((corpus, "a.wav"), (tmp_path, "corpus/a.wav"), (tmp_path / "link", "a.wav"),
                       (tmp_path / "linked", "x.wav"), (tmp_path / "other", str(corpus / "a.wav"))):  # fmt: skip
        assert provenance.seen(log, manifest(root, path)) == {"stage3": [path]}
    assert provenance.seen(log, manifest(tmp_path / "other", "a.wav")) == {}  # of another corpus


def test_a_resampled_copy_is_its_recording(corpus, tmp_path):
    cache = tmp_path / "data/audio_cache"
    outside = f"elsewhere{corpus}/b.wav.flac"  # of a table with absolute paths
    for log in (
        [entry(cache, "a.wav.flac", outside)],
        [entry(tmp_path, f"data/audio_cache/{outside}", "corpus/a.wav")],
    ):
        assert provenance.seen(log, manifest(corpus, "a.wav"))
        assert provenance.seen(log, manifest(tmp_path / "other", str(corpus / "b.wav")))
        assert not provenance.seen(log, manifest(corpus, "c.wav"))
    assert provenance.seen([entry(corpus, "a.wav")], manifest(cache, "a.wav.flac")) == {"stage3": ["a.wav.flac"]}


@pytest.mark.parametrize("root", [None, "corpus", "/of/another/machine"])
def test_where_files_cannot_be_compared_names_are(corpus, root):
    """Whatever their suffix, and however much of their folders is named: of what is published, and of what moved."""
    log = [entry(root, "wav/a.flac")]
    for path in ("wav/a.wav", "a.wav", "corpus/wav/a.wav", f"{corpus}/wav/a.flac"):
        assert provenance.seen(log, manifest(corpus, path, "wav/b.wav")) == {"stage3": [path]}
    for path in ("wav/aa.wav", "av/a.wav", "wav/a/b.wav", "xwav/a.wav"):
        assert provenance.seen(log, manifest(corpus, path)) == {}
