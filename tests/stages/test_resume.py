"""Training that is killed and started again ends where it would have ended undisturbed, to the bit."""

import json
import os
import random
import signal
import time
from functools import partial

import pytest
import torch
from conftest import CONFIGS
from die_while_writing import die_while_writing
from omegaconf import OmegaConf
from training import CONFIGURATIONS, assert_same, attempt, command, final_state, run, start

from gmp_plugin.errors import UserError
from gmp_plugin.training_settings import check_restart

UPDATES = 12
KILLS = int(os.environ.get("GMP_KILLS", 2))  # per stage


def killed_at(update: int, delay: float, log, arguments) -> None:
    """Train, and kill -9 `delay` seconds after an update: while it trains, validates or writes."""
    log.write_text("")
    process = start(arguments, log, log)
    while process.is_alive() and f"num_updates={update}," not in log.read_text():
        time.sleep(0.005)
    time.sleep(delay)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def killed_while_writing(step: int, log, arguments) -> None:
    """Train, and kill -9 at a step of writing checkpoints, of which a save has nine."""
    log.write_text("")
    process = start(arguments, log, log, before=partial(die_while_writing, step))
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), log.read_text()[-6000:]


@pytest.mark.parametrize("stage", CONFIGURATIONS)
def test_killed_and_restarted_is_the_same_to_the_bit(stage, labelled_fold, tmp_path):
    """Every other kill falls into the writing of a checkpoint."""
    run(*command(stage, labelled_fold, tmp_path / "undisturbed", UPDATES))
    save_dir = tmp_path / "killed"
    arguments = command(stage, labelled_fold, save_dir, UPDATES)
    draw = random.Random(f"{stage} {os.environ.get('GMP_KILL_SEED', 0)}")
    for kill in range(KILLS):
        if kill % 2:
            killed_at(draw.randint(1, UPDATES - 1), draw.uniform(0, 0.15), tmp_path / "log", arguments)
        else:
            killed_while_writing(draw.randint(1, 18), tmp_path / "log", arguments)
    run(*arguments)
    for name in ("model", "last_optimizer_state", "task_state"):
        assert_same(final_state(save_dir)[name], final_state(tmp_path / "undisturbed")[name], name)


def test_a_finished_run_is_left_alone(labelled_fold, tmp_path):
    """fairseq itself would train one more update."""
    run(*command("stage3", labelled_fold, tmp_path, 2))
    before = (tmp_path / "checkpoint_last.pt").read_bytes()
    output = run(*command("stage3", labelled_fold, tmp_path, 2))
    assert "all 2 updates are done already" in output
    assert (tmp_path / "checkpoint_last.pt").read_bytes() == before
    # Asked for with other settings, it would be a model that nobody asked for.
    status, _, errors = attempt(command("stage3", labelled_fold, tmp_path, 2, "common.seed=2"))
    assert status == 1 and "is of a run with other settings (common.seed=2, there 1); give" in errors


def seen_by(stage, **more):
    return {"stage": stage, "split": "train", "manifest": "", "root": "", "utterances": [], **more}


def test_a_run_that_goes_on_has_seen_what_it_saw_before(labelled_fold, tmp_path):
    """As one that was begun from another fold's HuBERT, and goes on after that slip was seen."""
    run(*command("stage3", labelled_fold, tmp_path, 2))
    state = final_state(tmp_path)
    state["task_state"]["provenance"].insert(0, seen_by("multitask_emotion_gender", utterances=["test.wav"]))
    torch.save(state, tmp_path / "checkpoint_last.pt")
    run(*command("stage3", labelled_fold, tmp_path, 4))
    assert final_state(tmp_path)["task_state"] == state["task_state"]


