"""Label every frame of a manifest at every scale: the .km files that HuBERT pretraining reads.

Example:
    python manifest_tools/dump_km_label.py --manifest data/fold1/train.tsv \\
        --checkpoint exp/stage1/checkpoint_best.pt --kmeans km.safetensors --out labels/fold1
"""

import argparse
import logging

from gmp_plugin.devices import default_device
from gmp_plugin.errors import run_tool
from gmp_plugin.kmeans import MultiscaleKMeans
from gmp_plugin.labels import dump_km_label
from gmp_plugin.manifest import Manifest


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", required=True, nargs="+", help="manifests (.tsv); labels take their names")
    parser.add_argument("--checkpoint", required=True, help="the checkpoint that the centroids were fitted on")
    parser.add_argument("--kmeans", required=True, help="file of learn_kmeans.py")
    parser.add_argument("--layer", type=int, help="only to check against the k-means file, which knows its layer")
    parser.add_argument("--scales", type=int, nargs="+", help="some of the file's scales (default: all)")
    parser.add_argument("--out", required=True, help="folder for SPLIT.K.km and dict.K.km.txt")
    parser.add_argument("--device", default=default_device(), help="cpu or cuda (default: cuda if there is one)")
    parser.add_argument("--force", action="store_true", help="replace existing labels")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)

    km = MultiscaleKMeans.load(args.kmeans)
    if args.scales:
        km = km.select(args.scales)
    for manifest in args.manifest:
        dump_km_label(Manifest.read(manifest), args.checkpoint, km, args.out, args.layer, args.device, args.force)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
