"""Evaluate a model on the labelled recordings of any corpus, also one that it was not made for.

Takes a manifest with its .emotion beside it, an utterances.tsv, or a CSV file with the columns path,emotion[,speaker];
recordings in any format. Classes that have other names than the model's are mapped by a table of two columns
(happiness happy; - leaves a class out); what is not mapped is listed. Writes result.json and a page.
"""

import argparse
import sys

from .options import add_model_arguments, device_of

EXAMPLE = """example:
  gmp-ser evaluate --model emodb_recognizer ravdess/utterances.tsv --classes classes.txt --out ravdess_by_emodb
"""
FILES = ("result.json", "evaluation.html", "evaluation.md")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recordings", metavar="TABLE", help="manifest (.tsv), utterances.tsv, or .csv")
    add_model_arguments(parser)
    parser.add_argument("--classes", metavar="FILE", help="THEIRS OURS a line: the corpus's classes in the model's")
    parser.add_argument(
        "--out", metavar="DIR", help=f"write {', '.join(FILES)} there (default: print the figures only)"
    )
    parser.add_argument("--allow-seen", action="store_true", help="evaluate on recordings seen in training, too")
    parser.add_argument("--force", action="store_true", help="replace existing files")


def run(args) -> int:
    import json
    from pathlib import Path

    from ..corpus_evaluation import evaluate_corpus, result_blocks
    from ..files import atomic_text, refuse_existing
    from ..labelled import LabelledSet, read_class_table
    from ..page import html_page, markdown_page
    from ..recognizer import Recognizer

    out = None if args.out is None else Path(args.out)
    if out is not None:
        refuse_existing(*(out / name for name in FILES), force=args.force)
    labelled = LabelledSet.read(args.recordings)
    table = read_class_table(args.classes) if args.classes else {}
    device = device_of(args)
    recognizer = Recognizer.load(args.model, device, whole_seconds=args.whole)
    result = evaluate_corpus(recognizer, labelled, table, args.allow_seen, device)
    print_result(result)  # before anything can go wrong with files
    if out is not None:
        title, blocks = f"Emotions of {labelled.name}", result_blocks(result)
        markdown, pictures = markdown_page(title, blocks, "evaluation")
        contents = {"result.json": json.dumps(result, indent=1), "evaluation.html": html_page(title, blocks)}
        contents |= {"evaluation.md": markdown, **{f"evaluation/{name}": svg for name, svg in pictures.items()}}
        for name, content in contents.items():
            with atomic_text(out / name) as stream:
                stream.write(content)
        print(f"wrote {', '.join(FILES)} in {out}")
    return 1 if result["bad"] else 0


def print_result(result: dict) -> None:
    """The figures on standard output; what counts for nothing on standard error."""
    names = result["classes"]
    print(f"{result['n_utterances']} recordings of {result['manifest']}")
    print(f"UAR {result['uar']:.1f} %, WAR {result['war']:.1f} %, macro-F1 {result['macro_f1']:.1f} %, ", end="")
    print(f"calibration error {result['ece']:.1f} %" + ("" if result["calibrated"] else " (not calibrated)"))
    width = max(map(len, (*names, "spoken")))
    print(f"{'spoken':{width}} {'recordings':>10} {'recall %':>8}  recognised as")
    for name, counts in zip(names, result["confusion"], strict=True):
        if not sum(counts):
            continue
        said = ", ".join(f"{other} {n}" for other, n in zip(names, counts, strict=True) if n)
        print(f"{name:{width}} {sum(counts):>10} {result['recalls'][name]:>8.1f}  {said}")
    absent = [name for name in names if not result["counts"][name]]
    if absent:
        print(f"classes of the model that the corpus has not: {', '.join(absent)}")
    for title, key in (("unmapped", "unmapped"), ("left out", "left_out")):
        if result[key]:
            listed = ", ".join(f"{name} {n}" for name, n in sorted(result[key].items()))
            print(f"{title} classes, counted for nothing: {listed}", file=sys.stderr)
    if not result["provenance_known"]:
        print(
            "note: the model does not say what it has seen; whether these are new to it is not checked", file=sys.stderr
        )
    if result["seen"]:
        print("warning: the model has seen some of these recordings; this is no test", file=sys.stderr)
    for message in result["bad"]:
        print(f"error: {message}", file=sys.stderr)
