import pytest

from gmp_plugin.errors import UserError
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
