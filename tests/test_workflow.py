"""The whole course as a user runs it, on a generated corpus, at tiny size."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from conftest import CONFIGS, REPO, load_script, tool
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training import attempt

from gmp_plugin.errors import UserError
from gmp_plugin.files import sha256
from gmp_plugin.fold_results import read_results
from gmp_plugin.kmeans import MultiscaleKMeans
from gmp_plugin.manifest import Manifest
from gmp_plugin.recognizer import Recognizer

METHOD = "multitask.layer-3.k4-8.from_original.masked"
FEW_UPDATES = ["optimization.max_update=3", "lr_scheduler.warmup_updates=1"]


def shell(*command, check=True):
    """Run from the repository root, as the README says."""
    done = subprocess.run([str(c) for c in command], cwd=REPO, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def hydra_train(config, *overrides, folder="examples/iemocap", check=True):
    """`fairseq-hydra-train`, likewise."""
    command = ["fairseq-hydra-train", "--config-dir", folder, "--config-name", config, *overrides]
    done = subprocess.CompletedProcess(command, *attempt(command))
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def train(stage, name, *overrides, check=True):
    return hydra_train(f"{stage}_{name}", f"+nano={stage}", *FEW_UPDATES, *overrides, check=check)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A generated corpus of a minute, and its five folds."""
    folder = tmp_path_factory.mktemp("toy")
    tool("make_toy_corpus")(["--out", str(folder / "corpus"), "--hours", "0.03"])
    tool("make_manifest")(["--corpus", "iemocap", "--root", str(folder / "corpus"), "--out", str(folder / "data")])
    return folder


@pytest.fixture(scope="module")
def course(toy):
    """Stage 1, labels, stage 2 and stage 3 of the first fold, by the README's commands."""
    data = toy / "data" / "fold1"
    train("stage1", "multitask_emotion_gender", f"task.data={data}", f"checkpoint.save_dir={toy}/stage1")
    checkpoint = f"{toy}/stage1/checkpoint_best.pt"
    common = ["--manifest", f"{data}/train.tsv", "--checkpoint", checkpoint]
    tool("learn_kmeans")([*common, "--scales", "8", "32", "--kmeans", f"{toy}/km.safetensors"])
    common.insert(2, f"{data}/valid.tsv")
    tool("dump_km_label")([*common, "--kmeans", f"{toy}/km.safetensors", "--out", f"{toy}/labels"])
    train(
        "stage2", "multiscale_label_pretraining", f"task.data={data}", f"task.label_dir={toy}/labels",
        "task.labels=[8.km,32.km]", f"checkpoint.save_dir={toy}/stage2",
    )  # fmt: skip
    train(
        "stage3", "am_softmax_classification", f"task.data={data}", f"checkpoint.save_dir={toy}/stage3",
        f"model.hubert_path={toy}/stage2/checkpoint_last.pt",
    )  # fmt: skip
    return toy


