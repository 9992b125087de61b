"""What the last checkpoint of every stage 3 of an experiment recognises, where the report has the best's.

Example:
    python benchmarks/support/last_answers.py exp/emodb_layers --out last.csv

The same table as the report's answers.csv. It tells how much the choice of a checkpoint by the validation part costs,
or gains; it reads the test parts once more, and is no way to choose.
"""

import argparse
import csv
from pathlib import Path

from gmp_plugin.errors import run_tool
from gmp_plugin.files import atomic_text, refuse_existing
from gmp_plugin.manifest import Manifest
from gmp_plugin.recognizer import Recognizer
from gmp_plugin.report import read_experiment


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", help="folder with experiment.json, as make experiment leaves it")
    parser.add_argument("--out", required=True, help="CSV to write")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    args = parser.parse_args(argv)
    refuse_existing(args.out, force=args.force)
    experiment = read_experiment(args.experiment)
    recognised: dict[str, list[str]] = {}  # by folder: rows may share one
    with atomic_text(Path(args.out)) as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["row", "fold", "seed", "path", "speaker", "emotion", "recognised"])
        for row in experiment.rows.values():
            for run, result in row.results.items():
                folder, utterances = row.folder("stage3", run), result["utterances"]
                if folder not in recognised:
                    recognised[folder] = answers(experiment.folder, folder, run[0], [u["path"] for u in utterances])
                for u, emotion in zip(utterances, recognised[folder], strict=True):
                    speaker = experiment.utterances[u["path"]].speaker
                    table.writerow([row.name, *run, u["path"], speaker, u["truth"], emotion])


def answers(experiment: Path, folder: str, fold: str, paths: list[str]) -> list[str]:
    """Emotions that `checkpoint_last.pt` in a stage's folder recognises in recordings of the fold's test part."""
    recognizer = Recognizer.load(experiment / Path(folder) / "checkpoint_last.pt")
    root = Path(Manifest.read(experiment / "data" / f"fold{fold}" / "test.tsv").root)
    return [answer.emotion for answer in recognizer.stream(root / path for path in paths)]


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
