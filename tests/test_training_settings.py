"""Settings that train nothing end with one message and a status that is not 0."""

import os
import subprocess
from pathlib import Path

import fairseq
import pytest
from conftest import CONFIGS, REPO
from fairseq.models.hubert.hubert import HubertConfig
from omegaconf import OmegaConf
from training import attempt, command

from gmp_plugin.errors import UserError
from gmp_plugin.training_settings import check_gpus, check_settings, check_user_dir

STAGES = sorted(CONFIGS.glob("stage*.yaml"))
OTHERS = [*CONFIGS.glob("flesa/*.yaml"), *CONFIGS.glob("gemo_clap/*.yaml"), *CONFIGS.glob("../pretrain_small/m*.yaml")]
TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "0"}


def settings(*changes):
    """Stage 3's configuration with changes as on the command line."""
    return OmegaConf.merge(OmegaConf.load(STAGES[-1]), OmegaConf.from_dotlist(list(changes)))


@pytest.mark.parametrize("path", [*STAGES, *OTHERS], ids=lambda path: f"{path.parent.name}-{path.stem[:6]}")
def test_every_stage_is_checked_and_in_order(path):
    config = OmegaConf.load(path)
    (callback,) = config.hydra.callbacks.values()
    assert callback._target_ == "gmp_plugin.training_settings.CheckSettings"
    check_settings(config, 0, {})


WORLD = "distributed_training.distributed_world_size"


@pytest.mark.parametrize(
    "changes, message",
    [
        ([f"{WORLD}=0"], "distributed_world_size=0 starts no process"),
        ([f"{WORLD}=2"], "a process per GPU, and there is no GPU here; for processes on the CPU: torchrun"),
        (["distributed_training.distributed_init_method=tcp://localhost:1"], "there is no GPU here"),
        (["optimization.max_update=-1"], "max_update=-1 trains nothing"),
        (["optimization.max_epoch=-1"], "max_epoch=-1 trains nothing"),
        (["optimization.max_update=0"], "never ends"),
        (["optimization.lr=[0]"], "trains nothing; give a positive learning rate"),
        (["optimization.lr=[]"], "trains nothing; give a positive learning rate"),
        (["optimization.stop_min_lr=1e-6", "lr_scheduler._name=fixed"], "where the learning rate is 3.17"),
        (["optimization.update_freq=[]"], "expected batches per update"),
        (["optimization.update_freq=[2,0]"], "expected batches per update"),
        (["dataset.batch_size=null"], "neither dataset.batch_size"),
        (["dataset.batch_size=0"], "batch_size=0: expected a positive number"),
        (["dataset.batch_size=null", "dataset.max_tokens=-5"], "max_tokens=-5: expected a positive number"),
        (["common.suppress_crashes=true"], "as if it had trained"),
        (["common.amp=true"], "divides the gradients by the loss scale twice; give common.bf16=true"),
        (["common.bf16=true", "common.memory_efficient_bf16=true"], "memory_efficient_bf16=true: fused_adam keeps"),
        (["checkpoint.write_checkpoints_asynchronously=true"], "before it trains"),
        (["checkpoint.finetune_from_model=a.pt"], "finetune_from_model=a.pt: .*audit would miss them; give"),
        (["checkpoint.continue_once=a.pt"], "continue_once=a.pt: fairseq takes the weights without"),
        (["checkpoint.restore_file=a.pt"], "restore_file=a.pt: fairseq takes the weights without"),
        (["common.fp16=true", "model.freeze_finetune_updates=9"], "give common.bf16=true, or common.fp16_no"),
    ],
)
def test_settings_that_train_nothing(changes, message):
    with pytest.raises(UserError, match=message):
        check_settings(settings(*changes), 0, {})


@pytest.mark.parametrize("path", [*STAGES, *OTHERS[:3]], ids=lambda path: f"{path.parent.name}-{path.stem[:6]}")
def test_regularisation_is_that_of_fairseqs_hubert(path):
    """Hugging Face's copy of the same weights has other settings."""
    released = Path(fairseq.__file__).parent / "examples/hubert/config/pretrain/hubert_base_librispeech.yaml"
    released = OmegaConf.merge(OmegaConf.structured(HubertConfig), OmegaConf.load(released).model)
    ours = OmegaConf.load(path).model.hubert
    assert {"encoder_layerdrop", "activation_dropout"} <= ours.keys()
    assert all(released[name] == value for name, value in ours.items())


