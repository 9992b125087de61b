import os

import pytest

from gmp_plugin.errors import UserError, run_tool
from gmp_plugin.files import atomic_text, refuse_existing


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "labels.km"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_text(path) as stream:
        stream.write("new, but")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_existing_results_are_not_replaced_without_force(tmp_path):
    path = tmp_path / "result.json"
    refuse_existing(path)
    path.write_text("{}")
    with pytest.raises(UserError, match="result.json exists already; give --force"):
        refuse_existing(path)
    refuse_existing(path, force=True)


def test_what_cannot_be_written_is_said_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    refuse_existing(tmp_path / "new" / "folder" / "result.json")
    with pytest.raises(UserError, match="file/result.json cannot be written: .*file is no folder; give another --out"):
        refuse_existing(tmp_path / "file" / "result.json", force=True)
    (tmp_path / "kept").mkdir(mode=0o555)
    if not os.access(tmp_path / "kept", os.W_OK):  # root may write anywhere
        with pytest.raises(UserError, match="kept has no right to write for you"):
            refuse_existing(tmp_path / "kept" / "result.json")


def test_trouble_with_files_is_one_message(tmp_path, capsys):
    def main():
        with atomic_text(tmp_path) as stream:  # a folder
            stream.write("x")

    assert run_tool(main) == 2
    assert capsys.readouterr().err.startswith("error: ") and not list(tmp_path.iterdir())
