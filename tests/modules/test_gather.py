"""Two processes with their own rows against one with all: loss and gradients."""

import subprocess
import sys

import torch
from conftest import REPO
from gathering import loss_and_gradient


def test_the_ranks_losses_and_gradients_are_those_of_one(tmp_path):
    """With as many rows each, with more on one of them, and with none."""
    command = [sys.executable, REPO / "tests" / "gathering.py", tmp_path]
    ranks = [subprocess.Popen([*command, rank, "4", "5", "8", "0"], cwd=REPO) for rank in ("0", "1")]
    assert [rank.wait() for rank in ranks] == [0, 0]
    loss, gradient = loss_and_gradient(slice(None))
    for (loss0, gradient0), (loss1, gradient1) in zip(
        *(torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)), strict=True
    ):
        torch.testing.assert_close(loss0 + loss1, loss)
        torch.testing.assert_close(torch.cat([gradient0, gradient1]), gradient)
