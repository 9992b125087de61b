"""Span masks that depend on seed, update and utterance alone."""

import numpy as np
from fairseq.data.data_utils import compute_mask_indices


def span_mask(
    n_frames, max_frames: int, mask_prob: float, mask_length: int, ids, seed: int, update: int, min_masks: int = 2
) -> np.ndarray:
    """Masked frames of a batch, bool `(B, max_frames)`, by fairseq's `compute_mask_indices`.

    Each utterance is drawn alone from (seed, update, id): fairseq takes no seed there, and cuts the
    masks of a whole batch down to those of its shortest clip. Clips under four mask lengths get
    spans of a quarter of their frames, and at least one frame always stays unmasked; a clip of one
    frame is never masked.

    Args:
        n_frames: valid frames of each utterance, `(B,)`.
        mask_prob: share of the frames that start or continue a span, spans overlapping (fairseq's
            unit: HuBERT pretraining uses 0.80 with length 10).
        ids: utterance numbers `(B,)`, the same in every epoch.
    """
    mask = np.zeros((len(n_frames), max_frames), dtype=bool)
    for row, n, i in zip(mask, n_frames, ids, strict=True):
        n = int(n)
        if n < 2:
            continue
        length = max(1, min(mask_length, n // 4))
        draw = int(np.random.SeedSequence([seed, update, int(i)]).generate_state(1)[0])
        try:
            row[:n] = compute_mask_indices(
                (1, n), None, mask_prob, length, min_masks=min(min_masks, n - 1), seed=draw, epoch=0, indices=_ZERO
            )[0]
        except ValueError:
            # Where less than a span is wanted, at most two of a quarter are drawn: so none was, with min_masks 0.
            if mask_prob * n < length:
                continue
            # "The entire sequence is masked": leave a span of half the clip.
            start = draw % (n - n // 2 + 1)
            row[:n] = True
            row[start : start + max(1, n // 2)] = False
    return mask


_ZERO = np.zeros(1, dtype=np.int64)
