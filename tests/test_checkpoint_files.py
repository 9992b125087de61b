"""A damaged or foreign checkpoint_last.pt, as a restart finds it."""

import logging

import pytest
import torch
from fairseq import checkpoint_utils

from gmp_plugin.checkpoint_files import AtomicPathManager, ensure_readable, so_far, write_atomically
from gmp_plugin.errors import UserError
from gmp_plugin.manifest import Manifest


def save(path, updates, stage="am_softmax_classification", provenance=()):
    state = {
        "cfg": {"task": {"_name": stage}},
        "model": {"w": torch.full((1000,), float(updates))},
        "task_state": {"provenance": list(provenance)},
        "optimizer_history": [{"num_updates": updates}],
    }
    torch.save(state, path)


def truncate(path):
    path.write_bytes(path.read_bytes()[:1500])


def test_nothing_to_do_for_a_whole_or_a_missing_file(tmp_path):
    ensure_readable(tmp_path, "am_softmax_classification")
    save(tmp_path / "checkpoint_last.pt", 6)
    before = (tmp_path / "checkpoint_last.pt").read_bytes()
    ensure_readable(tmp_path, "am_softmax_classification")
    assert (tmp_path / "checkpoint_last.pt").read_bytes() == before


def test_parts_that_a_kill_has_left_are_removed(tmp_path):
    save(tmp_path / "checkpoint_last.pt", 6)
    for name in ("checkpoint_1_2.pt.tmp", ".checkpoint_last.pt.4711.tmp"):
        (tmp_path / name).write_bytes(b"half a file")
    ensure_readable(tmp_path, "am_softmax_classification")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_last.pt"]


def test_truncated_file_falls_back_to_the_newest_whole_one(tmp_path, caplog):
    save(tmp_path / "checkpoint_1_2.pt", 2)
    save(tmp_path / "checkpoint_1_4.pt", 4)
    save(tmp_path / "checkpoint_2_6.pt", 6)
    save(tmp_path / "checkpoint_last.pt", 6)
    truncate(tmp_path / "checkpoint_2_6.pt")
    truncate(tmp_path / "checkpoint_last.pt")
    with caplog.at_level(logging.WARNING):
        ensure_readable(tmp_path, "am_softmax_classification")
    assert torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)["model"]["w"][0] == 4
    assert (tmp_path / "checkpoint_last.pt.damaged").exists()
    assert "Going on from" in caplog.text and "update 4" in caplog.text


def test_nothing_readable_ends_with_a_message(tmp_path):
    save(tmp_path / "checkpoint_last.pt", 6)
    truncate(tmp_path / "checkpoint_last.pt")
    with pytest.raises(UserError, match="nor can any other checkpoint in .*: remove the folder to start afresh"):
        ensure_readable(tmp_path, "am_softmax_classification")


def test_another_stages_checkpoint_is_refused(tmp_path):
    save(tmp_path / "checkpoint_last.pt", 6, "multitask_emotion_gender")
    with pytest.raises(UserError, match="is a checkpoint of multitask_emotion_gender, not of am_softmax"):
        ensure_readable(tmp_path, "am_softmax_classification")


def test_an_empty_file_falls_back_too(tmp_path):
    save(tmp_path / "checkpoint_best.pt", 4)
    (tmp_path / "checkpoint_last.pt").touch()
    ensure_readable(tmp_path, "am_softmax_classification")
    assert so_far(tmp_path)[0] == 4


def test_a_checkpoint_of_another_fold_is_refused(tmp_path, fold):
    train = Manifest.read(fold / "train.tsv")
    own = [{"stage": "am_softmax_classification", "split": "train", "utterances": list(train.paths)}]
    save(tmp_path / "checkpoint_last.pt", 6, provenance=own)
    ensure_readable(tmp_path, "am_softmax_classification", train)
    own[0]["utterances"] = ["of", "another", "fold"]
    save(tmp_path / "checkpoint_last.pt", 6, provenance=own)
    with pytest.raises(UserError, match=r"trained on other recordings \(3\) than .*train.tsv lists \(8\)"):
        ensure_readable(tmp_path, "am_softmax_classification", train)
    own[0]["split"] = "train_half"  # dataset.train_subset
    save(tmp_path / "checkpoint_last.pt", 6, provenance=own)
    with pytest.raises(UserError, match="trained on other recordings"):
        ensure_readable(tmp_path, "am_softmax_classification", train, "train_half")


def test_fairseq_never_has_a_part_of_a_file_under_its_final_name(tmp_path, monkeypatch):
    """The copy to checkpoint_last.pt is broken off half way: the old file stays."""
    write_atomically()
    assert checkpoint_utils.PathManager is AtomicPathManager
    save(tmp_path / "checkpoint_1_2.pt", 2)
    save(tmp_path / "checkpoint_last.pt", 1)
    before = (tmp_path / "checkpoint_last.pt").read_bytes()

    def half(source, target):
        target.write_bytes(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.copyfile", half)
    with pytest.raises(KeyboardInterrupt):
        checkpoint_utils.PathManager.copy(
            str(tmp_path / "checkpoint_1_2.pt"), str(tmp_path / "checkpoint_last.pt"), overwrite=True
        )
    assert (tmp_path / "checkpoint_last.pt").read_bytes() == before
