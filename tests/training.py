"""Tiny training runs through fairseq's command line, for the tests of resuming and of data parallelism."""

import atexit
import multiprocessing
import multiprocessing.connection
import os
import socket
import subprocess
import sys
import tempfile

import torch
from conftest import REPO, TINY

STAGES = {
    "stage1": "multitask_emotion_gender",
    "stage2": "multiscale_label_pretraining",
    "stage3": "am_softmax_classification",
}
CONFIGURATIONS = {
    **{stage: ("examples/iemocap", f"{stage}_{name}") for stage, name in STAGES.items()},
    "gemo_clap": ("examples/iemocap/gemo_clap", "fine_tuning"),
}


def command(stage, data, save_dir, updates, *more, hubert=None):
    """A run with crops, masks, dropout and layer drop, saving every second update."""
    architecture = {**TINY, "encoder_layerdrop": 0.2, **(hubert or {})}
    labels = ["task.labels=[4.km,8.km]"] if stage == "stage2" else []
    folder, name = CONFIGURATIONS[stage]
    return [
        "fairseq-hydra-train", "--config-dir", folder, "--config-name", name,
        f"task.data={data}", f"checkpoint.save_dir={save_dir}", "+model.hubert={}",
        *(f"++model.hubert.{k}={v!r}" for k, v in architecture.items()), *labels,
        "+task.max_sample_size=6000" if stage != "stage2" else "task.max_sample_size=6000",
        "model.freeze_feature_extractor=false", "dataset.batch_size=3", "optimization.update_freq=[1]",
        f"optimization.max_update={updates}", "lr_scheduler.warmup_updates=1", "optimization.lr=[1e-3]",
        "checkpoint.save_interval_updates=2", "checkpoint.keep_interval_updates=2", "common.log_interval=1", *more,
    ]  # fmt: skip


# Importing fairseq takes longer than these runs do: their processes are forked from one that has it, and nothing else.
FAIRSEQ = multiprocessing.get_context("forkserver")
FAIRSEQ.set_forkserver_preload(["fairseq_cli.hydra_train"])


def start(arguments, output, errors, before=None, environment=None):
    """Start fairseq-hydra-train with a `command` from the repository root, in a process group of its own.

    Args:
        output, errors: files for standard output and error; may be the same.
        before: function that is called in the process first; of a module, so that it can be sent there.
        environment: variables that it has beside those of this process.
    """
    environment = {**os.environ, **(environment or {})}  # the server's are those of its first call
    process = FAIRSEQ.Process(target=_hydra_train, args=([*map(str, arguments)], output, errors, before, environment))
    process.start()
    return process


def _hydra_train(arguments, output, errors, before, environment):
    os.setsid()
    os.chdir(REPO)
    os.environ.clear()
    os.environ.update(environment)
    for stream, file in ((1, output), (2, errors)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), stream)
    from fairseq_cli.hydra_train import cli_main

    sys.argv = arguments
    try:
        if before is not None:
            before()
        cli_main()
    finally:
        atexit._run_exitfuncs()  # which processes of multiprocessing leave out


def attempt(arguments):
    """Exit status of fairseq-hydra-train with a `command`, its standard output, and its standard error."""
    with tempfile.NamedTemporaryFile("r") as output, tempfile.NamedTemporaryFile("r") as errors:
        process = start(arguments, output.name, errors.name)
        process.join()
        return process.exitcode, output.read(), errors.read()


def run(*arguments):
    """fairseq-hydra-train with a `command`: its standard output and error."""
    status, output, errors = attempt(arguments)
    assert status == 0, output[-3000:] + errors[-3000:]
    return output + errors


def on_two_ranks(arguments):
    """As `run`, on two CPU ranks, by the variables that torchrun would give them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    with tempfile.NamedTemporaryFile("r") as output:
        ranks = [
            start([*arguments, "+parallel=cpu"], output.name, output.name, None, {**common, "RANK": r, "LOCAL_RANK": r})
            for r in ("0", "1")
        ]
        left = {rank.sentinel: rank for rank in ranks}
        while left:
            for sentinel in multiprocessing.connection.wait(list(left)):
                if left.pop(sentinel).exitcode != 0:  # the other would wait for it
                    for rank in left.values():
                        rank.kill()
        printed = output.read()
    assert [rank.exitcode for rank in ranks] == [0, 0], printed[-6000:]
    return printed


def torchrun(arguments):
    """The same by torchrun itself, as users call it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--no-python"]
    done = subprocess.run([*command, *arguments, "+parallel=cpu"], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def final_state(save_dir):
    return torch.load(save_dir / "checkpoint_last.pt", weights_only=True)


def assert_same(a, b, where=""):
    """Equal to the bit, through nested containers."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}/{i}")
    else:
        assert torch.equal(a, b) if torch.is_tensor(a) else a == b, where
