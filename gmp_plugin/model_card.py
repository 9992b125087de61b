"""The README of an exported recogniser, for people: what it is, how well it does, what it has seen, how to use it."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from . import frames
from .calibration import BINS, expected_calibration_error, softmax
from .fold_results import RATES, cross_calibrate, held_out_logits
from .provenance import published
from .recognizer_model import PROMPTS, TrainedModel, pooled_dim


@dataclass(frozen=True)
class CardText:
    """What only the exporter knows.

    `title`; `about`, a paragraph on the data and on what the model is not good for; `licence`, an SPDX name or free
    words; `corpus`, the name of what it was trained on, in place of folders of this machine; `results`, the
    `result.json` of test parts, of this model or of others that were trained like it; `checkpoint_sha256` of the file
    that is exported, which tells them apart.
    """

    title: str = "Speech emotion recognition with GMP-ATL"
    about: str = ""
    licence: str = ""
    corpus: str | None = None
    results: tuple[dict, ...] = ()
    checkpoint_sha256: str | None = None


def model_card(trained: TrainedModel, card: CardText) -> str:
    emotions = trained.names["emotion"]
    n = sum(t.numel() for t in [*trained.hubert.state_dict.values(), *trained.tensors.values()])
    settings = trained.hubert.settings
    licence = f"license: {card.licence.lower()}\n" if card.licence and " " not in card.licence else ""
    gender = f"\n| gender head | {', '.join(trained.names['gender'])} |" if "gender" in trained.names else ""
    samples = f"float32 within -1..1, at least {frames.RECEPTIVE_FIELD} samples"
    silence = "" if trained.trim_silence_db is None else f"\n| before | cut the {_silence(trained)} |"
    calibration = "not calibrated" if trained.temperature is None else f"temperature {trained.temperature:.3f}"
    return f"""---
library_name: gmp-plugin
pipeline_tag: audio-classification
{licence}tags:
- speech-emotion-recognition
- hubert
---

# {card.title}

{card.about or "Emotion of a spoken utterance, by HuBERT, pooling over time and a head trained on them."}

| | |
|---|---|
| emotions | {", ".join(emotions)} |{gender}
| parameters | {n:,} |
| backbone | HuBERT, {settings["encoder_layers"]} layers of {settings["encoder_embed_dim"]} |
| head | {_head(trained)} |
| probabilities | {calibration} |
| input | mono audio at {frames.SAMPLE_RATE} Hz, {samples} |{silence}

## Measured

{measured(trained, card)}

Acted or read emotions of few speakers are easier than those of everyday life, and other languages, rooms and
microphones cost accuracy. The probabilities are estimates about sounds, not knowledge about people: do not decide
about anyone by them.

## Data seen

{seen_list(published(trained.provenance, card.corpus))}

## Licence

{card.licence or "Not stated"}. Weights follow the licence of what they were trained on: look at the corpora above, and
at the licence of the weights that training started from.

## Use

```
gmp-ser predict --model THIS_FOLDER recording.wav
```

```python
from gmp_plugin.recognizer import Recognizer

recognizer = Recognizer.load("THIS_FOLDER")
print(recognizer(wave, sample_rate).probabilities)
```

The backbone alone is in Hugging Face layout, `transformers.HubertModel.from_pretrained("THIS_FOLDER")`; give it one
clip at a time, as its features change with padding. `head.safetensors` holds the tensors of the pooling (`pooling.*`)
and of the heads (`emotion_head.*`), `recognizer.json` the class names and everything else.
"""


def _silence(trained: TrainedModel) -> str:
    return (
        f"silence before and after, {trained.trim_silence_db:g} dB below the loudest 20 ms, "
        "as the recordings of the training were"
    )


def onnx_card(trained: TrainedModel, card: CardText, file: str, measured: list[str]) -> str:
    """The text beside an ONNX file; `measured` are lines of a table of what the export cost."""
    size = pooled_dim(trained.tensors) + (trained.settings["pooling"] == "attention")  # and the frame's weight
    gender = ["| `gender_probabilities` | `(batch, genders)` | where the model has that head |"]
    outputs = [
        "| `probabilities` | `(batch, classes)` | of the emotions, sum 1 |",
        "| `logits` | `(batch, classes)` | before the temperature |",
        *(gender if "gender" in trained.names else []),
        f"| `frames` | `(batch, frames, {size})` | {frames.FRAME_RATE:.0f} a second, averaged; zeros at padding |",
    ]
    before = "Nothing else is done to the audio before."
    if trained.trim_silence_db is not None:
        before = f"Before, cut the {_silence(trained)}; `gmp-ser predict` does that, the lines below do not."
    return f"""# {card.title}: {file}

{card.about}

| input | shape, type | |
|---|---|---|
| `audio` | `(batch, samples)` float32 | {frames.SAMPLE_RATE} Hz, mono, within -1..1, zeros on the right |
| `n_samples` | `(batch,)` int64 | valid samples of each row, at least {frames.RECEPTIVE_FIELD} |

| output | shape | |
|---|---|---|
{chr(10).join(outputs)}

Emotions: {", ".join(trained.names["emotion"])}. {before} A row's answer does not
depend on the others; in a file with int8 it does a little, as activations are scaled over the whole batch: give that
one recording at a time, as `gmp-ser predict` does. Memory grows with the square of the length: cut minutes into pieces.

