"""`gmp-ser`: recognise emotions, and what else one does with a trained model."""

import argparse
import logging
import os
import sys
import warnings
from importlib import import_module

from .errors import UserError

COMMANDS = ("predict", "evaluate", "calibrate", "export", "demo")


def main(argv=None) -> int:
    """Run a subcommand and return the exit code: its own, or 2 with one message for bad input or a file's trouble."""
    parser = argparse.ArgumentParser(prog="gmp-ser", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        command = import_module(f".commands.{name}", __package__)
        sub = subparsers.add_parser(
            name, help=command.__doc__.split("\n\n")[0].strip(), description=command.__doc__, epilog=command.EXAMPLE,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # before fairseq sets it to INFO
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8, nor the terminal
    try:
        return args.run(args)
    except BrokenPipeError:  # as by `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (UserError, OSError) as error:  # the system's, as of a full disk, name the file
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
