"""Recordings with targets, as fairseq's trainer reads them."""

import numpy as np
import torch
from fairseq.data import FairseqDataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .. import frames
from ..errors import UserError
from ..manifest import FrameLabels, Manifest
from .audio import compact, expand, read_audio


class SpeechDataset(FairseqDataset):
    """Audio of a manifest with class numbers or frame labels, padded into batches.

    Whole utterances by default; longer ones than `max_sample_size` are cropped on the frame grid,
    with their frame labels.

    Args:
        manifest: recordings, 16 kHz mono.
        class_labels: name -> class numbers `(N,)`.
        frame_labels: frame labels of each scale.
        max_sample_size: longest crop in samples.
        min_sample_size: shorter recordings, in samples, are left out.
        random_crop: crop at a place drawn from seed, epoch and utterance; else at the start.
        shuffle: random order within batches of similar length.
        seed: seed of the crops.
        balance: class numbers `(N,)`; when given, every class is drawn equally often in an epoch.
        cache_bytes: decoded audio is kept in memory if all of it is no more than this.
    """

    def __init__(
        self,
        manifest: Manifest,
        class_labels: dict[str, np.ndarray] | None = None,
        frame_labels: list[FrameLabels] | None = None,
        max_sample_size: int | None = None,
        random_crop: bool = False,
        shuffle: bool = True,
        seed: int = 1,
        balance: np.ndarray | None = None,
        cache_bytes: int = 0,
        min_sample_size: int = 0,
    ):
        self.manifest = manifest
        self.class_labels = class_labels or {}
        self.frame_labels = frame_labels or []
        longest = max(manifest.n_samples) if max_sample_size is None else max_sample_size
        # On the frame grid, so that a crop's frames are frames of the whole utterance.
        self.max_frames = max(1, frames.n_frames(longest))
        self.sizes = np.minimum(np.asarray(manifest.n_samples), longest)
        self.random_crop, self.shuffle, self.seed = random_crop, shuffle, seed
        self.balance = balance
        self.long_enough = np.asarray(manifest.n_samples) >= min_sample_size
        if not self.long_enough.any():
            raise UserError(f"{manifest.file}: no recording has the {min_sample_size} samples of task.min_sample_size")
        self.epoch = 1
        self.n_ranks = 1  # processes that share the batches
        # Before data loaders fork, so that their workers share it: 16-bit audio is kept in 16 bits.
        self.cache = self.in_memory(cache_bytes) if 2 * sum(manifest.n_samples) <= cache_bytes else None

    def read(self, index: int) -> Tensor | str:
        """Utterance `index` as it is kept in memory, or why it cannot be read."""
        try:
            return compact(read_audio(self.manifest, index))
        except UserError as error:
            return str(error)

    def in_memory(self, limit: int) -> list[Tensor | str] | None:
        """All utterances as `read` gives them; None where they take more than `limit` bytes."""
        kept, size = [], 0
        for i in range(len(self.manifest)):
            kept.append(self.read(i))
            size += 0 if isinstance(kept[-1], str) else kept[-1].nbytes
            if size > limit:
                return None
        return kept

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> dict:
        wave = self.cache[index] if self.cache is not None else self.read(index)
        if isinstance(wave, str):
            return {"id": index, "error": wave}
        start, stop = self.crop(index)
        if (start, stop) != (0, frames.n_frames(len(wave))):
            wave = wave[start * frames.HOP : start * frames.HOP + frames.n_samples(stop - start)]
        return {
            "id": index,
            "source": expand(wave),
            "frame_labels": [torch.from_numpy(labels[index][start:stop]).long() for labels in self.frame_labels],
        }

    def crop(self, index: int) -> tuple[int, int]:
        """First frame and end of the part that is read."""
        total = frames.n_frames(self.manifest.n_samples[index])
        spare = total - self.max_frames
        if spare <= 0:
            return 0, total
        start = (
            int(np.random.default_rng([self.seed, self.epoch, index]).integers(spare + 1)) if self.random_crop else 0
        )
        return start, start + self.max_frames

    def collater(self, samples: list[dict]) -> dict:
        """Batch with `net_input` (`source` `(B, N)`, `n_samples` `(B,)`, `ids` `(B,)`), class numbers by
        name `(B,)`, and `frame_labels`, one `(B, T)` per scale, padded with -1; or the `error` of a
        recording that cannot be read, which the task raises."""
        if not samples:
            return {}
        errors = [s["error"] for s in samples if "error" in s]
        if errors:  # as data: an exception in a worker would arrive wrapped in its stack trace
            return {"error": errors[0]}
        ids = torch.tensor([s["id"] for s in samples])
        batch = {
            "id": ids,
            "nsentences": len(samples),
            "ntokens": sum(len(s["source"]) for s in samples),
            "net_input": {
                # float64, as fairseq rounds float32 to the model's bf16 or fp16, in which quiet speech is coarse
                "source": pad_sequence([s["source"] for s in samples], batch_first=True).double(),
                "n_samples": torch.tensor([len(s["source"]) for s in samples]),
                "ids": ids,
            },
            "frame_labels": [
                pad_sequence([s["frame_labels"][k] for s in samples], batch_first=True, padding_value=-1)
                for k in range(len(self.frame_labels))
            ],
        }
        for name, numbers in self.class_labels.items():
            batch[name] = torch.from_numpy(numbers[ids.numpy()])
        return batch

    def batch_by_size(self, indices, max_tokens=None, max_sentences=None, required_batch_size_multiple=1):
        # Always 1: with fairseq's default of 8 its batcher drops the last utterances of a split
        # whose number is no multiple (fairseq 0.12.3, `batch_by_size_vec`).
        return equally_many(super().batch_by_size(indices, max_tokens, max_sentences, 1), self.n_ranks)

    def num_tokens(self, index: int) -> int:
        return int(self.sizes[index])

    def num_tokens_vec(self, indices) -> np.ndarray:
        return self.sizes[indices]

    def size(self, index: int) -> int:
        return int(self.sizes[index])

    def ordered_indices(self) -> np.ndarray:
        """Long to short, without those that are left out; when shuffling, in random order among lengths within 5 %."""
        if not self.shuffle:
            order = np.argsort(-self.sizes, kind="stable")
            return order[self.long_enough[order]]
        drawn = np.random.permutation(len(self)) if self.balance is None else self.draw_balanced()
        drawn = drawn[self.long_enough[drawn]]
        bucket = np.floor(np.log(self.sizes[drawn]) / np.log(1.05))
        return drawn[np.argsort(-bucket, kind="stable")]

    def draw_balanced(self) -> np.ndarray:
        """About as many utterances as there are, the same number of each class, in random order."""
        classes = [np.flatnonzero(self.balance == c) for c in np.unique(self.balance)]
        each = -(-len(self) // len(classes))
        rounds = [
            np.concatenate([np.random.permutation(members) for _ in range(-(-each // len(members)))])[:each]
            for members in classes
        ]
        return np.random.permutation(np.concatenate(rounds))


def equally_many(batches, n_ranks: int) -> list:
    """`batches`, the fullest ones cut in halves until their number is a multiple of `n_ranks`.

    For a rank that lacks one fairseq repeats another's, and then leaves out of the update's count all batches that the
    rank has gathered by `update_freq` (fairseq 0.12.3, `Trainer.train_step`): the gradient would be too large. Batches
    of one utterance stay, so that a rank may still lack one.
    """
    batches = list(batches)
    while len(batches) % n_ranks:
        i = max(range(len(batches)), key=lambda i: len(batches[i]))
        half = len(batches[i]) // 2
        if not half:
            break
        batches[i : i + 1] = [batches[i][:half], batches[i][half:]]
    return batches
