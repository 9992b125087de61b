import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gmp_plugin import frames
from gmp_plugin.data.audio import read_audio
from gmp_plugin.data.speech_dataset import SpeechDataset
from gmp_plugin.errors import UserError
from gmp_plugin.manifest import FrameLabels, Manifest


@pytest.fixture
def manifest(fold):
    return Manifest.read(fold / "train.tsv")


def labelled(manifest, **kwargs):
    """Frame f of every utterance has label f, so that labels tell where a crop lies."""
    rows = [np.arange(n) for n in manifest.n_frames()]
    labels = FrameLabels(np.concatenate(rows), np.cumsum([0, *map(len, rows)]))
    return SpeechDataset(manifest, frame_labels=[labels], **kwargs)


def test_whole_utterances_padded_with_lengths(manifest):
    dataset = labelled(manifest)
    batch = dataset.collater([dataset[i] for i in range(8)])
    assert batch["net_input"]["n_samples"].tolist() == list(manifest.n_samples)
    for i, n in enumerate(manifest.n_samples):
        assert torch.equal(batch["net_input"]["source"][i, :n], read_audio(manifest, i))
        assert not batch["net_input"]["source"][i, n:].any()
        total = frames.n_frames(n)
        labels = batch["frame_labels"][0][i].tolist()
        assert labels == [*range(total), *[-1] * (len(labels) - total)]


def fake_manifest(n):
    return Manifest("/nowhere", ("a",), (n,), "a.tsv")


@given(n=st.integers(400, 60_000), limit=st.integers(400, 30_000), epoch=st.integers(1, 50))
@settings(deadline=None)
def test_crops_of_audio_and_labels_stay_aligned(n, limit, epoch):
    dataset = labelled(fake_manifest(n), max_sample_size=limit, random_crop=True)
    dataset.set_epoch(epoch)
    start, stop = dataset.crop(0)
    assert 0 <= start < stop <= frames.n_frames(n)
    first = start * frames.HOP
    last = n if (start, stop) == (0, frames.n_frames(n)) else first + frames.n_samples(stop - start)
    assert last <= n
    assert frames.n_frames(last - first) == stop - start
    assert last - first < limit + frames.HOP


@pytest.mark.parametrize("shuffle", [False, True])
def test_recordings_that_are_too_short_are_left_out(manifest, shuffle):
    dataset = SpeechDataset(manifest, min_sample_size=manifest.n_samples[3], shuffle=shuffle)
    assert sorted(dataset.ordered_indices()) == [3, 4, 5, 6, 7]
    with pytest.raises(UserError, match="train.tsv: no recording has the 99999 samples of task.min_sample_size"):
        SpeechDataset(manifest, min_sample_size=99_999)


def test_a_crop_has_the_labels_of_its_frames(manifest):
    dataset = labelled(manifest, max_sample_size=4000, random_crop=True)
    wave = read_audio(manifest, 7)
    item = dataset[7]
    start = int(item["frame_labels"][0][0])
    assert len(item["frame_labels"][0]) == frames.n_frames(4000) == frames.n_frames(len(item["source"]))
    assert torch.equal(item["source"], wave[start * 320 : start * 320 + len(item["source"])])


def test_crops_depend_on_seed_epoch_and_utterance_alone(manifest):
    def starts(seed, epoch):
        dataset = labelled(manifest, max_sample_size=2000, random_crop=True, seed=seed)
        dataset.set_epoch(epoch)
        return [dataset.crop(i) for i in range(8)]

    assert starts(1, 1) == starts(1, 1)
    assert starts(1, 1) != starts(1, 2)
    assert starts(1, 1) != starts(2, 1)


@pytest.mark.parametrize("sentences, tokens", [(3, None), (16, None), (None, 20_000), (3, 20_000)])
def test_no_utterance_is_lost_in_batches(manifest, sentences, tokens):
    """fairseq's own batcher drops the remainder with its default multiple of 8."""
    dataset = SpeechDataset(manifest)
    batches = dataset.batch_by_size(
        dataset.ordered_indices(), max_tokens=tokens, max_sentences=sentences, required_batch_size_multiple=8
    )
    assert sorted(i for b in batches for i in b) == list(range(8))


