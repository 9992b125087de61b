"""The transformer of HuBERT over fairseq's own modules, without work whose result is thrown away.

fairseq's `TransformerEncoder` keeps every layer's outputs, pads to even lengths, computes on padded
frames, and runs attention time-first. Here the valid frames of a batch lie packed, `(M, D)` with
M = sum of the lengths, in every step but attention and positional convolution. Parameters, dropout
places and results are fairseq's.
"""

from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from fairseq import utils
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .dropout import dropout
from .positional import positional
from .products import linear


@dataclass
class Packing:
    """Which frames of a padded batch `(B, T)` are valid; `index` `(M,)` is None if all are."""

    shape: tuple[int, int]
    valid: Tensor  # bool (B, T)
    index: Tensor | None
    n_frames: list[int]

    @classmethod
    def of(cls, n_frames: Tensor, max_frames: int) -> "Packing":
        valid = torch.arange(max_frames, device=n_frames.device) < n_frames[:, None]
        index = valid.flatten().nonzero()[:, 0]
        return cls(tuple(valid.shape), valid, None if len(index) == valid.numel() else index, n_frames.tolist())

    def pack(self, x: Tensor) -> Tensor:
        """`(B, T, ...)` -> `(M, ...)`."""
        x = x.flatten(0, 1)
        return x if self.index is None else x.index_select(0, self.index)

    def unpack(self, x: Tensor) -> Tensor:
        """`(M, D)` -> `(B, T, D)`, zeros at padded frames."""
        if self.index is not None:
            x = x.new_zeros(self.shape[0] * self.shape[1], x.size(1)).index_copy(0, self.index, x)
        return x.unflatten(0, self.shape)


def encode(encoder: nn.Module, x: Tensor, packing: Packing, n_layers: int | None = None) -> Tensor:
    """Run fairseq's `TransformerEncoder` on packed frames.

    Args:
        x: `(M, D)`.
        n_layers: layers to run; all, and the final norm of pre-norm models, when left out.

    Returns:
        `(M, D)`, output of the last layer that ran.
    """
    x = x + packing.pack(positional(encoder.pos_conv, packing.unpack(x)))
    if not encoder.layer_norm_first:
        x = layer_norm(encoder.layer_norm, x)
    x = dropout(x, encoder.dropout, encoder.training)
    for layer in islice(encoder.layers, n_layers):
        # torch's generator and not numpy's, as in fairseq: the trainer seeds it for every update.
        if encoder.training and encoder.layerdrop > 0 and torch.rand(()) <= encoder.layerdrop:
            continue
        if encoder.training and hasattr(layer, "precheckpoint_forward"):  # fairseq's `checkpoint_activations`
            x = checkpoint(transformer_layer, layer, x, packing, use_reentrant=False)
        else:
            x = transformer_layer(layer, x, packing)
    if encoder.layer_norm_first and n_layers is None:
        x = layer_norm(encoder.layer_norm, x)
    return x


def transformer_layer(layer: nn.Module, x: Tensor, packing: Packing) -> Tensor:
    """fairseq's `TransformerSentenceEncoderLayer` on packed frames `(M, D)`."""
    if layer.layer_norm_first:
        attended = self_attention(layer.self_attn, layer_norm(layer.self_attn_layer_norm, x), packing)
        x = x + _drop(layer.dropout1, attended)
        return x + _drop(layer.dropout3, _feed_forward(layer, layer_norm(layer.final_layer_norm, x)))
    x = x + _drop(layer.dropout1, self_attention(layer.self_attn, x, packing))
    x = layer_norm(layer.self_attn_layer_norm, x)
    x = x + _drop(layer.dropout3, _feed_forward(layer, x))
    return layer_norm(layer.final_layer_norm, x)


def self_attention(attention: nn.Module, x: Tensor, packing: Packing) -> Tensor:
    """fairseq's `MultiheadAttention` on packed frames `(M, D)`, by torch's fused attention where there is one."""
    projected = [linear(p, x) for p in (attention.q_proj, attention.k_proj, attention.v_proj)]
    p = attention.dropout_module.p if attention.training else 0.0

    def attend(*qkv, mask=None):  # each (B, T, D)
        q, k, v = (y.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for y in qkv)
        attend = dropped_attention if p > 0 and q.device.type == "cpu" else F.scaled_dot_product_attention
        return attend(q, k, v, attn_mask=mask, dropout_p=p).transpose(1, 2).flatten(2)

    if packing.index is None:
        attended = packing.pack(attend(*map(packing.unpack, projected)))
    elif x.device.type == "cpu":  # clip by clip costs less than attention over padding
        clips = zip(*(y.split(packing.n_frames) for y in projected), strict=True)
        attended = torch.cat([attend(*(y[None] for y in clip))[0] for clip in clips])
    else:
        attended = packing.pack(attend(*map(packing.unpack, projected), mask=packing.valid[:, None, None]))
    return linear(attention.out_proj, attended)


def dropped_attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, dropout_p: float) -> Tensor:
    """`F.scaled_dot_product_attention` in training on CPUs, where torch has none that is fused with dropout."""
    scores = (q * q.size(-1) ** -0.5) @ k.transpose(-2, -1)
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    return dropout(scores.float().softmax(-1).to(v.dtype), dropout_p, True) @ v


def _drop(module: nn.Module, x: Tensor) -> Tensor:
    return dropout(x, module.p, module.training)


def _feed_forward(layer: nn.Module, x: Tensor) -> Tensor:
    x = linear(layer.fc1, x)
    # fairseq's own GELU goes through float32, which costs two copies in bf16.
    activation = gelu if layer.activation_fn is utils.get_activation_fn("gelu") else layer.activation_fn
    return linear(layer.fc2, _drop(layer.dropout2, activation(x)))


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    return F.layer_norm(x.to(norm.weight.dtype), norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def gelu(x: Tensor) -> Tensor:
    """GELU, in place where no gradient asks for the input."""
    return F.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)
