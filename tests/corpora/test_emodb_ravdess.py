"""EMO-DB and RAVDESS: from file names, on trees built here and on the real corpora where they are."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gmp_plugin.corpora import emodb, ravdess
from gmp_plugin.corpora.folds import make_folds
from gmp_plugin.errors import UserError

REAL = Path(__file__).resolve().parents[3] / "shared" / "corpora"
EMODB_PAIRS = [("03", "08"), ("10", "09"), ("11", "13"), ("12", "14"), ("15", "16")]
RAVDESS_GROUPS = [
    ["01", "02", "11", "12", "21", "22"],
    ["03", "04", "13", "14", "23", "24"],
    ["05", "06", "15", "16"],
    ["07", "08", "17", "18"],
    ["09", "10", "19", "20"],
]


def write_audio(folder, names, suffix=".wav"):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        soundfile.write(folder / f"{name}{suffix}", np.zeros(800), 16_000)


def emodb_names():
    return [f"{s}a01{letter}a" for pair in EMODB_PAIRS for s in pair for letter in "WFNTLEA"]


def ravdess_names(actor):
    """All 60 spoken recordings of an actor: neutral has one intensity, the others two."""
    return [
        f"03-01-{e:02}-{i:02}-{s:02}-{r:02}-{actor:02}"
        for e in range(1, 9)
        for i in ((1,) if e == 1 else (1, 2))
        for s in (1, 2)
        for r in (1, 2)
    ]


@pytest.mark.parametrize(("folder", "suffix"), [(".", ".wav"), ("wav", ".wav"), ("wav", ".flac"), ("wav", ".WAV")])
def test_emodb_names(tmp_path, folder, suffix):
    write_audio(tmp_path / folder, emodb_names(), suffix)
    (tmp_path / folder / "._03a01Wa.wav").write_bytes(b"\x00\x05\x16\x07")
    utterances = emodb.read(tmp_path)
    assert len(utterances) == 10 * 4  # boredom, disgust and anxiety are left out
    by_name = {Path(u.path).stem: u for u in utterances}
    assert by_name["03a01Wa"].emotion == "angry" and by_name["03a01Wa"].gender == "male"
    assert by_name["08a01Fa"].emotion == "happy" and by_name["08a01Fa"].gender == "female"
    assert by_name["11a01Na"].emotion == "neutral" and by_name["11a01Na"].speaker == "11"
    assert by_name["16a01Ta"].emotion == "sad" and by_name["16a01Ta"].session == "5"
    assert all((tmp_path / u.path).is_file() for u in utterances)
    assert {u.speaker for u in utterances if u.gender == "male"} == {"03", "10", "11", "12", "15"}
    for number, pair in enumerate(EMODB_PAIRS, start=1):
        assert {u.speaker for u in utterances if u.session == str(number)} == set(pair)


@pytest.mark.parametrize("name", ["noise", "03a01Xa", "04a01Wa", "03a01W"])
def test_emodb_unknown_name_is_an_error(tmp_path, name):
    write_audio(tmp_path, [*emodb_names(), name])
    with pytest.raises(UserError, match=rf"{name}.wav: expected a name like 03a01Wa"):
        emodb.read(tmp_path)


def test_emodb_same_recording_twice_is_an_error(tmp_path):
    write_audio(tmp_path, ["03a01Wa"])
    write_audio(tmp_path / "wav", ["03a01Wa"], ".flac")
    with pytest.raises(UserError, match="the same recording twice"):
        emodb.read(tmp_path)


def test_emodb_other_layout(tmp_path):
    (tmp_path / "silb").mkdir()
    (tmp_path / "erkennung.txt").write_text("x")
    with pytest.raises(UserError, match="expected recordings like 03a01Wa.wav .*found erkennung.txt, silb/"):
        emodb.read(tmp_path)


def test_ravdess_names(tmp_path):
    for actor in range(1, 25):
        write_audio(tmp_path / f"Actor_{actor:02}", ravdess_names(actor))
    song_and_video = ["03-02-03-01-01-01-01", "01-01-03-01-01-01-01", "02-01-03-01-01-01-01"]
    write_audio(tmp_path / "Actor_01", song_and_video)
    utterances = ravdess.read(tmp_path)
    assert len(utterances) == 672
    assert Counter(u.emotion for u in utterances) == {"neutral": 96, "happy": 192, "sad": 192, "angry": 192}
    for number, actors in enumerate(RAVDESS_GROUPS, start=1):
        assert sorted({u.speaker for u in utterances if u.session == str(number)}) == actors
    emotions = {"01": "neutral", "03": "happy", "04": "sad", "05": "angry"}
    for u in utterances:
        fields = Path(u.path).stem.split("-")
        assert u.emotion == emotions[fields[2]]
        assert u.speaker == fields[6]
    assert sorted({u.speaker for u in utterances if u.gender == "male"}) == [f"{k:02}" for k in range(1, 25, 2)]


@pytest.mark.parametrize("name", ["03-01-05-01-01-01-02", "03-01-09-01-01-01-01", "03-01-05-01-01-01"])
def test_ravdess_wrong_name_is_an_error(tmp_path, name):
    write_audio(tmp_path / "Actor_01", [name])
    with pytest.raises(UserError, match=rf"{name}.wav: expected a name like 03-01-05-01-01-01-01"):
        ravdess.read(tmp_path)


def test_ravdess_other_layout_with_a_hint(tmp_path):
    (tmp_path / "Audio_Speech" / "Actor_01").mkdir(parents=True)
    with pytest.raises(UserError, match="no RAVDESS speech; expected Actor_01/.*did you mean --root .*Audio_Speech"):
        ravdess.read(tmp_path)


@pytest.mark.skipif(not (REAL / "emodb").is_dir(), reason="the real EMO-DB is not here")
def test_real_emodb():
    utterances = emodb.read(REAL / "emodb")
    assert Counter(u.emotion for u in utterances) == {"angry": 127, "happy": 71, "neutral": 79, "sad": 62}
    assert [len(fold.test) for fold in make_folds(utterances)] == [81, 51, 71, 63, 73]


@pytest.mark.skipif(not (REAL / "ravdess").is_dir(), reason="the real RAVDESS is not here")
def test_real_ravdess():
    utterances = ravdess.read(REAL / "ravdess")
    assert Counter(u.emotion for u in utterances) == {"neutral": 96, "happy": 192, "sad": 192, "angry": 192}
    assert [len(fold.test) for fold in make_folds(utterances)] == [168, 168, 112, 112, 112]
