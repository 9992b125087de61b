"""Turn a corpus into the table of its utterances and the fairseq manifests of its folds."""

import argparse
import json
import os
import re
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from gmp_plugin import frames, manifest
from gmp_plugin.arguments import check_seed
from gmp_plugin.corpora import CORPORA, iemocap
from gmp_plugin.corpora.audio import CACHE, BadRecording, common_root, prepare_audio
from gmp_plugin.corpora.folds import make_folds
from gmp_plugin.errors import UserError, run_tool
from gmp_plugin.files import atomic_text, refuse_existing, sha256

EPILOG = """example:
  python manifest_tools/make_manifest.py --corpus iemocap --root /data/IEMOCAP_full_release --out data/iemocap --strict

writes data/iemocap/utterances.tsv, data/iemocap/fold1/train.tsv and so on for five folds, and, last, folds.json.
"""


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(
        prog="make_manifest.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--corpus", required=True, choices=CORPORA)
    parser.add_argument("--root", required=True, type=Path, help="the corpus's folder; for csv, the CSV file")
    parser.add_argument("--out", required=True, type=Path, help="folder to write to")
    parser.add_argument(
        "--folds", default="session", metavar="session|speaker|N|none",
        help="what each fold holds out (session); none: one fold without test part, for a model of all speakers",
    )  # fmt: skip
    parser.add_argument(
        "--valid-fraction", type=float, default=0.1, help="share of the rest that becomes the validation part (0.1)"
    )
    parser.add_argument("--seed", type=int, default=1, help="draws the validation part (1)")
    parser.add_argument("--strict", action="store_true", help="iemocap: fail if the counts are not the published ones")
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out recordings that cannot be used, and list them"
    )
    parser.add_argument(
        "--trim-silence", type=float, metavar="DB",
        help="cut the silence before and after: what is so much quieter than the loudest 20 ms (as 40; not at all)",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace an earlier output")
    args = parser.parse_args(argv)

    root, out = Path(os.path.abspath(args.root)), Path(os.path.abspath(args.out))
    _check_arguments(args, root)
    refuse_existing(out / "folds.json", out / "utterances.tsv", force=args.force)

    found = sorted(CORPORA[args.corpus](root), key=lambda u: u.path)
    make_folds(found, args.folds, args.valid_fraction, args.seed)  # fails before the audio is read, which takes a while
    found, paths, lengths, skipped = _prepare(found, root, out / CACHE, args.skip_bad, args.trim_silence)
    _compare_counts(found, args)
    # The folds come from the corpus's own paths: where resampled files lie does not change them.
    folds = make_folds(found, args.folds, args.valid_fraction, args.seed)

    base = common_root(_folder(root), paths, out / CACHE)
    utterances = [
        replace(u, path=str(path.relative_to(base)), n_samples=n)
        for u, path, n in zip(found, paths, lengths, strict=True)
    ]
    table = manifest.UtteranceTable(str(base), tuple(utterances))
    table.validate(f"{args.root} (as {out / 'utterances.tsv'})")
    _write(out, table, folds, args, root, skipped)
    _print_table(utterances, folds)
    print(f"wrote {len(utterances)} utterances, {len(folds)} folds: {out}")


def _check_arguments(args, root: Path) -> None:
    if not root.exists():
        raise UserError(f"--root {args.root} does not exist; give the folder (csv: the file) of the corpus")
    if args.corpus != "csv" and not root.is_dir():
        raise UserError(f"--root {args.root} is a file; --corpus {args.corpus} takes the corpus's folder")
    if args.strict and args.corpus != "iemocap":
        raise UserError(f"--strict compares with published counts, which are known for iemocap, not for {args.corpus}")
    if args.trim_silence is not None and not args.trim_silence > 0:
        raise UserError(f"--trim-silence {args.trim_silence}: expected decibels, as 40")
    check_seed(args.seed)


def _folder(root: Path) -> Path:
    return root.parent if root.is_file() else root


def _prepare(found, root: Path, cache_dir: Path, skip_bad: bool, trim_db: float | None):
    """`(utterances, paths, lengths, messages about those left out)`, the first three alike in order."""
    kept, paths, lengths, skipped = [], [], [], []
    for utterance in tqdm(found, unit="file", desc="audio"):
        try:
            path, n_samples = prepare_audio(_folder(root), utterance.path, cache_dir, trim_db)
        except BadRecording as error:
            if not skip_bad:
                raise
            skipped.append(str(error).removesuffix(", or leave it out with --skip-bad"))
            continue
        kept.append(utterance)
        paths.append(path)
        lengths.append(n_samples)
    for message in skipped:
        print(f"left out: {message}")
    if not kept:
        raise UserError(f"{root}: none of the {len(found)} recordings can be used; the reasons stand above")
    return kept, paths, lengths, skipped


def _compare_counts(utterances, args) -> None:
    differences = iemocap.count_differences(utterances) if args.corpus == "iemocap" else []
    if not differences:
        return
    print(f"{args.root} is not the complete IEMOCAP; utterances where the counts differ:")
    print(f"{'':18}{'expected':>10}{'found':>8}")
    for what, expected, found in differences:
        print(f"{what:18}{expected:10}{found:8}")
    if args.strict:
        what, expected, found = differences[0]
        raise UserError(
            f"{args.root}: {len(differences)} counts differ from the complete IEMOCAP ({what}: expected {expected}, "
            f"found {found}); complete the corpus, or leave --strict away"
        )


def _write(out: Path, table, folds, args, root: Path, skipped) -> None:
    """Everything, `folds.json` last: an output without it is unfinished."""
    for name in ("folds.json", "utterances.tsv"):
        (out / name).unlink(missing_ok=True)
    _remove_old_folds(out)
    utterances, summary = table.utterances, []
    for number, fold in enumerate(folds, start=1):
        folder = out / f"fold{number}"
        for name in ("emotion", "gender"):
            # Over the whole corpus, so that a class has the same number in every fold.
            manifest.write_dictionary(folder / f"dict.{name}.txt", (getattr(u, name) for u in utterances))
        for split in filter(partial(getattr, fold), manifest.SPLITS):  # a fold of all speakers has no test part
            manifest.write_split(folder, split, table.root, [utterances[i] for i in getattr(fold, split)])
        test = [utterances[i] for i in fold.test]
        summary.append(
            {
                "folder": folder.name,
                "held_out": list(fold.held_out),
                "held_out_sessions": sorted({u.session for u in test}),
                "held_out_speakers": sorted({u.speaker for u in test}),
                "counts": {split: _class_counts(utterances, getattr(fold, split)) for split in manifest.SPLITS},
            }
        )
    table.write(out / "utterances.tsv")
    record = {
        "corpus": args.corpus,
        "corpus_root": str(root),
        "folds_by": args.folds,
        "seed": args.seed,
        "valid_fraction": args.valid_fraction,
        "trim_silence_db": args.trim_silence,
        "utterances": len(utterances),
        "utterances_sha256": sha256(
            out / "utterances.tsv"
        ),  # of what else depends on this file, as a table that was edited
        "counts": _class_counts(utterances, range(len(utterances))),
        "skipped": skipped,
        "folds": summary,
    }
    with atomic_text(out / "folds.json") as stream:
        json.dump(record, stream, indent=1)
        print(file=stream)


def _remove_old_folds(out: Path) -> None:
    """Remove an earlier run's manifests, also of folds that this run does not have."""
    own = [f"{split}.{end}" for split in manifest.SPLITS for end in ("tsv", "emotion", "gender")]
    own += ["dict.emotion.txt", "dict.gender.txt"]
    for folder in sorted(path for path in out.glob("fold*") if re.fullmatch(r"fold[0-9]+", path.name)):
        for name in own:
            (folder / name).unlink(missing_ok=True)
        left = sorted(path.name for path in folder.iterdir())
        if left:
            print(f"{folder} keeps files that belong to the replaced manifests, make them again: {', '.join(left)}")
        else:
            folder.rmdir()


def _class_counts(utterances, indices) -> dict[str, int]:
    return dict(sorted(Counter(utterances[i].emotion for i in indices).items()))


def _held_out(fold) -> str:
    return ", ".join(fold.held_out) or "nobody"


def _print_table(utterances, folds) -> None:
    classes = sorted({u.emotion for u in utterances})
    width = max(8, *(len(_held_out(fold)) for fold in folds))
    print(f"fold  {'held out':{width}}  part   {'all':>6}" + "".join(f"{c:>9}" for c in classes) + f"{'hours':>8}")
    for number, fold in enumerate(folds, start=1):
        for split in manifest.SPLITS:
            indices = getattr(fold, split)
            counts = _class_counts(utterances, indices)
            hours = sum(utterances[i].n_samples for i in indices) / frames.SAMPLE_RATE / 3600
            print(
                f"{number:<6}{_held_out(fold):{width}}  {split:5}  {len(indices):6}"
                + "".join(f"{counts.get(c, 0):9}" for c in classes)
                + f"{hours:8.2f}"
            )


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
