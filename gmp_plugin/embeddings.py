"""What a stage made of the utterances: one vector each after it, and one before it, for maps of them."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .errors import UserError
from .files import atomic_path
from .hubert.checkpoint import load_hubert
from .layer_probe import LayerMeans
from .manifest import Manifest
from .utterance_classes import read_classes

PROJECTOR_RUN = "embeddings"  # the run that TensorBoard shows them under, a folder of its own


@dataclass
class Embeddings:
    """Vectors of N utterances.

    `after` `(N, E)` are the classifier's, `before` `(N, D)` means over time of the last layer of the HuBERT that the
    stage started from, None where it is not given. `classes[property]` names the class of each utterance, for those
    of emotion, gender and speaker that are known. `checkpoint_sha256` is of the classifier.
    """

    paths: list[str]
    after: np.ndarray
    before: np.ndarray | None = None
    classes: dict[str, list[str]] = field(default_factory=dict)
    checkpoint_sha256: str = ""

    @classmethod
    def of(cls, manifest: Manifest, after: np.ndarray, start=None, device: str = "cpu", **about) -> "Embeddings":
        """Around `after`; `start` is the HuBERT of `before`, in any form that `load_hubert` reads."""
        before = None
        if start is not None:
            before = LayerMeans(load_hubert(start).build().to(device), [-1]).matrix(manifest)[:, 0]
        classes = {name: [names[c] for c in numbers] for name, (numbers, names) in read_classes(manifest)[0].items()}
        return cls(list(manifest.paths), after, before, classes, **about)

    def save(self, path) -> None:
        """Write an `.npz` file: `paths`, `after`, `before`, a list of names per property, and `checkpoint_sha256`."""
        arrays = {"paths": self.paths, "after": self.after, **self.classes, "checkpoint_sha256": self.checkpoint_sha256}
        if self.before is not None:
            arrays["before"] = self.before
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            np.savez_compressed(stream, **arrays)

    @classmethod
    def load(cls, path) -> "Embeddings":
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            return cls(
                arrays.pop("paths").tolist(), arrays.pop("after"), arrays.pop("before", None),
                checkpoint_sha256=str(arrays.pop("checkpoint_sha256")),
                classes={name: values.tolist() for name, values in arrays.items()},
            )  # fmt: skip
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path} holds no embeddings of evaluate.py: {error!r}; evaluate again") from None

    def write_projector(self, logdir) -> None:
        """Put them into TensorBoard's projector, as the run `embeddings` under `logdir`; earlier ones are replaced."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        folder = Path(logdir) / PROJECTOR_RUN
        unfinished = folder.with_name(f".{PROJECTOR_RUN}.tmp")
        shutil.rmtree(unfinished, ignore_errors=True)
        header = ["path", *self.classes]
        rows = [list(row) for row in zip(self.paths, *self.classes.values(), strict=True)]
        with SummaryWriter(str(unfinished)) as writer:
            for name, vectors in (("before", self.before), ("after", self.after)):
                if vectors is not None:
                    # With one column alone TensorBoard takes the header for an utterance.
                    head, about = (header, rows) if len(header) > 1 else (None, self.paths)
                    writer.add_embedding(vectors, about, tag=name, metadata_header=head)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)


def silhouettes(vectors: np.ndarray, classes: dict[str, list[str]]) -> dict[str, float]:
    """Mean silhouette, -1 to 1, of `vectors` `(N, E)` in each property's classes: above 0, a class keeps together.

    A property with one class, or one for every utterance, has none.
    """
    from sklearn.metrics import silhouette_score  # slow to import

    return {
        name: float(silhouette_score(vectors, values))
        for name, values in classes.items()
        if 1 < len(set(values)) < len(values)
    }
