"""HuBERT as the three stages use it: fairseq's model, exact in padded batches."""

import re

import torch
from fairseq.models.hubert.hubert import HubertConfig, HubertModel
from fairseq.modules import GradMultiply
from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from .. import frames
from ..errors import UserError
from .conv_cache import ConvCache, frozen_features
from .convolution import convolve, normalize_clips
from .encoder import Packing, encode, layer_norm
from .masking import span_mask
from .products import linear


def hubert_config(settings: dict) -> HubertConfig:
    """fairseq's `HubertConfig` from some of its fields; unknown names raise `UserError`."""
    known = HubertConfig.__dataclass_fields__
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise UserError(f"model.hubert: unknown settings {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    try:
        cfg = OmegaConf.merge(OmegaConf.structured(HubertConfig), {"label_rate": frames.FRAME_RATE}, settings)
    except OmegaConfBaseException as error:
        raise UserError(f"model.hubert: {str(error).splitlines()[0]}") from None
    if tuple((k, s) for _, k, s in conv_layers(cfg.conv_feature_layers)) != frames.KERNELS_STRIDES:
        raise UserError(
            f"model.hubert: conv_feature_layers {cfg.conv_feature_layers!r} has other kernels and strides than HuBERT, "
            f"whose frames are {frames.HOP} samples apart; only the widths may differ"
        )
    if cfg.encoder_embed_dim % cfg.encoder_attention_heads:
        raise UserError(
            f"model.hubert: encoder_embed_dim {cfg.encoder_embed_dim} is no multiple of encoder_attention_heads "
            f"{cfg.encoder_attention_heads}"
        )
    if cfg.layer_type != "transformer" or cfg.conv_pos_batch_norm:
        raise UserError(
            f"model.hubert: layer_type {cfg.layer_type!r}, conv_pos_batch_norm {cfg.conv_pos_batch_norm}: expected "
            "'transformer' and False (a batch norm makes features depend on the batch)"
        )
    others = {
        name: getattr(cfg, name)
        for name in ("mask_selection", "mask_channel_selection", "no_mask_overlap", "no_mask_channel_overlap")
        if getattr(cfg, name) not in ("static", False)
    }
    if others:
        raise UserError(f"model.hubert: {others}: masks are spans of one length, which may overlap; leave that out")
    return cfg


def conv_layers(text: str) -> list[tuple[int, int, int]]:
    """`(dim, kernel, stride)` of each convolution, from fairseq's setting `conv_feature_layers`.

    fairseq evaluates that string as Python; one from a stranger's checkpoint must be arithmetic only.
    """
    try:
        if not re.fullmatch(r"[\d\s()\[\],+*]+", text) or "**" in text:
            raise ValueError
        return [(int(dim), int(kernel), int(stride)) for dim, kernel, stride in eval(text)]
    except (SyntaxError, TypeError, ValueError):
        raise UserError(f"conv_feature_layers is {text!r}; expected a list of (dim, kernel, stride)") from None


def backbone_settings(cfg: HubertConfig) -> dict:
    """Plain settings to keep in a checkpoint, from which `hubert_config` makes the same model again."""
    settings = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    return {k: v for k, v in settings.items() if k not in ("_name", "label_rate") and v is not None}


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
        frozen: keep the convolutional encoder as it is.
    """

    def __init__(
        self, cfg: HubertConfig, normalize: bool = False, mask_seed: int = 1, min_masks: int = 2, frozen: bool = False
    ):
        super().__init__(cfg, HubertPretrainingConfig(sample_rate=frames.SAMPLE_RATE), [None])
        self.remove_pretraining_modules()
        self.cfg = cfg
        self.normalize = normalize
        self.mask_seed, self.min_masks = mask_seed, min_masks
        self.num_updates = 0
        self.kernels_strides = tuple((k, s) for _, k, s in conv_layers(cfg.conv_feature_layers))
        # Not by `feature_grad_mult`, which a checkpoint keeps: what one stage freezes, the next may train.
        self.frozen = frozen or self.feature_grad_mult == 0
        self.feature_extractor.requires_grad_(not self.frozen)
        self.conv_cache: ConvCache | None = None  # of frozen convolutions; training sets it

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
        penalty: bool = False,
    ) -> dict[str, Tensor]:
        """Run the model up to a layer.

        Args:
            source: audio `(B, N)` at 16 kHz, zero-padded on the right, in any floating type.
            n_samples: valid samples of each row, `(B,)`; all when left out.
            mask: replace spans of frames by the mask embedding.
            ids: utterance numbers `(B,)`, which seed the masks; 0 to B - 1 when left out.
            output_layer: layer to stop at, negative counts from the end; the last when left out.
            penalty: give `features_pen`, the mean square of the convolutional features.

        Returns:
            `x` `(B, T, D)`, zeros at padded frames; `n_frames` `(B,)`; `mask_indices` bool `(B, T)`
            or None; `features_pen` or None.
        """
        source = source.float()
        if n_samples is None:
            n_samples = torch.full((source.size(0),), source.size(1), device=source.device)
        n_frames = frames.n_frames(n_samples, self.kernels_strides)
        if int(n_frames.min()) < 1:
            raise UserError(
                f"a recording of {int(n_samples.min())} samples is shorter than one frame "
                f"({frames.RECEPTIVE_FIELD} samples, 25 ms)"
            )
        features = self.convolve(source, n_samples)
        packing = Packing.of(n_frames, frames.n_frames(source.size(1), self.kernels_strides))
        x = self.dropout_input(self.project(features))
        mask_indices = None
        if mask:
            x, mask_indices = self.mask(x, packing, n_frames, ids)
        n_layers = None if output_layer is None else frames.resolve_layer(output_layer, self.n_layers)
        x = packing.unpack(encode(self.encoder, x, packing, n_layers))
        features_pen = features.float().square().mean() if penalty else None
        return {"x": x, "n_frames": n_frames, "mask_indices": mask_indices, "features_pen": features_pen}

    def convolve(self, source: Tensor, n_samples: Tensor) -> Tensor:
        """Convolutional features of audio `(B, N)`: of the valid frames alone, `(M, C)`."""

        def compute(source: Tensor, n_samples: Tensor) -> Tensor:
            if self.normalize:
                source = normalize_clips(source, n_samples)
            return convolve(self.feature_extractor, source, n_samples)

        if self.frozen:
            if self.conv_cache is not None:
                self.conv_cache.use(self.feature_extractor, self.normalize)
            with torch.no_grad():
                return frozen_features(compute, source, n_samples, self.conv_cache)
        x = compute(source, n_samples)
        return x if self.feature_grad_mult == 1.0 else GradMultiply.apply(x, self.feature_grad_mult)

    def project(self, features: Tensor) -> Tensor:
        """Convolutional features `(M, C)` to the transformer's size, `(M, D)`."""
        x = layer_norm(self.layer_norm, features)
        return x if self.post_extract_proj is None else linear(self.post_extract_proj, x)

    def mask(self, x: Tensor, packing: Packing, n_frames: Tensor, ids: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Replace spans of the frames `x` `(M, D)` by the mask embedding, and spans of channels by zeros.

        Returns the frames and where the spans lie, bool `(B, T)`, or None without spans.
        """
        ids = list(range(len(n_frames))) if ids is None else ids.tolist()
        update = self.num_updates if self.training else 0
        indices = None
        if self.mask_prob > 0:
            drawn = span_mask(
                n_frames.tolist(), packing.shape[1], self.mask_prob, self.mask_length, ids, self.mask_seed, update,
                self.min_masks,
            )  # fmt: skip
            indices = torch.from_numpy(drawn).to(x.device)
            x = torch.where(packing.pack(indices)[:, None], self.mask_emb.to(x.dtype), x)
        if self.mask_channel_prob > 0:
            drawn = span_mask(
                [self.dim] * len(ids), self.dim, self.mask_channel_prob, self.mask_channel_length, ids,
                self.mask_seed + 1, update, min_masks=0,
            )  # fmt: skip
            channels = torch.from_numpy(drawn).to(x.device)[:, None].expand(-1, packing.shape[1], -1)
            x = x.masked_fill(packing.pack(channels), 0)
        return x, indices
