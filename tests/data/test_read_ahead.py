"""A process that ends while fairseq reads batches ahead ends with its own status and last word."""

import subprocess
import sys

from conftest import REPO

# Two readers: one has always room and is always inside torch, the other waits for room.
SCRIPT = """
import torch
from fairseq.data.iterators import BufferedIterator
from gmp_plugin.data.read_ahead import stop_at_exit

class Batches:
    def __len__(self):
        return 10**9

    def __iter__(self):
        while True:
            yield torch.nn.utils.rnn.pad_sequence([torch.randn(160000) for _ in range(8)])[:1].clone()

stop_at_exit()
busy, waiting = BufferedIterator(10**9, Batches()), BufferedIterator(1, Batches())
next(busy), next(waiting)
raise SystemExit("error: train.tsv, line 5: no such recording")
"""


def test_no_abort_after_the_message():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "error: train.tsv, line 5: no such recording"
