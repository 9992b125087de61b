"""What features are worth without fine-tuning: a classifier of scikit-learn on an utterance's features, the same folds.

Features are the eGeMAPSv02 functionals (openSMILE; `pip install opensmile`) and, of each layer of a HuBERT, the mean
over the frames. Classifiers are fitted on the training and validation parts together, since nothing is chosen by them,
and answer for the speakers of the test part. Features are standardised, classes weigh alike.

The HuBERT is `small`, or another, or one of each fold, as a stage of an experiment left it; where several fit the
pattern, as of several seeds, rates are their mean.

Example, results go to benchmarks/results/baselines.json:
    python benchmarks/baselines.py --data exp/emodb/data \\
        --model small=small "stage 2=exp/emodb/{fold}/seed*/stage2/*/checkpoint_last.pt"
"""

import argparse
import glob
import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from tqdm import tqdm

from gmp_plugin import metrics
from gmp_plugin.errors import UserError, run_tool
from gmp_plugin.frames import SAMPLE_RATE
from gmp_plugin.hubert.checkpoint import load_hubert
from gmp_plugin.layer_probe import LayerMeans
from gmp_plugin.manifest import Manifest, UtteranceTable

RESULT = Path(__file__).parent / "results" / "baselines.json"
CLASSIFIERS = {
    "SVM, RBF, C = 1": SVC(class_weight="balanced"),
    "logistic regression": LogisticRegression(max_iter=5000, class_weight="balanced"),
}


@dataclass(frozen=True)
class Fold:
    """Indices of what may be learned from, and of the test part."""

    name: str
    known: list[int]
    test: list[int]


def egemaps(corpus: Manifest) -> np.ndarray:
    """Functionals of all utterances, `(N, 88)`."""
    import opensmile

    smile = opensmile.Smile(feature_set=opensmile.FeatureSet.eGeMAPSv02)
    paths = tqdm([corpus.audio_path(i) for i in range(len(corpus))], "eGeMAPS", unit="utt")
    return np.stack([smile.process_signal(soundfile.read(path)[0], SAMPLE_RATE).to_numpy()[0] for path in paths])


def layer_means(corpus: Manifest, checkpoint) -> dict[int, np.ndarray]:
    """`(N, D)` of every layer."""
    backbone = load_hubert(checkpoint).build()
    means = LayerMeans(backbone, list(range(1, backbone.n_layers + 1)), workers=1)
    return dict(zip(means.layers, means.matrix(corpus).swapaxes(0, 1), strict=True))


def answer(fold: Fold, x: np.ndarray, truth: np.ndarray) -> dict[str, tuple[float, float]]:
    """UAR and WAR on the test part in percent, by classifier, of features `(N, D)` and class numbers `(N,)`."""
    found = {}
    for title, classifier in CLASSIFIERS.items():
        answers = (
            make_pipeline(StandardScaler(), classifier).fit(x[fold.known], truth[fold.known]).predict(x[fold.test])
        )
        counts = metrics.confusion_counts(truth[fold.test], answers, truth.max() + 1)
        found[title] = (100 * metrics.uar(counts), 100 * metrics.war(counts))
    return found


def summarise(rates: list[list[tuple[float, float]]]) -> dict[str, float]:
    """Of the rates of every fold, of every model of it: means and standard deviations (n - 1) over the folds."""
    models = np.array(rates)  # (folds, models, 2)
    of_folds = models.mean(axis=1)
    (uar, war), (uar_std, war_std) = of_folds.mean(axis=0), of_folds.std(axis=0, ddof=1)
    row = {"uar": uar, "uar_std": uar_std, "war": war, "war_std": war_std}
    return {name: round(float(value), 1) for name, value in row.items()} | {"models": models.shape[1]}


def read_folds(data: Path, corpus: Manifest) -> list[Fold]:
    index = {path: i for i, path in enumerate(corpus.paths)}

    def indices(folder: Path, *splits: str) -> list[int]:
        return [index[path] for split in splits for path in Manifest.read(folder / f"{split}.tsv").paths]

    folders = sorted(data.glob("fold*/"))
    return [Fold(folder.name, indices(folder, "train", "valid"), indices(folder, "test")) for folder in folders]


def measure(data: Path, models: dict[str, str]) -> dict[str, dict]:
    """Of one corpus: rates by kind of features and by classifier."""
    table = UtteranceTable.read(data / "utterances.tsv")
    corpus = Manifest(table.root, *zip(*[(u.path, u.n_samples) for u in table.utterances], strict=True))
    _, truth = np.unique([u.emotion for u in table.utterances], return_inverse=True)
    folds, found = read_folds(data, corpus), {}
    own = {
        name: [pattern.format(fold=f.name) for f in folds] for name, pattern in models.items() if "{fold}" in pattern
    }
    for pattern in sum(own.values(), []):
        if not glob.glob(pattern):
            raise UserError(f"no file fits {pattern}")

    def add(kind: str, fold: Fold, x: np.ndarray) -> None:
        for title, pair in answer(fold, x, truth).items():
            found.setdefault(kind, {}).setdefault(title, {}).setdefault(fold.name, []).append(pair)

    functionals = egemaps(corpus)
    for fold in folds:
        add("eGeMAPS", fold, functionals)
    for name, pattern in models.items():
        shared = None if name in own else layer_means(corpus, pattern)
        for i, fold in enumerate(folds):
            for path in [pattern] if shared else sorted(glob.glob(own[name][i])):
                for layer, x in (shared or layer_means(corpus, path)).items():
                    add(f"{name}, layer {layer}", fold, x)
    return {
        kind: {title: summarise(list(of_folds.values())) for title, of_folds in by_title.items()}
        for kind, by_title in found.items()
    }


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that make_manifest.py wrote, of an experiment")
    parser.add_argument("--name", help="of the corpus (the folder above)")
    parser.add_argument(
        "--model",
        nargs="+",
        default=["small=small"],
        metavar="TITLE=CHECKPOINT",
        help="HuBERTs; {fold} is fold1 and so on",
    )
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    name = args.name or args.data.resolve().parent.name
    rows = measure(args.data, dict(model.split("=", 1) for model in args.model))
    for kind, by_title in rows.items():
        for title, row in by_title.items():
            rates = f"UAR {row['uar']:.1f} ± {row['uar_std']:.1f}, WAR {row['war']:.1f} ± {row['war_std']:.1f} %"
            print(f"{kind:24} {title:20} {rates}")
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    result[name] = result.get(name, {}) | rows
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
