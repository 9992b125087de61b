"""Packages that only some of the commands need."""

import shlex
from importlib import import_module, metadata
from types import ModuleType

from .errors import UserError


def need(module: str, extra: str, why: str) -> ModuleType:
    """The module; without it a `UserError` that says what to install: the packages of `setup.py`'s extra."""
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(f"{why}, {module} is needed ({error}): pip install {packages(extra)}") from None


def packages(extra: str) -> str:
    """By their own names: this package is in no index."""
    lines = metadata.requires("gmp-plugin") or []
    return shlex.join(line.split(";")[0].strip() for line in lines if f'extra == "{extra}"' in line)
