"""A trained stage on a manifest: predictions, metrics, and the `result.json` of a fold."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fairseq import checkpoint_utils
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from . import frames, metrics, provenance
from . import tasks as _tasks  # noqa: F401  (registers the models)
from .data.audio import read_audio
from .errors import UserError
from .files import sha256
from .hubert.checkpoint import read_checkpoint
from .machine import describe_machine, describe_versions
from .manifest import Manifest, read_dictionary, read_utterance_labels
from .text_encoder import prompt_texts
from .training_config import fingerprint, training_config


@dataclass
class EmotionClassifier:
    """A checkpoint of stage 1 or 3 or of GEmo-CLAP, ready to classify.

    `names[c]` is the name of class c, `config` the `training_config`, `seed` its seed, `provenance` what
    the weights have seen.
    """

    model: torch.nn.Module
    names: list[str]
    config: dict
    seed: int
    provenance: list
    path: str

    @classmethod
    def load(cls, path, device: str = "cpu") -> "EmotionClassifier":
        """Load by fairseq, after a safe look; `UserError` for a checkpoint without an emotion head."""
        state = read_checkpoint(path)
        names = state.get("task_state", {}).get("emotion")
        if not names or not any(key.startswith("emotion_head.") for key in state["model"]):
            raise UserError(f"checkpoint {path} has no emotion head; expected one of stage 1 or 3, FLESA or GEmo-CLAP")
        (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([str(path)])
        records = state["task_state"].get("provenance", [])
        config, seed = training_config(state["cfg"]), state["cfg"]["common"]["seed"]
        return cls(model.to(device).eval(), names, config, seed, records, str(path))

    def for_classes(self, names: list[str]) -> "EmotionClassifier":
        """Itself, now for other classes, which it knows by their prompts alone (GEmo-CLAP); `UserError` for others."""
        if not hasattr(self.model, "use_prompts"):
            raise UserError(f"{self.path} was not trained with prompts; --zero-shot is for checkpoints of gemo_clap")
        task = self.config["task"]
        self.model.use_prompts(prompt_texts(names, task["prompt"], task.get("prompts")))
        self.names = names
        return self

    @torch.inference_mode()
    def outputs(self, manifest: Manifest, batch_seconds: float = 60.0) -> dict[str, np.ndarray]:
        """`emotion` logits `(N, C)` and `embedding` `(N, E)` of all utterances, in manifest order."""
        device = next(self.model.parameters()).device
        order = sorted(range(len(manifest)), key=lambda i: -manifest.n_samples[i])
        parts, done = [], 0
        with tqdm(total=len(order), unit="utt", desc=Path(manifest.file).stem) as progress:
            while done < len(order):
                n = max(1, int(batch_seconds * frames.SAMPLE_RATE // manifest.n_samples[order[done]]))
                waves = [read_audio(manifest, i) for i in order[done : done + n]]
                n_samples = torch.tensor([len(wave) for wave in waves], device=device)
                parts.append(self.model(pad_sequence(waves, batch_first=True).to(device), n_samples))
                done += len(waves)
                progress.update(len(waves))
        back = np.argsort(order)
        return {
            name: torch.cat([part[name] for part in parts]).float().cpu().numpy()[back]
            for name in ("emotion", "embedding")
        }


def evaluate(
    checkpoint, manifest_path, device: str = "cpu", allow_seen: bool = False, zero_shot: bool = False
) -> tuple[dict, np.ndarray]:
    """Everything about one evaluation, as `result.json` keeps it, rates in percent; and the embeddings `(N, E)`.

    Reads `SPLIT.emotion` beside the manifest, in the checkpoint's classes; with `zero_shot`, in those of
    `dict.emotion.txt`. Raises `UserError` if a recording was read, in training or validation, by anything
    that the checkpoint descends from, unless `allow_seen`.
    """
    classifier = EmotionClassifier.load(checkpoint, device)
    manifest = Manifest.read(manifest_path)
    leaked = provenance.seen(classifier.provenance, manifest)
    if leaked and not allow_seen:
        raise UserError(
            f"{manifest_path}: recordings that {checkpoint} has seen in training or validation "
            f"({provenance.listed(leaked)}); evaluate on the test part of its own fold, or give --allow-seen if you "
            "mean it"
        )
    folder, split = Path(manifest_path).parent, Path(manifest_path).stem
    if zero_shot:
        classifier = classifier.for_classes(read_dictionary(folder / "dict.emotion.txt"))
    classes = f"the classes of {checkpoint}"
    truth = read_utterance_labels(folder / f"{split}.emotion", manifest, classifier.names, classes)
    outputs = classifier.outputs(manifest)
    logits = outputs["emotion"]
    predicted = logits.argmax(1)
    counts = metrics.confusion_counts(truth, predicted, len(classifier.names))
    result = {
        "uar": 100 * metrics.uar(counts),
        "war": 100 * metrics.war(counts),
        "macro_f1": 100 * metrics.macro_f1(counts),
        # None for a class that the part does not have: NaN is no JSON.
        "recalls": {
            name: None if np.isnan(recall) else 100 * recall
            for name, recall in zip(classifier.names, metrics.recalls(counts).tolist(), strict=True)
        },
        "classes": classifier.names,
        "zero_shot": zero_shot,
        "seen": {stage: len(paths) for stage, paths in leaked.items()},
        "confusion": counts.tolist(),
        "n_utterances": len(manifest),
        "counts": dict(zip(classifier.names, counts.sum(1).tolist(), strict=True)),
        "utterances": [
            {"path": p, "truth": classifier.names[t], "predicted": classifier.names[y], "logits": z}
            for p, t, y, z in zip(
                manifest.paths, truth, predicted, np.round(logits.astype(float), 4).tolist(), strict=True
            )
        ],
        "manifest": str(manifest_path),
        "manifest_sha256": sha256(manifest_path),
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": sha256(checkpoint),
        "seed": classifier.seed,
        "config": classifier.config,
        "config_sha256": fingerprint(classifier.config),
        "machine": describe_machine(device),
        "versions": describe_versions(),
        "provenance": provenance.merge(classifier.provenance, [provenance.entry("evaluation", split, manifest)]),
    }
    return result, outputs["embedding"]
