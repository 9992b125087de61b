"""The leak audit: whether anything that was tested had been seen before.

Every artefact of an experiment carries its provenance, the recordings that it and its ancestors have read. For each
artefact of a fold, this compares them with the fold's parts:

- nothing but the final evaluation may have read a recording of the test part, or heard one of its speakers; that goes
  for model selection (split `valid`), too;
- k-means and the `train` split of any stage may not have read a recording of the validation part;
- a result must be of its fold's whole test part, and by the checkpoint that still lies there;
- the folds themselves must divide the corpus by recordings, by speakers and by sound (`audio_content` says which copies
  of a recording are found), and test each recording once;
- what training started from must not know the corpus, as far as it says what it has seen.

An artefact that does not say what it has seen, or names recordings that the corpus's table does not know, cannot be
audited, and that is a failure, too. What is not looked at: the weights themselves, and who wrote the provenance.
"""

import os
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from ..errors import UserError
from ..experiment import Experiment
from ..manifest import SPLITS
from .artefacts import LABELS, RESULT, Artefact, ArtefactReader, find_artefacts
from .corpus import Corpus
from .entries import CarriedEntry, audit_entry, carried_entries, seen
from .findings import Audit, Leak, Problem
from .folds import audit_division, audit_parts, audit_twins
from .labels import audit_labels
from .pretraining import Pretrained, audit_pretraining, read_pretrained
from .results import audit_result
from .sound import listen


def audit(exp_dir, data=None, sound: bool = True, workers: int = 1) -> Audit:
    """Audit all that lies below `exp_dir`, finished or not.

    Args:
        exp_dir: folder of an experiment; an artefact's fold is the `foldK` in its path, else that of its manifests.
        data: folder of `utterances.tsv` and the folds; `EXP_DIR/data`, or `exp_dir` itself, when left out.
        sound: compare the recordings by sound; the contents are kept beside the table, for the next time.
        workers: threads that read recordings.

    Raises `UserError` if there is no sound table of the corpus.
    """
    exp_dir = Path(exp_dir)
    corpus = Corpus.read(data or _data(exp_dir))
    plan = Experiment.read(exp_dir) if (exp_dir / "experiment.json").exists() else None
    reader = ArtefactReader(exp_dir)
    found = list(find_artefacts(exp_dir))
    artefacts = [reader(path, kind) for path, kind in tqdm(found, unit="artefact", desc="provenance")]
    pretrained = read_pretrained(exp_dir, plan.checkpoint if plan else None, artefacts, reader)
    # The shortest course first: it is nearest to where a leak began.
    artefacts = sorted((a for a in artefacts if a.path not in pretrained.inside), key=lambda a: len(a.entries))
    entries = carried_entries(artefacts, pretrained)

    leaks, notes, n_compared = audit_parts(corpus) + audit_division(corpus), [], None
    if sound:
        twins, n_compared = listen(corpus, _other_files(corpus, entries, pretrained), workers)
        more, notes = audit_twins(corpus, twins)
        leaks += more
    more, problems, remarks = audit_pretraining(corpus, pretrained)
    leaks, notes = leaks + more, notes + remarks
    more, unclear = _audit_artefacts(corpus, artefacts, entries, exp_dir)
    leaks, problems = leaks + more, problems + unclear
    return Audit(
        exp_dir=str(exp_dir),
        folds=list(corpus.manifests),
        artefacts=dict(sorted(Counter(artefact.kind for artefact in artefacts).items())),
        compared=n_compared,
        seen=seen(corpus, entries),
        leaks=leaks,
        unauditable=corpus.problems + [problem.message for problem in problems],
        absent=_absent(exp_dir, plan, corpus, artefacts),
        notes=notes,
    )


def _audit_artefacts(
    corpus: Corpus, artefacts: list[Artefact], entries: list[CarriedEntry], exp_dir: Path
) -> tuple[list[Leak], list[Problem]]:
    """Leaks, and what cannot be audited."""
    problems = [Problem(problem, (artefact.path,)) for artefact in artefacts for problem in artefact.problems]
    known, without_parts = [], {}
    for artefact in artefacts:
        if artefact.fold is None:
            if not artefact.problems:
                problems.append(Problem("neither its path nor its manifests name a fold", (artefact.path,)))
        elif set(corpus.parts.get(artefact.fold, ())) < set(SPLITS):
            without_parts.setdefault(artefact.fold, []).append(artefact.path)
        else:
            known.append(artefact)
    for fold, paths in without_parts.items():
        problems.append(Problem(f"the manifests of fold {fold} are not all in {corpus.folder}", tuple(paths)))
    audits = [audit_entry(corpus, entry) for entry in entries if entry.fold not in without_parts]
    audits += [audit_result(corpus, artefact, exp_dir) for artefact in known if artefact.kind == RESULT]
    audits += [audit_labels(corpus, artefact, exp_dir) for artefact in known if artefact.kind == LABELS]
    leaks = [leak for found, _ in audits for leak in found]
    return leaks, problems + [problem for _, unclear in audits for problem in unclear]


def _other_files(corpus: Corpus, entries: list[CarriedEntry], pretrained: Pretrained) -> list[str]:
    """Files to listen to beside the corpus: those of pretraining, and those that nothing else identifies."""
    files = pretrained.files(corpus)
    for carried in entries:
        root, paths = carried.entry.get("root"), carried.entry["utterances"]
        if not corpus.same_root(root):
            _, unknown = corpus.identify(root, paths)
            files += [os.path.abspath(os.path.join(root, path)) for path in unknown]
    return list(dict.fromkeys(files))


def _absent(exp_dir: Path, plan: Experiment | None, corpus: Corpus, artefacts: list[Artefact]) -> list[str]:
    """Results that the workflow has still to make; without its plan, folds without artefacts."""
    if plan is None:
        there = {artefact.fold for artefact in artefacts}
        return [f"fold {fold}: no artefact" for fold in corpus.manifests if fold not in there]
    results = [f"{folder}/result.json" for folder in plan.artefacts()["stage3"]]
    return [result for result in results if not (exp_dir / result).is_file()]


def _data(exp_dir: Path) -> Path:
    for folder in (exp_dir / "data", exp_dir):
        if (folder / "utterances.tsv").is_file():
            return folder
    raise UserError(
        f"{exp_dir} has no data/utterances.tsv; give an experiment's folder or that of make_manifest.py, or --data"
    )
