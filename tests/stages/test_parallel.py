"""Two CPU ranks against one: the same losses, metrics and weights, and a restart."""

import json

import pytest
import torch
from training import STAGES, assert_same, command, final_state, on_two_ranks, run, torchrun

STILL = {"dropout": 0.0, "attention_dropout": 0.0, "encoder_layerdrop": 0.0}  # dropout is drawn per rank


def losses(output, key):
    """Logged figures of the lines that have `key`, in order."""
    wanted = ("loss", "uar", "war", "accuracy_masked_8", "num_updates", "gnorm")
    logged = [json.loads(line[line.index("{") :]) for line in output.splitlines() if '{"epoch"' in line]
    logged = [{k.removeprefix("valid_"): v for k, v in entry.items()} for entry in logged if key in entry]
    return [{k: float(v) for k, v in entry.items() if k in wanted} for entry in logged]


@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_follow_one(stage, labelled_fold, tmp_path):
    """One rank that gathers two batches per update sees what two ranks see with a batch each."""
    more = ["dataset.batch_size=2", "common.log_format=json", "checkpoint.save_interval_updates=3"]
    one = run(*command(stage, labelled_fold, tmp_path / "one", 6, *more, "optimization.update_freq=[2]", hubert=STILL))
    two = on_two_ranks(command(stage, labelled_fold, tmp_path / "two", 6, *more, hubert=STILL))
    for part, n in (("update", 6), ("valid_loss", 2)):
        assert len(losses(one, part)) == len(losses(two, part)) >= n
        for a, b in zip(losses(one, part), losses(two, part), strict=True):
            assert a.keys() == b.keys() and len(a) >= 2
            # The gradient is summed in another order: the last bits of a float32, grown over updates.
            assert b == pytest.approx(a, rel=2e-3)
    for a, b in zip(
        final_state(tmp_path / "one")["model"].values(), final_state(tmp_path / "two")["model"].values(), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-2)


def test_two_ranks_of_gemo_clap_compare_the_recordings_of_both(fold, tmp_path):
    """The whole training part in one batch, or half of it on each rank: the same losses and weights."""
    more = ["common.log_format=json", "criterion.variant=ml", "criterion.target_norm=l1"]
    more += ["+model.text.hidden_dropout_prob=0.0", "+model.text.attention_probs_dropout_prob=0.0"]
    one = run(*command("gemo_clap", fold, tmp_path / "one", 6, *more, "dataset.batch_size=8", hubert=STILL))
    two = on_two_ranks(command("gemo_clap", fold, tmp_path / "two", 6, *more, "dataset.batch_size=4", hubert=STILL))
    for part, n in (("update", 6), ("valid_loss", 2)):
        assert len(losses(one, part)) == len(losses(two, part)) >= n
        for a, b in zip(losses(one, part), losses(two, part), strict=True):
            assert b == pytest.approx(a, rel=2e-3)
    for a, b in zip(
        final_state(tmp_path / "one")["model"].values(), final_state(tmp_path / "two")["model"].values(), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-2)


def test_batches_that_do_not_divide_among_the_ranks(fold, tmp_path):
    """Three batches for two ranks that gather two each make the same update as all recordings at once."""
    more = ["common.log_format=json"]
    one = run(*command("stage1", fold, tmp_path / "one", 4, *more, "dataset.batch_size=8", hubert=STILL))
    two = on_two_ranks(
        command("stage1", fold, tmp_path / "two", 4, *more, "optimization.update_freq=[2]", hubert=STILL)
    )
    assert len(losses(one, "update")) == 4
    for a, b in zip(losses(one, "update"), losses(two, "update"), strict=True):
        assert b == pytest.approx(a, rel=2e-3) and a["gnorm"] > 0


def test_a_rank_without_a_batch_of_its_own_keeps_gemo_clap_company(fold, tmp_path):
    """Seven batches for two ranks, of a recording each."""
    for name in ("train.tsv", "train.emotion", "train.gender"):
        lines = (fold / name).read_text().splitlines(keepends=True)
        (fold / name).write_text("".join(lines[:-1]))
    output = torchrun(command("gemo_clap", fold, tmp_path, 4, "common.log_format=json", "dataset.batch_size=1"))
    assert [entry["num_updates"] for entry in losses(output, "update")][-1] == 4


def test_two_ranks_resume_to_the_same_bits(labelled_fold, tmp_path):
    """The first four updates, then the rest: the schedule's length is the same throughout."""
    schedule = "lr_scheduler.total_num_update=6"
    on_two_ranks(command("stage2", labelled_fold, tmp_path / "whole", 6, schedule))
    on_two_ranks(command("stage2", labelled_fold, tmp_path / "parts", 4, schedule))
    on_two_ranks(command("stage2", labelled_fold, tmp_path / "parts", 6, schedule))
    assert_same(final_state(tmp_path / "parts")["model"], final_state(tmp_path / "whole")["model"])
