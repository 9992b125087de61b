"""Recognise the emotions of a manifest with a checkpoint of stage 1 or 3, and write the result as JSON.

Example:
    python manifest_tools/evaluate.py --checkpoint exp/stage3/checkpoint_best.pt \\
        --manifest data/fold1/test.tsv --fold 1 --out exp/result.json
"""

import argparse
import json
import logging

from gmp_plugin.devices import default_device
from gmp_plugin.errors import run_tool
from gmp_plugin.evaluation import evaluate
from gmp_plugin.files import atomic_text, refuse_existing


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="checkpoint of stage 1 or 3")
    parser.add_argument("--manifest", required=True, help="manifest (.tsv) with its .emotion file beside it")
    parser.add_argument("--fold", help="fold number, kept in the result")
    parser.add_argument("--ablation", default="gmp_atl", help="name of the ablation, kept in the result")
    parser.add_argument("--allow-seen", action="store_true", help="evaluate on recordings seen in training, too")
    parser.add_argument("--out", required=True, help="result.json to write")
    parser.add_argument("--device", default=default_device(), help="cpu or cuda (default: cuda if there is one)")
    parser.add_argument("--force", action="store_true", help="replace an existing result")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)

    refuse_existing(args.out, force=args.force)
    result = {
        "fold": args.fold,
        "ablation": args.ablation,
        **evaluate(args.checkpoint, args.manifest, args.device, args.allow_seen),
    }
    with atomic_text(args.out) as stream:
        json.dump(result, stream, indent=1)
    print(f"{args.manifest}: UAR {result['uar']:.1f} %, WAR {result['war']:.1f} %, {result['n_utterances']} utterances")


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
