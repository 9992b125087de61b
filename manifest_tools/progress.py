"""Say in one line how far an experiment of the workflow is, and about how long the rest takes.

Example:
    python manifest_tools/progress.py exp/iemocap
"""

import argparse

from gmp_plugin.errors import run_tool
from gmp_plugin.experiment import Experiment
from gmp_plugin.progress import describe, progress


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", help="its folder, exp/NAME")
    parser.add_argument("--jobs", type=int, default=1, help="that run at once (default: %(default)s)")
    parser.add_argument("--finished", help="an artefact that is complete but not marked yet: foldK/seedS/STAGE/VARIANT")
    args = parser.parse_args(argv)

    state = progress(args.experiment, Experiment.read(args.experiment), args.finished)
    print(describe(state, args.jobs), *([args.finished] if args.finished else []))


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