def test_stage_2_over_several_gpus_needs_its_backend():
    """Its heads are called after the wrapped forward, which torch's DDP takes for a second use."""
    config = OmegaConf.merge(OmegaConf.load(CONFIGS / "stage2_multiscale_label_pretraining.yaml"), {})
    config.distributed_training.distributed_world_size = 2
    check_settings(config, 2, {})
    config.distributed_training.ddp_backend = "pytorch_ddp"
    with pytest.raises(UserError, match="ddp_backend=pytorch_ddp cannot train stage 2, .* give legacy_ddp"):
        check_settings(config, 2, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["optimization.max_update=0", "optimization.max_epoch=3"],
            "by polynomial_decay the learning rate falls until",
        ),
        (["optimization.stop_min_lr=1e-9"], "stop_min_lr=1e-09 ends the training at its start, .* rate is 0"),
    ],
)
def test_what_polynomial_decay_does_not_bear(changes, message):
    """fairseq ends the first with an assertion, the second with status 0 before its first update."""
    with pytest.raises(UserError, match=message):
        check_settings(settings(*changes), 0, {})


def test_a_warmup_to_the_end_is_told(caplog):
    check_settings(settings("optimization.max_update=100", "lr_scheduler.warmup_updates=315"), 0, {})
    assert "the learning rate rises to the end; a tenth would be 10" in caplog.text
    caplog.clear()
    check_settings(settings("optimization.max_update=3150"), 0, {})
    assert not caplog.text


def test_more_processes_than_gpus():
    """As of a stage in the workflow, whose jobs have one GPU each; fairseq ends with an assertion."""
    with pytest.raises(UserError, match="this one sees 1; give at most as many.*GPUS=2 runs so many at once"):
        check_settings(settings(f"{WORLD}=2"), 1, {})


def test_torchrun_whose_processes_would_not_know_each_other():
    with pytest.raises(UserError, match="torchrun started 2 processes, and each of them would train alone"):
        check_settings(settings(), 0, TORCHRUN)
    with pytest.raises(UserError, match=r"there is no GPU here; for processes on the CPU: .*\+parallel=cpu"):
        check_settings(settings(f"{WORLD}=2"), 0, TORCHRUN)


@pytest.mark.parametrize(
    "changes, n_gpus, environ",
    [
        ([f"{WORLD}=8"], 8, {}),
        ([f"{WORLD}=2"], 2, TORCHRUN),
        ([f"{WORLD}=16"], 8, {"MASTER_ADDR": "first"}),  # torchrun on two machines
        ([f"{WORLD}=16", "distributed_training.distributed_port=29500"], 8, {}),  # Slurm
        ([f"{WORLD}=2", "distributed_training.distributed_no_spawn=true"], 0, TORCHRUN),  # +parallel=cpu
        (["optimization.max_update=0", "optimization.max_epoch=3", "lr_scheduler._name=fixed"], 0, {}),
        (["dataset.batch_size=null", "dataset.max_tokens=500000"], 0, {}),
        (["optimization.update_freq=[4]", "optimization.stop_min_lr=1e-9", "lr_scheduler.warmup_updates=0"], 0, {}),
    ],
)
def test_settings_that_train(changes, n_gpus, environ):
    check_settings(settings(*changes), n_gpus, environ)


def test_another_copy_of_the_package():
    check_user_dir(str(REPO / "gmp_plugin"))
    with pytest.raises(UserError, match="common.user_dir=/elsewhere/gmp_plugin, but Python imports gmp_plugin from"):
        check_user_dir("/elsewhere/gmp_plugin")


def test_the_message_comes_before_fairseq_starts_anything(fold, tmp_path):
    """fairseq itself starts no process here, and ends with status 0 and no message."""
    changes = [f"{WORLD}=2", "++distributed_training.distributed_init_method=tcp://localhost:1"]
    arguments = command("stage3", fold, tmp_path / "run", 2, *changes)
    no_gpu = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(arguments, cwd=REPO, env=no_gpu, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    assert line.startswith("error: ") and "there is no GPU here" in line
    assert not (tmp_path / "run").exists()


def test_an_empty_training_part(fold, tmp_path):
    (fold / "train.tsv").write_text("/audio\n")
    status, _, errors = attempt(command("stage3", fold, tmp_path, 2))
    assert status == 1 and "train.tsv: no utterance after the root line" in errors


def test_a_gpu_that_torch_cannot_use_is_not_left_to_itself(tmp_path):
    """As with a driver that is too old: fairseq would train on the CPU."""
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n[ $1 = -L ] && echo 'GPU 0: A100'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    environ = {"PATH": str(tmp_path)}
    with pytest.raises(UserError, match=r"cannot use the GPU of this machine \(GPU 0: A100\).*common.cpu=true"):
        check_gpus(False, 0, environ)
    check_gpus(True, 0, environ)
    check_gpus(False, 1, environ)
    check_gpus(False, 0, {**environ, "CUDA_VISIBLE_DEVICES": ""})
    check_gpus(False, 0, {"PATH": "none"})
