"""Write the frame features of one layer as fairseq's simple_kmeans does: SPLIT_RANK_NSHARD.npy and .len.

The labels do not need these files (dump_km_label.py streams); they are for your own analyses.

Example:
    python manifest_tools/dump_hubert_feature.py --manifest data/fold1/train.tsv \\
        --checkpoint hubert_base_ls960.pt --layer -3 --out features
"""

import argparse
import logging
from pathlib import Path

from npy_append_array import NpyAppendArray

from gmp_plugin.arguments import check_device
from gmp_plugin.devices import default_device
from gmp_plugin.errors import UserError, run_tool
from gmp_plugin.files import atomic_path, atomic_text, refuse_existing
from gmp_plugin.frames import layer_number
from gmp_plugin.hubert.checkpoint import CHECKPOINT_HELP
from gmp_plugin.hubert.features import LayerFeatures
from gmp_plugin.manifest import Manifest
from gmp_plugin.shards import default_workers, local_device, rank_and_nshard, share


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", required=True, help="manifest (.tsv); the features take its name")
    parser.add_argument("--checkpoint", required=True, help=CHECKPOINT_HELP)
    parser.add_argument(
        "--layer", type=layer_number, default=-3,
        help="1-based; negative counts from the last; or a share of the layers, as 0.75 (default -3)",
    )  # fmt: skip
    parser.add_argument("--nshard", type=int, help="parts of the manifest (default: torchrun's or Slurm's, else 1)")
    parser.add_argument("--rank", type=int, help="which part, from 0")
    parser.add_argument("--workers", type=int, help="threads, a clip each (default: the CPU cores; 1 on a GPU)")
    parser.add_argument("--out", required=True, help="folder for the features")
    parser.add_argument("--device", default=default_device(), help="cpu or cuda (default: cuda if there is one)")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)

    args.device = check_device(args.device)
    manifest = Manifest.read(args.manifest)
    rank, nshard = rank_and_nshard(args.rank, args.nshard)
    if nshard > len(manifest):
        raise UserError(f"--nshard {nshard}: {args.manifest} has only {len(manifest)} utterances; give fewer")
    stem = Path(args.out) / f"{Path(args.manifest).stem}_{rank}_{nshard}"
    features_path, lengths_path = Path(f"{stem}.npy"), Path(f"{stem}.len")
    refuse_existing(features_path, lengths_path, force=args.force)
    workers = args.workers or default_workers(args.device)
    features = LayerFeatures.load(args.checkpoint, args.layer, local_device(args.device), workers=workers)
    lengths = []
    with atomic_path(features_path) as temporary:
        with NpyAppendArray(str(temporary)) as array:
            for _, x in features.stream(manifest, share(len(manifest), rank, nshard)):
                array.append(x.cpu().numpy())
                lengths.append(len(x))
        with atomic_text(lengths_path) as stream:
            stream.writelines(f"{length}\n" for length in lengths)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
