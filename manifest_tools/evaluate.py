"""Recognise the emotions of a manifest with a checkpoint of stage 1 or 3 or of GEmo-CLAP, and write the result as JSON.

Example:
    python manifest_tools/evaluate.py --checkpoint exp/stage3/checkpoint_best.pt \\
        --manifest data/fold1/test.tsv --fold 1 --out exp/result.json

Embeddings of the utterances, into a file and into TensorBoard's projector, on request:
    ... --embeddings exp/embeddings.npz --start exp/stage2/checkpoint_last.pt --tensorboard exp/stage3/tensorboard
"""

import argparse
import json
import logging

from gmp_plugin.arguments import check_device
from gmp_plugin.devices import default_device
from gmp_plugin.embeddings import Embeddings
from gmp_plugin.errors import UserError, run_tool
from gmp_plugin.evaluation import evaluate
from gmp_plugin.files import atomic_text, refuse_existing
from gmp_plugin.manifest import Manifest


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="checkpoint of stage 1 or 3, or of GEmo-CLAP")
    parser.add_argument("--manifest", required=True, help="manifest (.tsv) with its .emotion file beside it")
    parser.add_argument("--fold", help="fold number, kept in the result")
    parser.add_argument("--allow-seen", action="store_true", help="evaluate on recordings seen in training, too")
    parser.add_argument(
        "--zero-shot", action="store_true",
        help="recognise the classes of the manifest's dict.emotion.txt by their prompts, trained or not (GEmo-CLAP)",
    )  # fmt: skip
    parser.add_argument("--out", required=True, help="result.json to write")
    parser.add_argument("--embeddings", help="file (.npz) to write the utterances' embeddings to")
    parser.add_argument("--start", help="HuBERT that the stage started from, for embeddings before it")
    parser.add_argument("--tensorboard", help="folder of the stage's TensorBoard; the projector gets the embeddings")
    parser.add_argument("--device", default=default_device(), help="cpu or cuda (default: cuda if there is one)")
    parser.add_argument("--force", action="store_true", help="replace an existing result")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)

    args.device = check_device(args.device)
    refuse_existing(args.out, *filter(None, [args.embeddings]), force=args.force)
    if args.start and not (args.embeddings or args.tensorboard):
        raise UserError("--start is for embeddings: give --embeddings FILE or --tensorboard DIR as well")
    result, after = evaluate(args.checkpoint, args.manifest, args.device, args.allow_seen, args.zero_shot)
    if args.embeddings or args.tensorboard:
        embeddings = Embeddings.of(
            Manifest.read(args.manifest), after, args.start, args.device, checkpoint_sha256=result["checkpoint_sha256"]
        )
        if args.embeddings:
            embeddings.save(args.embeddings)
        if args.tensorboard:
            embeddings.write_projector(args.tensorboard)
    with atomic_text(args.out) as stream:
        json.dump({"fold": args.fold, **result}, stream, indent=1)
    print(f"{args.manifest}: UAR {result['uar']:.1f} %, WAR {result['war']:.1f} %, {result['n_utterances']} utterances")


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
