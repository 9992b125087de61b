"""The subcommands of `gmp-ser`, one file each: `add_arguments(parser)`, and `run(args)`, which gives the exit code.

They import what they compute with inside `run`, so that `--help` and bad options answer at once.
"""
