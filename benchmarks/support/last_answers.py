"""What the last checkpoint of every stage 3 of an experiment recognises, where the report has the best's.

Example:
    python benchmarks/support/last_answers.py exp/emodb_layers --out last.csv

The same table as the report's answers.csv. It tells how much the choice of a checkpoint by the validation part costs,
or gains; it reads the test parts once more, and is no way to choose.
"""

import argparse
from pathlib import Path

from gmp_plugin.errors import run_tool
from gmp_plugin.files import refuse_existing
from gmp_plugin.manifest import Manifest
from gmp_plugin.recognizer import Recognizer
from gmp_plugin.report import read_experiment
from gmp_plugin.report.write import write_answers


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", help="folder with experiment.json, as make experiment leaves it")
    parser.add_argument("--out", required=True, help="CSV to write")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    args = parser.parse_args(argv)
    refuse_existing(args.out, force=args.force)
    experiment = read_experiment(args.experiment)
    for template, rows in experiment.templates("stage3").items():  # rows may share one, and its results
        for run, result in rows[0].results.items():
            folder = experiment.folder / template.format(fold=run[0], seed=run[1])
            emotions = answers(folder, experiment.folder / "data" / f"fold{run[0]}" / "test.tsv")
            for utterance, emotion in zip(result["utterances"], emotions, strict=True):
                utterance["predicted"] = emotion
    write_answers(experiment, Path(args.out))


def answers(folder: Path, manifest: Path) -> list[str]:
    """Emotions that `checkpoint_last.pt` in a stage's folder recognises in the recordings of a manifest."""
    test = Manifest.read(manifest)
    recognizer = Recognizer.load(folder / "checkpoint_last.pt")
    return [answer.emotion for answer in recognizer.stream(Path(test.root) / path for path in test.paths)]


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
