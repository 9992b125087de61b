"""Check frame labels, ours or foreign, against their manifests: lines, frames, ids, sampling rate, label rate.

Example:
    python manifest_tools/check_labels.py --data data/fold1 --labels labels/fold1

The exit status is 1 if something is wrong, and every message says which file and line.
"""

import argparse
import sys

from gmp_plugin.errors import run_tool
from gmp_plugin.label_check import check_labels


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with the manifests SPLIT.tsv")
    parser.add_argument("--labels", required=True, help="folder with SPLIT.NAME and dict.NAME.txt, as train.64.km")
    parser.add_argument("--names", nargs="+", help="label sets, as 64.km (default: all dict.*km.txt)")
    parser.add_argument("--audio", type=int, default=200, help="recordings per split to open (default: %(default)s)")
    parser.add_argument("--show", type=int, default=20, help="problems to print (default: %(default)s)")
    args = parser.parse_args(argv)

    check = check_labels(args.data, args.labels, args.names, args.audio)
    for line in check.summaries:
        print(line)
    for line in check.problems[: args.show]:
        print(f"error: {line}", file=sys.stderr)
    if len(check.problems) > args.show:
        print(f"error: {len(check.problems) - args.show} more problems; --show lists more", file=sys.stderr)
    if check.problems:
        raise SystemExit(1)
    without = f"; there are none of {', '.join(check.without)}" if check.without else ""
    print(f"{len(check.summaries)} label files are in order{without}")


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
