"""The report of an experiment: results that count, what they come to, and the page that says so."""

from .results import RATES, read_experiment
from .write import FILES, write_report

__all__ = ["FILES", "RATES", "read_experiment", "write_report"]
