"""Errors that a user can mend, and how they reach the terminal."""

import os
import sys
from contextlib import contextmanager


class UserError(ValueError):
    """Bad input. The message says what is wrong, where (file and line), what was expected and
    found, and what to do about it."""


@contextmanager
def exit_with_message():
    """Inside fairseq's entry points: end with the one message of a `UserError`, not a stack trace.

    `SystemExit` is the only exception that passes through hydra and fairseq's trainer without a
    traceback, and it keeps the exit status non-zero.
    """
    try:
        yield
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


def run_tool(main) -> int:
    """Run a command-line tool's `main(argv=None)`: 0, or 2 with one message for a `UserError` or a file's trouble."""
    try:
        main()
    except BrokenPipeError:  # as by `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
