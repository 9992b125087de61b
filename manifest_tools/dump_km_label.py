"""Label every frame of a manifest at every scale: the .km files that HuBERT pretraining reads.

Example:
    python manifest_tools/dump_km_label.py --manifest data/fold1/train.tsv data/fold1/valid.tsv \\
        --checkpoint exp/stage1/checkpoint_best.pt --kmeans km.safetensors --out labels/fold1

Several processes share the work by --nshard and --rank, or as torchrun or Slurm number them:
    srun --ntasks 16 --cpus-per-task 8 python manifest_tools/dump_km_label.py ...
    torchrun --nproc-per-node 2 manifest_tools/dump_km_label.py ...
The last to finish puts the files together. After an interruption run the same command: what is finished is kept.
The labels are the same whatever the number of ranks and workers. docs/scaling.md has more.
"""

import argparse
import logging

from gmp_plugin.arguments import check_device
from gmp_plugin.devices import default_device
from gmp_plugin.errors import run_tool
from gmp_plugin.frames import layer_number
from gmp_plugin.hubert.features import DTYPES
from gmp_plugin.kmeans import MultiscaleKMeans
from gmp_plugin.label_parts import PART_SECONDS
from gmp_plugin.labels import SOURCES, check_source, dump_km_label, label_parts, merge
from gmp_plugin.manifest import Manifest
from gmp_plugin.shards import default_workers, local_device, rank_and_nshard


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", required=True, nargs="+", help="manifests (.tsv); labels take their names")
    parser.add_argument("--checkpoint", help="the checkpoint that the centroids were fitted on")
    parser.add_argument(
        "--features", choices=SOURCES, default="hubert", help="mfcc for centroids that were fitted on MFCCs"
    )
    parser.add_argument("--kmeans", required=True, help="file of learn_kmeans.py")
    parser.add_argument(
        "--layer", type=layer_number, help="only to check against the k-means file, which knows its layer"
    )
    parser.add_argument("--scales", type=int, nargs="+", help="some of the file's scales (default: all)")
    parser.add_argument("--out", required=True, help="folder for SPLIT.K.km and dict.K.km.txt")
    parser.add_argument("--nshard", type=int, help="processes that share the work (default: torchrun's or Slurm's)")
    parser.add_argument("--rank", type=int, help="which of them this is, from 0")
    parser.add_argument("--merge", action="store_true", help="only put the parts together, or say which lack")
    parser.add_argument(
        "--part-seconds", type=float, default=PART_SECONDS,
        help="audio per part: what an interruption can cost; the same for all ranks (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, help="threads, a clip each (default: the CPU cores; 1 on a GPU)")
    parser.add_argument("--batch-seconds", type=float, default=0, help="audio per batch; 0: one clip (the default)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the model; bfloat16 is faster, coarser")
    parser.add_argument("--device", default=default_device(), help="cpu or cuda (default: cuda if there is one)")
    parser.add_argument("--force", action="store_true", help="replace labels of other centroids")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)

    args.device = check_device(args.device)
    if not args.merge:
        check_source(args.features, args.checkpoint)
    rank, nshard = rank_and_nshard(0 if args.merge and args.nshard else args.rank, args.nshard)
    km = MultiscaleKMeans.load(args.kmeans)
    if args.scales:
        km = km.select(args.scales)
    for path in args.manifest:
        manifest = Manifest.read(path)
        if args.merge:
            merge(label_parts(manifest, km, args.out, args.dtype, args.part_seconds), nshard)
            continue
        dump_km_label(
            manifest, args.checkpoint, km, args.out, args.layer, local_device(args.device), rank, nshard, args.force,
            args.part_seconds, workers=args.workers or default_workers(args.device), dtype=args.dtype,
            batch_seconds=args.batch_seconds,
        )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
