"""Files that are either whole or absent."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError

MAX_NAME = 255  # bytes, of Linux's file systems
_UMASK = os.umask(0)  # there is no way to ask without setting it
os.umask(_UMASK)


def refuse_existing(*paths, force: bool = False) -> None:
    """Raise `UserError` for the first path that exists, unless `force`, or that cannot be written: before the work."""
    for path in paths:
        if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
            # As /dev/null: renaming a file over it would take it away from everybody.
            raise UserError(f"{path} is a device or a pipe, which no file can take the place of; give a file")
        if not force and Path(path).exists():
            raise UserError(f"{path} exists already; give --force to replace it, or another --out")
        above = next(folder for folder in Path(path).absolute().parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            why = "has no right to write for you" if above.is_dir() else "is no folder"
            raise UserError(f"{path} cannot be written: {above} {why}; give another --out")


@contextmanager
def atomic_path(path):
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not by process number alone: ranks in containers may share both it and the folder.
    end = f".{os.getpid()}-{secrets.token_hex(4)}.tmp"
    temporary = path.with_name(f".{shortened(path.name, MAX_NAME - 1 - len(end))}{end}")
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_UMASK)  # some writers make files for the owner alone
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_text(path, errors: str = "strict"):
    """Like `atomic_path`, and yields a text stream (UTF-8, `\\n`); `errors` as of `open`."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", errors=errors, newline="\n") as stream:
        yield stream


def shortened(name: str, n_bytes: int) -> str:
    """As much of the beginning of a file's name as takes `n_bytes`, with no character cut in two."""
    return os.fsencode(name)[:n_bytes].decode(errors="ignore") if len(os.fsencode(name)) > n_bytes else name


def walk(folder, leave_out=()) -> Iterator[Path]:
    """All files in a folder and below, sorted; those of linked folders, too, but of each folder once.

    Hidden files and folders are left out (macOS's `._*` files end like audio), and folders named in `leave_out`.
    """
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        again = os.path.realpath(root) in seen
        seen.add(os.path.realpath(root))
        folders[:] = [] if again else sorted(n for n in folders if not n.startswith(".") and n not in leave_out)
        yield from (Path(root) / name for name in sorted(files) if not again and not name.startswith("."))


def sha256(path) -> str:
    """Hex digest of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
