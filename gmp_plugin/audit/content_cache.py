"""The contents of many recordings: computed in threads, and kept in a file for the next time."""

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from ..data.audio import read_audio
from ..errors import UserError
from ..files import atomic_path
from ..manifest import Manifest
from .content import BANDS, Content, describe

logger = logging.getLogger(__name__)

NAME = ".audio_content.safetensors"  # beside utterances.tsv
_VERSION = 1  # of `describe`


class ContentCache:
    """Contents by absolute path, valid as long as a file's size and time of change are the same.

    Args:
        path: the cache file; one that is damaged or of another version is made anew.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.known: dict[str, tuple[list, Content]] = {}
        try:
            with safe_open(self.path, framework="np") as stream:
                header = json.loads((stream.metadata() or {})["content"])
                if header["version"] == _VERSION:
                    spectra = stream.get_tensor("spectra")
                    for (file, stamp, digest), spectrum in zip(header["files"], spectra, strict=True):
                        self.known[file] = (stamp, Content(digest, spectrum))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            if self.path.exists():
                logger.info(f"{self.path} is made anew: {error!r}")

    def read(self, manifest: Manifest, workers: int = 1) -> tuple[dict[int, Content], list[str]]:
        """Content of the utterances by number, and a message for each that cannot be read."""
        contents, problems, missing = {}, [], []
        for i in range(len(manifest)):
            stamp, content = self.known.get(_key(manifest, i), (None, None))
            if content is not None and stamp == _stamp(manifest, i):
                contents[i] = content
            else:
                missing.append(i)
        if not missing:
            return contents, problems
        with ThreadPoolExecutor(workers) as pool:
            found = pool.map(lambda i: _describe(manifest, i), missing)
            for i, content in zip(missing, tqdm(found, total=len(missing), unit="file", desc="content"), strict=True):
                if isinstance(content, Content):
                    contents[i] = content
                    self.known[_key(manifest, i)] = (_stamp(manifest, i), content)
                else:
                    problems.append(content)
        self._save()
        return contents, problems

    def _save(self) -> None:
        files = [[file, stamp, content.digest] for file, (stamp, content) in self.known.items()]
        spectra = np.stack([content.spectrum for _, content in self.known.values()] or [np.zeros(BANDS, np.float32)])
        header = json.dumps({"version": _VERSION, "files": files})
        try:
            with atomic_path(self.path) as temporary:
                save_file({"spectra": spectra[: len(files)]}, temporary, metadata={"content": header})
        except OSError as error:  # a corpus's folder may be read-only
            logger.warning(f"{self.path} cannot be written, so the next audit reads all recordings again: {error}")


def _describe(manifest: Manifest, index: int) -> Content | str:
    try:
        return describe(read_audio(manifest, index).numpy())
    except UserError as error:
        return str(error)


def _key(manifest: Manifest, index: int) -> str:
    return os.path.abspath(manifest.audio_path(index))


def _stamp(manifest: Manifest, index: int) -> list | None:
    """What changes with the file, and the length that the manifest expects."""
    try:
        stat = os.stat(manifest.audio_path(index))
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns, manifest.n_samples[index]]
