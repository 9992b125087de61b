"""How long recordings should be cut: emotions of utterances that follow each other in minutes of audio.

Utterances of a test part are put in a row in random order, all of one speaker, or of all speakers; the row is computed
in one piece and in chunks of several sizes, and the frames of each utterance are pooled and classified. Beside them:
each utterance computed alone. The mean over rows and models is what the defaults of `Chunking` follow. And the other
way round: utterances of at least 3 s, one at a time, in one piece and in chunks.

Example:
    python benchmarks/long_audio.py --models exp/emodb/fold?/seed1/stage3/VARIANT/checkpoint_best.pt \\
        --recordings exp/emodb/data/fold?/test.tsv      # writes benchmarks/results/long_audio.json
"""

import argparse
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import soundfile

from gmp_plugin.chunks import Chunking
from gmp_plugin.frames import FRAME_RATE, HOP, SAMPLE_RATE
from gmp_plugin.labelled import LabelledSet, map_classes
from gmp_plugin.recognizer import Recognizer

RESULT = Path(__file__).parent / "results" / "long_audio.json"
# core and context in seconds
SIZES = ((1, 0.25), (2, 0.25), (2, 0.5), (2, 1), (3, 0.5), (5, 1), (10, 2), (30, 3))
PAUSE = int(0.3 * SAMPLE_RATE)


def in_a_row(waves: list) -> tuple[np.ndarray, list]:
    """The waves with pauses between, and the frames `(begin, end)` of each."""
    pieces, spans, start = [], [], 0
    for wave in waves:
        pieces += [wave, np.zeros(PAUSE, dtype=np.float32)]
        spans.append((start // HOP, (start + len(wave)) // HOP))
        start += len(wave) + PAUSE
    return np.concatenate(pieces), spans


def frames_of(recognizer: Recognizer, wave: np.ndarray, chunking: Chunking) -> np.ndarray:
    parts = []
    for chunk in chunking.cut([wave]):
        (x,) = recognizer.model.frames([chunk.samples])
        parts.append(x[chunk.skip : chunk.skip + chunk.n_frames])
    return np.concatenate(parts)


def measure(recognizer: Recognizer, labelled: LabelledSet, n: int, rows: int, rng) -> dict[str, list]:
    """Share of utterances that are recognised, by way of computing and of putting together."""
    truth = map_classes(labelled.emotions, recognizer.names, {}).numbers
    waves = [soundfile.read(Path(labelled.root) / path, dtype="float32")[0] for path in labelled.paths]
    speakers = np.array(labelled.speakers)
    found: dict[str, list] = {}
    sizes = {f"{core:g} s and {context:g} s": (core, context) for core, context in SIZES}
    ways = {"in one piece": None, **sizes}

    def compute(wave: np.ndarray, size) -> np.ndarray:
        core, context = (int(s * FRAME_RATE) for s in (size or SIZES[0]))
        return frames_of(recognizer, wave, Chunking(0 if size else len(wave), core, context))

    def count(way: str, pooled: np.ndarray, indices) -> None:
        hits = recognizer.model.logits(pooled)["emotion"].argmax(1) == truth[indices]
        found.setdefault(way, []).append(float(hits.mean()))

    for kind, groups in (("one speaker", sorted(set(speakers))), ("all speakers", [None])):
        for row in range(rows):
            group = groups[row % len(groups)]
            members = np.flatnonzero((truth >= 0) & ((speakers == group) if group else True))
            indices = rng.permutation(members)[:n]
            wave, spans = in_a_row([waves[i] for i in indices])
            alone = [recognizer.model.frames([waves[i]])[0].mean(0, dtype=np.float64) for i in indices]
            count(f"{kind}: each alone", np.stack(alone), indices)
            for way, size in ways.items():
                x = compute(wave, size)
                pooled = np.stack([x[a:b].mean(0, dtype=np.float64) for a, b in spans])
                count(f"{kind}: {way}", pooled, indices)
    long = [i for i in np.flatnonzero(truth >= 0) if len(waves[i]) >= 3 * SAMPLE_RATE]
    for way, size in ways.items():
        pooled = np.stack([compute(waves[i], size).mean(0, dtype=np.float64) for i in long])
        hits = recognizer.model.logits(pooled)["emotion"].argmax(1) == truth[long]
        found[f"one utterance of 3 s or more: {way}"] = hits.tolist()
    return found


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, help="checkpoints or exported folders")
    parser.add_argument("--recordings", nargs="+", required=True, help="for each model, a test part with its .emotion")
    parser.add_argument("--utterances", type=int, default=20, help="in a row (%(default)s)")
    parser.add_argument("--rows", type=int, default=4, help="of each kind and model (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one row; nothing is written")
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    rng, all_found = np.random.default_rng(1), {}
    for model, recordings in zip(args.models, args.recordings, strict=True):
        rows = 1 if args.quick else args.rows
        found = measure(Recognizer.load(model), LabelledSet.read(recordings), args.utterances, rows, rng)
        for way, shares in found.items():
            all_found.setdefault(way, []).extend(shares)
    means = {way: 100 * float(np.mean(shares)) for way, shares in all_found.items()}
    for way, mean in means.items():
        print(f"{way:40} {mean:5.1f} %")
    if not args.quick:
        settings = {"models": len(args.models), "rows_each": args.rows, "utterances_in_a_row": args.utterances}
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps({**settings, "recognised_percent": means}, indent=1) + "\n")


if __name__ == "__main__":
    main()
