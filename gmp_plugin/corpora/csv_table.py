"""Any corpus, as a CSV file: `path,emotion,gender,speaker[,session]` with a header line."""

import csv
import io
from dataclasses import replace
from pathlib import Path

from .. import frames
from ..errors import UserError
from ..manifest import Utterance

REQUIRED = ("path", "emotion", "gender", "speaker")
EXAMPLE = "path,emotion,gender,speaker,session"


def read(root) -> list[Utterance]:
    """All rows of the CSV file `root`. Paths are absolute or relative to its folder; the session is
    the speaker where it is not given; other columns are ignored.

    Raises `UserError` with file and line.
    """
    file = Path(root)
    if file.is_dir():
        raise UserError(f"{file} is a folder; --corpus csv takes a CSV file with the columns {EXAMPLE}")
    try:
        # utf-8-sig: Excel starts its files with a byte order mark.
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text ({error}); save it as CSV UTF-8") from None
    rows = csv.reader(io.StringIO(text, newline=""))
    header = [name.strip() for name in next(rows, [])]
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise UserError(
            f"{file}, line 1: column {', '.join(missing)} is missing; expected {EXAMPLE} (session may be left out), "
            f"found {','.join(header) or 'an empty line'}"
        )
    utterances, seen = [], {}
    for values in rows:
        where = f"{file}, line {rows.line_num}"
        if not any(value.strip() for value in values):
            continue
        if len(values) != len(header):
            raise UserError(
                f"{where}: expected {len(header)} values as in the header, found {len(values)}; a value with a comma "
                "must stand in double quotes"
            )
        row = {name: value.strip() for name, value in zip(header, values, strict=True)}
        session = row.get("session") or row["speaker"]
        utterance = Utterance(row["path"], 0, row["emotion"], row["gender"], row["speaker"], session)
        # The length is not known yet; everything else must be valid here, where the line is known.
        replace(utterance, n_samples=frames.RECEPTIVE_FIELD).validate(where)
        if utterance.path in seen:
            raise UserError(f"{where}: {utterance.path} stands in line {seen[utterance.path]} already; remove one")
        seen[utterance.path] = rows.line_num
        if not (file.parent / utterance.path).is_file():
            raise UserError(
                f"{where}: {file.parent / utterance.path} does not exist; paths are absolute, or relative to the "
                "CSV file's folder"
            )
        utterances.append(utterance)
    if not utterances:
        raise UserError(f"{file}: no line after the header; expected one recording a line: {EXAMPLE}")
    return utterances
