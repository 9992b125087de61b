"""Put the results of all folds together: summary.json, and a table on standard output.

Example:
    python manifest_tools/summarize.py --results exp/toy/fold*/seed1/gmp_atl/result.json \\
        --headline gmp_atl --out exp/toy/summary.json
"""

import argparse
import json
from pathlib import Path

from gmp_plugin.errors import UserError, run_tool
from gmp_plugin.evaluation import summarize
from gmp_plugin.files import atomic_text, refuse_existing


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", required=True, nargs="+", help="result.json files of evaluate.py")
    parser.add_argument("--headline", required=True, help="ablation whose figures stand at the top of summary.json")
    parser.add_argument("--out", required=True, help="summary.json to write")
    parser.add_argument("--force", action="store_true", help="replace an existing summary")
    args = parser.parse_args(argv)

    refuse_existing(args.out, force=args.force)
    by_ablation: dict[str, list] = {}
    for path in args.results:
        result = _read(path)
        by_ablation.setdefault(result["ablation"], []).append(result)
    if args.headline not in by_ablation:
        raise UserError(f"--headline {args.headline}: the results are of {', '.join(by_ablation)}")
    summaries = {name: summarize(results) for name, results in by_ablation.items()}
    with atomic_text(args.out) as stream:
        json.dump({**summaries[args.headline], "ablation": args.headline, "ablations": summaries}, stream, indent=1)
    for name, summary in summaries.items():
        _print(name, summary, by_ablation[name])


def _read(path) -> dict:
    try:
        result = json.loads(Path(path).read_text())
        return {key: result[key] for key in ("fold", "seed", "ablation", "uar", "war", "macro_f1", "classes", "counts")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no finished result of evaluate.py: {error!r}") from None


def _print(name: str, summary: dict, results: list[dict]) -> None:
    n = {str(result["fold"]): sum(result["counts"].values()) for result in results}
    classes = results[0]["classes"]
    print(f"{name}, seeds {', '.join(map(str, summary['seeds']))}: test parts, speakers never seen in training")
    print(f"{'fold':>6} {'utterances':>10} {'UAR %':>7} {'WAR %':>7} {'macro-F1 %':>10}")
    for i, fold in enumerate(summary["folds"]):
        uar, war, f1 = (summary[key]["folds"][i] for key in ("uar", "war", "macro_f1"))
        print(f"{fold:>6} {n[fold]:>10} {uar:>7.1f} {war:>7.1f} {f1:>10.1f}")
    for key in ("mean", "std"):
        row = [summary[name][key] for name in ("uar", "war", "macro_f1")]
        if None not in row:
            print(f"{key:>6} {'':>10} {row[0]:>7.1f} {row[1]:>7.1f} {row[2]:>10.1f}")
    print(f"chance {'':>10} {100 / len(classes):>7.1f}   (UAR of guessing among {', '.join(classes)})\n")


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
