"""A trained stage on a manifest: predictions, metrics, and the `result.json` of a fold."""

import logging
import platform
from dataclasses import dataclass
from importlib.metadata import version
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
from .manifest import Manifest, read_utterance_labels

logger = logging.getLogger(__name__)

PACKAGES = ("gmp-plugin", "fairseq-fixed", "torch", "numpy", "scikit-learn", "soundfile")


@dataclass
class EmotionClassifier:
    """A checkpoint of stage 1 or 3, ready to classify.

    `names[c]` is the name of class c, `config` the training configuration, `provenance` what the
    weights have seen.
    """

    model: torch.nn.Module
    names: list[str]
    config: dict
    provenance: list
    path: str

    @classmethod
    def load(cls, path, device: str = "cpu") -> "EmotionClassifier":
        """Load by fairseq, after a safe look; `UserError` for a checkpoint without an emotion head."""
        state = read_checkpoint(path)
        names = state.get("task_state", {}).get("emotion")
        if not names or not any(key.startswith("emotion_head.") for key in state["model"]):
            raise UserError(f"checkpoint {path} has no emotion head; expected one of stage 1 or 3")
        (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([str(path)])
        return cls(
            model.to(device).eval(), names, _plain(state["cfg"]), state["task_state"].get("provenance", []), str(path)
        )

    @torch.inference_mode()
    def logits(self, manifest: Manifest, batch_seconds: float = 60.0) -> np.ndarray:
        """Emotion logits of all utterances, `(N, C)` in manifest order."""
        device = next(self.model.parameters()).device
        result = np.zeros((len(manifest), len(self.names)), dtype=np.float32)
        order = sorted(range(len(manifest)), key=lambda i: -manifest.n_samples[i])
        with tqdm(total=len(order), unit="utt", desc=Path(manifest.file).stem) as progress:
            while order:
                n = max(1, int(batch_seconds * frames.SAMPLE_RATE // manifest.n_samples[order[0]]))
                batch, order = order[:n], order[n:]
                waves = [read_audio(manifest, i) for i in batch]
                n_samples = torch.tensor([len(wave) for wave in waves], device=device)
                output = self.model(pad_sequence(waves, batch_first=True).to(device), n_samples)
                result[batch] = output["emotion"].float().cpu().numpy()
                progress.update(len(batch))
        return result


def evaluate(checkpoint, manifest_path, device: str = "cpu", allow_seen: bool = False) -> dict:
    """Everything about one evaluation, as `result.json` keeps it; rates in percent.

    Reads `SPLIT.emotion` and `dict.emotion.txt` beside the manifest; the dictionary must name the
    checkpoint's classes. Raises `UserError` if a recording was in a training or validation part of
    anything that the checkpoint descends from, unless `allow_seen`.
    """
    classifier = EmotionClassifier.load(checkpoint, device)
    manifest = Manifest.read(manifest_path)
    leaked = provenance.seen(classifier.provenance, manifest)
    if leaked and not allow_seen:
        stages = "; ".join(f"{stage}: {len(paths)}, as {paths[0]}" for stage, paths in leaked.items())
        raise UserError(
            f"{manifest_path}: recordings that {checkpoint} has seen in training or validation ({stages}); evaluate "
            "on the test part of its own fold, or give --allow-seen if you mean it"
        )
    folder, split = Path(manifest_path).parent, Path(manifest_path).stem
    classes = f"the classes of {checkpoint}"
    truth = read_utterance_labels(folder / f"{split}.emotion", manifest, classifier.names, classes)
    logits = classifier.logits(manifest)
    predicted = logits.argmax(1)
    counts = metrics.confusion_counts(truth, predicted, len(classifier.names))
    return {
        "uar": 100 * metrics.uar(counts),
        "war": 100 * metrics.war(counts),
        "macro_f1": 100 * metrics.macro_f1(counts),
        # None for a class that the part does not have: NaN is no JSON.
        "recalls": {
            name: None if np.isnan(recall) else 100 * recall
            for name, recall in zip(classifier.names, metrics.recalls(counts).tolist(), strict=True)
        },
        "classes": classifier.names,
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
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": sha256(checkpoint),
        "seed": classifier.config["common"]["seed"],
        "config": {key: classifier.config[key] for key in ("task", "model", "criterion", "optimization", "dataset")},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "provenance": provenance.merge(classifier.provenance, [provenance.entry("evaluation", split, manifest)]),
    }


def summarize(results: list[dict]) -> dict:
    """`uar`, `war` and `macro_f1` over folds, in percent: `mean`, `std` (n - 1) and the folds' values.

    Each of `results` is a `result.json` of the same ablation; a fold with several seeds counts with
    their mean. Raises `UserError` for a fold and seed that are there twice, and for folds whose
    seeds differ.
    """
    by_fold: dict[str, dict] = {}
    for result in results:
        seeds = by_fold.setdefault(str(result["fold"]), {})
        if result["seed"] in seeds:
            raise UserError(f"fold {result['fold']}, seed {result['seed']} is there twice")
        seeds[result["seed"]] = result
    folds = sorted(by_fold, key=lambda fold: (len(fold), fold))
    if len({tuple(sorted(by_fold[fold])) for fold in folds}) > 1:
        found = "; ".join(f"fold {fold}: {sorted(by_fold[fold])}" for fold in folds)
        raise UserError(f"the folds have different seeds ({found}); finish the missing runs first")
    summary = {"folds": folds, "seeds": sorted(by_fold[folds[0]])}
    for name in ("uar", "war", "macro_f1"):
        values = [float(np.mean([result[name] for result in by_fold[fold].values()])) for fold in folds]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        summary[name] = {"mean": float(np.mean(values)), "std": spread, "folds": values}
    return summary


def _plain(cfg) -> dict:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else dict(cfg)
