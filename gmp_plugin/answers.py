"""Answers about recordings as a table to read, as JSON lines, and as CSV."""

import csv
import json

from .errors import UserError
from .recognizer import Recognition

MAX_NAME = 60  # columns of the table


class TableWriter:
    """Aligned columns: recording, length, emotion, how sure, all classes in percent, gender. Bad ones are left out."""

    def __init__(self, stream, names: dict[str, list[str]], recordings: list[str]):
        self.stream, self.names = stream, names
        self.width = min(MAX_NAME, max(len("recording"), *map(len, recordings)))
        emotions = names["emotion"]
        self.columns = [max(5, len(name)) for name in emotions]
        head = [f"{'recording':{self.width}}", f"{'length':>8}", f"{'emotion':{self._emotion}}", f"{'sure':>6}"]
        head += [f"{name:>{width}}" for name, width in zip(emotions, self.columns, strict=True)]
        head += ["gender"] if "gender" in names else []
        print("  ".join(head), file=stream)

    @property
    def _emotion(self) -> int:
        return max(len("emotion"), *map(len, self.names["emotion"]))

    def write(self, name: str, answer: Recognition | UserError) -> None:
        if isinstance(answer, UserError):
            return
        shown = name if len(name) <= self.width else "…" + name[1 - self.width :]
        cells = [f"{shown:{self.width}}", f"{answer.seconds:6.1f} s", f"{answer.emotion:{self._emotion}}"]
        cells.append(f"{100 * answer.confidence:4.0f} %")
        cells += [f"{100 * p:{width}.1f}" for p, width in zip(answer.probabilities.values(), self.columns, strict=True)]
        if answer.gender is not None:
            cells.append(f"{answer.gender} {100 * answer.gender_probabilities[answer.gender]:.0f} %")
        cells += [f"({'; '.join(answer.warnings)})"] if answer.warnings else []
        print("  ".join(cells).rstrip(), file=self.stream, flush=True)


class JsonLinesWriter:
    """One object a line, as `Recognition.to_dict`; of a bad recording, `recording` and `error`."""

    def __init__(self, stream, names, recordings):
        self.stream = stream

    def write(self, name: str, answer: Recognition | UserError) -> None:
        bad = isinstance(answer, UserError)
        content = {"recording": name, "error": str(answer)} if bad else {**answer.to_dict(), "recording": name}
        print(json.dumps(content, ensure_ascii=False), file=self.stream, flush=True)


class CsvWriter:
    """One line a recording: `p_CLASS` are the probabilities, `p_gender_CLASS` where an emotion has the same name; of a
    bad one, only `recording` and `error`."""

    def __init__(self, stream, names, recordings):
        emotions, genders = names["emotion"], names.get("gender", [])
        self.kinds = [f"p_{name}" for name in emotions]
        self.kinds += [f"p_gender_{name}" if name in emotions else f"p_{name}" for name in genders]
        gender = ["gender"] if "gender" in names else []
        columns = ["recording", "seconds", "emotion", "confidence", *gender, *self.kinds, "warnings", "error"]
        self.writer = csv.DictWriter(stream, columns, lineterminator="\n")
        self.writer.writeheader()

    def write(self, name: str, answer: Recognition | UserError) -> None:
        if isinstance(answer, UserError):
            self.writer.writerow({"recording": name, "error": str(answer)})
            return
        content = answer.to_dict()
        shares = [*content.pop("probabilities").values(), *content.pop("gender_probabilities", {}).values()]
        content |= {"recording": name, "warnings": "; ".join(content["warnings"])}
        self.writer.writerow({**content, **dict(zip(self.kinds, shares, strict=True))})


WRITERS = {"table": TableWriter, "jsonl": JsonLinesWriter, "csv": CsvWriter}
