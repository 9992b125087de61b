"""The head of the report: is everything there, does it count, and what does the leak audit say."""

from ...audit import Audit
from ...errors import UserError
from ...page import Box, Bullets, Details, Table, Text
from ..results import ExperimentResults
from . import wording
from .wording import NONE

MANY = 12  # items of a list at most; the rest is behind a line to click on


def status_section(experiment: ExperimentResults, allow_partial: bool = False) -> list:
    """Is everything there, and does it count; and what the audit says."""
    problems = [problem.text for problem in experiment.problems]
    results = {row.folder("stage3", run) for row in experiment.rows.values() for run in row.results}
    wanted = {row.folder("stage3", run) for row in experiment.rows.values() for run in row.runs}
    counts = (wording.count(experiment.rows, "row"), wording.count(experiment.folds, "fold"))
    count = f"{', '.join(counts)}, seeds {wording.join(experiment.seeds)}"
    if problems:
        partial = "a mean of those it has, and says of how many" if allow_partial else "no mean"
        blocks = [
            Text(
                f"**Not complete: {len(results)} of {len(wanted)} results count** ({count}). What is named here is in "
                f"no figure below; a row that lacks a run has {partial}."
            ),
            *_bullets(problems),
        ]
        status = Box("bad", blocks)
    else:
        status = Box("good", [Text(f"**Complete:** {count}; all {len(wanted)} results are there and count.")])
    notes = [Box("note", [Bullets(experiment.notes)])] if experiment.notes else []
    return [status, audit_box(experiment), *notes]


def audit_box(experiment: ExperimentResults) -> Box:
    """The verdict of the leak audit, `audit.json`."""
    path = experiment.folder / "audit.json"
    if not path.is_file():
        text = "**No audit was run**: nothing here says that no test recording touched training."
        return Box("bad", [Text(text), Text(f"`python manifest_tools/audit_leakage.py {experiment.folder}`")])
    try:
        audit = Audit.read(path)
    except UserError as error:
        return Box("bad", [Text(f"**The audit cannot be read:** {error}")])
    clean = audit.verdict == "clean"
    blocks = [Text(f"**Leak audit:** {audit.statement}." + ("" if clean else " **Do not believe these figures.**"))]
    blocks += _bullets([leak.message for leak in audit.leaks] + audit.unauditable)
    results = [experiment.folder / row.folder("stage3", run) for row in experiment.rows.values() for run in row.results]
    if any((folder / "result.json").stat().st_mtime > path.stat().st_mtime for folder in results):
        blocks.append(Text("There are results that are newer than the audit: run it again."))
    seen = [
        [s.fold, s.stage, s.split, f"{s.artefacts}", f"{s.recordings}", f"{s.speakers}", f"{s.n_frames or NONE}"]
        for s in audit.seen
    ]
    head = ["fold", "stage", "split", "artefacts", "recordings", "speakers", "frames"]
    notes = [Bullets([*audit.absent, *audit.notes])] * bool(audit.absent or audit.notes)
    if seen or notes:
        blocks.append(Details("What has seen what", [*([Table(head, seen)] if seen else []), *notes]))
    return Box("good" if clean else "bad", blocks)


def _bullets(items: list[str]) -> list:
    """A list, of which many items are behind a line to click on."""
    blocks = [Bullets(items[:MANY])] if items else []
    return blocks + ([Details(f"{len(items) - MANY} more", [Bullets(items[MANY:])])] if items[MANY:] else [])
