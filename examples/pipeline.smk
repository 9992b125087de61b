# What the workflows share: settings, command lines of tools, a log per job, training that goes on where it was, and GPUs.

import difflib
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import gmp_plugin
import yaml


def refuse(message):
    raise WorkflowError(f"error: {message}")


SETTINGS = yaml.safe_load((Path(workflow.basedir) / "workflow.yaml").read_text())
for name in config.keys() - SETTINGS.keys():
    close = difflib.get_close_matches(name, SETTINGS, 1)
    refuse(f"{name}={config[name]}: no setting of this workflow" + (f"; {close[0]}?" if close else ", see workflow.yaml"))
for name, default in SETTINGS.items():
    if isinstance(default, list) and not isinstance(config[name], list):
        refuse(f"{name}={config[name]}: expected a list in brackets, as {name}='[{config[name]}]'")
for name in ("name", "tested"):
    if not re.fullmatch(r"[A-Za-z][\w.-]*", str(config.get(name) or "none")):  # 2024_11 would be read as a number
        refuse(f"{name}={config[name]}: expected a letter, and letters, digits, . _ - after it")

# By names in command lines, so that they stay the same where the repository is moved: what is done counts as done.
os.environ["GMP_REPO"] = str(Path(workflow.basedir).parents[1])
os.environ["GMP_PLUGIN"] = str(Path(gmp_plugin.__file__).parent)  # the one that Python imports, and no link to it
REPO, PLUGIN = Path("@GMP_REPO"), "@GMP_PLUGIN"


def command_line(words):
    """As `shlex.join`, with the places of repository and package left to the shell."""
    quoted = [shlex.quote(str(word)) for word in words]
    return " ".join(re.sub("@(GMP_[A-Z]+)", r"""'"$\1"'""" if w[0] == "'" else r'"$\1"', w) for w in quoted)


def place(path):
    """A path as users spell it, in one spelling."""
    return path and os.path.normpath(str(path))


def tool(name, *arguments):
    return command_line(["python", REPO / "manifest_tools" / name, *arguments])


# A log per job; its last lines, where the message is, on failure.
FAILED = " > {log} 2>&1 || {{ tail -n 3 {log} >&2; exit 1; }}"
LOGGED = "OMP_NUM_THREADS={threads} {params.command}" + FAILED
# Of tools that compute. The device is no part of the command: what one has made counts as made on another.
COMPUTED = "OMP_NUM_THREADS={threads} {params.command} ${{GMP_DEVICE:+--device $GMP_DEVICE}}" + FAILED


def made(files):
    """The end of a job whose output is a marker: digests of what it made. Snakemake takes a marker with the same content
    for unchanged, however new it is."""
    return f"; sha256sum {files} > {{output}}"



def visible_gpus():
    """Numbers of this machine's GPUs that jobs may use."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [gpu for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if gpu]
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True).stdout.split() if shutil.which(query[0]) else []


if config["device"] not in (None, "cpu", "cuda"):
    refuse(f"device={config['device']}: expected cpu or cuda; of several GPUs, choose by CUDA_VISIBLE_DEVICES")
if config["device"] == "cpu":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # parts of fairseq use a GPU that they see, whatever they are told
# Jobs that use a GPU take turns on those there are, `--resources gpu=1` (GPUS of the Makefile).
GPU = int(config["device"] == "cuda" or (config["device"] is None and shutil.which("nvidia-smi") is not None))
# What differs from call to call reaches the jobs by the environment: a rule whose text has changed is run again.
os.environ["GMP_DEVICE"] = config["device"] or ""
GPUS = visible_gpus() if GPU else []
os.environ["GMP_GPUS"] = " ".join(GPUS) if len(GPUS) > 1 else ""
# Where there is no GPU, fairseq would train on the CPU.
HAS_GPU = (
    "[ \"$GMP_DEVICE\" != cuda ] || python -c 'import torch; exit(not torch.cuda.is_available())' || "
    "{{ echo 'error: device=cuda, but torch finds no GPU here; give device=cpu' >&2; exit 1; }}; "
)
# Of several, a job takes one that no other job on this machine has: by a lock that lives as long as its processes. Where
# none is free, as where a cluster's scheduler gave the job its own, it stays with what it was given.
ON_GPU = (
    "for gpu in $GMP_GPUS; do exec 9> ${{TMPDIR:-/tmp}}/gpu$gpu.$(id -u).lock; "
    "flock -n 9 && export CUDA_VISIBLE_DEVICES=$gpu && break; done; "
)

# Training goes on from a checkpoint_last.pt only if it was left by this same command and is newer
# than what the stage starts from; otherwise it starts afresh.
TRAIN = HAS_GPU + (
    "same_command() {{ [ \"$(cat {params.folder}/command 2>/dev/null)\" = {params.command:q} ]; }}; "
    "for f in {input:q}; do [ \"$f\" -nt {params.folder}/checkpoint_last.pt ] && stale=1; done; "
    "if [ -n \"${{stale:-}}\" ] || ! same_command; then rm -rf {params.folder}/*.pt {params.folder}/tensorboard; fi; "
    "echo {params.command:q} > {params.folder}/command; " + ON_GPU + LOGGED
)
