"""Packages that only some of the commands need."""

from importlib import import_module
from types import ModuleType

from .errors import UserError


def need(module: str, extra: str, why: str) -> ModuleType:
    """The module; without it a `UserError` that says what to install, as `setup.py`'s extra."""
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(f"{why}, {module} is needed ({error}): pip install 'gmp-plugin[{extra}]'") from None
