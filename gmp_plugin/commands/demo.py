"""Serve a page to try a model: upload or record, and see the emotions and how they change.

On the loopback of this machine alone. What is sent is kept in a temporary folder, and removed after a quarter of an
hour, or when the page ends.
"""

import argparse

from .options import add_model_arguments, device_of

EXAMPLE = """example:
  gmp-ser demo --model emodb_recognizer --port 7860
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--port", type=int, help="default: the first free one from 7860 on")
    parser.add_argument("--examples", nargs="+", metavar="FILE", default=[], help="recordings to offer")
    parser.add_argument("--max-seconds", type=float, default=300, metavar="S", help="longest recording (%(default)s)")
    parser.add_argument("--max-megabytes", type=float, default=30, metavar="MB", help="largest file (%(default)s)")
    parser.add_argument("--window", type=float, default=2.0, metavar="S", help="of the timeline (%(default)s)")
    parser.add_argument("--hop", type=float, default=0.5, metavar="S", help="of the timeline (%(default)s)")


def run(args) -> int:
    import signal
    from pathlib import Path

    from ..demo import serve
    from ..errors import UserError
    from ..recognizer import Recognizer
    from ..timeline import Windows

    windows = Windows.of(args.window, args.hop)
    missing = [path for path in args.examples if not Path(path).is_file()]
    if missing:
        raise UserError(f"--examples: {missing[0]} does not exist")
    recognizer = Recognizer.load(args.model, device_of(args), whole_seconds=args.whole)
    limits = {"max_seconds": args.max_seconds, "max_megabytes": args.max_megabytes}
    for end in (signal.SIGTERM, signal.SIGHUP):  # so that the temporary folder goes then, too
        signal.signal(end, signal.default_int_handler)
    with serve(recognizer, args.port, args.examples, windows, **limits) as address:
        print(f"{address} (Ctrl-C ends it)", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("bye")
    return 0
