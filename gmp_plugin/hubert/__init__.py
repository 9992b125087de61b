"""The backbone: fairseq's HuBERT, its checkpoints, and the features of its layers."""

import logging

# fairseq sets up the root logger when it is imported, to print even what is for debugging: what a program that uses
# the package logs is its own affair.
_root = logging.getLogger()
_level, _handlers = _root.level, list(_root.handlers)
import fairseq.models  # noqa: E402, F401

_root.setLevel(_level)
_root.handlers[:] = _handlers
