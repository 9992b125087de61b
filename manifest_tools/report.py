"""Report an experiment: report.html (one page with pictures), report.md, report.csv (runs), answers.csv (every test
utterance) and summary.json.

Example:
    python manifest_tools/report.py exp/iemocap

Prints the table of the first row's folds and the means of all rows. Results that lack, or do not belong where they
lie, are named first, on the page too, and are in no mean: a row that lacks a run has none. Then the exit status is 2,
and --allow-partial gives means of the runs there are, marked with their number.
"""

import argparse
import logging
from pathlib import Path

from gmp_plugin.errors import UserError, run_tool
from gmp_plugin.files import refuse_existing
from gmp_plugin.report import FILES, RATES, read_experiment, write_report


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", help="folder with experiment.json, as make experiment leaves it")
    parser.add_argument("--out", help="folder for the report (default: the experiment's)")
    parser.add_argument("--allow-partial", action="store_true", help="means of rows that lack runs, and no error")
    parser.add_argument("--exit-zero", action="store_true", help="exit status 0 whatever lacks")
    parser.add_argument("--force", action="store_true", help="replace an existing report")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)

    out = Path(args.out or args.experiment)
    refuse_existing(*(out / name for name in FILES), force=args.force)
    experiment = read_experiment(args.experiment)
    for problem in experiment.problems:
        print(f"{problem.kind}: {problem.text}")
    found = write_report(experiment, out, args.allow_partial)
    _print(experiment, found)
    print(f"wrote {', '.join(FILES)} in {out}")
    kinds = {problem.kind for problem in experiment.problems}
    if not args.exit_zero and ("wrong" in kinds or (kinds and not args.allow_partial)):
        more = "" if "wrong" in kinds else ", or give --allow-partial"
        raise UserError(f"{len(experiment.problems)} problems with the results, named above: finish the runs{more}")


def _print(experiment, found) -> None:
    """The headline row's folds, and the means of all rows."""
    head = found[experiment.headline.name]
    name, seeds = head.row.name, ", ".join(map(str, experiment.seeds))
    print(f"{name}, seeds {seeds}: test parts, speakers never seen in training")
    print(f"{'fold':>6} {'utterances':>10} {'UAR %':>7} {'WAR %':>7} {'macro-F1 %':>10}")
    for i, fold in enumerate(head.summary["folds"]):
        n = next(len(result["utterances"]) for (f, _), result in head.row.results.items() if f == fold)
        uar, war, f1 = (_number(head.summary[rate]["folds"][i]) for rate in RATES)
        print(f"{fold:>6} {n:>10} {uar:>7} {war:>7} {f1:>10}")
    for key in ("mean", "std"):
        uar, war, f1 = (_number(head.summary[rate][key]) for rate in RATES)
        print(f"{key:>6} {'':>10} {uar:>7} {war:>7} {f1:>10}")
    classes = experiment.classes
    print(f"chance {'':>10} {100 / max(1, len(classes)):>7.1f}   (UAR of guessing among {', '.join(classes)})\n")
    width = max(map(len, found))
    print(f"{'row':<{width}} {'runs':>8} {'UAR %':>14} {'WAR %':>14}")
    for name, one in found.items():
        runs = f"{len(one.row.results)} of {len(one.row.runs)}" if one.row.missing else f"{len(one.row.runs)}"
        uar, war = (
            _number(s["mean"]) + ("" if s["std"] is None else f" ± {s['std']:.1f}")
            for s in (one.summary["uar"], one.summary["war"])
        )
        print(f"{name:<{width}} {runs:>8} {uar:>14} {war:>14}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
