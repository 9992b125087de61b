"""Write a page with pictures about the frame labels of a manifest: what they are, and what they know.

Example:
    python manifest_tools/label_report.py --manifest data/fold1/train.tsv --labels labels/fold1 \\
        --kmeans km.safetensors --out report.html --checkpoint exp/stage1/checkpoint_best.pt --layers all

The page shows how the clusters of each scale are used, what they tell about emotion, gender and speaker, a map of
the centroids (with --kmeans), some clips with their label tracks, and (with --checkpoint) which layer holds most
emotion, by a linear probe trained on the manifest and measured on the valid.tsv beside it. It is one file.
"""

import argparse
import logging

from gmp_plugin.arguments import check_device
from gmp_plugin.devices import default_device
from gmp_plugin.errors import UserError, run_tool
from gmp_plugin.files import refuse_existing
from gmp_plugin.hubert.checkpoint import CHECKPOINT_HELP
from gmp_plugin.label_report import write_label_report
from gmp_plugin.shards import default_workers


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", required=True, help="manifest (.tsv) with its .emotion and .gender beside it")
    parser.add_argument("--labels", required=True, help="folder with SPLIT.K.km and dict.K.km.txt")
    parser.add_argument("--kmeans", help="file of learn_kmeans.py, for the map of centroids")
    parser.add_argument("--out", required=True, help="page to write (.html)")
    parser.add_argument("--checkpoint", help=f"{CHECKPOINT_HELP}; for the layer table")
    parser.add_argument("--layers", nargs="+", default=["all"], help="1-based, negative from the last; or all")
    parser.add_argument("--clips", type=int, default=4, help="clips to draw (default: %(default)s)")
    parser.add_argument("--workers", type=int, help="threads, a clip each (default: the CPU cores; 1 on a GPU)")
    parser.add_argument("--device", default=default_device(), help="cpu or cuda (default: cuda if there is one)")
    parser.add_argument("--force", action="store_true", help="replace an existing page")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)

    args.device = check_device(args.device)
    refuse_existing(args.out, force=args.force)
    if args.layers != ["all"] and args.checkpoint is None:
        raise UserError("--layers needs the --checkpoint whose layers are meant")
    write_label_report(
        args.manifest, args.labels, args.out, args.kmeans, args.checkpoint, _layers(args.layers), args.clips,
        device=args.device, workers=args.workers or default_workers(args.device),
    )  # fmt: skip
    print(f"wrote {args.out}")


def _layers(given: list[str]) -> list[int] | None:
    if given == ["all"]:
        return None
    try:
        return [int(layer) for layer in given]
    except ValueError:
        raise UserError(f"--layers {' '.join(given)}: expected layer numbers, or all") from None


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
