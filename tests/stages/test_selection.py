"""Which state of a training becomes checkpoint_best.pt."""

import re

import torch
from training import command, run

UPDATES = 8


def best_of(output, save_dir, metric):
    """Updates of checkpoint_best.pt, and those of the last validation with the largest `metric`, from the output."""
    lines = [line for line in output.splitlines() if "| valid on" in line]
    found = [re.search(rf"\| {metric} (\S+).*?\| num_updates (\d+)", f"{line} |").groups() for line in lines]
    values = [(float(value), int(updates)) for value, updates in found]
    assert len(values) == UPDATES
    best = torch.load(save_dir / "checkpoint_best.pt", weights_only=True)
    return best["optimizer_history"][-1]["num_updates"], max(values)[1]


def test_the_best_on_the_validation_part(fold, tmp_path):
    output = run(*command("stage3", fold, tmp_path, UPDATES, "dataset.validate_interval_updates=1"))
    updates, expected = best_of(output, tmp_path, "uar")
    assert updates == expected


def test_the_last_instead(fold, tmp_path):
    """As docs/small_corpora.md says for a validation part of a few utterances, whose best is chance."""
    last = "checkpoint.best_checkpoint_metric=num_updates"
    output = run(*command("stage3", fold, tmp_path, UPDATES, "dataset.validate_interval_updates=1", last))
    assert best_of(output, tmp_path, "uar")[0] == UPDATES
