"""Learning curves of the stages."""

from pathlib import Path

from ...page import Details, Heading, Picture, Text
from .. import plots
from ..learning_curves import read_curves
from ..results import ExperimentResults
from . import wording
from .wording import TITLES


def curves_section(experiment: ExperimentResults) -> list:
    """Learning curves of the stages' folders."""
    blocks = [
        Heading("Learning curves"),
        Text("A thin line is a run (a fold with a seed), the thick one their mean. Checkpoints of stages 1 and 3 are "
             "chosen by the UAR on the validation part, whose speakers the training part has too: what new speakers "
             "bring is in the tables above only."),
    ]  # fmt: skip
    for stage in ("stage1", "stage2", "stage3"):
        for template, rows in experiment.templates(stage).items():
            folders = [rows[0].folder(stage, run) for run in rows[0].runs]
            runs = [curves for folder in folders if (curves := read_curves(experiment.folder / folder))]
            name = f"{TITLES[stage].capitalize()}, `{Path(template).name}`, {wording.count(runs, 'run')}"
            if not runs:
                blocks.append(Text(f"{name}: no TensorBoard files.", soft=True))
                continue
            alt = f"Learning curves of {TITLES[stage]}, {Path(template).name}"
            picture = Picture(f"curves_{stage}_{Path(template).name}", plots.curves_figure(stage, runs), alt)
            if experiment.headline in rows:
                blocks += [Text(f"**{name}**"), picture]
            else:
                blocks.append(Details(name, [picture]))
    return blocks
