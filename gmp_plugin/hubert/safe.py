"""Files of tensors from strangers: pickles that may only hold what a closed list names."""

import argparse
import collections
import logging
import pickle
import re
import typing
import zipfile
from pathlib import Path

import torch
from fairseq.data.dictionary import Dictionary
from omegaconf import base, dictconfig, listconfig, nodes

from ..errors import UserError

logger = logging.getLogger(__name__)

# What fairseq's own checkpoints hold beside tensors and plain containers: its dictionary, old ones
# the command line, some a configuration that was not made plain. None of them runs code when loaded.
SAFE_TYPES = [
    Dictionary, argparse.Namespace, dictconfig.DictConfig, listconfig.ListConfig, nodes.AnyNode, nodes.StringNode,
    nodes.IntegerNode, nodes.FloatNode, nodes.BooleanNode, base.ContainerMetadata, base.Metadata,
    collections.defaultdict, dict, list, str, int, float, bool, typing.Any,
]  # fmt: skip


def load_pickle(path, trust: bool = False, mmap: bool = False):
    """The content of a file written by `torch.save`, on the CPU.

    Args:
        trust: load whatever the file holds, and so run whatever code it brings; only for files whose
            author is trusted.
        mmap: leave the tensors in the file until they are used; for a look at what stands beside them.

    Raises `UserError` for a damaged file, and, without `trust`, for one that holds other types than
    tensors, plain containers and `SAFE_TYPES`; the message names the type.
    """
    try:
        with torch.serialization.safe_globals(SAFE_TYPES):
            mmap = mmap and zipfile.is_zipfile(path)  # not files from before torch 1.6
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        reason = str(error)
    except MemoryError:
        raise
    except Exception as error:  # files that are something else end in whatever their bytes happen to say
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"checkpoint {path} is damaged or no torch file: {reason}") from None
    found = re.search(r"(?:GLOBAL|class|global) ([\w.]+\.\w+)", reason)
    if not found and not zipfile.is_zipfile(path):
        raise UserError(f"checkpoint {path} is damaged or no torch file: {reason.splitlines()[0]}")
    what = f"the type {found[1]}" if found else "more than tensors and plain containers"
    if trust:
        logger.warning(f"LOADING {path} WITHOUT SAFETY, as you asked: it holds {what}, and may run any code")
        try:
            # The only place without safe loading: the user said, for this file, that its author is trusted.
            return torch.load(path, map_location="cpu", weights_only=False)
        except pickle.UnpicklingError as error:
            raise UserError(f"checkpoint {path} is damaged or no torch file: {error}") from None
    raise UserError(
        f"checkpoint {path} cannot be loaded safely: it needs {what}, and a file that does may run code. "
        "Expected tensors, plain containers and fairseq's dictionaries. If you trust its author, convert it once: "
        f"python manifest_tools/convert_hubert.py --trust-pickle --checkpoint {Path(path).name} --to fairseq --out NEW"
    )
