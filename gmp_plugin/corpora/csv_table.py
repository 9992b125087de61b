"""Any corpus, as a CSV file: `path,emotion,gender,speaker[,session]` with a header line."""

from dataclasses import replace
from pathlib import Path

from .. import frames
from ..csv_rows import read_rows
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
    utterances, seen = [], {}
    for line, row in read_rows(file, REQUIRED, f"{EXAMPLE} (session may be left out)"):
        where = f"{file}, line {line}"
        session = row.get("session") or row["speaker"]
        utterance = Utterance(row["path"], 0, row["emotion"], row["gender"], row["speaker"], session)
        # The length is not known yet; everything else must be valid here, where the line is known.
        replace(utterance, n_samples=frames.RECEPTIVE_FIELD).validate(where)
        if utterance.path in seen:
            raise UserError(f"{where}: {utterance.path} stands in line {seen[utterance.path]} already; remove one")
        seen[utterance.path] = line
        if not (file.parent / utterance.path).is_file():
            raise UserError(
                f"{where}: {file.parent / utterance.path} does not exist; paths are absolute, or relative to the "
                "CSV file's folder"
            )
        utterances.append(utterance)
    return utterances
