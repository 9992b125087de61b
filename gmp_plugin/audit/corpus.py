"""A corpus as the leak audit knows it: its table, the parts of its folds, and which recording a name means."""

import json
import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..corpora.audio import stem
from ..corpora.folds import natural_key
from ..errors import UserError
from ..manifest import SPLITS, Manifest, UtteranceTable


@dataclass
class Corpus:
    """The folder that make_manifest.py writes.

    Args:
        folder: of `utterances.tsv`, `folds.json` and the folds.
        table: all utterances. A recording's name is its path in there.
        manifests: by fold, as "1", and split; folds and splits that are there.
        record: `folds.json`; empty without one.
        problems: what cannot be audited.
        heard: names of recordings that sound as a file does, by the file's absolute path.
    """

    folder: Path
    table: UtteranceTable
    manifests: dict[str, dict[str, Manifest]]
    record: dict
    problems: list[str] = field(default_factory=list)
    heard: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder) -> "Corpus":
        """Raises `UserError` without a sound table; an unsound manifest is one of the `problems`."""
        folder = Path(folder)
        table = UtteranceTable.read(folder / "utterances.tsv")
        corpus = cls(folder, table, {}, _record(folder / "folds.json"))
        found = [p for p in folder.glob("fold*") if p.is_dir() and re.fullmatch(r"fold[0-9]+", p.name)]
        for path in sorted(found, key=lambda p: natural_key(p.name)):
            parts = corpus.manifests.setdefault(path.name.removeprefix("fold"), {})
            for split in SPLITS:
                try:
                    parts[split] = Manifest.read(path / f"{split}.tsv")
                except UserError as error:
                    corpus.problems.append(str(error))
        for fold, parts in corpus.manifests.items():
            for manifest in parts.values():
                unknown = corpus.identify(manifest.root, manifest.paths)[1]
                if unknown:
                    corpus.problems.append(
                        f"{manifest.file}: {listed(unknown)}: no recording of {folder / 'utterances.tsv'}, so fold "
                        f"{fold} cannot be audited for {'it' if len(unknown) == 1 else 'them'}"
                    )
        return corpus

    @cached_property
    def utterances(self) -> dict:
        """`Utterance` by name."""
        return {u.path: u for u in self.table.utterances}

    @cached_property
    def as_manifest(self) -> Manifest:
        """All recordings, in the table's order."""
        lengths = tuple(u.n_samples for u in self.table.utterances)
        return _TableRows(self.table.root, tuple(self.utterances), lengths, str(self.folder / "utterances.tsv"))

    @cached_property
    def parts(self) -> dict[str, dict[str, frozenset[str]]]:
        """Recordings by fold and split; what the table does not know is left out."""
        return {
            fold: {split: frozenset(self.identify(m.root, m.paths)[0]) for split, m in manifests.items()}
            for fold, manifests in self.manifests.items()
        }

    def part(self, fold: str, split: str) -> frozenset[str]:
        return self.parts.get(fold, {}).get(split, frozenset())

    def tested_in(self, names) -> list[str]:
        """Folds whose test part has one of the recordings."""
        return [fold for fold in self.parts if not self.part(fold, "test").isdisjoint(names)]

    def speakers(self, names) -> set[str]:
        return {self.utterances[name].speaker for name in names}

    def same_root(self, root: str | None) -> bool:
        """Whether paths below `root` are as in the table; early provenances name none, and mean the table's."""
        return root is None or os.path.realpath(root) == os.path.realpath(self.table.root)

    def identify(self, root: str | None, paths, other_corpus: bool = False) -> tuple[set[str], list[str]]:
        """Which recordings files are, by name, and which files are none that the table knows.

        The corpus may lie in several places: as it came, resampled in a cache, on another machine. So a file is a
        recording if it is the same file, if its path below its root is the same but for the suffixes, or if it
        `heard` the same.

        Args:
            other_corpus: the files should be of another corpus, where the same path can be chance: if such a file
                was compared by ear, that alone counts.
        """
        if self.same_root(root):
            names = set(paths)
            unknown = names - self.utterances.keys()
            return names - unknown, sorted(unknown)
        names, unknown = set(), []
        for path in paths:
            file = os.path.abspath(os.path.join(root, path))
            heard = self.heard.get(file)
            found = set(heard or ())
            if heard is None or not other_corpus:
                found.update(self._by_stem.get(stem(path), ()))
            found.update(self._by_file.get(os.path.realpath(file), ()))
            names |= found
            if not found:
                unknown.append(path)
        return names, unknown

    @cached_property
    def _by_file(self) -> dict[str, list[str]]:
        return _index((os.path.realpath(os.path.join(self.table.root, name)), name) for name in self.utterances)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _index((stem(name), name) for name in self.utterances)


class _TableRows(Manifest):
    """A table as a manifest."""

    def where(self, index: int) -> str:
        return f"{self.file}, line {index + 3}"


def listed(names, most: int = 3) -> str:
    """The first names and the number of the others."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _record(path: Path) -> dict:
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {**record, "folds": [{**fold, "folder": str(fold["folder"])} for fold in record["folds"]]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); make the folds again with make_manifest.py") from None


def _index(pairs) -> dict[str, list[str]]:
    index: dict[str, list[str]] = {}
    for key, name in pairs:
        index.setdefault(key, []).append(name)
    return index
