"""Fit the temperature that makes a checkpoint's probabilities mean what they say, on its validation part.

It is written beside the checkpoint as calibration.json, where every command finds it. Decisions stay the same.
"""

import argparse

from .options import add_device_argument, device_of

EXAMPLE = """example:
  gmp-ser calibrate --model exp/emodb/fold1/seed1/stage3/VARIANT/checkpoint_best.pt \\
      --manifest exp/emodb/data/fold1/valid.tsv
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="PATH", help="checkpoint of stage 1 or 3")
    parser.add_argument(
        "--manifest", required=True, metavar="TSV", help="recordings that training has not seen, with their .emotion"
    )
    parser.add_argument("--out", metavar="FILE", help="default: calibration.json beside the checkpoint")
    add_device_argument(parser)
    parser.add_argument("--force", action="store_true", help="replace an existing calibration")


def run(args) -> int:
    from pathlib import Path

    from .. import calibration
    from ..errors import UserError
    from ..files import refuse_existing, sha256
    from ..labelled import LabelledSet, answer, map_classes
    from ..recognizer import Recognizer

    if Path(args.model).is_dir() or Path(args.model).suffix == ".onnx":
        raise UserError(
            f"{args.model} is exported, with its temperature inside: calibrate the checkpoint and export it again, or "
            "give gmp-ser export a --temperature"
        )
    out = args.out or Path(args.model).with_name(calibration.FILE)
    refuse_existing(out, force=args.force)
    recognizer = Recognizer.load(args.model, device_of(args))
    labelled = LabelledSet.read(args.manifest)
    for stage, paths in labelled.seen_by(recognizer, splits=("train",)).items():
        raise UserError(
            f"{args.manifest}: {len(paths)} recordings were in the training part of {stage}, as {paths[0]}; on those a "
            "model is surer than it may be: give the validation part"
        )
    classes = map_classes(labelled.emotions, recognizer.names, {})
    found = answer(recognizer, labelled, (classes.numbers >= 0).nonzero()[0])
    if found.bad:
        raise UserError(next(iter(found.bad.values())))
    fitted = calibration.Calibration.fit(
        found.logits, classes.numbers[found.indices], sha256(args.model), str(args.manifest)
    )
    fitted.save(out)
    print(
        f"{out}: temperature {fitted.temperature:.3f}; on {fitted.n_utterances} recordings the expected calibration "
        f"error ({fitted.ece_bins} bins) goes from {100 * fitted.ece_before:.1f} to {100 * fitted.ece_after:.1f} %"
    )
    return 0
