"""Leak audit of results: of the whole test part, and by the checkpoint that lies there."""

from pathlib import Path

from ..files import sha256
from .artefacts import Artefact, inside
from .corpus import Corpus
from .findings import Leak, Problem
from .folds import in_order


def audit_result(corpus: Corpus, artefact: Artefact, exp_dir) -> tuple[list[Leak], list[Problem]]:
    """Leaks, and what cannot be audited."""
    result, leaks, problems = artefact.result, [], []
    if not result:
        return [], []  # it could not be read

    def report(what, names=()):
        speakers = in_order(corpus.speakers(names))
        leaks.append(Leak(artefact.fold, "evaluation", "", what, tuple(sorted(names)), speakers, (artefact.path,)))

    if result["fold"] is not None and str(result["fold"]) != artefact.fold:
        report(f"the result says that it is of fold {result['fold']}")
    read = set()
    for entry in artefact.entries:
        if entry["stage"] == "evaluation":
            read |= corpus.identify(entry.get("root"), entry["utterances"])[0]
    test = corpus.part(artefact.fold, "test")
    if read - test:
        report(f"the result is evaluated on {len(read - test)} recordings outside of the test part", read - test)
    if test - read:
        report(f"the result leaves out {len(test - read)} of {len(test)} recordings of the test part", test - read)

    named = result["checkpoint"]
    file = inside(exp_dir, named)
    if file is None or not file.is_file():
        file = Path(named)
    if not file.is_file():
        what = f"its checkpoint {named} is not there any more; put it back, or train and evaluate again"
        problems.append(Problem(what, (artefact.path,)))
    elif sha256(file) != result["checkpoint_sha256"]:
        report(f"stale result: its checkpoint {named} is not the one that was evaluated; evaluate it again")
    return leaks, problems
