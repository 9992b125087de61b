"""check_labels.py on good, broken and foreign label sets."""

import pytest
from conftest import tool

from gmp_plugin.errors import UserError
from gmp_plugin.manifest import Manifest, write_km_dictionary


@pytest.fixture
def labels(fold, tmp_path):
    """Labels at 4 and 8 of train and valid, test left out: their folder."""
    out = tmp_path / "labels"
    out.mkdir()
    for k in (4, 8):
        write_km_dictionary(out / f"dict.{k}.km.txt", k)
        for split in ("train", "valid"):
            lengths = Manifest.read(fold / f"{split}.tsv").n_frames()
            (out / f"{split}.{k}.km").write_text(
                "".join(" ".join(str(j % k) for j in range(n)) + "\n" for n in lengths)
            )
    return out


def check(fold, labels, capsys, *options):
    """Exit status, standard output and errors."""
    try:
        tool("check_labels")(["--data", str(fold), "--labels", str(labels), *options])
        status = 0
    except SystemExit as end:
        status = end.code
    return status, *capsys.readouterr()


def edit(path, line, text):
    lines = path.read_text().split("\n")
    lines[line - 1] = text
    path.write_text("\n".join(lines))


def test_good_labels(fold, labels, capsys):
    status, out, err = check(fold, labels, capsys)
    frames = Manifest.read(fold / "train.tsv").n_frames().sum()
    assert (status, err) == (0, "")
    assert f"train.8.km: 8 utterances, {frames} frames, 8 of 8 clusters in use" in out
    assert "4 label files are in order" in out


def test_every_problem_is_named_with_file_and_line(fold, labels, capsys):
    edit(labels / "train.4.km", 2, "0 1 2")
    edit(labels / "train.4.km", 3, (labels / "train.4.km").read_text().split("\n")[2].replace("3", "4"))
    edit(labels / "train.8.km", 5, "0 1 x")
    (labels / "valid.4.km").write_text("0\n")
    (labels / "valid.8.km").unlink()
    status, _, err = check(fold, labels, capsys)
    assert status == 1
    for message in (
        "train.4.km, line 2: 3 labels for u1.wav, whose 2909 samples give 8 frames",
        "train.4.km, line 3: label 4 is not in the dictionary (0 to 3)",
        "train.8.km, line 5: expected integers separated by single spaces",
        "valid.4.km has 1 lines, but",
        "valid.8.km does not exist, but valid.4.km does",
    ):
        assert message in err
    assert err.count("error:") == 5


def test_wrong_label_rate_is_one_message(fold, labels, capsys):
    path = labels / "train.8.km"
    path.write_text("".join(" ".join(2 * line.split()) + "\n" for line in path.read_text().splitlines()))
    status, _, err = check(fold, labels, capsys)
    assert status == 1
    assert err.count("error:") == 1
    assert "train.8.km: 100.0 labels a second of audio (8 of 8 lines are wrong), expected 50" in err


def test_wrong_sampling_rate(fold, labels, capsys, write_audio, tmp_path):
    write_audio(tmp_path / "audio" / "u3.wav", 5000, rate=8000)
    status, _, err = check(fold, labels, capsys)
    assert status == 1
    assert "train.tsv, line 5:" in err and "u3.wav has 5000 samples at 8000 Hz, expected" in err


def test_foreign_labels_of_one_scale(fold, labels, capsys, tmp_path):
    """fairseq's names: train.km and dict.km.txt."""
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "train.km").write_text((labels / "train.8.km").read_text())
    (foreign / "dict.km.txt").write_text("".join(f"{i} 1\n" for i in range(8)))
    assert check(fold, foreign, capsys)[0] == 0


@pytest.mark.parametrize(
    "remove, message",
    [("dict.*", "has no dictionary dict.K.km.txt"), ("*.km", "has no label file for the splits test, train, valid")],
)
def test_nothing_to_check(fold, labels, remove, message):
    for path in labels.glob(remove):
        path.unlink()
    with pytest.raises(UserError, match=message):
        tool("check_labels")(["--data", str(fold), "--labels", str(labels)])


def test_many_problems_are_cut_short(fold, labels, capsys):
    (labels / "train.8.km").write_text("9\n" * 8)
    _, _, err = check(fold, labels, capsys, "--show", "1")
    assert err.count("error:") == 2 and "more problems; --show lists more" in err


def test_labels_that_are_not_finished_are_not_in_order(fold, labels, capsys):
    status, out, _ = check(fold, labels, capsys)
    assert status == 0 and "4 label files are in order; there are none of test" in out
    (labels / ".train.parts").mkdir()
    status, _, err = check(fold, labels, capsys)
    assert status == 1 and f"labels of train are not finished, there is {labels / '.train.parts'}; run dump_km" in err
    (labels / ".train.parts").rmdir()
    for path in labels.glob("train.*"):
        path.unlink()
    status, _, err = check(fold, labels, capsys)
    assert status == 1 and f"has no labels of {fold / 'train.tsv'}; make them with dump_km_label.py" in err


def test_problems_are_named_by_their_line_wherever_the_file_is_cut(fold, labels, capsys, monkeypatch):
    """Long files are parsed in blocks of lines."""
    monkeypatch.setattr("gmp_plugin.manifest.BLOCK", 3)
    before = (labels / "train.8.km").read_text()
    for line in range(1, 9):
        (labels / "train.8.km").write_text(before)
        n = before.split("\n")[line - 1].count(" ") + 1
        edit(labels / "train.8.km", line, " ".join(["0"] * (n - 1) + ["9"]))
        _, _, err = check(fold, labels, capsys)
        assert f"train.8.km, line {line}: label 9 is not in the dictionary (0 to 7)" in err and err.count("error") == 1
