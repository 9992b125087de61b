"""The IEMOCAP reader on trees built here: the complete corpus by its counts, and broken ones."""

import importlib.util
import io
import json
from collections import Counter
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gmp_plugin.corpora import iemocap
from gmp_plugin.errors import UserError

# Typed out here again, so that a slip in the package's own table shows.
COUNTS = {  # session: neutral, happy, sad, angry
    1: (384, 278, 194, 229),
    2: (362, 327, 197, 137),
    3: (320, 286, 305, 240),
    4: (258, 303, 143, 327),
    5: (384, 442, 245, 170),
}
N_EXCITED = 1041  # of the 1636 happy ones
N_FEMALE, N_MALE = 2649, 2882
N_MARKER_IS_OTHER = 2750  # names whose first letter is not the speaker's
OTHERS = ("fru", "xxx", "sur", "fea", "dis", "oth")


def wav_bytes(n_samples=800):
    stream = io.BytesIO()
    soundfile.write(stream, np.full(n_samples, 0.001), 16_000, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def write_turns(root: Path, session: int, dialog: str, turns, audio=None):
    """Label file of one dialog and, unless `audio` is empty, the recordings of its `(name, label)` turns."""
    folder = root / f"Session{session}"
    lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
    for i, (name, label) in enumerate(turns):
        lines.append(f"[{i}.2901 - {i + 1}.2357]\t{name}\t{label}\t[2.5000, 2.5000, 2.5000]")
        lines += ["C-E2:\tNeutral;\t()", "A-E3:\tval 3; act 2; dom  2;\t(mild [anger], ang)", ""]
    evaluation = folder / "dialog" / "EmoEvaluation" / f"{dialog}.txt"
    evaluation.parent.mkdir(parents=True, exist_ok=True)
    evaluation.write_text("\n".join(lines))
    wavs = folder / "sentences" / "wav" / dialog
    wavs.mkdir(parents=True, exist_ok=True)
    for name, _ in turns:
        if audio != b"":
            (wavs / f"{name}.wav").write_bytes(audio or wav_bytes())
    return evaluation


@pytest.fixture(scope="session")
def complete(tmp_path_factory):
    """A tree with the counts of the complete corpus, other labels and macOS's leftovers mixed in."""
    root = tmp_path_factory.mktemp("iemocap")
    audio = wav_bytes()
    letters = ["F"] * N_FEMALE + ["M"] * N_MALE
    markers_differ = [True] * N_MARKER_IS_OTHER + [False] * (len(letters) - N_MARKER_IS_OTHER)
    rng = np.random.default_rng(0)
    rng.shuffle(letters)
    rng.shuffle(markers_differ)
    speakers, differ = iter(letters), iter(markers_differ)
    happy = ["exc"] * N_EXCITED + ["hap"] * (1636 - N_EXCITED)
    for session, (neutral, n_happy, sad, angry) in COUNTS.items():
        labels = ["neu"] * neutral + happy[:n_happy] + ["sad"] * sad + ["ang"] * angry
        del happy[:n_happy]
        dialogs = {}
        for k, label in enumerate(labels):
            speaker = next(speakers)
            marker = {"F": "M", "M": "F"}[speaker] if next(differ) else speaker
            dialog = f"Ses{session:02}{marker}_" + ("impro01", "script01_1b")[k % 2]
            turns = dialogs.setdefault(dialog, [])
            turns.append((f"{dialog}_{speaker}{len(turns):03}", label))
        for turns, other in zip(dialogs.values(), cycle(OTHERS)):
            turns += [(f"{turns[0][0][:-3]}{900 + i}", other) for i in range(20)]
        for dialog, turns in dialogs.items():
            file = write_turns(root, session, dialog, turns, audio)
            (file.parent / f"._{file.name}").write_bytes(b"\x00\x05\x16\x07\n[0.1 - 0.2]\tx\tneu\t[]")
            votes = file.parent / "Categorical"
            votes.mkdir(exist_ok=True)
            (votes / f"{dialog}_e2_cat.txt").write_text(f"{turns[0][0]} :Anger; ()\n")
    return root


def test_complete_corpus_has_the_published_counts(complete):
    utterances = iemocap.read(complete)
    assert len(utterances) == 5531
    assert Counter(u.emotion for u in utterances) == {"neutral": 1708, "happy": 1636, "angry": 1103, "sad": 1084}
    assert Counter(u.gender for u in utterances) == {"female": N_FEMALE, "male": N_MALE}
    for session, counts in COUNTS.items():
        found = Counter(u.emotion for u in utterances if u.session == f"Session{session}")
        assert tuple(found[name] for name in ("neutral", "happy", "sad", "angry")) == counts
    assert iemocap.count_differences(utterances) == []


def test_complete_corpus_passes_strict_and_gives_five_session_folds(complete, tmp_path):
    tool = Path(__file__).resolve().parents[2] / "manifest_tools" / "make_manifest.py"
    spec = importlib.util.spec_from_file_location("make_manifest", tool)
    make_manifest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_manifest)
    make_manifest.main(["--corpus", "iemocap", "--root", str(complete), "--out", str(tmp_path / "out"), "--strict"])
    folds = json.loads((tmp_path / "out" / "folds.json").read_text())["folds"]
    assert [fold["held_out"] for fold in folds] == [[f"Session{k}"] for k in range(1, 6)]
    assert [sum(fold["counts"]["test"].values()) for fold in folds] == [1085, 1023, 1151, 1031, 1241]
    for fold in folds:
        sizes = {split: sum(fold["counts"][split].values()) for split in ("train", "valid", "test")}
        assert sum(sizes.values()) == 5531
        assert sizes["valid"] == round(0.1 * (5531 - sizes["test"]))


