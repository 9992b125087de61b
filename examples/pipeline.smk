# What the workflows share: command lines of tools, a log per job, and training that goes on where it was.

import shlex
from pathlib import Path

REPO = Path(workflow.basedir).parents[1]


def refuse(message):
    raise WorkflowError(f"error: {message}")


def tool(name, *arguments):
    return shlex.join(["python", str(REPO / "manifest_tools" / name), *map(str, arguments)])


# A log per job; its last lines, where the message is, on failure.
LOGGED = "OMP_NUM_THREADS={threads} {params.command} > {log} 2>&1 || {{ tail -n 3 {log} >&2; exit 1; }}"

# Training goes on from a checkpoint_last.pt only if it was left by this same command and is newer
# than what the stage starts from; otherwise it starts afresh.
TRAIN = (
    "same_command() {{ [ \"$(cat {params.folder}/command 2>/dev/null)\" = {params.command:q} ]; }}; "
    "for f in {input}; do [ $f -nt {params.folder}/checkpoint_last.pt ] && stale=1; done; "
    "if [ -n \"${{stale:-}}\" ] || ! same_command; then rm -rf {params.folder}/*.pt {params.folder}/tensorboard; fi; "
    "echo {params.command:q} > {params.folder}/command; " + LOGGED
)
