"""HuBERT as the three stages use it: fairseq's model, exact in padded batches."""

import re

import torch
import torch.nn.functional as F
from fairseq.models.hubert.hubert import HubertConfig, HubertModel
from fairseq.modules import GradMultiply
from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
from omegaconf import OmegaConf
from torch import Tensor

from .. import frames
from ..errors import UserError
from .masking import span_mask


def hubert_config(settings: dict) -> HubertConfig:
    """fairseq's `HubertConfig` from some of its fields; unknown names raise `UserError`."""
    known = HubertConfig.__dataclass_fields__
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise UserError(f"model.hubert: unknown settings {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    cfg = OmegaConf.merge(OmegaConf.structured(HubertConfig), {"label_rate": frames.FRAME_RATE}, settings)
    # fairseq evaluates this string as Python; one from a stranger's checkpoint must be arithmetic only.
    if not re.fullmatch(r"[\d\s()\[\],+*]+", cfg.conv_feature_layers) or "**" in cfg.conv_feature_layers:
        raise UserError(f"conv_feature_layers is {cfg.conv_feature_layers!r}; expected a list of (dim, kernel, stride)")
    return cfg


class HubertBackbone(HubertModel):
    """fairseq's HuBERT without its pretraining head; parameters keep fairseq's names.

    What differs from `HubertModel`: padding is told by lengths, the first group norm takes its
    statistics from valid samples only (so that a clip has the same features alone and in a batch),
    masks are seeded, layer numbers may be negative, and the input normalisation that belongs to
    the checkpoint is applied here.

    Args:
        cfg: fairseq's configuration, from `hubert_config`.
        normalize: the checkpoint's input normalisation: each clip to zero mean and unit variance.
        mask_seed: seed of the span masks.
        min_masks: fewest spans per clip, where masks are applied.
    """

    def __init__(self, cfg: HubertConfig, normalize: bool = False, mask_seed: int = 1, min_masks: int = 2):
        super().__init__(cfg, HubertPretrainingConfig(sample_rate=frames.SAMPLE_RATE), [None])
        self.remove_pretraining_modules()
        self.cfg = cfg
        self.normalize = normalize
        self.mask_seed, self.min_masks = mask_seed, min_masks
        self.num_updates = 0
        self.kernels_strides = tuple((k, s) for _, k, s in eval(cfg.conv_feature_layers))  # as fairseq does
        if self.feature_grad_mult == 0:
            self.feature_extractor.requires_grad_(False)

    @property
    def dim(self) -> int:
        """D, size of a layer's frame features."""
        return self.cfg.encoder_embed_dim

    @property
    def n_layers(self) -> int:
        return len(self.encoder.layers)

    def set_num_updates(self, num_updates: int) -> None:
        self.num_updates = num_updates

    def forward(
        self,
        source: Tensor,
        n_samples: Tensor | None = None,
        mask: bool = False,
        ids: Tensor | None = None,
        output_layer: int | None = None,
    ) -> dict[str, Tensor]:
        """Run the model up to a layer.

        Args:
            source: audio `(B, N)` at 16 kHz, zero-padded on the right.
            n_samples: valid samples of each row, `(B,)`; all when left out.
            mask: replace spans of frames by the mask embedding.
            ids: utterance numbers `(B,)`, which seed the masks.
            output_layer: layer to stop at, negative counts from the end; the last when left out.

        Returns:
            `x` `(B, T, D)`, `n_frames` `(B,)`, `mask_indices` bool `(B, T)` or None, and
            `features_pen`, the mean square of the convolutional features.
        """
        if n_samples is None:
            n_samples = torch.full((source.size(0),), source.size(1), device=source.device)
        n_frames = frames.n_frames(n_samples, self.kernels_strides)
        if int(n_frames.min()) < 1:
            raise UserError(
                f"a recording of {int(n_samples.min())} samples is shorter than one frame "
                f"({frames.RECEPTIVE_FIELD} samples, 25 ms)"
            )
        features = self.convolve(source, n_samples)
        valid = torch.arange(features.size(1), device=features.device) < n_frames[:, None]
        features_pen = features.float().pow(2).mean(-1)[valid].mean()

        x = self.layer_norm(features)
        if self.post_extract_proj is not None:
            x = self.post_extract_proj(x)
        x = self.dropout_input(x)
        mask_indices = None
        if mask and self.mask_prob > 0:
            drawn = span_mask(
                n_frames.tolist(),
                x.size(1),
                self.mask_prob,
                self.mask_length,
                ids.tolist(),
                self.mask_seed,
                self.num_updates if self.training else 0,
                self.min_masks,
            )
            mask_indices = torch.from_numpy(drawn).to(x.device)
            x = torch.where(mask_indices[:, :, None], self.mask_emb.to(x.dtype), x)

        layer = None if output_layer is None else frames.resolve_layer(output_layer, self.n_layers) - 1
        x, _ = self.encoder(x, padding_mask=None if valid.all() else ~valid, layer=layer)
        return {"x": x, "n_frames": n_frames, "mask_indices": mask_indices, "features_pen": features_pen}

    def convolve(self, source: Tensor, n_samples: Tensor) -> Tensor:
        """Convolutional features `(B, T, C)` of audio `(B, N)`; frames past a clip's end are not meaningful."""
        if self.normalize:
            source = normalize_clips(source, n_samples)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.feature_grad_mult > 0):
            x = source[:, None]
            for number, block in enumerate(self.feature_extractor.conv_layers):
                padded = bool((n_samples != source.size(1)).any())
                if number == 0 and padded and isinstance(block[2], torch.nn.GroupNorm):
                    conv, dropout, norm, activation = block
                    lengths = frames.n_frames(n_samples, self.kernels_strides[:1])
                    x = activation(group_norm_valid(dropout(conv(x)), lengths, norm))
                else:
                    x = block(x)
        if self.feature_grad_mult not in (0.0, 1.0):
            x = GradMultiply.apply(x, self.feature_grad_mult)
        return x.transpose(1, 2)


def normalize_clips(source: Tensor, n_samples: Tensor) -> Tensor:
    """Each clip of `(B, N)` to zero mean and unit variance over its valid samples, zeros after them."""
    clips = [F.layer_norm(row[:n], (int(n),)) for row, n in zip(source, n_samples.tolist(), strict=True)]
    return torch.stack([F.pad(clip, (0, source.size(1) - len(clip))) for clip in clips])


def group_norm_valid(x: Tensor, lengths: Tensor, norm: torch.nn.GroupNorm) -> Tensor:
    """`norm` over the first `lengths[b]` steps of each row of `(B, C, T)`; zeros after them.

    One call per clip: the same kernel on the same numbers as for the clip alone.
    """
    rows = [norm(row[None, :, :n])[0] for row, n in zip(x, lengths.tolist(), strict=True)]
    return torch.stack([F.pad(row, (0, x.size(2) - row.size(1))) for row in rows])