{chr(10).join(measured)}

```python
{snippet(file)}```

Licence: {card.licence or "not stated"}; weights follow the licence of what they were trained on.
"""


def snippet(file: str) -> str:
    """Python that runs an ONNX file with onnxruntime and soundfile alone."""
    return f"""import json

import numpy
import onnxruntime
import soundfile

session = onnxruntime.InferenceSession("{file}")
classes = json.loads(session.get_modelmeta().custom_metadata_map["gmp_plugin"])["classes"]["emotion"]
audio, rate = soundfile.read("recording.wav", dtype="float32", always_2d=True)
assert rate == {frames.SAMPLE_RATE}, "resample it first"
audio = audio.mean(axis=1)[None]
n_samples = numpy.array([audio.shape[1]], dtype="int64")
(probabilities,) = session.run(["probabilities"], {{"audio": audio, "n_samples": n_samples}})
print({{name: round(p, 3) for name, p in zip(classes, probabilities[0].tolist())}})
"""


def measured(trained: TrainedModel, card: CardText) -> str:
    """The figures, and whose they are: this model's, or those of models that were trained like it."""
    if not card.results:
        return "Nothing was measured when this was exported."
    own = [r for r in card.results if card.checkpoint_sha256 and r.get("checkpoint_sha256") == card.checkpoint_sha256]
    if len(own) == len(card.results):
        whose = "On recordings of a test part that training has not seen, in percent."
    else:
        whose = (
            "By cross-validation, in percent: every fold is the test part of a model of its own, trained in the same "
            "way without the fold's speakers."
        )
        if card.checkpoint_sha256:
            which = f"the one of fold {own[0].get('fold')}" if own else "none of those"
            whose += f" This model is {which}; what it has seen itself is listed below."
    return "\n\n".join([whose, results_table(card.results), *calibration_error(trained, card.results)])


def calibration_error(trained: TrainedModel, results: Iterable[dict]) -> list[str]:
    """How far the probabilities of tested recordings are off, in a sentence; none where their logits are not kept."""
    if trained.temperature is None or not all("utterances" in result for result in results):
        return []
    names, by_fold = trained.names["emotion"], by_folds(results)
    logits, labels = held_out_logits(results, names)
    with_it, without = (expected_calibration_error(softmax(logits, t), labels) for t in (trained.temperature, 1.0))
    text = f"The expected calibration error of these answers ({BINS} bins) is "
    if len(by_fold) > 1:
        crossed = cross_calibrate(by_fold, names)
        apart = expected_calibration_error(crossed.probabilities, crossed.labels)
        text += f"{100 * apart:.1f} % where each fold has the temperature that suits the others, "
    return [
        f"{text}{100 * without:.1f} % without any temperature; with the temperature of {trained.temperature:.2f} that "
        f"is used here, {100 * with_it:.1f} %, which is too good if it was fitted on them."
    ]


def by_folds(results: Iterable[dict]) -> dict[str, list[dict]]:
    """Results by the name of their fold."""
    found: dict[str, list[dict]] = {}
    for result in results:
        found.setdefault(str(result.get("fold") or "–"), []).append(result)
    return found


def results_table(results: Iterable[dict]) -> str:
    """UAR, WAR and macro-F1 of test parts by fold (mean of its seeds), with mean and standard deviation over folds."""
    by_fold = by_folds(results)
    rows = [
        "| fold | recordings | seeds | UAR | WAR | macro-F1 |", "|---|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    means = []
    for fold in sorted(by_fold, key=lambda fold: (len(fold), fold)):
        found = by_fold[fold]
        means.append([float(np.mean([result[rate] for result in found])) for rate in RATES])
        figures = " | ".join(f"{value:.1f}" for value in means[-1])
        rows.append(f"| {fold} | {found[0]['n_utterances']} | {len(found)} | {figures} |")
    if len(means) > 1:
        mean, spread = np.mean(means, axis=0), np.std(means, axis=0, ddof=1)
        figures = " | ".join(f"**{m:.1f}** ± {s:.1f}" for m, s in zip(mean, spread, strict=True))
        rows.append(f"| mean ± standard deviation over folds | | | {figures} |")
    return "\n".join(rows)


def seen_list(provenance: list[dict]) -> str:
    lines = [
        f"- {e['stage']}, {e['split']}: {len(e['utterances'])} recordings" + (f" of {e['root']}" if e["root"] else "")
        for e in provenance
    ]
    return "\n".join(lines) or "- not known"


def _head(trained: TrainedModel) -> str:
    settings = trained.settings
    size = settings["projection_dim"]
    pooling = {
        "bilstm": f"BiLSTM {settings['lstm_dim']} each way, mean over time",
        "attention": "attention over time",
        "mean": "mean over time",
    }
    head = {
        "am_softmax": f"projection {size}, AM-softmax (cosine, s = {settings['scale']:g})",
        "cross_entropy": f"projection {size}, linear",
        "linear": "linear",
        PROMPTS: f"two linear layers of {size}, cosines to the classes' prompts",
    }
    return f"{pooling[settings['pooling']]}, {head[settings['head']]}"
