"""Turn a folder of recordings without labels into manifests for pretraining: train.tsv and valid.tsv.

Example:
    python manifest_tools/make_speech_manifest.py --root LibriSpeech --out data/librispeech

No speaker is in both parts: speakers are told by LibriSpeech's file names (SPEAKER-CHAPTER-NUMBER.flac), elsewhere
by the folder that a recording lies in.
"""

import argparse
import os
from pathlib import Path

from tqdm import tqdm

from gmp_plugin import frames
from gmp_plugin.corpora.audio import CACHE, BadRecording, common_root, prepare_audio
from gmp_plugin.corpora.speech import divide_by_speaker, find_recordings, speaker
from gmp_plugin.errors import UserError, run_tool
from gmp_plugin.files import refuse_existing
from gmp_plugin.manifest import Manifest


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root", required=True, type=Path, help="folder of the recordings (.wav, .flac), with all below"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder to write to")
    parser.add_argument("--valid-fraction", type=float, default=0.05, help="share of the validation part (0.05)")
    parser.add_argument("--seed", type=int, default=1, help="draws the speakers of the validation part (1)")
    parser.add_argument("--skip-bad", action="store_true", help="leave out recordings that cannot be used")
    parser.add_argument("--force", action="store_true", help="replace an earlier output")
    args = parser.parse_args(argv)

    root, out = Path(os.path.abspath(args.root)), Path(os.path.abspath(args.out))
    if not root.is_dir():
        raise UserError(f"--root {args.root} is no folder; give the one that holds the recordings")
    refuse_existing(out / "train.tsv", out / "valid.tsv", force=args.force)
    found, paths, lengths = [], [], []
    for name in tqdm(find_recordings(root), unit="file", desc="audio"):
        try:
            path, n_samples = prepare_audio(root, name, out / CACHE)
        except BadRecording as error:
            if not args.skip_bad:
                raise
            print(f"left out: {error}")
            continue
        found.append(name)
        paths.append(path)
        lengths.append(n_samples)
    if not found:
        raise UserError(f"{root}: none of the recordings can be used; the reasons stand above")
    base = common_root(root, paths, out / CACHE)
    parts = divide_by_speaker(found, lengths, args.valid_fraction, args.seed)
    for split, part in zip(("valid", "train"), reversed(parts), strict=True):
        names = tuple(str(paths[i].relative_to(base)) for i in part)
        Manifest(str(base), names, tuple(lengths[i] for i in part)).write(out / f"{split}.tsv")
        hours = sum(lengths[i] for i in part) / frames.SAMPLE_RATE / 3600
        n_speakers = len({speaker(found[i]) for i in part})
        print(f"{split}: {len(part)} recordings of {n_speakers} speakers, {hours:.3f} h: {out / f'{split}.tsv'}")


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