def scalars(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_tensorboard_shows_losses_metrics_and_the_confusion_matrix(course):
    stage1 = scalars(course / "stage1" / "tensorboard" / "valid")
    shown = set(stage1.Tags()["scalars"])
    assert {"loss", "loss_emotion", "loss_gender", "uar", "war", "macro_f1", "recall_sad", "gender_uar"} <= shown
    assert "confusion/emotion" in stage1.Tags()["images"]
    stage2 = set(scalars(course / "stage2" / "tensorboard" / "valid").Tags()["scalars"])
    assert {"loss_masked_8", "loss_masked_32", "accuracy_masked_8", "accuracy_masked_32", "ppl_masked_32"} <= stage2
    stage3 = scalars(course / "stage3" / "tensorboard" / "valid")
    assert {"loss", "uar", "war", "recall_angry"} <= set(stage3.Tags()["scalars"])
    assert "confusion/emotion" in stage3.Tags()["images"]


def test_stage3_starts_from_stage2s_backbone_and_knows_all_that_it_has_seen(course):
    states = {s: torch.load(course / s / "checkpoint_last.pt", weights_only=True) for s in ("stage2", "stage3")}
    hubert = {s: {k for k in state["model"] if k.startswith("hubert.")} for s, state in states.items()}
    assert hubert["stage2"] == hubert["stage3"]
    log = states["stage3"]["task_state"]["provenance"]
    trained = {e["stage"] for e in log if e["split"] == "train"}
    stages = {"multitask_emotion_gender", "kmeans", "multiscale_label_pretraining", "am_softmax_classification"}
    assert trained == stages
    test = set(Manifest.read(course / "data/fold1/test.tsv").paths)
    assert not any(test & set(e["utterances"]) for e in log)


def test_evaluation(course, tmp_path):
    tool("evaluate")(
        ["--checkpoint", f"{course}/stage3/checkpoint_best.pt", "--manifest", f"{course}/data/fold1/test.tsv",
         "--fold", "1", "--out", f"{tmp_path}/result.json"]
    )  # fmt: skip
    result = json.loads((tmp_path / "result.json").read_text())
    confusion = torch.tensor(result["confusion"]).double()
    assert confusion.sum() == result["n_utterances"] == len(result["utterances"])
    assert result["war"] == pytest.approx(100 * (confusion.trace() / confusion.sum()).item())
    assert result["uar"] == pytest.approx(100 * (confusion.diag() / confusion.sum(1)).mean().item())
    assert result["classes"] == ["angry", "happy", "neutral", "sad"]
    assert result["seed"] == 1 and result["versions"]["torch"] == torch.__version__.split("+")[0]


def test_leak_audit_of_the_course(course, capsys):
    """Which the tools of all steps left: clean, until a checkpoint is evaluated on recordings that it knows."""

    def evaluate(fold, out):
        tool("evaluate")(
            ["--checkpoint", f"{course}/stage3/checkpoint_best.pt", "--manifest", f"{course}/data/fold{fold}/test.tsv",
             "--fold", fold, "--out", str(course / out), "--allow-seen"]
        )  # fmt: skip

    evaluate("1", "result.json")
    tool("audit_leakage")([str(course)])
    assert "5 folds, 6 checkpoints, 1 k-means files, 1 label sets, 1 results" in capsys.readouterr().out
    evaluate("2", "fold2/result.json")
    done = shell("python", "manifest_tools/audit_leakage.py", course, check=False)
    (course / "fold2" / "result.json").unlink()
    assert done.returncode == 1
    for stage in ("multitask_emotion_gender", "kmeans", "multiscale_label_pretraining", "am_softmax_classification"):
        assert f"leak: fold2/result.json: fold 2, stage {stage}, split train: " in done.stderr


def test_recordings_seen_in_training_are_not_evaluated(course, tmp_path):
    arguments = [
        "--checkpoint", f"{course}/stage3/checkpoint_best.pt", "--manifest", f"{course}/data/fold2/test.tsv",
        "--out", f"{tmp_path}/result.json",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"has seen in training or validation \(.*kmeans: .*--allow-seen"):
        tool("evaluate")(arguments)
    assert not (tmp_path / "result.json").exists()
    # Where it is meant, the result says so, and is no fold's for calibration or a card.
    tool("evaluate")([*arguments, "--fold", "2", "--allow-seen"])
    assert json.loads((tmp_path / "result.json").read_text())["seen"]["kmeans"] > 0
    with pytest.raises(UserError, match="is of recordings that its model has seen; give those of test parts"):
        read_results([tmp_path / "result.json"])


def test_stock_fairseq_pretraining_takes_updates_on_our_labels(course):
    """With the paper's three scales; stock model, task and criterion."""
    checkpoint = course / "stage1" / "checkpoint_best.pt"
    centroids = {k: torch.randn(k, 192) for k in (64, 512, 4096)}  # the corpus has too few frames to fit 4096
    zeros = {k: torch.zeros(k, dtype=torch.long) for k in centroids}
    inertia = dict.fromkeys(centroids, 0.0)
    MultiscaleKMeans(centroids, zeros, inertia, 2, sha256(checkpoint), 0, 1).save(course / "three.safetensors")
    tool("dump_km_label")(
        ["--manifest", f"{course}/data/fold1/train.tsv", f"{course}/data/fold1/valid.tsv", "--checkpoint",
         str(checkpoint), "--kmeans", f"{course}/three.safetensors", "--out", f"{course}/three"]
    )  # fmt: skip
    done = hydra_train(
        "hubert_pretraining", f"task.data={course}/data/fold1", f"task.label_dir={course}/three",
        "task.labels=[64.km,512.km,4096.km]", f"checkpoint.save_dir={course}/stock", folder="tests/stock",
    )  # fmt: skip
    assert "num_updates: 2 >= max_update: 2" in done.stdout + done.stderr
    assert "audio and label duration differ" not in done.stdout + done.stderr


def test_training_errors_end_with_one_message(course):
    (course / "broken").mkdir()
    for file in (course / "data" / "fold1").iterdir():
        (course / "broken" / file.name).write_text(file.read_text().replace("sad\n", "gloomy\n"))
    done = train("stage1", "multitask_emotion_gender", f"task.data={course}/broken", check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "label 'gloomy' is not in" in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_recording_that_vanished_is_named_with_its_line(course, workers):
    folder = course / f"vanished{workers}"
    folder.mkdir()
    for file in (course / "data" / "fold1").iterdir():
        (folder / file.name).write_text(file.read_text())
    lines = (folder / "train.tsv").read_text().split("\n")
    lines[4] = "nowhere.wav\t16000"
    (folder / "train.tsv").write_text("\n".join(lines))
    done = train(
        "stage3", "am_softmax_classification", f"task.data={folder}", f"dataset.num_workers={workers}",
        f"checkpoint.save_dir={folder}/stage3", "optimization.max_update=20", check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr and "train.tsv, line 5: " in done.stderr


def test_base_configs_start_from_a_checkpoint(course, stock_checkpoint, tmp_path):
    """The HuBERT-base configs as they are, from a fairseq checkpoint, with relative paths."""
    _, checkpoint = stock_checkpoint()
    few = ["optimization.max_update=2", "lr_scheduler.warmup_updates=1", "dataset.batch_size=4"]
    for stage, name, *more in (
        ("stage1", "multitask_emotion_gender"),
        ("stage2", "multiscale_label_pretraining", f"task.label_dir={course}/labels", "task.labels=[8.km,32.km]"),
        ("stage3", "am_softmax_classification"),
    ):
        done = hydra_train(
            f"{stage}_{name}", f"task.data={course}/data/fold1", f"checkpoint.save_dir={tmp_path}/{stage}",
            f"model.hubert_path={checkpoint}", *few, *more,
        )  # fmt: skip
        assert "4 layers of 32" in done.stdout
        assert (tmp_path / stage / "checkpoint_best.pt").exists()


def test_commands_of_the_rows(toy, tmp_path):
    """What a dry run says would be run, of rows that differ from the method in every stage."""

    def plan(*settings):
        """The command lines by what they make, `stage2/VARIANT`, of fold 1 and seed 1."""
        done = shell(
            "snakemake", "-s", "examples/iemocap/Snakefile", "-n", "-p", "--cores", "1", "--directory", tmp_path,
            "--config", "name=dry", f"root={toy}/corpus", *settings,
        )  # fmt: skip
        makes = re.compile(r"(?:checkpoint.save_dir=|learn_kmeans.* --kmeans )\W*exp/dry/fold1/seed1/(\w+/[^/\s\"']+)")
        found = [(makes.search(line), line) for line in done.stdout.splitlines()]
        return {match[1]: line for match, line in found if match}, done.stdout

    made, everything = plan("seeds=1,2", "ablations=table3")
    assert "checkpoint manifest" in everything and not made  # folds are not known before it has run
    shutil.copytree(f"{toy}/data", tmp_path / "exp/dry/data")
    made, everything = plan("seeds=1,2", "ablations=table3,open,layer_-1")
    method = "multitask.layer-3.k16-64-256.from_original"
    assert "--config-name stage1_multitask_emotion_gender" in made["stage1/multitask"]
    assert "+ablation=emotion_only" in made["stage1/emotion_only"]
    assert "+ablation" not in made["stage1/multitask"] + made[f"stage2/{method}.masked"]
    assert "--layer=-3 --scales 16 64 256" in made["labels/multitask.layer-3"]
    assert "fold1/seed1/stage1/multitask/checkpoint_best.pt" in made["labels/multitask.layer-3"]
    assert "--layer=-1" in made["labels/multitask.layer-1"]
    assert "--checkpoint small" in made["labels/original.layer-3"]
    assert "task.labels=[16.km,64.km,256.km]" in made[f"stage2/{method}.masked"]
    assert 'model.hubert_path="small"' in made[f"stage2/{method}.masked"]
    assert "task.labels=[64.km]" in made["stage2/multitask.layer-3.k64.from_original.masked"]
    from_stage1 = made["stage2/multitask.layer-3.k16-64-256.from_multitask.masked"]
    assert "/stage1/multitask/checkpoint_best.pt" in from_stage1.split("model.hubert_path=")[1].split()[0]
    assert "+ablation=no_masking" in made[f"stage2/{method}.no_masking"]
    assert "+ablation=cross_entropy" in made["stage3/original.cross_entropy"]
    start = made[f"stage3/{method}.masked.am_softmax"].split("model.hubert_path=")[1].split()[0]
    assert f"/stage2/{method}.masked/checkpoint_last.pt" in start
    assert everything.count("seed2/stage1/multitask/done") and "fold5/seed2" in everything
    # A change of the card in the checkpoint's folder, as with a newer version, starts nothing afresh.
    inputs = [line for line in everything.splitlines() if "input:" in line and "stage1_multitask" in line]
    assert inputs and all("weights/small/model.safetensors" in line for line in inputs)
    assert not any("README" in line or re.search(r"weights/small(,|$)", line) for line in inputs)


def test_a_table_that_was_edited_makes_new_folds(toy, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("path,emotion,gender,speaker\n")
    shutil.copytree(f"{toy}/data", tmp_path / "exp/dry/data")

    def plan():
        return shell(
            "snakemake", "-s", "examples/iemocap/Snakefile", "-n", "--cores", "1", "--directory", tmp_path,
            "--rerun-triggers", "mtime", "--config", "name=dry", "corpus=csv", f"root={table}",
        ).stdout  # fmt: skip

    made = (tmp_path / "exp/dry/data/folds.json").stat().st_mtime
    os.utime(table, (made - 60, made - 60))
    assert "checkpoint manifest" not in plan()
    os.utime(table, (made + 60, made + 60))
    assert "checkpoint manifest" in plan()


def test_a_correction_that_leaves_the_counts_as_they_are_changes_what_stages_depend_on(tmp_path, write_audio):
    """Snakemake takes files of the same content for unchanged."""
    rows = [f"{i}.wav,{('sad', 'happy')[i % 2]},male,s{i % 4}" for i in range(16)]
    for i in range(16):
        write_audio(tmp_path / f"{i}.wav", 4000 + i)
    records = []
    for order in (rows, [rows[0].replace("sad", "happy"), rows[1].replace("happy", "sad"), *rows[2:]]):
        (tmp_path / "t.csv").write_text("\n".join(["path,emotion,gender,speaker", *order]))
        tool("make_manifest")(
            ["--corpus", "csv", "--root", f"{tmp_path}/t.csv", "--out", f"{tmp_path}/data", "--force"]
        )
        records.append(json.loads((tmp_path / "data/folds.json").read_text()))
    assert records[0]["counts"] == records[1]["counts"] and records[0] != records[1]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stage1=optimization.max_update=9", "expected a list in brackets, as stage1='[optimization.max_update=9]'"),
        ("name=2024_11", "name=202411: expected a letter, and letters, digits, . _ - after it"),
    ],
)
def test_settings_that_would_do_something_else(toy, tmp_path, setting, message):
    """A word that is spread into letters, results in another folder."""
    done = shell(
        "snakemake", "-s", "examples/iemocap/Snakefile", "-n", "--cores", "1", "--directory", tmp_path, "--config",
        f"root={toy}/corpus", setting, check=False,
    )  # fmt: skip
    assert done.returncode != 0 and message in done.stdout + done.stderr


def test_jobs_of_a_machine_with_several_gpus_have_one_each(toy, tmp_path, monkeypatch):
    """Two GPUs by a stand-in for nvidia-smi, five jobs, two at a time."""
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "workflow.yaml").write_text("device: null\n")
    (tmp_path / "Snakefile").write_text(f"""
configfile: "workflow.yaml"
include: "{REPO}/examples/pipeline.smk"
rule all:
    input: expand("job{{i}}", i=range(5))
rule job:
    output: touch("job{{i}}")
    resources: gpu=GPU
    shell: ON_GPU + "echo $CUDA_VISIBLE_DEVICES begins >> log; sleep 0.5; echo $CUDA_VISIBLE_DEVICES ends >> log"
""")
    shell("snakemake", "-s", tmp_path / "Snakefile", "--directory", tmp_path, "--cores", 4, "--resources", "gpu=2")
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 10 and {line.split()[0] for line in lines} == {"0", "1"}
    for gpu in "01":
        own = [line.split()[1] for line in lines if line[0] == gpu]
        assert own == ["begins", "ends"] * (len(own) // 2)

    # What is done stays done on other GPUs, and on none.
    for gpus in "0", "1,0", "":
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        done = shell("snakemake", "-s", tmp_path / "Snakefile", "--directory", tmp_path, "--cores", 1)
        assert "Nothing to be done" in done.stdout + done.stderr

    for at_once in [], ["--resources", "gpu=2"]:
        shell(
            "snakemake", "-s", "examples/iemocap/Snakefile", "-n", "--cores", 8, *at_once, "--directory", tmp_path,
            "--config", "name=dry", f"root={toy}/corpus",
        )  # fmt: skip


def test_what_comes_from_a_stage_that_was_done_anew_is_done_anew(tmp_path):
    """Also where the call that did it was killed after it; not where it made the same again."""
    (tmp_path / "workflow.yaml").write_text("device: null\n")
    (tmp_path / "Snakefile").write_text(f"""
configfile: "workflow.yaml"
include: "{REPO}/examples/pipeline.smk"
rule later:
    input: "stage/done"
    output: "later"
    shell: "touch {{output}}"
rule stage:
    output: "stage/done"
    shell: "cp weights stage/checkpoint_last.pt" + made("stage/checkpoint_*.pt")
""")
    triggers = re.search("--rerun-triggers [a-z ]+", (REPO / "Makefile").read_text())[0].split()
    call = ["snakemake", "-s", tmp_path / "Snakefile", "--directory", tmp_path, "--cores", 1, *triggers]
    (tmp_path / "weights").write_text("of the first training")
    shell(*call)
    for weights, planned in (("of the first training", set()), ("of another", {"later"})):
        (tmp_path / "weights").write_text(weights)
        shell(*call, "--forcerun", "stage", "--until", "stage")
        assert jobs(*call, "-n") == planned


def experiment(name, toy, *settings, repo=REPO):
    """`make experiment`'s command for one fold, two updates a stage."""
    stage = "[optimization.max_update=2,lr_scheduler.warmup_updates=1]"
    return [
        "snakemake", "-s", repo / "examples/iemocap/Snakefile", "--cores", "2", "--quiet", "rules", "--nolock",
        "--rerun-incomplete",
        "--config", f"name={name}", f"root={toy}/corpus", "scales=4,8", "only_folds=2",
        *(f"{s}={stage}" for s in ("stage1", "stage2", "stage3")), *settings,
    ]  # fmt: skip


def jobs(*command):
    """Names of the rules that a dry run would run."""
    return set(re.findall(r"^(\w+) +\d+$", shell(*command).stdout, re.MULTILINE)) - {"total"}


def check_recognizer(toy, tmp_path):
    """A model of all speakers with the figures of the experiment `tiny`, which has run in the repository `tmp_path`."""

    def recognizer(*settings, **kwargs):
        command = experiment("tiny_recognizer", toy, "folds=none", "tested=tiny", *settings, repo=tmp_path)
        command += ["--directory", tmp_path]
        command.insert(command.index("--config"), "recognizer")
        return shell(*command, **kwargs)

    done = recognizer("stage3=[optimization.max_update=1]", check=False)
    assert "stage3/" in done.stderr and "command is not what would be run here" in done.stderr

    # Figures of another corpus, or of an experiment that was not audited, are not this model's.
    there = tmp_path / "exp/tiny/experiment.json"
    there.write_text((plan := there.read_text()).replace('"iemocap"', '"emodb"'))
    done = recognizer("title=Everybody", check=False)
    assert "exp/tiny has corpus emodb, here it is iemocap" in done.stdout + done.stderr
    there.write_text(plan)
    audited = (tmp_path / "exp/tiny/audit.clean").rename(tmp_path / "audit.clean")
    done = recognizer("title=Everybody", check=False)
    assert "is not of a finished run that was audited; finish exp/tiny first" in done.stdout + done.stderr
    audited.rename(tmp_path / "exp/tiny/audit.clean")

    # Nor are those of models that heard the recordings without their silence.
    there = tmp_path / "exp/tiny/data/folds.json"
    there.write_text((record := there.read_text()).replace('"trim_silence_db": null', '"trim_silence_db": 40.0'))
    done = recognizer("title=Everybody", check=False)
    assert "exp/tiny/data/folds.json has trim_silence_db 40.0, here it is None" in done.stdout + done.stderr
    assert not (tmp_path / "exp/tiny_recognizer/fold1").exists()
    there.write_text(record)

    recognizer("title=Everybody", "licence=CC0-1.0")
    folder = tmp_path / "exp/tiny_recognizer/recognizer"
    card = (folder / "README.md").read_text()
    result = json.loads((tmp_path / f"exp/tiny/fold2/seed1/stage3/{METHOD}.am_softmax/result.json").read_text())
    assert "# Everybody" in card and "CC0-1.0" in card and "This model is none of those" in card
    assert f"| 2 | {result['n_utterances']} | 1 | {result['uar']:.1f} | {result['war']:.1f} |" in card
    loaded = Recognizer.load(folder)
    assert loaded.calibrated
    tuned = [e for e in loaded.provenance if e["stage"] == "am_softmax_classification"]
    seen = {path for entry in tuned for path in entry["utterances"]}
    assert len(seen) == len((toy / "data/utterances.tsv").read_text().splitlines()) - 2  # all speakers' recordings
    done = shell("gmp-ser", "evaluate", "--model", folder, toy / "data/utterances.tsv", check=False)
    assert done.returncode == 2 and "recordings that the model has seen" in done.stderr

    recognizer("title=Once more", "licence=CC0-1.0")
    assert "# Once more" in (folder / "README.md").read_text()


ROWS = "ablations=gmp_atl,no_pseudo_labels"


@pytest.fixture(scope="module")
def tiny(toy, tmp_path_factory):
    """The experiment `tiny`, undisturbed, in a copy of the repository as far as the workflow goes: that folder, its
    command, what it has printed, and its summary."""
    folder = tmp_path_factory.mktemp("tiny") / "my repository"
    shutil.copytree(REPO / "examples", folder / "examples")
    for name in ("gmp_plugin", "manifest_tools"):
        (folder / name).symlink_to(REPO / name)
    command = [*experiment("tiny", toy, ROWS, repo=folder), "--directory", folder]
    done = shell(*command)
    return folder, command, done.stdout, json.loads((folder / "exp/tiny/summary.json").read_text())


def check_answers_of_the_last(exp, copy):
    """The script that asks the last checkpoints gives the report's answers where the best are the last."""
    shutil.copytree(exp, copy)
    for best in copy.glob("fold*/seed*/stage3/*/checkpoint_best.pt"):
        shutil.copy(best, best.with_name("checkpoint_last.pt"))
    script = load_script(REPO / "benchmarks/support/last_answers.py")
    script.main([str(copy), "--out", str(copy / "last.csv")])
    assert (copy / "last.csv").read_text() == (exp / "answers.csv").read_text()


def test_snakefile_runs_a_fold_to_the_summary_and_the_recogniser_and_resumes(toy, tiny):
    repository, command, printed, summary = tiny
    assert "gmp_atl, seeds 1" in printed
    assert "clean: no recording and no speaker of a test part touched anything before" in printed
    assert "[1 of 5, time left not known yet] fold2/seed1/" in printed
    assert "[5 of 5, about 0 s left] fold2/seed1/" in printed and "] fold2/seed1/stage1/multitask" in printed
    assert f"] fold2/seed1/stage3/{METHOD}.am_softmax" in printed
    assert summary["folds"] == ["2"] and 0 <= summary["uar"]["mean"] <= 100
    assert "GMP-ATL" in (repository / "exp/tiny/report.html").read_text()
    embeddings = np.load(repository / f"exp/tiny/fold2/seed1/stage3/{METHOD}.am_softmax/embeddings.npz")
    assert len(embeddings["after"]) == len(embeddings["before"]) == len(Manifest.read(toy / "data/fold2/test.tsv"))
    alone = [word if word != "2" else "1" for word in command]  # core
    assert "Nothing to be done" in (again := shell(*alone)).stdout + again.stderr
    check_recognizer(toy, repository)
    check_answers_of_the_last(repository / "exp/tiny", repository / "copy")

    # Markers say what was made. A stage whose start has changed trains afresh, rather than from its old checkpoint.
    run = repository / "exp/tiny/fold2/seed1"
    stage3 = f"stage3/{METHOD}.am_softmax/checkpoint_best.pt"
    for made in ("stage1/multitask/checkpoint_best.pt", f"stage2/{METHOD}/checkpoint_last.pt", stage3,
                 "labels/multitask.layer-3/train.4.km"):  # fmt: skip
        assert sha256(run / made) in (run / made).with_name("done").read_text()
    log = run / f"stage3/{METHOD}.am_softmax/train.log"
    log.write_text("")
    (run / "stage2" / METHOD / "done").write_text("another checkpoint")
    shell(*command)
    assert "No existing checkpoint found" in log.read_text()
    # Other clusters are fitted anew; on another device, what was computed stays.
    other = experiment("tiny", toy, ROWS, "scales=4,16", repo=repository)
    assert {"kmeans", "stage2", "stage3"} < jobs(*other, "--directory", repository, "-n")
    other = experiment("tiny", toy, ROWS, "device=cpu", repo=repository)
    assert jobs(*other, "--directory", repository, "-n") == set()

    # Leaks do not end well, but with a report.
    audit = repository / "exp/tiny/audit.json"
    audit.write_text(json.dumps({**json.loads(audit.read_text()), "verdict": "leak", "statement": "leak: as a test"}))
    done = shell(*command, check=False)
    assert done.returncode != 0
    assert (
        "audit.json: leak: as a test; python manifest_tools/audit_leakage.py exp/tiny names"
        in done.stdout + done.stderr
    )
    assert (repository / "exp/tiny/report.md").stat().st_mtime > audit.stat().st_mtime

    # What is done counts as done where all is moved, and however the corpus's path is spelled; of another corpus, not.
    audit.unlink()
    shell(*command)
    moved = repository.rename(repository.with_name("moved"))
    command = [*experiment("tiny", f"{toy}/.", ROWS, repo=moved), "--directory", moved]
    assert "Nothing to be done" in (again := shell(*command)).stdout + again.stderr
    done = shell(*experiment("tiny", toy, f"root={toy}", repo=moved), "--directory", moved, check=False)
    assert f"exp/tiny has corpus_root {toy}/corpus, here it is {toy}: give" in done.stdout + done.stderr


def test_training_does_not_take_the_cpu_for_a_gpu(toy, tmp_path):
    done = shell(*experiment("nogpu", toy, "device=cuda"), "--directory", tmp_path, check=False)
    assert done.returncode != 0
    assert "error: device=cuda, but torch finds no GPU here; give device=cpu" in done.stdout + done.stderr


def test_flesa_and_gemo_clap_run_a_fold_to_the_report_and_the_audit(toy, stock_checkpoint, tmp_path):
    checkpoint = tmp_path / "my HuBERT" / "hubert.pt"  # users have such folders
    checkpoint.parent.mkdir()
    shutil.copy(stock_checkpoint()[1], checkpoint)
    few = "optimization.max_update=2"
    done = shell(
        *experiment("sisters", toy, "ablations=flesa,gemo_clap", f"checkpoint={checkpoint}"),
        f"flesa_pretraining=[{few},lr_scheduler.warmup_updates=1]", f"flesa_fine_tuning=[{few}]",
        f"gemo_clap_fine_tuning=[{few}]", "--directory", tmp_path,
    )  # fmt: skip
    exp = tmp_path / "exp/sisters"
    assert "clean: no recording and no speaker of a test part touched anything before" in done.stdout
    plan = json.loads((exp / "experiment.json").read_text())["rows"]
    assert list(plan) == ["flesa", "gemo_clap", "flesa_adapted"]
    assert all(name in (exp / "report.md").read_text() for name in plan)

    def folder(row, stage):
        return exp / plan[row][stage].format(fold=2, seed=1)

    # Labels of layer 3 of 4, of the original model and of the one fine-tuned after the first pretraining.
    kmeans = [MultiscaleKMeans.load(folder(row, "labels") / "kmeans.safetensors") for row in ("flesa_adapted", "flesa")]
    assert [(km.layer, km.scales) for km in kmeans] == [(3, [500]), (3, [50])]
    sources = [checkpoint, folder("flesa_adapted", "stage3") / "checkpoint_best.pt"]
    assert [km.checkpoint_sha256 for km in kmeans] == [sha256(path) for path in sources]
    last = torch.load(folder("flesa", "stage2") / "checkpoint_last.pt", weights_only=True)
    assert last["cfg"]["model"]["hubert_path"] == str(checkpoint)  # again from the original
    pooling = [
        torch.load(folder(row, "stage3") / "checkpoint_best.pt", weights_only=True)["cfg"]["model"]["pooling"]
        for row in plan
    ]
    assert pooling == ["attention", "mean", "mean"]
    result = json.loads((folder("flesa", "stage3") / "result.json").read_text())
    trained = {e["stage"] for e in result["provenance"] if e["split"] == "train"}
    assert trained == {"kmeans", "multiscale_label_pretraining", "am_softmax_classification"}


def test_a_killed_experiment_ends_with_the_same_table(toy, tiny, tmp_path):
    """Killed with all its jobs, SIGKILL, in the midst of every stage in turn (`GMP_KILLS`: at random times); its labels
    are computed by two jobs, those of the undisturbed one by one."""
    command = [str(c) for c in (*experiment("killed", toy, ROWS, "label_shards=2"), "--directory", tmp_path)]
    waits = [random.uniform(2, 40) for _ in range(int(os.environ.get("GMP_KILLS", 0)))]
    for moment in waits or ("stage1/multitask/train.log", f"stage2/{METHOD}/train.log"):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        if waits:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment)
        else:
            while process.poll() is None and not (tmp_path / "exp/killed/fold2/seed1" / moment).exists():
                time.sleep(0.05)
            time.sleep(1)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    shell(*command)
    assert json.loads((tmp_path / "exp/killed/summary.json").read_text()) == tiny[-1]


@pytest.mark.parametrize(
    "setting, message",
    [
        ("root=", "give the corpus, as in --config corpus=iemocap root=DIR"),
        ("ablations=gmp", "ablations=gmp: ablations.yaml has table3, table4, open, sisters, gmp_atl, "),
        ("checkpoint=none.pt", "checkpoint=none.pt does not exist"),
        ("size=large", "size=large: expected base or nano"),
        ("device=cuda:1", "device=cuda:1: expected cpu or cuda; of several GPUs, choose by CUDA_VISIBLE_DEVICES"),
        ("layers=-1", "layers=-1: no setting of this workflow; layer?"),
    ],
)
def test_wrong_settings_of_the_workflow(setting, message, tmp_path):
    done = shell(
        "snakemake", "-s", CONFIGS / "Snakefile", "-n", "--directory", tmp_path, "--config", "root=corpus", setting,
        check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
