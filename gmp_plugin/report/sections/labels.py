"""Frame labels: usage of the clusters, and what they know."""

from dataclasses import astuple
from pathlib import Path

import numpy as np

from ...errors import UserError
from ...label_plots import agreement_figure, usage_figure
from ...label_report import LabelSet
from ...label_statistics import Agreement, Usage, agreement, usage
from ...page import Details, Heading, Picture, Table, Text
from ..results import ExperimentResults, RowResults
from . import wording


def labels_section(experiment: ExperimentResults) -> list:
    """Usage of the clusters, and what they know, mean of the runs."""
    blocks = [Heading("Frame labels")]
    if not experiment.templates("labels"):
        return [*blocks, Text("No row uses frame labels.")]
    blocks.append(
        Text(
            "Labels of the training parts, mean of the runs. Perplexity is the number of equally used clusters that "
            "would be as varied. Purity and normalised mutual information (NMI) rise with the number of clusters "
            "alone: what counts is the distance from chance, which is the same with the classes dealt to other "
            "utterances."
        )
    )
    for template, rows in experiment.templates("labels").items():
        usages, agreements, n_runs, notes = _label_statistics(experiment, rows[0])
        name = f"Labels `{Path(template).name}`, {wording.count(range(n_runs), 'run')}"
        own = [Text(note, soft=True) for note in notes]
        if n_runs:
            head = ["scale", "clusters in use", "perplexity", "perplexity / K", "largest cluster"]
            own += [
                Table(head, _usage_rows(usages)),
                Table(["property", "K", "purity", "by chance", "NMI", "by chance"], _agreement_rows(agreements)),
                Picture(f"agreement_{Path(template).name}", agreement_figure(_mean_agreements(agreements)),
                        f"What the labels {Path(template).name} know about emotion, gender and speaker"),
                Picture(f"usage_{Path(template).name}", usage_figure(_mean_usages(usages)),
                        f"Sorted frequencies of the clusters of {Path(template).name}"),
            ]  # fmt: skip
        blocks += [Text(f"**{name}**"), *own] if experiment.headline in rows else [Details(name, own)]
    return blocks


def _label_statistics(experiment: ExperimentResults, row: RowResults):
    """Usages of each scale and agreements of each property and scale, one of every run; the runs, and notes."""
    usages, agreements, n_runs, notes = {}, {}, 0, []
    for run in row.runs:
        folder = row.folder("labels", run)
        if not (experiment.folder / folder / "train.labels.json").is_file() and not list(
            (experiment.folder / folder).glob("train.*.km")
        ):
            continue
        try:
            data = LabelSet.read(experiment.folder / "data" / f"fold{run[0]}" / "train.tsv", experiment.folder / folder)
        except UserError as error:
            notes.append(f"{folder}: {error}")
            continue
        n_runs += 1
        n_frames = data.manifest.n_frames()
        for k, labels in data.labels.items():
            usages.setdefault(k, []).append(usage(labels.values, k))
            for name, (classes, _) in data.classes.items():
                found = agreement(labels.values, classes, n_frames)
                agreements.setdefault(name, {}).setdefault(k, []).append(found)
    return usages, agreements, n_runs, notes


def _usage_rows(usages: dict) -> list[list[str]]:
    rows = []
    for k, found in usages.items():
        in_use, perplexity, largest = np.mean([(u.in_use, u.perplexity, u.shares[0]) for u in found], axis=0)
        rows.append([f"K = {k}", f"{in_use:.1f}", f"{perplexity:.1f}", f"{perplexity / k:.0%}", f"{largest:.1%}"])
    return rows


def _agreement_rows(agreements: dict) -> list[list[str]]:
    return [
        [name, f"{k}", f"{a.purity:.1%}", f"{a.chance_purity:.1%}", f"{a.nmi:.3f}", f"{a.chance_nmi:.3f}"]
        for name, by_scale in _mean_agreements(agreements).items()
        for k, a in by_scale.items()
    ]


def _mean_agreements(agreements: dict) -> dict:
    return {
        name: {k: Agreement(*np.mean([astuple(a) for a in found], axis=0).tolist()) for k, found in by_scale.items()}
        for name, by_scale in agreements.items()
    }


def _mean_usages(usages: dict) -> dict:
    """Of the sorted shares: the most used cluster of one run has nothing to do with that of another."""
    return {k: Usage(np.mean([u.shares for u in found], axis=0)) for k, found in usages.items()}
