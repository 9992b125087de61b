"""How far an experiment is: artefacts that are there, and the time that the rest will take."""

import csv
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .experiment import STAGES, Experiment

MARKER = {"stage1": "done", "labels": "done", "stage2": "done", "stage3": "result.json"}


@dataclass
class Progress:
    """Artefacts by stage: `done` and `total` counts; `seconds`, the median time of one, None if none is known."""

    done: dict[str, int]
    total: dict[str, int]
    seconds: dict[str, float | None]

    def seconds_left(self, jobs: int = 1) -> float | None:
        """Seconds of the rest with `jobs` at once; None while a stage that is still to come has no time yet."""
        left = 0.0
        for stage in STAGES:
            missing = self.total[stage] - self.done[stage]
            if missing and self.seconds[stage] is None:
                return None
            left += missing * (self.seconds[stage] or 0) / min(jobs, max(missing, 1))
        return left


def progress(folder, experiment: Experiment, finished: str | None = None) -> Progress:
    """The state of the experiment in `folder`; `finished` is an artefact to count although it is not marked yet."""
    state = Progress({}, {}, {})
    for stage, artefacts in experiment.artefacts().items():
        paths = [Path(folder) / artefact for artefact in artefacts]
        complete = [p for p in paths if (p / MARKER[stage]).exists() or str(p.relative_to(folder)) == finished]
        state.done[stage], state.total[stage] = len(complete), len(paths)
        times = [seconds for p in paths if (seconds := read_seconds(p / "time.tsv")) is not None]
        state.seconds[stage] = median(times) if times else None
    return state


def read_seconds(path) -> float | None:
    """Seconds of a job, from Snakemake's `benchmark` file; None if it is not there or not whole."""
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return float(next(csv.DictReader(stream, delimiter="\t"))["s"])
    except (OSError, StopIteration, KeyError, TypeError, ValueError):
        return None


def describe(state: Progress, jobs: int = 1) -> str:
    """`[12 of 80, about 25 min left]`."""
    left = state.seconds_left(jobs)
    if left is None:
        time = "time left not known yet"
    elif left < 90:
        time = f"about {left:.0f} s left"
    elif left < 5400:
        time = f"about {left / 60:.0f} min left"
    else:
        time = f"about {left / 3600:.1f} h left"
    return f"[{sum(state.done.values())} of {sum(state.total.values())}, {time}]"
