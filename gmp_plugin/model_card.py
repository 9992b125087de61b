"""The README of an exported recogniser, for people: what it is, how well it does, what it has seen, how to use it."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from . import frames
from .recognizer_model import TrainedModel


@dataclass(frozen=True)
class CardText:
    """What only the exporter knows.

    `title`; `about`, a paragraph on the data and on what the model is not good for; `licence`, an SPDX name or free
    words; `results`, the `result.json` of test parts.
    """

    title: str = "Speech emotion recognition with GMP-ATL"
    about: str = ""
    licence: str = ""
    results: tuple[dict, ...] = ()


def model_card(trained: TrainedModel, card: CardText) -> str:
    emotions = trained.names["emotion"]
    n = sum(t.numel() for t in [*trained.hubert.state_dict.values(), *trained.tensors.values()])
    settings = trained.hubert.settings
    licence = f"license: {card.licence.lower()}\n" if card.licence and " " not in card.licence else ""
    gender = f"\n| gender head | {', '.join(trained.names['gender'])} |" if "gender" in trained.names else ""
    calibration = "not calibrated" if trained.temperature is None else f"temperature {trained.temperature:.3f}"
    return f"""---
library_name: gmp-plugin
pipeline_tag: audio-classification
{licence}tags:
- speech-emotion-recognition
- hubert
---

# {card.title}

{card.about or "Emotion of a spoken utterance, by HuBERT, a BiLSTM, mean pooling and a head trained on them."}

| | |
|---|---|
| emotions | {", ".join(emotions)} |{gender}
| parameters | {n:,} |
| backbone | HuBERT, {settings["encoder_layers"]} layers of {settings["encoder_embed_dim"]} |
| head | {_head(trained)} |
| probabilities | {calibration} |
| input | mono audio at {frames.SAMPLE_RATE} Hz, float32 within -1..1, at least {frames.RECEPTIVE_FIELD} samples |

## Measured

{results_table(card.results)}

Acted or read emotions of few speakers are easier than those of everyday life, and other languages, rooms and
microphones cost accuracy. The probabilities are estimates about sounds, not knowledge about people: do not decide
about anyone by them.

## Data seen

{seen_list(trained.provenance)}

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
clip at a time, as its features change with padding. `head.safetensors` holds the tensors of the BiLSTM
(`pooling.lstm.*`) and of the heads (`emotion_head.*`), `recognizer.json` the class names and everything else.
"""


def onnx_card(trained: TrainedModel, card: CardText, file: str, measured: list[str]) -> str:
    """The text beside an ONNX file; `measured` are lines of a table of what the export cost."""
    gender = ["| `gender_probabilities` | `(batch, genders)` | where the model has that head |"]
    outputs = [
        "| `probabilities` | `(batch, classes)` | of the emotions, sum 1 |",
        "| `logits` | `(batch, classes)` | before the temperature |",
        *(gender if "gender" in trained.names else []),
        f"| `frames` | `(batch, frames, {2 * trained.settings['lstm_dim']})` | {frames.FRAME_RATE:.0f} a second, what "
        "is pooled; zeros at padding |",
    ]
    return f"""# {card.title}: {file}

{card.about}

| input | shape, type | |
|---|---|---|
| `audio` | `(batch, samples)` float32 | {frames.SAMPLE_RATE} Hz, mono, within -1..1, zeros on the right |
| `n_samples` | `(batch,)` int64 | valid samples of each row, at least {frames.RECEPTIVE_FIELD} |

| output | shape | |
|---|---|---|
{chr(10).join(outputs)}

Emotions: {", ".join(trained.names["emotion"])}. Nothing else is done to the audio before; a row's answer does not
depend on the others. Memory grows with the square of the length: cut minutes into pieces.

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


def results_table(results: Iterable[dict]) -> str:
    """UAR, WAR and macro-F1 of test parts by fold (mean of its seeds), with mean and standard deviation over folds."""
    by_fold: dict[str, list[dict]] = {}
    for result in results:
        by_fold.setdefault(str(result.get("fold") or "–"), []).append(result)
    if not by_fold:
        return "Nothing was measured when this was exported."
    rates = ("uar", "war", "macro_f1")
    rows = [
        "On recordings of speakers that training has not seen, in percent.", "",
        "| fold | recordings | seeds | UAR | WAR | macro-F1 |", "|---|--:|--:|--:|--:|--:|",
    ]  # fmt: skip
    means = []
    for fold in sorted(by_fold, key=lambda fold: (len(fold), fold)):
        found = by_fold[fold]
        means.append([float(np.mean([result[rate] for result in found])) for rate in rates])
        figures = " | ".join(f"{value:.1f}" for value in means[-1])
        rows.append(f"| {fold} | {found[0]['n_utterances']} | {len(found)} | {figures} |")
    if len(means) > 1:
        mean, spread = np.mean(means, axis=0), np.std(means, axis=0, ddof=1)
        figures = " | ".join(f"**{m:.1f}** ± {s:.1f}" for m, s in zip(mean, spread, strict=True))
        rows.append(f"| mean ± standard deviation over folds | | | {figures} |")
    return "\n".join(rows)


def seen_list(provenance: list[dict]) -> str:
    lines = [f"- {e['stage']}, {e['split']}: {len(e['utterances'])} recordings" for e in provenance]
    return "\n".join(lines) or "- not known"


def _head(trained: TrainedModel) -> str:
    settings = trained.settings
    last = f"AM-softmax (cosine, s = {settings['scale']:g})" if settings["head"] == "am_softmax" else "linear"
    return f"BiLSTM {settings['lstm_dim']} each way, mean over time, projection {settings['projection_dim']}, {last}"
