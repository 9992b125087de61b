"""Files that are either whole or absent."""

import hashlib
import os
import secrets
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError

_UMASK = os.umask(0)  # there is no way to ask without setting it
os.umask(_UMASK)


def refuse_existing(*paths, force: bool = False) -> None:
    """Raise `UserError` for the first path that exists, unless `force`, or that cannot be written: before the work."""
    for path in paths:
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_UMASK)  # some writers make files for the owner alone
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_text(path):
    """Like `atomic_path`, and yields a text stream (UTF-8, `\\n`)."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as stream:
        yield stream


def sha256(path) -> str:
    """Hex digest of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
