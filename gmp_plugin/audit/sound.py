"""Leak audit by ear: recordings that are the same under two names, within the corpus and beyond it."""

import os
from collections.abc import Iterable
from pathlib import Path

import soundfile

from ..data.audio import read_audio
from ..manifest import Manifest
from .content import Twin, twins
from .content_cache import NAME, ContentCache
from .corpus import Corpus


def listen(corpus: Corpus, others: Iterable[str], workers: int = 1) -> tuple[list[Twin], int]:
    """Compare all recordings of the corpus with each other and with the files `others`.

    Puts into `corpus.heard` what the others sound like, those that can be read, and into `corpus.problems` which
    recordings of the corpus cannot.

    Returns:
        Pairs within the corpus, by number in its table, and how many of its recordings were compared.
    """
    cache = ContentCache(corpus.folder / NAME)
    own, outside = corpus.as_manifest, _as_manifest(others)
    contents, problems = cache.read(own, workers)
    corpus.problems += [f"{message} (its sound cannot be compared)" for message in problems]
    other_contents, _ = cache.read(outside, workers)
    rows = [(own, i) for i in contents] + [(outside, i) for i in other_contents]
    found = twins(
        [*contents.values(), *other_contents.values()],
        lambda row: read_audio(*rows[row]).numpy(),
        n=len(contents),
    )
    inside, heard = [], {str(outside.audio_path(i)): [] for i in other_contents}
    for twin in found:
        (_, i), (manifest, j) = rows[twin.first], rows[twin.second]
        if manifest is own:
            inside.append(Twin(i, j, twin.identical, twin.correlation))
        else:
            heard[str(outside.audio_path(j))].append(own.paths[i])
    corpus.heard |= {file: tuple(names) for file, names in heard.items()}
    return inside, len(contents)


def _as_manifest(files: Iterable[str]) -> Manifest:
    """The files that are there, with the lengths that their headers say."""
    lengths = {}
    for file in files:
        file = os.path.abspath(file)
        if not Path(file).is_file():
            continue
        try:
            lengths[file] = soundfile.info(file).frames
        except soundfile.LibsndfileError:
            continue
    return Manifest("/", tuple(lengths), tuple(lengths.values()), "files of other corpora")
