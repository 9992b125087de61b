"""Experiments made of files alone, as the workflow would leave them, for tests of what reads them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch

from gmp_plugin import provenance
from gmp_plugin.corpora.folds import make_folds
from gmp_plugin.files import sha256
from gmp_plugin.kmeans import MultiscaleKMeans
from gmp_plugin.label_parts import LabelParts
from gmp_plugin.manifest import SPLITS, Manifest, Utterance, UtteranceTable, write_dictionary, write_split

STAGES = {
    "stage1": "multitask_emotion_gender",
    "stage2": "multiscale_label_pretraining",
    "stage3": "am_softmax_classification",
    "gemo_clap": "gemo_clap",
}
EMOTIONS = ("angry", "happy", "neutral", "sad")


def wave(seed: int, n_samples: int = 3200) -> np.ndarray:
    """Noise, as 16-bit samples have it."""
    return np.round(3000 * np.random.default_rng(seed).standard_normal(n_samples)).clip(-32768, 32767) / 32768


def write_corpus(folder, waves: dict | None = None, suffixes: dict | None = None) -> Path:
    """A corpus of three sessions with two speakers each, eight recordings by each speaker, and its folds.

    Recordings are `SPEAKER/NUMBER.wav`, speakers `1F`, `1M` to `3M`.

    Args:
        waves: samples of some recordings, by name; others have noise of their own.
        suffixes: other suffixes than .wav of some recordings, by name.

    Returns:
        `folder`, as make_manifest.py would write it; the audio is in `folder/audio`.
    """
    folder, waves, suffixes = Path(folder), waves or {}, suffixes or {}
    utterances = []
    for speaker in ("1F", "1M", "2F", "2M", "3F", "3M"):
        for number in range(8):
            name = f"{speaker}/{number}.wav"
            samples = waves.get(name, wave(len(utterances)))
            path = Path(name).with_suffix(suffixes.get(name, ".wav"))
            file = folder / "audio" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, samples, 16_000, subtype="PCM_24" if path.suffix == ".flac" else "PCM_16")
            gender = {"F": "female", "M": "male"}[speaker[1]]
            utterances.append(Utterance(str(path), len(samples), EMOTIONS[number % 4], gender, speaker, speaker[0]))
    write_folds(folder, utterances, make_folds(utterances, "session", valid_fraction=0.2))
    return folder


def write_folds(folder: Path, utterances, folds) -> None:
    root = str(folder / "audio")
    UtteranceTable(root, tuple(utterances)).write(folder / "utterances.tsv")
    record = []
    for number, fold in enumerate(folds, start=1):
        path = folder / f"fold{number}"
        for split in SPLITS:
            write_split(path, split, root, [utterances[i] for i in getattr(fold, split)])
        for kind in ("emotion", "gender"):
            write_dictionary(path / f"dict.{kind}.txt", (getattr(u, kind) for u in utterances))
        speakers = sorted({utterances[i].speaker for i in fold.test})
        record.append({"folder": path.name, "held_out": list(fold.held_out), "held_out_speakers": speakers})
    (folder / "folds.json").write_text(json.dumps({"folds_by": "session", "folds": record}))


class ExperimentFiles:
    """An experiment whose artefacts hold nothing but what they have seen.

    Args:
        folder: of the experiment; the corpus is in `folder/data`.
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def manifest(self, fold: int, split: str) -> Manifest:
        return Manifest.read(self.folder / "data" / f"fold{fold}" / f"{split}.tsv")

    def add(self, fold: int, split: str, *names: str) -> Manifest:
        """The manifest of a split, with further recordings."""
        m = self.manifest(fold, split)
        return replace(m, paths=m.paths + names, n_samples=m.n_samples + (3200,) * len(names))

    def run(self, fold: int) -> Path:
        return self.folder / f"fold{fold}" / "seed1"

    def write_fold(self, fold: int, **parts: Manifest) -> None:
        """All artefacts of a fold.

        Args:
            parts: other manifests than the fold's, as `stage1_valid`, `kmeans`, `labels_train`, `result`.
        """

        def entry(stage, split):
            return provenance.entry(STAGES[stage], split, parts.get(f"{stage}_{split}", self.manifest(fold, split)))

        def both(stage):
            return [entry(stage, "valid"), entry(stage, "train")]

        run = self.run(fold)
        one = both("stage1")
        save_checkpoint(run / "stage1/multitask/checkpoint_best.pt", "stage1", one)
        km = provenance.entry("kmeans", "train", parts.get("kmeans", self.manifest(fold, "train")), n_frames=99)
        self.write_labels(fold, [*one, km], **{s: parts[f"labels_{s}"] for s in SPLITS if f"labels_{s}" in parts})
        two = [*one, km, *both("stage2")]
        save_checkpoint(run / "stage2/multitask.masked/checkpoint_last.pt", "stage2", two)
        start = f"exp/somewhere/fold{fold}/seed1/stage2/multitask.masked/checkpoint_last.pt"
        three = [*two, *both("stage3")]
        best = save_checkpoint(run / "stage3/multitask.am_softmax/checkpoint_best.pt", "stage3", three, start)
        self.write_result(fold, best, three, parts.get("result", self.manifest(fold, "test")))

    def write_labels(self, fold: int, entries: list[dict], variant="multitask.layer-3", **manifests: Manifest) -> Path:
        out = self.run(fold) / "labels" / variant
        centroids = {k: torch.randn(k, 2) for k in (2, 4)}
        ones = {k: torch.ones(k, dtype=torch.long) for k in centroids}
        MultiscaleKMeans(centroids, ones, dict.fromkeys(centroids, 0.0), 2, "0" * 64, 99, 1, entries).save(
            out / "kmeans.safetensors"
        )
        (out / "provenance.json").write_text(json.dumps(entries))
        for split in {"train", "valid"} | manifests.keys():
            write_label_set(out, manifests.get(split, self.manifest(fold, split)))
        return out

    def write_result(self, fold: int, checkpoint: Path, entries: list[dict], manifest: Manifest) -> None:
        result = {
            "fold": str(fold),
            "checkpoint": f"exp/somewhere/{checkpoint.relative_to(self.folder)}",
            "checkpoint_sha256": sha256(checkpoint),
            "provenance": [*entries, provenance.entry("evaluation", "test", manifest)],
        }
        checkpoint.with_name("result.json").write_text(json.dumps(result))


def save_checkpoint(path: Path, stage: str, entries: list[dict] | None, start: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cfg = {"task": {"_name": STAGES[stage]}, "model": {"hubert_path": start}}
    state = {} if entries is None else {"provenance": entries}
    torch.save({"model": {"x": torch.zeros(3)}, "task_state": state, "cfg": cfg}, path)
    return path


def write_label_set(out: Path, manifest: Manifest) -> None:
    seen = provenance.read(out / "provenance.json") if (out / "provenance.json").is_file() else []
    parts = LabelParts(out, manifest, {2: "fingerprint of 2", 4: "fingerprint of 4"}, seen)
    frames = int(manifest.n_frames().sum())
    parts.write(0, {k: np.arange(frames) % k for k in (2, 4)})
    parts.merge()
