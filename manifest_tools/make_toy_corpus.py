"""Generate a SYNTHETIC corpus in IEMOCAP's shape, to try the software without a real one."""

import argparse
import os
import shutil
from pathlib import Path

from tqdm import tqdm

from gmp_plugin.arguments import check_seed
from gmp_plugin.corpora import toy
from gmp_plugin.errors import UserError, run_tool
from gmp_plugin.files import refuse_existing

EPILOG = """example:
  python manifest_tools/make_toy_corpus.py --out data/toy --hours 0.3
  python manifest_tools/make_manifest.py --corpus iemocap --root data/toy --out data/toy_folds
"""


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(
        prog="make_toy_corpus.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of the new corpus")
    parser.add_argument("--hours", type=float, default=0.3, help="about how much audio (0.3; at least 0.03 is made)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same bytes (1)")
    parser.add_argument("--force", action="store_true", help="replace an earlier toy corpus")
    args = parser.parse_args(argv)
    if not 0 < args.hours <= 1000:
        raise UserError(f"--hours {args.hours}: expected more than 0 and at most 1000")
    check_seed(args.seed)

    out = Path(os.path.abspath(args.out))
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        refuse_existing(out, force=args.force)
        _check_is_toy(out)

    # A tree is complete or absent: it is made beside its place and moved there.
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        seconds = toy.write_corpus(
            temporary, args.hours, args.seed, progress=lambda turns: tqdm(turns, unit="file", desc="synthesis")
        )
        if out.exists():
            shutil.rmtree(out)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(f"wrote {seconds / 3600:.3f} hours: {out}")
    print(f"This is {toy.README_TITLE}: good for trying the software, for nothing else.")


def _check_is_toy(out: Path) -> None:
    """Nothing but an earlier toy corpus is ever deleted."""
    readme = out / "README.txt"
    if not readme.is_file() or toy.README_TITLE not in readme.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"{out} is not a toy corpus and is left alone; give another --out")


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
