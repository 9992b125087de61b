"""Audit an experiment for leaks: whether anything that was tested had been seen before.

Example:
    python manifest_tools/audit_leakage.py exp/iemocap

Reads what every artefact says it has seen, and compares it with the parts of its fold: no recording and no speaker of
the test part before the final evaluation, none of the validation part in k-means or training. Recordings are compared
by sound as well, so that a copy under another name is found. Prints what each stage has seen and the verdict, and
writes EXP_DIR/audit.json. The exit status is 1 for leaks and for artefacts that cannot be audited. The folder of
make_manifest.py can be audited alone, before anything is trained.
"""

import argparse
import logging
import sys
from pathlib import Path

from gmp_plugin.audit import Audit, audit
from gmp_plugin.errors import run_tool
from gmp_plugin.files import refuse_existing
from gmp_plugin.shards import default_workers


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exp_dir", metavar="EXP_DIR", help="folder of the experiment, exp/NAME")
    parser.add_argument("--data", help="folder of utterances.tsv and the folds (default: EXP_DIR/data)")
    parser.add_argument(
        "--no-sound", action="store_true", help="do not compare recordings by sound; the verdict says so"
    )
    parser.add_argument("--workers", type=int, help="threads that read recordings (default: the CPU cores)")
    parser.add_argument("--out", help="file to write (default: EXP_DIR/audit.json, where an old audit is replaced)")
    parser.add_argument("--force", action="store_true", help="replace an existing file given as --out")
    parser.add_argument("--show", type=int, default=20, help="messages of each kind to print (default: %(default)s)")
    parser.add_argument(
        "--exit-zero", action="store_true", help="exit with 0 whatever the verdict, which the file tells"
    )
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)

    if args.out:
        refuse_existing(args.out, force=args.force)
    result = audit(args.exp_dir, args.data, not args.no_sound, args.workers or default_workers("cpu"))
    result.write(args.out or Path(args.exp_dir, "audit.json"))  # an old verdict must not outlive a new audit
    _print(result, args.show)
    if result.verdict != "clean" and not args.exit_zero:
        raise SystemExit(1)


def _print(result: Audit, most: int) -> None:
    counts = ", ".join(f"{n} {kind}" for kind, n in result.artefacts.items()) or "no artefacts"
    print(f"{result.exp_dir}: {len(result.folds)} folds, {counts}")
    print(f"{'fold':>4}  {'stage':29}{'split':7}{'artefacts':>10}{'recordings':>11}{'speakers':>9}{'frames':>10}")
    for s in result.seen:
        row = f"{s.fold:>4}  {s.stage:29}{s.split:7}{s.artefacts:10}{s.recordings:11}{s.speakers:9}"
        print(f"{row}{s.n_frames or '':>10}")
    _list("note", result.notes, most)
    _list("absent", result.absent, most)
    _list("leak", [leak.message for leak in result.leaks], most, sys.stderr)
    _list("cannot be audited", result.unauditable, most, sys.stderr)
    print(result.statement, flush=True)


def _list(kind: str, messages: list[str], most: int, stream=None) -> None:
    for message in messages[:most]:
        print(f"{kind}: {message}", file=stream)
    if len(messages) > most:
        print(f"{kind}: {len(messages) - most} more; see the file, or --show", file=stream)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
