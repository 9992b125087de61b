"""The CSV reader: what it takes, and that its errors name file and line."""

import re

import pytest

from gmp_plugin.corpora import csv_table
from gmp_plugin.errors import UserError


@pytest.fixture
def table(tmp_path):
    """Write `corpus.csv` beside three (empty) recordings and return its path."""
    (tmp_path / "wav").mkdir()
    for name in ("a.wav", "b.wav", "c, d.wav"):
        (tmp_path / "wav" / name).write_bytes(b"")

    def write(text, encoding="utf-8"):
        path = tmp_path / "corpus.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def test_columns_in_any_order_with_others_between(table, tmp_path):
    absolute = tmp_path / "wav" / "b.wav"
    file = table(
        "speaker,note,path,gender,emotion,session\n"
        "ann,loud,wav/a.wav,female,angry,monday\n"
        f"bob,,{absolute},male,sad,\n"
        "\n"
        'ann,"x, y","wav/c, d.wav",female,happy,monday\n'
    )
    utterances = csv_table.read(file)
    assert [(u.path, u.emotion, u.gender, u.speaker, u.session) for u in utterances] == [
        ("wav/a.wav", "angry", "female", "ann", "monday"),
        (str(absolute), "sad", "male", "bob", "bob"),
        ("wav/c, d.wav", "happy", "female", "ann", "monday"),
    ]


def test_session_is_the_speaker_by_default(table):
    (utterance,) = csv_table.read(table("path,emotion,gender,speaker\nwav/a.wav,sad,male,bob\n"))
    assert utterance.session == "bob"


def test_as_excel_writes_it(table):
    text = "path,emotion,gender,speaker\r\nwav/a.wav, sad ,male,Jürgen\r\n"
    (utterance,) = csv_table.read(table(text, encoding="utf-8-sig"))
    assert (utterance.path, utterance.emotion, utterance.speaker) == ("wav/a.wav", "sad", "Jürgen")


HEADER = "path,emotion,gender,speaker\n"
GOOD = "wav/a.wav,sad,male,bob\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,emotion,speaker\n", "line 1: column gender is missing; expected .*, found path,emotion,speaker"),
        ("", "line 1: column path, emotion, gender, speaker is missing"),
        (HEADER, "no line after the header"),
        (HEADER + GOOD + "wav/b.wav,sad,male\n", "line 3: expected 4 values as in the header, found 3"),
        (HEADER + GOOD + "wav/b.wav,sad,male,bob,x\n", "line 3: expected 4 values as in the header, found 5"),
        (HEADER + GOOD + "wav/b.wav,,male,bob\n", "line 3: emotion is ''"),
        (HEADER + GOOD + "wav/b.wav,very sad,male,bob\n", "line 3: emotion is 'very sad'; expected one word"),
        (HEADER + GOOD + "wav/b.wav,sad,male,\n", "line 3: speaker is ''"),
        (HEADER + GOOD + "wav/x.wav,sad,male,bob\n", "line 3: .*x.wav does not exist; paths are absolute, or relative"),
        (HEADER + GOOD + 'wav/b.wav,sad,male,"' + "bob\n" * 40_000, "line .*: field larger than .* not closed"),
        (HEADER + GOOD + GOOD, "line 3: wav/a.wav stands in line 2 already"),
        (HEADER + '"wav/a.wav",sad,male,"bo\nb"\n', "line 3: speaker is 'bo.nb'"),
    ],
)
def test_errors_name_file_and_line(table, text, message):
    file = table(text)
    with pytest.raises(UserError, match=f"^{re.escape(str(file))}[,:] {message}"):
        csv_table.read(file)


def test_not_utf8(table):
    with pytest.raises(UserError, match="corpus.csv is not UTF-8 text"):
        csv_table.read(table("path,emotion,gender,speaker\nwav/a.wav,sad,male,Jürgen\n", encoding="latin-1"))


def test_a_folder_is_not_a_table(tmp_path):
    with pytest.raises(UserError, match="is a folder; --corpus csv takes a CSV file"):
        csv_table.read(tmp_path)
