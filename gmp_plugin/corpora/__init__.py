"""Corpora: one file each, from a corpus's own layout to a list of utterances.

A reader takes `--root` and returns one `Utterance` per recording of the four classes, with `path`
relative to the root's folder and `n_samples` 0: lengths are known when the audio is (`audio.py`).
"""

from . import csv_table, emodb, iemocap, ravdess

CORPORA = {"iemocap": iemocap.read, "emodb": emodb.read, "ravdess": ravdess.read, "csv": csv_table.read}
