"""Manifests of recordings without labels."""

import pytest
import soundfile
from conftest import tool
from hypothesis import given
from hypothesis import strategies as st

from gmp_plugin.corpora.speech import divide_by_speaker, speaker
from gmp_plugin.errors import UserError
from gmp_plugin.manifest import Manifest


@pytest.fixture
def librispeech(tmp_path, write_audio):
    """Six recordings of three speakers, in both layouts that LibriSpeech is found in, one at 8 kHz; its folder."""
    root = tmp_path / "LibriSpeech"
    for i, name in enumerate(["a/84-121123-0000", "a/84-121123-0001", "b/174/174-50561-0000", "b/174/174-50561-0001"]):
        write_audio(root / f"{name}.flac", 4000 + i)
    write_audio(root / "b" / "251" / "136532" / "251-136532-0000.wav", 2500, rate=8000)
    write_audio(root / "b" / "251" / "118436" / "251-118436-0000.wav", 5000)
    write_audio(root / ".cache" / "hidden.wav", 5000)
    (root / "speakers.tsv").write_text("path\tspeaker\n")
    return root


def test_all_recordings_divided_by_speaker(librispeech, tmp_path, capsys):
    tool("make_speech_manifest")(["--root", str(librispeech), "--out", str(tmp_path / "data")])
    parts = [Manifest.read(tmp_path / "data" / f"{split}.tsv") for split in ("train", "valid")]
    assert [len(part) for part in parts] == [4, 2]
    names = [{speaker(path.replace(".wav.flac", ".wav")) for path in part.paths} for part in parts]
    assert names[0] | names[1] == {"84", "174", "251"} and not names[0] & names[1]
    for part in parts:
        for i, n in enumerate(part.n_samples):
            info = soundfile.info(part.audio_path(i))
            assert (info.frames, info.samplerate, info.channels) == (n, 16_000, 1)
    assert "train: 4 recordings of 2 speakers" in capsys.readouterr().out
    with pytest.raises(UserError, match="train.tsv exists already; give --force"):
        tool("make_speech_manifest")(["--root", str(librispeech), "--out", str(tmp_path / "data")])


def test_copies_that_an_earlier_call_made_are_no_recordings(librispeech):
    """Else a recording would be there twice, as two speakers', and its validation part in training."""
    args = ["--root", str(librispeech), "--out", str(librispeech / "data"), "--force"]
    found = []
    for _ in range(2):
        tool("make_speech_manifest")(args)
        found.append([(librispeech / "data" / f"{split}.tsv").read_text() for split in ("train", "valid")])
    assert found[0] == found[1] and (librispeech / "data" / "audio_cache").is_dir()


def test_speakers_by_name_or_folder():
    assert speaker("train-clean-100/103-1240-0000.flac") == "103"
    assert speaker("id10270/5r0dWxy17C8/00001.wav") == "id10270/5r0dWxy17C8"


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(400, 300_000)), min_size=2), st.floats(0.01, 0.5))
def test_no_speaker_in_both_parts_and_none_lost(recordings, fraction):
    paths = [f"{name}/{i}.wav" for i, (name, _) in enumerate(recordings)]
    lengths = [n for _, n in recordings]
    if len({name for name, _ in recordings}) < 2:
        with pytest.raises(UserError, match="are of one speaker"):
            divide_by_speaker(paths, lengths, fraction, 1)
        return
    train, valid = divide_by_speaker(paths, lengths, fraction, 1)
    assert sorted(train + valid) == list(range(len(paths))) and train and valid
    assert not {recordings[i][0] for i in train} & {recordings[i][0] for i in valid}
    # Enough, and not a speaker more than that, unless the last but one speaker was needed.
    held = sorted({recordings[i][0] for i in valid})
    shares = [sum(lengths[i] for i in valid if recordings[i][0] == name) / sum(lengths) for name in held]
    assert sum(shares) >= fraction or len({name for name, _ in recordings}) == len(held) + 1
    assert sum(shares) - max(shares) < fraction


def test_bad_input(tmp_path, librispeech, write_audio):
    main = tool("make_speech_manifest")
    out = ["--out", str(tmp_path / "data")]
    with pytest.raises(UserError, match="--root .*none is no folder"):
        main(["--root", str(tmp_path / "none"), *out])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no recording \(.wav or .flac\) in it or below; found nothing"):
        main(["--root", str(tmp_path / "empty"), *out])
    with pytest.raises(UserError, match="--valid-fraction 0.6: expected more than 0 and at most 0.5"):
        main(["--root", str(librispeech), *out, "--valid-fraction", "0.6"])
    with pytest.raises(UserError, match=r"all 2 recordings are of one speaker \(84\)"):
        main(["--root", str(librispeech / "a"), *out])
    write_audio(librispeech / "b" / "short.wav", 300)
    with pytest.raises(UserError, match=r"short.wav has 300 samples at 16000 Hz, fewer than one frame"):
        main(["--root", str(librispeech), *out])
    main(["--root", str(librispeech), *out, "--skip-bad"])
    assert sum(len(Manifest.read(tmp_path / "data" / f"{s}.tsv")) for s in ("train", "valid")) == 6
