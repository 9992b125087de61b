"""Learning curves of a stage, from its TensorBoard files."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WANTED = re.compile(r"loss|loss_emotion|uar|gender_uar|accuracy_\w+")
# Panels of each stage: title, and the pattern of the curves' tags.
PANELS = {
    "stage1": {"loss": "loss", "emotion, UAR (%)": "uar", "gender, UAR (%)": "gender_uar"},
    "stage2": {"loss": "loss", "frames recognised, validation part (%)": r"accuracy_\w+"},
    # GEmo-CLAP is trained with another loss than it is validated with.
    "stage3": {"loss of the emotion": "loss_emotion", "emotion, UAR (%)": "uar"},
}


@dataclass(frozen=True)
class Curve:
    """A value `(n,)` at some numbers of updates `(n,)`, rising."""

    updates: np.ndarray
    values: np.ndarray


def read_curves(folder) -> dict[tuple[str, str], Curve]:
    """Curves of a stage's folder by part, `train` or `valid`, and tag; none where there are no TensorBoard files.

    Of an update that was run twice, after a restart, the last value counts.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # slow to import

    curves = {}
    for part in ("train", "valid"):
        path = Path(folder) / "tensorboard" / part
        if not path.is_dir():
            continue
        events = EventAccumulator(str(path), size_guidance={"scalars": 0, "images": 1})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            if WANTED.fullmatch(tag):
                found = sorted(events.Scalars(tag), key=lambda event: event.wall_time)
                points = dict(sorted({event.step: event.value for event in found}.items()))
                curves[part, tag] = Curve(np.array(list(points)), np.array(list(points.values())))
    return curves


def mean_curve(curves: list[Curve]) -> Curve:
    """The mean where all have begun and none has ended, between their points on straight lines."""
    begin, end = max(c.updates[0] for c in curves), min(c.updates[-1] for c in curves)
    updates = np.unique(np.concatenate([c.updates for c in curves]))
    updates = updates[(updates >= begin) & (updates <= end)]
    return Curve(updates, np.mean([np.interp(updates, c.updates, c.values) for c in curves], axis=0))
