import pytest

from gmp_plugin import manifest as m
from gmp_plugin.errors import UserError


@pytest.fixture
def train(fold):
    return m.Manifest.read(fold / "train.tsv")


def edit(path, line, text):
    lines = path.read_text().split("\n")
    lines[line - 1] = text
    path.write_text("\n".join(lines))


def test_table_round_trip(tmp_path):
    table = m.UtteranceTable("/root", (m.Utterance("a b.wav", 400, "sad", "male", "s 1", "1"),))
    table.write(tmp_path / "utterances.tsv")
    assert m.UtteranceTable.read(tmp_path / "utterances.tsv") == table


def test_manifest_is_what_fairseq_reads(fold, train):
    from fairseq.data.audio.hubert_dataset import load_audio

    root, names, _, total, sizes = load_audio(str(fold / "train.tsv"), None, None)
    assert (root, tuple(names), total, tuple(sizes)) == (train.root, train.paths, len(train), train.n_samples)


@pytest.mark.parametrize(
    "line, text, message",
    [
        (3, "u1.wav 1600", r"train.tsv, line 3: expected path<TAB>n_samples"),
        (3, "u1.wav\tlong", r"train.tsv, line 3, n_samples: expected a positive integer, found 'long'"),
        (4, "u1.wav\t399", r"train.tsv, line 4: u1.wav has 399 samples, fewer than one frame \(400 samples"),
        (1, "u1.wav\t1600", r"train.tsv, line 1: expected the root folder alone"),
    ],
)
def test_manifest_errors_name_file_and_line(fold, line, text, message):
    edit(fold / "train.tsv", line, text)
    with pytest.raises(UserError, match=message):
        m.Manifest.read(fold / "train.tsv")


def test_names_that_no_manifest_can_hold(tmp_path):
    with pytest.raises(UserError, match=r"'b/2\\tx.wav' has a tab or a line break, which manifests cannot hold"):
        m.Manifest("/corpus", ("a.wav", "b/2\tx.wav"), (16_000, 16_000)).write(tmp_path / "train.tsv")
    assert not list(tmp_path.iterdir())


def test_a_table_without_utterances(tmp_path):
    m.UtteranceTable("/corpus", ()).write(tmp_path / "utterances.tsv")
    with pytest.raises(UserError, match="no utterance below the column names"):
        m.UtteranceTable.read(tmp_path / "utterances.tsv")


def test_missing_and_empty_manifest(tmp_path):
    with pytest.raises(UserError, match="none.tsv does not exist"):
        m.Manifest.read(tmp_path / "none.tsv")
    (tmp_path / "empty.tsv").write_text("/root\n")
    with pytest.raises(UserError, match="no utterance after the root line"):
        m.Manifest.read(tmp_path / "empty.tsv")


def read_emotions(fold, train):
    path = fold / "dict.emotion.txt"
    return m.read_utterance_labels(fold / "train.emotion", train, m.read_dictionary(path), path)


def test_utterance_labels_are_positions_in_the_sorted_dictionary(fold, train):
    assert m.read_dictionary(fold / "dict.emotion.txt") == ["angry", "happy", "neutral", "sad"]
    assert read_emotions(fold, train).tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def test_label_outside_the_dictionary(fold, train):
    edit(fold / "train.emotion", 5, "bored")
    with pytest.raises(UserError, match=r"train.emotion, line 5: label 'bored' is not in .*dict.emotion.txt"):
        read_emotions(fold, train)


def test_manifest_and_labels_of_different_length(fold, train):
    (fold / "train.emotion").write_text("sad\n" * 7)
    with pytest.raises(UserError, match=r"train.emotion has 7 lines, but .*train.tsv lists 8 utterances"):
        read_emotions(fold, train)


@pytest.fixture
def km(fold, train):
    path = fold / "train.8.km"
    path.write_text("".join(" ".join(str(j % 8) for j in range(n)) + "\n" for n in train.n_frames()))
    return path


def test_frame_labels(km, train):
    labels = m.FrameLabels.read(km, train, 8)
    assert len(labels) == len(train)
    assert labels[1].tolist() == [j % 8 for j in range(train.n_frames()[1])]


@pytest.mark.parametrize(
    "text, message",
    [
        ("0 1 2", r"train.8.km, line 2: 3 labels for u1.wav, whose 2909 samples give 8 frames"),
        ("0 1 2 3 4 5 6 8", r"train.8.km, line 2: label 8 is not in the dictionary \(0 to 7\)"),
        ("0 1 2 3 4 5 6 x", r"train.8.km, line 2: expected integers"),
    ],
)
def test_frame_label_errors_name_file_and_line(km, train, text, message):
    edit(km, 2, text)
    with pytest.raises(UserError, match=message):
        m.FrameLabels.read(km, train, 8)


def test_km_dictionary(tmp_path):
    path = tmp_path / "dict.3.km.txt"
    m.write_km_dictionary(path, 3)
    assert path.read_text() == "0 1\n1 1\n2 1\n"
    assert m.read_km_dictionary(path) == 3
    path.write_text("0 1\n2 1\n")
    with pytest.raises(UserError, match=r"dict.3.km.txt, line 2: expected `1 1`, found '2'"):
        m.read_km_dictionary(path)
