"""Put the seeds of several reports of one experiment together, from their answers.csv.

Example:
    python benchmarks/support/pooled_answers.py seed1/answers.csv seed2/answers.csv --out pooled.json

As in a report: a fold counts with the mean of its seeds, tests are of all folds together, seeds averaged, over
speakers. The first row of the first file is what the others are compared with, on the seeds that both have.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from gmp_plugin import statistics
from gmp_plugin.csv_rows import read_rows
from gmp_plugin.errors import UserError, run_tool
from gmp_plugin.files import atomic_text, refuse_existing

COLUMNS = ("row", "fold", "seed", "path", "speaker", "emotion", "recognised")


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("answers", nargs="+", help="answers.csv of reports, each with other seeds")
    parser.add_argument("--out", help="JSON to write (default: to the screen)")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    args = parser.parse_args(argv)
    if args.out:
        refuse_existing(args.out, force=args.force)
    text = json.dumps(pooled(read(args.answers)), indent=1) + "\n"
    if not args.out:
        sys.stdout.write(text)
        return
    with atomic_text(Path(args.out)) as stream:
        stream.write(text)


def read(paths) -> dict[str, dict[str, dict]]:
    """`{row: {seed: {(fold, path): (speaker, emotion, hit)}}}`; `UserError` for an answer that is there twice, or for
    two runs of other utterances."""
    rows: dict = {}
    for path in paths:
        for line, found in read_rows(path, COLUMNS, ",".join(COLUMNS)):
            row, fold, seed, clip, speaker, emotion, recognised = (found[name] for name in COLUMNS)
            run = rows.setdefault(row, {}).setdefault(seed, {})
            if (fold, clip) in run:
                raise UserError(f"{path}, line {line}: {clip} of row {row}, fold {fold}, seed {seed} was there before")
            run[fold, clip] = (speaker, emotion, float(emotion == recognised))
    kept = {frozenset((key, *one[:2]) for key, one in run.items()) for seeds in rows.values() for run in seeds.values()}
    if len(kept) != 1:
        raise UserError(f"{', '.join(map(str, paths))}: rows and seeds are of other utterances, speakers or emotions")
    return rows


def pooled(rows: dict) -> dict:
    """The UAR of every row in percent, `mean` and `std` over folds, and of all folds together with its interval over
    speakers; `against` the first row where it is not that one, p-values corrected by Holm's method."""
    first, result = next(iter(rows)), {}
    for name, seeds in rows.items():
        by_fold, truth, speakers = _parts(seeds)
        hits = _hits(seeds)
        folds = {fold: 100 * statistics.rates(hits[n], truth[n])["uar"] for fold, n in by_fold.items()}
        own = statistics.estimate(hits, truth, speakers)["uar"]
        result[name] = {
            "seeds": sorted(seeds), "mean": np.mean([*folds.values()]), "std": np.std([*folds.values()], ddof=1),
            "folds": folds, **_percent(own),
        }  # fmt: skip
        shared = [seed for seed in seeds if seed in rows[first]]
        if shared and any(seeds[seed] != rows[first][seed] for seed in shared):  # not the first under another name
            theirs = {seed: rows[first][seed] for seed in shared}
            difference = _hits({seed: seeds[seed] for seed in shared}) - _hits(theirs)
            p = statistics.paired_p(difference, truth, speakers)["uar"]
            result[name]["against"] = {
                "row": first, "seeds": shared, **_percent(statistics.estimate(difference, truth, speakers)["uar"]),
                "p_utterances": p.utterances, "p_speakers": p.speakers,
            }  # fmt: skip
    compared = [one["against"] for one in result.values() if "against" in one]
    for one, corrected in zip(compared, statistics.holm([one["p_speakers"] for one in compared]), strict=True):
        one["p_holm"] = corrected
    return result


def _parts(seeds: dict) -> tuple[dict[str, list[int]], np.ndarray, np.ndarray]:
    """Members of each fold, class numbers and speakers `(N,)`, in the order of `_hits`."""
    run = next(iter(seeds.values()))
    by_fold = defaultdict(list)
    for n, (fold, _) in enumerate(sorted(run)):
        by_fold[fold].append(n)
    speakers, emotions = (np.array([run[key][i] for key in sorted(run)]) for i in (0, 1))
    return dict(by_fold), np.unique(emotions, return_inverse=True)[1], speakers


def _hits(seeds: dict) -> np.ndarray:
    """Share of the seeds that recognised it, `(N,)`."""
    return np.mean([[run[key][2] for key in sorted(run)] for run in seeds.values()], axis=0)


def _percent(found: statistics.Estimate) -> dict:
    speakers = found.speakers and [100 * x for x in found.speakers]
    return {
        "pooled": 100 * found.value,
        "interval_utterances": [100 * x for x in found.utterances],
        "interval_speakers": speakers,
    }


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
