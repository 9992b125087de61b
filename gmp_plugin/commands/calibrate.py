"""Fit the temperature that makes a checkpoint's probabilities mean what they say, on its validation part.

That part is of speakers whom training knows; of others, a model may stay surer than it should. It is written beside the
checkpoint as calibration.json, where every command finds it. Decisions stay the same. A model that was trained on
everything has no such part: it is given the temperature that suits the models of the folds, each on its own test part
(--results); `make recognizer` does so.
"""

import argparse
import sys

from .options import add_device_argument, device_of

EXAMPLE = """example:
  gmp-ser calibrate --model exp/emodb/fold1/seed1/stage3/VARIANT/checkpoint_best.pt \\
      --manifest exp/emodb/data/fold1/valid.tsv
  gmp-ser calibrate --model exp/emodb_recognizer/fold1/seed1/stage3/VARIANT/checkpoint_best.pt \\
      --results exp/emodb/fold*/seed*/stage3/VARIANT/result.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="PATH", help="checkpoint of stage 1 or 3, FLESA or GEmo-CLAP")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--manifest", metavar="TSV", help="recordings that training has not seen, with their .emotion beside it"
    )
    source.add_argument(
        "--results", nargs="+", metavar="JSON", help="result.json of the folds' test parts, for a model of all of them"
    )
    parser.add_argument("--out", metavar="FILE", help="default: calibration.json beside the checkpoint")
    add_device_argument(parser)
    parser.add_argument("--force", action="store_true", help="replace an existing calibration")


def run(args) -> int:
    from pathlib import Path

    from ..calibration import FILE, Calibration
    from ..errors import UserError
    from ..files import refuse_existing, sha256
    from ..recognizer import Recognizer

    if Path(args.model).is_dir() or Path(args.model).suffix == ".onnx":
        raise UserError(
            f"{args.model} is exported, with its temperature inside: calibrate the checkpoint and export it again, or "
            "give gmp-ser export a --temperature"
        )
    out = args.out or Path(args.model).with_name(FILE)
    refuse_existing(out, force=args.force)
    recognizer = Recognizer.load(args.model, device_of(args))
    logits, labels = from_folds(recognizer, args) if args.results else from_manifest(recognizer, args)
    source = args.manifest or f"test parts of {len(args.results)} models"
    fitted = Calibration.fit(logits, labels, sha256(args.model), source)
    fitted.save(out)
    if (logits.argmax(-1) == labels).all():
        print(
            f"{source}: all {len(labels)} recordings are recognised, which does not tell how sure the model may be; "
            "give more, and of other speakers",
            file=sys.stderr,
        )
    print(
        f"{out}: temperature {fitted.temperature:.3f}; on {fitted.n_utterances} recordings the expected calibration "
        f"error ({fitted.ece_bins} bins) goes from {100 * fitted.ece_before:.1f} to {100 * fitted.ece_after:.1f} %"
    )
    return 0


def from_folds(recognizer, args):
    """Logits and class numbers of what the folds' models said about recordings new to them."""
    from ..fold_results import held_out_logits, read_results

    return held_out_logits(read_results(args.results), recognizer.names)


def from_manifest(recognizer, args):
    """Logits and class numbers of recordings that are new to the model."""
    from ..errors import UserError
    from ..labelled import LabelledSet, answer, map_classes

    labelled = LabelledSet.read(args.manifest)
    for stage, paths in labelled.seen_in(recognizer.provenance, validation=False).items():
        raise UserError(
            f"{args.manifest}: {len(paths)} recordings were in the training part of {stage}, as {paths[0]}; on those a "
            "model is surer than it may be: give the validation part"
        )
    classes = map_classes(labelled.emotions, recognizer.names, {})
    if classes.unmapped:
        names = ", ".join(f"{name} ({n})" for name, n in sorted(classes.unmapped.items()))
        print(
            f"{args.manifest}: recordings of {names} are left out, which are no classes of the model", file=sys.stderr
        )
    found = answer(recognizer, labelled, (classes.numbers >= 0).nonzero()[0])
    if found.bad:
        raise UserError(next(iter(found.bad.values())))
    return found.logits, classes.numbers[found.indices]
