"""Fit k-means at several scales on the frame features of one layer.

Example:
    python manifest_tools/learn_kmeans.py --manifest data/fold1/train.tsv \\
        --checkpoint exp/stage1/checkpoint_best.pt --layer -3 --scales 64 512 4096 --kmeans km.safetensors \\
        --labels-out labels/fold1

With --labels-out the same manifest is labelled at once: frames that were computed for the fit are not computed
again. Without it, dump_km_label.py labels later.
"""

import argparse
import logging
from pathlib import Path

from gmp_plugin.arguments import check_device, check_seed
from gmp_plugin.devices import default_device
from gmp_plugin.errors import UserError, run_tool
from gmp_plugin.frames import layer_number
from gmp_plugin.hubert.checkpoint import CHECKPOINT_HELP
from gmp_plugin.hubert.features import DTYPES
from gmp_plugin.kmeans import BACKENDS
from gmp_plugin.labels import SOURCES, check_source, learn_kmeans
from gmp_plugin.manifest import Manifest
from gmp_plugin.shards import default_workers


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", required=True, help="training manifest (.tsv) of one fold; never valid or test")
    parser.add_argument("--checkpoint", help=CHECKPOINT_HELP)
    parser.add_argument(
        "--features", choices=SOURCES, default="hubert",
        help="hubert: a layer of --checkpoint; mfcc: Kaldi's MFCCs, for the labels of a first HuBERT",
    )  # fmt: skip
    parser.add_argument(
        "--layer", type=layer_number, default=-3,
        help="1-based; negative counts from the last; or a share of the layers, as 0.75 (default -3)",
    )  # fmt: skip
    parser.add_argument("--scales", type=int, nargs="+", default=[64, 512, 4096], help="cluster counts")
    parser.add_argument("--kmeans", required=True, help="file to write (.safetensors)")
    parser.add_argument("--max-frames", type=int, help="frames of the sample (default: 256 per centroid)")
    parser.add_argument("--labels-out", help="label the manifest too, into this folder, as dump_km_label.py does")
    parser.add_argument(
        "--backend", choices=BACKENDS, default="torch",
        help="torch: all scales together; for comparison sklearn (fairseq's simple_kmeans and its settings) or faiss",
    )  # fmt: skip
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the model; bfloat16 is faster, coarser")
    parser.add_argument("--workers", type=int, help="threads, a clip each (default: the CPU cores; 1 on a GPU)")
    parser.add_argument("--batch-seconds", type=float, default=0, help="audio per batch; 0: one clip (the default)")
    parser.add_argument("--device", default=default_device(), help="cpu or cuda (default: cuda if there is one)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)

    args.device = check_device(args.device)
    check_seed(args.seed)
    check_source(args.features, args.checkpoint)
    if args.labels_out and not args.force and Path(args.kmeans).exists():
        raise UserError(
            f"{args.kmeans} exists already; label with it by dump_km_label.py --kmeans {args.kmeans} --out "
            f"{args.labels_out}, which goes on where a run was interrupted, or give --force to fit again"
        )
    learn_kmeans(
        Manifest.read(args.manifest), args.checkpoint, args.layer, args.scales, args.kmeans, seed=args.seed,
        max_frames=args.max_frames, device=args.device, backend=args.backend, labels_out=args.labels_out,
        force=args.force, workers=args.workers or default_workers(args.device), batch_seconds=args.batch_seconds,
        dtype=args.dtype,
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