@pytest.mark.parametrize(
    "n_ranks, sentences, expected", [(2, 3, 4), (4, 3, 4), (5, 8, 5), (8, 3, 8), (3, 1, 8), (9, 3, 8)]
)
def test_every_rank_has_as_many_batches(manifest, n_ranks, sentences, expected):
    """As far as there are utterances to part."""
    dataset = SpeechDataset(manifest)
    dataset.n_ranks = n_ranks
    batches = dataset.batch_by_size(dataset.ordered_indices(), max_sentences=sentences)
    assert len(batches) == expected
    assert sorted(i for b in batches for i in b) == list(range(8))


def test_batches_hold_utterances_of_similar_length():
    lengths = np.random.default_rng(0).lognormal(np.log(57_000), 0.6, 500).astype(int) + 9000
    manifest = Manifest("/nowhere", tuple(map(str, range(500))), tuple(lengths.tolist()), "a.tsv")
    dataset = SpeechDataset(manifest)
    batches = dataset.batch_by_size(dataset.ordered_indices(), max_sentences=16)
    padded = sum(lengths[b].max() * len(b) for b in batches)
    assert padded / lengths.sum() < 1.15


def test_audio_in_memory_is_the_audio_on_disk(manifest, write_audio):
    import soundfile

    rng = np.random.default_rng(0)
    soundfile.write(manifest.audio_path(2), 0.1 * rng.standard_normal(manifest.n_samples[2]), 16_000, subtype="FLOAT")
    kept, read = SpeechDataset(manifest, cache_bytes=10**9), SpeechDataset(manifest)
    assert read.cache is None and len(kept.cache) == 8
    assert [wave.dtype for wave in kept.cache[1:3]] == [torch.int16, torch.float32]
    for i in range(8):
        assert torch.equal(kept[i]["source"], read[i]["source"])
        assert torch.equal(kept[i]["source"], read_audio(manifest, i))
    assert SpeechDataset(manifest, cache_bytes=1000).cache is None
    size = sum(wave.nbytes for wave in kept.cache)  # more than two bytes a sample
    assert size > 2 * sum(manifest.n_samples) and SpeechDataset(manifest, cache_bytes=size).cache is not None
    assert SpeechDataset(manifest, cache_bytes=size - 1).cache is None


def test_balanced_sampling_draws_every_class_equally_often(manifest):
    classes = np.array([0, 0, 0, 0, 0, 0, 1, 2])
    dataset = SpeechDataset(manifest, balance=classes)
    drawn = classes[dataset.ordered_indices()]
    assert np.bincount(drawn).tolist() == [3, 3, 3]
    epochs = np.concatenate([dataset.ordered_indices() for _ in range(20)])
    assert set(epochs) == set(range(8))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: path.unlink(), r"train.tsv, line 3: .*u1.wav cannot be read"),
        (lambda path: path.write_bytes(b"RIFF no audio"), r"train.tsv, line 3: .*u1.wav cannot be read"),
    ],
)
def test_unreadable_recordings_are_named(manifest, make, message):
    make(manifest.audio_path(1))
    with pytest.raises(UserError, match=message):
        read_audio(manifest, 1)


def test_other_rate_or_length_is_named(manifest, write_audio):
    write_audio(manifest.audio_path(1), 2909, rate=8000)
    with pytest.raises(UserError, match=r"line 3: .*u1.wav has 8000 Hz and 1 channels; expected 16000 Hz mono"):
        read_audio(manifest, 1)
    write_audio(manifest.audio_path(1), 2000)
    with pytest.raises(UserError, match=r"line 3: .*u1.wav has 2000 samples, the manifest says 2909"):
        read_audio(manifest, 1)
