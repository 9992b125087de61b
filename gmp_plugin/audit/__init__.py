"""The leak audit of an experiment: `audit(exp_dir)` gives an `Audit`."""

from .auditor import audit as audit
from .findings import Audit as Audit
