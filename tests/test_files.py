import os

import pytest

from gmp_plugin.errors import UserError, run_tool
from gmp_plugin.files import atomic_text, refuse_existing, walk


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


def test_a_device_is_not_replaced(tmp_path):
    """Renaming a file over /dev/null would take it away from everybody."""
    os.mkfifo(tmp_path / "pipe")
    for force in (False, True):
        for path in (tmp_path / "pipe", os.devnull):
            with pytest.raises(UserError, match="is a device or a pipe, which no file can take the place of"):
                refuse_existing(path, force=force)


def test_the_longest_names_that_there_are(tmp_path):
    path = tmp_path / ("語" * 85)  # 255 bytes
    with atomic_text(path) as stream:
        stream.write("x")
    assert path.read_text() == "x" and list(tmp_path.iterdir()) == [path]


def test_linked_folders_are_walked_once(tmp_path):
    for name in ("corpus/a/x.wav", "corpus/.hidden/y.wav", "corpus/._x.wav", "corpus/audio_cache/z.wav", "other/w.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    corpus = tmp_path / "corpus"
    (corpus / "linked").symlink_to(tmp_path / "other")
    (corpus / "a" / "loop").symlink_to(corpus)
    found = [str(path.relative_to(corpus)) for path in walk(corpus)]
    assert found == ["a/x.wav", "audio_cache/z.wav", "linked/w.wav"]
    assert [path.name for path in walk(corpus, ("audio_cache",))] == ["x.wav", "w.wav"]
