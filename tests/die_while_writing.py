"""`python die_while_writing.py N ...`: fairseq-hydra-train that kills itself at the Nth step of writing checkpoints.

Steps are: half of a file saved, half of a file copied, before a flush, before a renaming.
"""

import io
import os
import shutil
import signal
import sys
from pathlib import Path

import torch
from fairseq_cli.hydra_train import cli_main

steps = int(sys.argv.pop(1))


def deadly(function, first_half=None):
    """`function`, whose call at the Nth step does its `first_half` alone."""

    def call(*args, **kwargs):
        global steps
        steps -= 1
        if steps == 0:
            if first_half:
                first_half(*args)
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return call


def half_saved(state, stream):
    whole = io.BytesIO()
    save(state, whole)
    stream.write(whole.getvalue()[: whole.tell() // 2])
    stream.flush()


def half_copied(source, target):
    content = Path(source).read_bytes()
    Path(target).write_bytes(content[: len(content) // 2])


if __name__ == "__main__":
    save = torch.save
    torch.save = deadly(save, half_saved)
    shutil.copyfile = deadly(shutil.copyfile, half_copied)
    os.fsync, os.replace = deadly(os.fsync), deadly(os.replace)
    sys.argv[0] = "fairseq-hydra-train"
    cli_main()
