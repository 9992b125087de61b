"""Training that is killed and started again ends where it would have ended undisturbed, to the bit."""

import os
import random
import signal
import subprocess
import time

import pytest
import torch
from conftest import REPO, TINY

from gmp_plugin.manifest import Manifest, write_km_dictionary

UPDATES = 12
KILLS = int(os.environ.get("GMP_KILLS", 2))  # per stage
STAGES = {
    "stage1": "multitask_emotion_gender",
    "stage2": "multiscale_label_pretraining",
    "stage3": "am_softmax_classification",
}


@pytest.fixture
def data(fold):
    """The fold with label sets of 4 and 8 clusters."""
    for split in ("train", "valid"):
        manifest = Manifest.read(fold / f"{split}.tsv")
        for k in (4, 8):
            lines = (" ".join(str((3 * j + i) % k) for j in range(n)) for i, n in enumerate(manifest.n_frames()))
            (fold / f"{split}.{k}.km").write_text("\n".join(lines) + "\n")
            write_km_dictionary(fold / f"dict.{k}.km.txt", k)
    return fold


def command(stage, data, save_dir, *more):
    """A run with crops, masks, dropout and layer drop, saving every second update."""
    architecture = [f"+model.hubert.{k}={v!r}" for k, v in {**TINY, "encoder_layerdrop": 0.0}.items()]
    labels = ["task.labels=[4.km,8.km]"] if stage == "stage2" else []
    return [
        "fairseq-hydra-train", "--config-dir", "examples/iemocap", "--config-name", f"{stage}_{STAGES[stage]}",
        f"task.data={data}", f"checkpoint.save_dir={save_dir}", "+model.hubert={}", *architecture, *labels,
        "+task.max_sample_size=6000" if stage != "stage2" else "task.max_sample_size=6000",
        "model.freeze_feature_extractor=false", "dataset.batch_size=3", "dataset.num_workers=0",
        f"optimization.max_update={UPDATES}", "lr_scheduler.warmup_updates=2", "optimization.lr=[1e-3]",
        "checkpoint.save_interval_updates=2", "checkpoint.keep_interval_updates=2", "common.log_interval=1", *more,
    ]  # fmt: skip


def run(*args):
    done = subprocess.run(args, cwd=REPO, capture_output=True, text=True)
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


@pytest.mark.parametrize("stage", STAGES)
def test_killed_and_restarted_is_the_same_to_the_bit(stage, data, tmp_path):
    run(*command(stage, data, tmp_path / "undisturbed"))
    save_dir = tmp_path / "killed"
    draw = random.Random(f"{stage} {os.environ.get('GMP_KILL_SEED', 0)}")
    for _ in range(KILLS):
        log = open(tmp_path / "log", "w")  # noqa: SIM115
        process = subprocess.Popen(
            command(stage, data, save_dir), cwd=REPO, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        # From the first update to the last one: while it trains, validates or writes.
        wanted = draw.randint(1, UPDATES - 1)
        while process.poll() is None and f"num_updates={wanted}," not in (tmp_path / "log").read_text():
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.15))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    run(*command(stage, data, save_dir))
    for name in ("model", "last_optimizer_state"):
        assert_same(final_state(save_dir)[name], final_state(tmp_path / "undisturbed")[name], name)


def test_a_finished_run_is_left_alone(data, tmp_path):
    """fairseq itself would train one more update."""
    run(*command("stage3", data, tmp_path, "optimization.max_update=2"))
    before = (tmp_path / "checkpoint_last.pt").read_bytes()
    output = run(*command("stage3", data, tmp_path, "optimization.max_update=2"))
    assert "all 2 updates are done already" in output
    assert (tmp_path / "checkpoint_last.pt").read_bytes() == before


def test_workers_change_nothing(data, tmp_path):
    run(*command("stage2", data, tmp_path / "none"))
    run(*command("stage2", data, tmp_path / "two", "dataset.num_workers=2"))
    assert_same(final_state(tmp_path / "two")["model"], final_state(tmp_path / "none")["model"])


def test_another_seed_is_another_run(data, tmp_path):
    run(*command("stage3", data, tmp_path / "one", "optimization.max_update=2"))
    run(*command("stage3", data, tmp_path / "two", "optimization.max_update=2", "common.seed=2"))
    one, two = (final_state(tmp_path / name)["model"] for name in ("one", "two"))
    assert not torch.equal(one["pooling.lstm.weight_hh_l0"], two["pooling.lstm.weight_hh_l0"])
