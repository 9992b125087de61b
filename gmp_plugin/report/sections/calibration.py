"""The report's section on what the probabilities are worth."""

import numpy as np

from ...calibration import BINS, expected_calibration_error, reliability
from ...fold_results import CrossCalibration, cross_calibrate
from ...page import Heading, Picture, Table, Text
from ..analysis import Analysis
from ..plots import reliability_figure
from ..results import ExperimentResults, RowResults


def calibration_section(experiment: ExperimentResults, found: dict[str, Analysis]) -> list:
    """Expected calibration error of every row, without a temperature and with that of the other folds."""
    calibrated = [
        (one.row, cross_calibrate(by_fold(one.row), experiment.classes))
        for one in found.values()
        if one.pool is not None and len(one.row.folds) > 1
    ]
    if not calibrated:
        return []
    blocks = [
        Heading("Are the probabilities right?"),
        Text(
            "A temperature divides the logits; decisions stay. Each fold's is fitted on the answers to the other "
            "folds, so that its own recordings have no part in it. Expected calibration error in "
            f"{BINS} bins of confidence, folds and seeds together."
        ),
        Table(
            ["", "error without, %", "with, %", "temperatures of the folds"],
            [[row.title, *_errors(c), _temperatures(c)] for row, c in calibrated],
        ),
    ]
    for row, one in calibrated:
        if row is experiment.headline:
            figure = reliability_figure(reliability(one.probabilities, one.labels))
            blocks.append(Picture("calibration", figure, f"Accuracy by confidence with the temperatures: {row.title}"))
    return blocks


def by_fold(row: RowResults) -> dict[str, list[dict]]:
    return {fold: [result for (f, _), result in row.results.items() if f == fold] for fold in row.folds}


def _errors(found: CrossCalibration) -> list[str]:
    both = (found.plain, found.probabilities)
    return [f"{100 * expected_calibration_error(p, found.labels):.1f}" for p in both]


def _temperatures(found: CrossCalibration) -> str:
    values = np.array(list(found.temperatures.values()))
    return f"{values.min():.2f} to {values.max():.2f}"
