"""A finished model on the labelled recordings of any corpus: figures, and a page about them."""

from pathlib import Path

import numpy as np

from . import metrics, statistics
from .calibration import BINS, Reliability, expected_calibration_error, nll, reliability, softmax
from .corpora.folds import natural_key
from .files import sha256
from .labelled import LabelledSet, answer, map_classes
from .machine import describe_machine, describe_versions
from .page import Box, Bullets, Code, Details, Heading, Picture, Table, Text
from .recognizer import Recognizer
from .report.plots import reliability_figure, speakers_figure

MANY_SPEAKERS = 60


def evaluate_corpus(
    recognizer: Recognizer, labelled: LabelledSet, table: dict[str, str], allow_seen: bool = False, device: str = "cpu"
) -> dict:
    """Everything about one evaluation, plain values, rates in percent; much as `result.json` of a fold has it.

    Recordings of classes that the model does not know count for nothing and are listed; recordings that cannot be used
    are listed under `bad`. UAR and macro-F1 are over the classes that occur.

    Raises `UserError` if a recording was in a training or validation part of anything that the model descends from,
    unless `allow_seen`.
    """
    seen = labelled.seen_in(recognizer.provenance)
    if not allow_seen:
        labelled.refuse(seen, "give others, or --allow-seen if you mean it")
    names = recognizer.names
    classes = map_classes(labelled.emotions, names, table)
    found = answer(recognizer, labelled, np.flatnonzero(classes.numbers >= 0))
    truth, logits = classes.numbers[found.indices], found.logits
    probabilities = softmax(logits, recognizer.temperature)
    predicted = logits.argmax(1)
    counts = metrics.confusion_counts(truth, predicted, len(names))
    speakers = None if labelled.speakers is None else [labelled.speakers[i] for i in found.indices]
    estimates = statistics.estimate(predicted == truth, truth, speakers)
    source = Path(recognizer.path)
    return {
        "uar": 100 * metrics.uar(counts),
        "war": 100 * metrics.war(counts),
        "macro_f1": 100 * metrics.macro_f1(counts),
        "intervals": {
            rate: {
                "utterances": [100 * x for x in e.utterances],
                "speakers": None if e.speakers is None else [100 * x for x in e.speakers],
            }
            for rate, e in estimates.items()
        },
        # None for a class that does not occur: NaN is no JSON.
        "recalls": {
            name: None if np.isnan(recall) else 100 * recall
            for name, recall in zip(names, metrics.recalls(counts).tolist(), strict=True)
        },
        "classes": names,
        "confusion": counts.tolist(),
        "n_utterances": len(truth),
        "counts": dict(zip(names, counts.sum(1).tolist(), strict=True)),
        "temperature": recognizer.temperature,
        "calibrated": recognizer.calibrated,
        "ece": 100 * expected_calibration_error(probabilities, truth),
        "ece_uncalibrated": 100 * expected_calibration_error(softmax(logits), truth),
        "ece_bins": BINS,
        "nll": nll(logits, truth, recognizer.temperature),
        "class_map": classes.used,
        "left_out": classes.left_out,
        "unmapped": classes.unmapped,
        "bad": list(found.bad.values()),
        "seen": {stage: len(paths) for stage, paths in seen.items()},
        "provenance_known": bool(recognizer.provenance),
        "utterances": [
            {
                "path": labelled.paths[i],
                "truth": names[t],
                "predicted": names[y],
                "logits": np.round(z.astype(float), 4).tolist(),
                **({"speaker": labelled.speakers[i]} if labelled.speakers else {}),
            }
            for i, t, y, z in zip(found.indices, truth, predicted, logits, strict=True)
        ],
        "manifest": labelled.file,
        "manifest_sha256": sha256(labelled.file),
        "model": recognizer.path,
        "model_sha256": sha256(source) if source.is_file() else None,
        "machine": describe_machine(device),
        "versions": describe_versions(),
    }


