"""Write the backbone of any checkpoint for stock fairseq or for Hugging Face transformers.

Takes what every --checkpoint takes: fairseq's HuBERT or wav2vec 2.0, a folder in Hugging Face
layout, or a stage checkpoint.

Example:
    python manifest_tools/convert_hubert.py --checkpoint exp/stage2/checkpoint_last.pt --to hf --out hubert_emotion
"""

import argparse
import logging
from pathlib import Path

from gmp_plugin import provenance
from gmp_plugin.errors import UserError, run_tool
from gmp_plugin.files import refuse_existing
from gmp_plugin.hubert.checkpoint import CHECKPOINT_HELP, load_hubert
from gmp_plugin.hubert.convert import write_fairseq, write_huggingface


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help=CHECKPOINT_HELP)
    parser.add_argument("--to", required=True, choices=["fairseq", "hf"], help="a .pt file, or a folder")
    parser.add_argument("--out", required=True, help="file or folder to write")
    parser.add_argument(
        "--corpus", help="for weights that others get: name the corpus in the list of recordings seen, not its folder"
    )
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.add_argument(
        "--trust-pickle",
        action="store_true",
        help="load a checkpoint that is refused as unsafe, and run the code that it may bring; only for files whose "
        "author you trust (the output is safe to load)",
    )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)

    refuse_existing(args.out, force=args.force)
    if Path(args.out).exists() and Path(args.out).is_dir() != (args.to == "hf"):
        found, wanted = ("folder", "file") if args.to == "fairseq" else ("file", "folder")
        raise UserError(f"--out {args.out} is a {found}, and --to {args.to} writes a {wanted}; give another --out")
    checkpoint = load_hubert(args.checkpoint, trust=args.trust_pickle)
    if args.corpus:
        checkpoint.provenance = provenance.published(checkpoint.provenance, args.corpus)
    {"fairseq": write_fairseq, "hf": write_huggingface}[args.to](checkpoint, args.out, args.force)
    logging.info(f"{args.out}: {checkpoint.settings['encoder_layers']} layers from {args.checkpoint}")


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
