"""Embeddings of the test parts before and after stage 3."""

import numpy as np

from ...embeddings import Embeddings, silhouettes
from ...label_statistics import plane
from ...page import Details, Heading, Picture, Table, Text
from .. import plots
from ..results import ExperimentResults, RowResults
from . import wording
from .wording import NONE

MAPPED = 300  # utterances in a map at most


def embeddings_section(experiment: ExperimentResults) -> list:
    """Maps of the headline row's test parts before and after stage 3, and silhouettes of all rows."""
    blocks = [Heading("Embeddings of stage 3")]
    rows, maps = [], []
    for row in experiment.rows.values():
        scores: dict[tuple[str, str], list[float]] = {}
        for run, result in row.results.items():
            embeddings = _embeddings(experiment, row, run, result)
            if embeddings is None:
                continue
            both = {"before": embeddings.before, "after": embeddings.after}
            both = {name: vectors for name, vectors in both.items() if vectors is not None}
            for name, vectors in both.items():
                for what, value in silhouettes(vectors, embeddings.classes).items():
                    scores.setdefault((name, what), []).append(value)
            if row is experiment.headline and run[1] == experiment.seeds[0]:
                maps.append((run[0], both, embeddings.classes))
        if scores:
            cells = [
                wording.signed(float(np.mean(scores[key])), ".2f") if (key := (name, what)) in scores else NONE
                for what in ("emotion", "gender", "speaker")
                for name in ("before", "after")
            ]
            rows.append([wording.title(row), *cells])
    if not rows:
        return [*blocks, Text("There are none: `evaluate.py --embeddings` writes them beside the result.")]
    head = [""] + [f"{what}, {when}" for what in ("emotion", "gender", "speaker") for when in ("before", "after")]
    blocks += [
        Text(
            "Test parts, before stage 3 (mean over time of the last layer of the HuBERT that it started from) and "
            "after it (the vector before the last layer of the head). The silhouette, mean of the runs, is near 1 "
            "where utterances of one class keep together, and 0 where they do not. Maps of large test parts show every "
            f"second, or third, utterance, {MAPPED} at most."
        ),
        Table(head, rows, caption="Silhouettes"),
    ]
    for i, (fold, both, classes) in enumerate(maps):
        planes = {}
        for name, vectors in both.items():
            points, how = plane({len(vectors): vectors})
            planes[f"{name} ({how})"] = points[len(vectors)][:: -(-len(vectors) // MAPPED)]
        classes = {what: values[:: -(-len(values) // MAPPED)] for what, values in classes.items()}
        alt = f"Maps of the test part of fold {fold} before and after stage 3"
        picture = Picture(f"embeddings_fold{fold}", plots.embeddings_figure(planes, classes), alt)
        name = f"{wording.title(experiment.headline)}, fold {fold}, seed {experiment.seeds[0]}"
        blocks += [Text(f"**{name}**"), picture] if i == 0 else [Details(name, [picture])]
    return blocks


def _embeddings(experiment: ExperimentResults, row: RowResults, run, result: dict) -> Embeddings | None:
    path = experiment.folder / row.folder("stage3", run) / "embeddings.npz"
    if not path.is_file():
        return None
    embeddings = Embeddings.load(path)
    return embeddings if embeddings.checkpoint_sha256 == result["checkpoint_sha256"] else None
