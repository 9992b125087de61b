"""Write a trained model for others: as a Hugging Face folder with a card, or as ONNX for onnxruntime.

The folder holds the backbone as transformers loads it, the head as safetensors, class names and a model card; every
gmp-ser command but calibrate takes it as --model. The ONNX file takes batches of any size and length; a text beside it
describes input and output. It is compared with the model before it is written.
"""

import argparse

from .options import add_device_argument

EXAMPLE = """example:
  gmp-ser export --model exp/emodb/fold1/seed1/stage3/VARIANT/checkpoint_best.pt --to hf --out emodb_recognizer \\
      --results exp/emodb/fold*/seed*/stage3/VARIANT/result.json --licence CC-BY-4.0
  gmp-ser export --model emodb_recognizer --to onnx --out emotion.onnx --int8 --measure others/utterances.tsv
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, metavar="PATH", help="checkpoint of stage 1 or 3, FLESA or GEmo-CLAP, or a folder"
    )
    parser.add_argument("--to", required=True, choices=("hf", "onnx"), help="what to write")
    parser.add_argument("--out", required=True, metavar="PATH", help="folder, or .onnx file")
    parser.add_argument("--int8", action="store_true", help="with onnx: write NAME.int8.onnx as well")
    parser.add_argument(
        "--measure",
        metavar="TABLE",
        help="with onnx: what the export costs on these recordings, new to the model (as gmp-ser evaluate takes them)",
    )
    parser.add_argument(
        "--results", nargs="+", metavar="JSON", default=[],
        help="result.json of test parts, for the card (default: the one beside the checkpoint)",
    )  # fmt: skip
    parser.add_argument("--title", default="Speech emotion recognition with GMP-ATL", help="of the card")
    parser.add_argument("--about", default="", help="a paragraph of the card: data, languages, what it is not good for")
    parser.add_argument("--licence", default="", help="of the weights: an SPDX name as CC-BY-4.0, or words")
    parser.add_argument("--corpus", help="name of what it was trained on, in place of this machine's folders")
    parser.add_argument("--temperature", type=float, help="of the probabilities (default: the model's own)")
    add_device_argument(parser)
    parser.add_argument("--force", action="store_true", help="replace what is there")


def run(args) -> int:
    from dataclasses import replace
    from pathlib import Path

    from ..calibration import RANGE
    from ..errors import UserError
    from ..export import export_folder
    from ..exported import read_folder
    from ..files import refuse_existing
    from ..recognizer_model import read_stage

    if (args.to == "onnx") != (Path(args.out).suffix == ".onnx"):
        raise UserError(f"--out {args.out}: expected a name that ends in .onnx with --to onnx, and a folder with hf")
    if args.to == "hf" and (args.int8 or args.measure):
        raise UserError("--int8 and --measure go with --to onnx")
    if args.temperature is not None and not RANGE[0] <= args.temperature <= RANGE[1]:
        raise UserError(f"--temperature {args.temperature}: expected {RANGE[0]} to {RANGE[1]}")
    refuse_existing(args.out, force=args.force)
    trained = read_folder(args.model) if Path(args.model).is_dir() else read_stage(args.model)
    if args.temperature is not None:
        trained = replace(trained, temperature=args.temperature)
    card = read_card(args)
    if args.to == "hf":
        export_folder(trained, args.out, card, args.force)
        print(f"wrote {args.out}")
        return 0
    return write_onnx(trained, card, args)


def read_card(args):
    """The card's words and figures."""
    from pathlib import Path

    from ..files import sha256
    from ..fold_results import read_results
    from ..model_card import CardText

    model = Path(args.model)
    own = sha256(model) if model.is_file() else None
    results = read_results(args.results)
    if not results and own and (beside := model.with_name("result.json")).is_file():
        results = [result for result in read_results([beside]) if result.get("checkpoint_sha256") == own]
    return CardText(args.title, args.about, args.licence, args.corpus, tuple(results), own)


def write_onnx(trained, card, args) -> int:
    from pathlib import Path

    from ..arguments import check_device
    from ..export import export_onnx, quantize
    from ..export_cost import cost_table
    from ..files import atomic_text, refuse_existing
    from ..labelled import LabelledSet, map_classes
    from ..model_card import onnx_card

    out, device = Path(args.out), check_device(args.device) if args.device else None
    small, text = out.with_suffix(".int8.onnx"), out.with_suffix(".md")
    refuse_existing(*([small, text] if args.int8 else [text]), force=args.force)
    labelled = LabelledSet.read(args.measure) if args.measure else None
    if labelled:
        labelled.refuse(labelled.seen_in(trained.provenance), "rates on them would be no test: give others")
        map_classes(labelled.emotions, trained.names["emotion"], {})
    difference = export_onnx(trained, out, card, args.force)
    if args.int8:
        quantize(out, small, args.force)
    measured = [f"Its logits were within {difference:.0e} of the model's when it was written."]
    if labelled:
        models = {"the model itself": args.model, "ONNX": out} | ({"ONNX, int8": small} if args.int8 else {})
        measured += ["", *cost_table(models, labelled, device)]
    with atomic_text(text) as stream:
        stream.write(onnx_card(trained, card, out.name, measured))
    print("\n".join([*measured, "", f"wrote {out}" + (f", {small}" if args.int8 else "") + f" and {text}"]))
    return 0
