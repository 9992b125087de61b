"""Recognise the emotion of recordings: files, folders, a manifest, or - for a WAV on standard input.

Any format that libsndfile reads, any sampling rate and number of channels, any length. Recordings that cannot be
used are listed at the end, and the exit code is 1; it is 0 if all were answered, and 2 if there was nothing to do.
"""

import argparse
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from ..errors import UserError
from ..timeline import FORMATS
from .options import add_model_arguments, device_of

WINDOW, HOP = 2.0, 0.5  # seconds of the timeline
EXAMPLE = """example:
  gmp-ser predict interview.wav recordings/ --format csv --out answers.csv
  gmp-ser predict meeting.flac --timeline meeting_timeline --window 3 --hop 1
  ffmpeg -i video.mp4 -f wav - | gmp-ser predict -
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recordings", nargs="+", metavar="PATH", help="audio file, folder, manifest (.tsv), or -")
    add_model_arguments(parser)
    parser.add_argument("--format", choices=("table", "jsonl", "csv"), default="table", help="default: %(default)s")
    parser.add_argument("--out", metavar="FILE", help="write the answers there (default: standard output)")
    parser.add_argument("--timeline", metavar="DIR", help="write emotion over time there, files for every recording")
    parser.add_argument(
        "--timeline-formats", nargs="+", choices=FORMATS, default=tuple(FORMATS),
        help="table, Praat TextGrid, Audacity labels, picture (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--window", type=float, default=WINDOW, metavar="S",
        help="seconds that each point of the timeline looks at (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--hop", type=float, default=HOP, metavar="S", help="seconds from one point to the next (%(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--force", action="store_true", help="replace existing files")


def run(args) -> int:
    from ..files import atomic_text, refuse_existing
    from ..inputs import file_stems, find_inputs, standard_input
    from ..timeline import Windows
    from ..timeline_files import timeline_paths

    if not args.timeline and (args.window, args.hop, args.timeline_formats) != (WINDOW, HOP, tuple(FORMATS)):
        raise UserError("--window, --hop and --timeline-formats are of a timeline: give --timeline DIR, too")
    if args.out and Path(args.out).is_dir():
        raise UserError(f"--out {args.out} is a folder; give a file")
    windows = Windows.of(args.window, args.hop) if args.timeline else None
    inputs, others = find_inputs(args.recordings)
    stems = file_stems(inputs)
    if args.out:
        refuse_existing(args.out, force=args.force)
    if args.timeline:
        planned = [path for stem in stems for path in timeline_paths(args.timeline, stem, args.timeline_formats)]
        refuse_existing(*planned, force=args.force)
        if args.out and Path(args.out).absolute() in {Path(path).absolute() for path in planned}:
            raise UserError(f"--out {args.out} is a file of the timelines; give another name")
    recognizer = load(args)
    if args.model is None:
        print("note: the model of the package, made from German acted speech, to try the tools with", file=sys.stderr)
    with ExitStack() as stack:
        inputs = stack.enter_context(standard_input(inputs))
        # Names of files need not be UTF-8.
        stream = stack.enter_context(atomic_text(args.out, errors="backslashreplace")) if args.out else sys.stdout
        bad = answer_all(recognizer, inputs, stems, stream, windows, args)
    if not recognizer.calibrated and len(bad) < len(inputs):
        print("note: the probabilities are not calibrated (gmp-ser calibrate)", file=sys.stderr)
    if others:
        print(f"not audio by their names: {others} other files in the folders", file=sys.stderr)
    for message in bad:
        print(f"error: {message}", file=sys.stderr)
    if bad:
        print(f"{len(bad)} of {len(inputs)} recordings could not be used", file=sys.stderr)
    return 1 if bad else 0


def load(args):
    from ..recognizer import Recognizer

    return Recognizer.load(args.model, device_of(args), whole_seconds=args.whole)


def answer_all(recognizer, inputs, stems, stream, windows, args) -> list[str]:
    """Write an answer for each input; what is wrong with the bad ones."""
    from tqdm import tqdm

    from ..answers import WRITERS
    from ..recording import Recording
    from ..timeline_files import write_timeline

    writer = WRITERS[args.format](stream, recognizer.all_names, [item.name for item in inputs])
    bad = []
    hidden = True if args.quiet else None  # None: hidden where standard error is no terminal
    with tqdm(total=total_seconds(inputs, hidden), unit="s", desc="audio", disable=hidden, smoothing=0) as bar:
        recordings = [partial(Recording.open, item.path, item.name) for item in inputs]
        answers = recognizer.stream(recordings, windows, progress=lambda s: bar.update(round(s, 1)))
        for item, stem, answer in zip(inputs, stems, answers, strict=True):
            if isinstance(answer, UserError):
                bad.append(str(answer))
            elif windows:
                write_timeline(answer, args.timeline, stem, args.timeline_formats)
            with bar.external_write_mode(stream):
                writer.write(item.name, answer)
    return bad


def total_seconds(inputs, hidden: bool | None) -> float | None:
    """Length of all recordings by their headers, for the progress bar; None where nobody sees it."""
    if hidden or not sys.stderr.isatty():
        return None
    from ..errors import UserError
    from ..recording import Recording

    total = 0.0
    for item in inputs:
        try:
            total += Recording.open(item.path).seconds
        except UserError:
            continue
    return round(total, 1)
