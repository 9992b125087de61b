"""Tables that people write: CSV with a header line."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from .errors import UserError


def read_rows(path, required: tuple[str, ...], example: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and values by column, without spaces around them, of every line that is not empty.

    Args:
        required: columns that have to be there, in any order and among others.
        example: a header line, for messages.

    Raises `UserError` with file and line for what is no such table.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")  # Excel starts its files with a byte order mark
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}); save it as CSV UTF-8") from None
    rows = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        missing = [name for name in required if name not in header]
        if missing:
            raise UserError(
                f"{path}, line 1: column {', '.join(missing)} is missing; expected {example}, found "
                f"{','.join(header) or 'an empty line'}"
            )
        some = False
        for values in rows:
            if not any(value.strip() for value in values):
                continue
            some = True
            if len(values) != len(header):
                raise UserError(
                    f"{path}, line {rows.line_num}: expected {len(header)} values as in the header, found "
                    f"{len(values)}; a value with a comma must stand in double quotes"
                )
            yield rows.line_num, {name: value.strip() for name, value in zip(header, values, strict=True)}
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: {error}; is a quotation mark not closed?") from None
    if not some:
        raise UserError(f"{path}: no line after the header; expected one recording a line: {example}")