def test_the_speaker_is_the_last_part_of_the_name(complete):
    utterances = iemocap.read(complete)
    for u in utterances:
        name = Path(u.path).stem
        letter = name.split("_")[-1][0]
        assert u.gender == {"F": "female", "M": "male"}[letter]
        assert u.speaker == name[:5] + letter
    assert sum(Path(u.path).stem[5] != u.speaker[-1] for u in utterances) == N_MARKER_IS_OTHER
    assert len({u.speaker for u in utterances}) == 10


def test_paths_are_relative_and_exist(complete):
    for u in iemocap.read(complete)[::500]:
        assert not Path(u.path).is_absolute()
        assert (complete / u.path).is_file()


def test_count_differences_name_what_is_missing(complete):
    utterances = iemocap.read(complete)
    utterances.remove(next(u for u in utterances if u.session == "Session3" and u.emotion == "sad"))
    differences = {what: (expected, found) for what, expected, found in iemocap.count_differences(utterances)}
    assert differences.pop("Session3 sad") == (305, 304)
    assert differences.pop("Session3") == (1151, 1150)
    assert differences.pop("sad") == (1084, 1083)
    assert differences.pop("all") == (5531, 5530)
    assert set(differences) <= {"female", "male"} and len(differences) == 1


def test_count_differences_name_a_session_too_many(complete):
    utterances = iemocap.read(complete)
    extra = utterances[0].__class__("x.wav", 0, "happy", "male", "Ses06M", "Session6")
    assert ("Session6", 0, 1) in iemocap.count_differences([*utterances, extra])


def test_missing_audio_names_label_file_and_line(tmp_path):
    file = write_turns(tmp_path, 1, "Ses01F_impro01", [("Ses01F_impro01_F000", "neu"), ("Ses01F_impro01_M000", "ang")])
    (tmp_path / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav").unlink()
    with pytest.raises(UserError, match=rf"{file.name}, line 7: Ses01F_impro01_M000 is labelled ang, but .*M000.wav"):
        iemocap.read(tmp_path)


def test_audio_of_other_labels_may_be_missing(tmp_path):
    write_turns(tmp_path, 1, "Ses01F_impro01", [("Ses01F_impro01_F000", "neu")])
    write_turns(tmp_path, 1, "Ses01F_impro02", [("Ses01F_impro02_F000", "fru")], audio=b"")
    assert [u.emotion for u in iemocap.read(tmp_path)] == ["neutral"]


def test_flac_is_taken_too(tmp_path):
    write_turns(tmp_path, 1, "Ses01M_impro01", [("Ses01M_impro01_F000", "sad")], audio=b"")
    folder = tmp_path / "Session1/sentences/wav/Ses01M_impro01"
    soundfile.write(folder / "Ses01M_impro01_F000.flac", np.zeros(800), 16_000)
    assert iemocap.read(tmp_path)[0].path.endswith("Ses01M_impro01_F000.flac")


@pytest.mark.parametrize(
    ("name", "label", "message"),
    [
        ("Ses01F_impro01_F000", "happy", "line 3: label 'happy' is not one of neu, hap, exc"),
        ("Ses02F_impro01_F000", "hap", "line 3: expected a name like Ses01F_impro01_M003 in Session1, found 'Ses02F"),
        ("Ses01F_impro01_X000", "hap", "line 3: expected a name like Ses01F_impro01_M003"),
    ],
)
def test_wrong_lines_are_errors(tmp_path, name, label, message):
    write_turns(tmp_path, 1, "Ses01F_impro01", [(name, label)])
    with pytest.raises(UserError, match=message):
        iemocap.read(tmp_path)


def test_a_line_with_spaces_for_tabs_is_not_lost_silently(tmp_path):
    file = write_turns(tmp_path, 1, "Ses01F_impro01", [("Ses01F_impro01_F000", "neu")])
    file.write_text(file.read_text().replace("\tneu\t", " neu "))
    with pytest.raises(UserError, match=r"line 3: expected \[start - end\]<TAB>name"):
        iemocap.read(tmp_path)


def test_a_name_that_stands_twice_is_an_error(tmp_path):
    turn = ("Ses01F_impro01_F000", "neu")
    write_turns(tmp_path, 1, "Ses01F_impro01", [turn, turn])
    with pytest.raises(UserError, match="line 7: Ses01F_impro01_F000 stands in .*line 3 already"):
        iemocap.read(tmp_path)


def test_windows_line_ends_and_odd_remarks(tmp_path):
    file = write_turns(tmp_path, 1, "Ses01F_impro01", [("Ses01F_impro01_F000", "exc")])
    file.write_bytes(file.read_bytes().replace(b"mild", b"caf\xe9").replace(b"\n", b"\r\n"))
    assert [u.emotion for u in iemocap.read(tmp_path)] == ["happy"]


def test_another_layout_says_what_was_expected_and_found(tmp_path):
    (tmp_path / "IEMOCAP_full_release" / "Session1").mkdir(parents=True)
    with pytest.raises(UserError, match="expected the folders Session1 to Session5.*found IEMOCAP_full_release/.*mean"):
        iemocap.read(tmp_path)


def test_a_session_without_label_files_is_an_error(tmp_path):
    write_turns(tmp_path, 1, "Ses01F_impro01", [("Ses01F_impro01_F000", "neu")])
    (tmp_path / "Session2").mkdir()
    with pytest.raises(UserError, match="Session2.*expected the label files"):
        iemocap.read(tmp_path)
