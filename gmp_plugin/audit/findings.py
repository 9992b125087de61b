"""What the leak audit found: leaks, what cannot be audited, notes, and who saw how much."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import UserError
from ..files import atomic_text
from .corpus import listed

CLEAN, LEAKS, UNAUDITABLE = "clean", "leaks", "cannot be audited"


@dataclass(frozen=True)
class Leak:
    """Something that touched what it must not.

    Args:
        fold: whose test or validation part it is; several with commas, empty for the corpus as a whole.
        stage, split: as the provenance names them; empty for manifests and results.
        what: the finding, without recordings and speakers.
        recordings, speakers: all that are meant.
        artefacts: first the one nearest to the origin, then those that inherit it.
    """

    fold: str
    stage: str
    split: str
    what: str
    recordings: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    artefacts: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        where = [f"fold {self.fold}"] * bool(self.fold)
        where += [f"stage {self.stage}"] * bool(self.stage) + [f"split {self.split}"] * bool(self.split)
        speakers = f" (speaker{'s' * (len(self.speakers) > 1)} {listed(self.speakers)})" if self.speakers else ""
        recordings = f": {listed(self.recordings)}" if self.recordings else ""
        return f"{_carriers(self.artefacts)}: {', '.join(where)}: {self.what}{recordings}{speakers}"


@dataclass(frozen=True)
class Problem:
    """Why something cannot be audited, and what: `artefacts` as in `Leak`."""

    what: str
    artefacts: tuple[str, ...]

    @property
    def message(self) -> str:
        return f"{_carriers(self.artefacts)}: {self.what}"


@dataclass(frozen=True)
class Seen:
    """What a stage of a fold has read as one split: union over `artefacts`, the number that say so.

    `n_frames` is what k-means was fitted on, the most of them; None for other stages.
    """

    fold: str
    stage: str
    split: str
    artefacts: int
    recordings: int
    speakers: int
    n_frames: int | None = None


@dataclass
class Audit:
    """The outcome of `audit`.

    Args:
        exp_dir: the experiment's folder.
        folds: folds of the corpus.
        artefacts: number of each kind.
        compared: recordings that were compared by sound; None if that was left out.
        unauditable: messages on what could not be audited, which counts as a failure.
        absent: what an experiment that is finished would have.
        notes: what a reader should know and is no failure.
    """

    exp_dir: str
    folds: list[str] = field(default_factory=list)
    artefacts: dict[str, int] = field(default_factory=dict)
    compared: int | None = None
    seen: list[Seen] = field(default_factory=list)
    leaks: list[Leak] = field(default_factory=list)
    unauditable: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """`clean`, `leaks`, or `cannot be audited`."""
        return LEAKS if self.leaks else UNAUDITABLE if self.unauditable else CLEAN

    @property
    def statement(self) -> str:
        """The verdict in a sentence."""
        checked = f"{sum(self.artefacts.values())} artefacts and {len(self.folds)} folds"
        if self.verdict != CLEAN:
            found = f"{len(self.leaks)} leaks, {len(self.unauditable)} things that cannot be audited"
            return f"NOT CLEAN: {found}, in {checked}"
        sound = (
            "recordings were not compared by sound" if self.compared is None else f"{self.compared} recordings compared"
        )
        return (
            "clean: no recording and no speaker of a test part touched anything before its evaluation, and k-means and "
            f"training read no file of a validation part ({checked}, {sound})"
        )

    def write(self, path) -> None:
        """As JSON: the fields, and `verdict`, `statement` and each leak's `message`."""
        leaks = [{**asdict(leak), "message": leak.message} for leak in self.leaks]
        content = {"verdict": self.verdict, "statement": self.statement, **asdict(self), "leaks": leaks}
        with atomic_text(path) as stream:
            json.dump(content, stream, indent=1)
            print(file=stream)

    @classmethod
    def read(cls, path) -> "Audit":
        """`UserError` for a file that is no audit."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            fields = {name: content[name] for name in cls.__dataclass_fields__}
            fields["seen"] = [Seen(**seen) for seen in fields["seen"]]
            fields["leaks"] = [_leak(leak) for leak in fields["leaks"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is no audit of audit_leakage.py: {error!r}") from None
        return cls(**fields)


def _leak(content: dict) -> Leak:
    values = {name: content[name] for name in Leak.__dataclass_fields__}
    return Leak(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _carriers(artefacts: tuple[str, ...]) -> str:
    return artefacts[0] + (f" and {len(artefacts) - 1} more that inherit it" if len(artefacts) > 1 else "")