def result_blocks(result: dict) -> list:
    """The page, as blocks of `page`."""
    names = result["classes"]
    counts = np.array(result["confusion"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    occurring = [name for name in names if result["counts"][name]]
    rows = []
    for rate, title in (("uar", "UAR"), ("war", "WAR"), ("macro_f1", "macro-F1")):
        spread = result["intervals"].get(rate, {})
        rows.append(
            [title, f"{result[rate]:.1f}", *(_interval(spread.get(over)) for over in ("utterances", "speakers"))]
        )
    blocks = [
        *notes(result),
        Heading("Results"),
        Text(
            f"{result['n_utterances']} recordings of `{Path(result['manifest']).name}` by "
            f"`{Path(result['model']).name}`. UAR is the mean of the recalls of {', '.join(occurring)}: guessing among "
            f"the model's {len(names)} classes has {100 / len(names):.1f} %. Intervals hold 95 % of 10 000 bootstrap "
            "draws."
        ),
        Table(["", "%", "over utterances", "over speakers"], rows, bold=(0,)),
        Heading("Confusion matrix"),
        Table(
            ["spoken \\ recognised", *names, "recordings"],
            [
                [name, *(f"{s:.1%}  ({c})" for s, c in zip(share, count, strict=True)), str(count.sum())]
                for name, share, count in zip(names, shares, counts, strict=True)
                if count.sum()
            ],
            shades=[[None, *line, None] for line in shares[counts.sum(1) > 0].tolist()],
        ),
        Heading("Are the probabilities right?"),
        Text(
            f"Answers in {BINS} bins of confidence, as high as they were right. The expected calibration error is "
            f"**{result['ece']:.1f} %** with a temperature of {result['temperature']:.2f}"
            + (f", {result['ece_uncalibrated']:.1f} % without." if result["calibrated"] else " (not calibrated).")
        ),
        Picture("reliability", reliability_figure(_reliability(result)), "Accuracy by confidence"),
        *speakers_blocks(result),
        Heading("How this was made"),
        Table(
            ["class of the corpus", "class of the model"],
            [[theirs, ours] for theirs, ours in sorted(result["class_map"].items())],
        ),
        Details("Machine and versions", [Code("\n".join(f"{k}: {v}" for k, v in _details(result)))]),
    ]
    return blocks


def notes(result: dict) -> list:
    """What counts for nothing, or should not."""
    found = []
    if result["seen"]:
        stages = ", ".join(f"{stage} ({n})" for stage, n in result["seen"].items())
        text = f"**Recordings that the model was trained on or chosen by: {stages}.** These figures are no test."
        found.append(Box("bad", [Text(text)]))
    if not result["provenance_known"]:
        text = "The model does not say what it has seen: whether these recordings are new to it is not checked."
        found.append(Box("note", [Text(text)]))
    if result["unmapped"]:
        listed = [f"{name}: {n} recordings" for name, n in sorted(result["unmapped"].items())]
        text = f"**{sum(result['unmapped'].values())} recordings have a class that is none of the model's** and count "
        text += "for nothing (a table of classes can say which they are, `--classes`):"
        found.append(Box("note", [Text(text), Bullets(listed)]))
    if result["left_out"]:
        listed = [f"{name}: {n} recordings" for name, n in sorted(result["left_out"].items())]
        found.append(Box("note", [Text("Left out by the table of classes:"), Bullets(listed)]))
    if result["bad"]:
        text = f"**{len(result['bad'])} recordings could not be used** and count for nothing:"
        found.append(Box("bad", [Text(text), Bullets(result["bad"])]))
    return found


def speakers_blocks(result: dict) -> list:
    """Recall by speaker, where speakers are known and not too many to draw."""
    speakers = [u.get("speaker") for u in result["utterances"]]
    distinct = sorted({s for s in speakers if s}, key=natural_key)
    if not distinct or len(distinct) > MANY_SPEAKERS or None in speakers:
        return []
    names, recalls, uars, rows = result["classes"], [], [], []
    for speaker in distinct:
        own = [
            (names.index(u["truth"]), names.index(u["predicted"]))
            for u in result["utterances"]
            if u["speaker"] == speaker
        ]
        counts = metrics.confusion_counts(*np.array(own).T, len(names))
        recalls.append(100 * metrics.recalls(counts))
        uars.append(100 * metrics.uar(counts))
        cells = ["–" if np.isnan(r) else f"{r:.1f}" for r in recalls[-1]]
        rows.append([speaker, str(len(own)), f"{uars[-1]:.1f}", f"{100 * metrics.war(counts):.1f}", *cells])
    picture = Picture("speakers", speakers_figure(distinct, np.array(recalls), uars, names), "Recall of every speaker")
    head = ["speaker", "recordings", "UAR %", "WAR %", *(f"{name} %" for name in names)]
    return [Heading("Speakers"), picture, Details("The figures", [Table(head, rows)])]


def _reliability(result: dict) -> Reliability:
    logits = np.array([u["logits"] for u in result["utterances"]])
    truth = np.array([result["classes"].index(u["truth"]) for u in result["utterances"]])
    return reliability(softmax(logits, result["temperature"]), truth)


def _interval(bounds) -> str:
    return "–" if bounds is None else f"{bounds[0]:.1f} to {bounds[1]:.1f}"


def _details(result: dict) -> list[tuple[str, object]]:
    return [
        ("model sha256", result["model_sha256"]), ("manifest sha256", result["manifest_sha256"]),
        *result["machine"].items(), *result["versions"].items(),
    ]  # fmt: skip