def test_labels_of_another_k_means_are_another_run(labelled_fold, tmp_path):
    """Also where the folder has the same name, and nothing is left to train."""

    def labels_of(fit):
        (labelled_fold / "provenance.json").write_text(json.dumps([seen_by("kmeans", centroids=fit)]))

    labels_of("one")
    run(*command("stage2", labelled_fold, tmp_path, 2))
    assert "all 2 updates are done already" in run(*command("stage2", labelled_fold, tmp_path, 2))
    labels_of("another")
    for updates in (2, 4):
        status, _, errors = attempt(command("stage2", labelled_fold, tmp_path, updates))
        assert status == 1 and "are of another k-means than those that" in errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optimization.max_update=9", None),
        ("optimization.lr=[1e-5]", None),
        ("dataset.batch_size=2", None),
        ("checkpoint.save_dir=elsewhere", None),
        ("model.scale=20", "model.scale=20, there 30.0"),
        ("model.hubert.encoder_layers=5", "model.hubert=.*'encoder_layers': 5"),
        ("model.hubert.dropout_input=0.5", "model.hubert=.*'dropout_input': 0.5"),
        ("model.hubert.checkpoint_activations=true", None),
        ("task.balanced_sampling=true", "task.balanced_sampling=True, there False"),
        ("model.hubert_path=here/hubert.pt", "model.hubert_path=here/hubert.pt, there None"),
    ],
)
def test_what_a_restart_may_change(tmp_path, change, message):
    """Lengths, batches and learning rates; not what makes the model another one."""
    arguments = [word.lstrip("+") for word in command("stage3", "fold", tmp_path, 2)[5:]]
    base = OmegaConf.load(CONFIGS / "stage3_am_softmax_classification.yaml")
    config = OmegaConf.merge(base, OmegaConf.from_dotlist(arguments))
    cfg = OmegaConf.to_container(OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]), resolve=True)
    cfg["model"]["scale"] = 30.0  # fairseq fills in and converts
    torch.save({"cfg": cfg, "model": {}}, tmp_path / "checkpoint_last.pt")
    check_restart(config)
    changed = OmegaConf.merge(config, OmegaConf.from_dotlist([change, "common.seed=1"]))
    if message is None:
        return check_restart(changed)
    with pytest.raises(UserError, match=message):
        check_restart(changed)
    (tmp_path / "checkpoint_last.pt").write_bytes(b"damaged")
    check_restart(changed)  # it is set aside later


@pytest.mark.parametrize(
    ("setting", "before", "message"),
    [
        ("task.random_crop", True, None),
        ("task.random_crop", False, "task.random_crop=True, there False"),
        ("model.hubert", {"encoder_layerdrop": 0.1}, "model.hubert=None, there {"),
        ("model.scale", 30.0, None),
        ("criterion.class_weights", "none", None),
        ("criterion.class_weights", "balanced", "criterion.class_weights=none, there balanced"),
    ],
)
def test_what_a_restart_may_leave_out(tmp_path, setting, before, message):
    """What was given as +SETTING, and is not at the restart, has its default again."""
    config = OmegaConf.load(CONFIGS / "stage3_am_softmax_classification.yaml")
    config.merge_with({"checkpoint": {"save_dir": str(tmp_path)}, "hydra": None})
    cfg = OmegaConf.to_container(config, resolve=True)
    section, key = setting.split(".")
    config[section].pop(key, None)
    cfg[section][key] = before
    torch.save({"cfg": cfg, "model": {}}, tmp_path / "checkpoint_last.pt")
    if message is None:
        return check_restart(config)
    with pytest.raises(UserError, match=message):
        check_restart(config)


def test_other_classes_are_another_run(fold, tmp_path):
    """Also where they are as many: they would take over what others have learned."""
    run(*command("stage3", fold, tmp_path, 2))
    for file in fold.iterdir():
        if file.suffix in (".emotion", ".txt"):
            file.write_text(file.read_text().replace("neutral", "calm"))
    names = (fold / "dict.emotion.txt").read_text().splitlines()
    (fold / "dict.emotion.txt").write_text("\n".join(sorted(names)) + "\n")
    status, _, errors = attempt(command("stage3", fold, tmp_path, 4))
    assert status == 1
    assert "dict.emotion.txt has the classes angry, calm, happy, sad, but" in errors
    assert "checkpoint_last.pt was trained on angry, happy, neutral, sad" in errors


def test_workers_change_nothing(labelled_fold, tmp_path):
    run(*command("stage2", labelled_fold, tmp_path / "none", UPDATES))
    run(*command("stage2", labelled_fold, tmp_path / "two", UPDATES, "dataset.num_workers=2"))
    assert_same(final_state(tmp_path / "two")["model"], final_state(tmp_path / "none")["model"])


def test_another_seed_is_another_run(labelled_fold, tmp_path):
    run(*command("stage3", labelled_fold, tmp_path / "one", 2))
    run(*command("stage3", labelled_fold, tmp_path / "two", 2, "common.seed=2"))
    one, two = (final_state(tmp_path / name)["model"] for name in ("one", "two"))
    assert not torch.equal(one["pooling.lstm.weight_hh_l0"], two["pooling.lstm.weight_hh_l0"])
