"""A finished model as an ONNX graph: padded batches of any size and length, every row as if it were alone.

The graph is written node by node. torch's exporters trace what ran, and neither our forward, which packs the valid
frames of a batch, nor a BiLSTM over rows of different lengths comes through them with both dimensions free.
"""

import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from .errors import UserError
from .hubert.convolution import NORMALIZE_EPS
from .hubert.positional import current_weight
from .modules.am_softmax import AMSoftmax
from .modules.contrastive import PromptHead
from .modules.heads import LinearHead
from .modules.pooling import AttentionPooling, BiLSTMPooling, Pooling
from .recognizer_model import RecognizerModel

OPSET, IR_VERSION = 17, 8  # onnxruntime since 1.12
FAR = -1e9  # added to the attention scores of padding: e^FAR is zero


class Graph:
    """Nodes and constants in the making; a value is the name of a tensor."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes):
        names = [f"{kind}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value, dtype=None) -> str:
        """A tensor (float32 unless said otherwise) or numbers."""
        array = value.detach().cpu().float().numpy() if isinstance(value, Tensor) else np.asarray(value, dtype=dtype)
        name = f"constant_{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def number(self, value: float) -> str:
        return self.constant(value, np.float32)

    def integer(self, *values: int) -> str:
        return self.constant(values[0] if len(values) == 1 else values, np.int64)

    def axes(self, *axes: int) -> str:
        return self.constant(axes, np.int64)

    def cast(self, x: str, to=TensorProto.FLOAT) -> str:
        return self.op("Cast", x, to=to)

    def unsqueeze(self, x: str, *axes: int) -> str:
        return self.op("Unsqueeze", x, self.axes(*axes))

    def sum(self, x: str, axis: int) -> str:
        return self.op("ReduceSum", x, self.axes(axis), keepdims=1)

    def size(self, x: str, axis: int) -> str:
        """Length of a dimension, a scalar."""
        return self.op("Gather", self.op("Shape", x), self.integer(axis), axis=0)

    def valid(self, lengths: str, size: str) -> str:
        """Which of `size` places of each row are within its length: float `(B, size)`."""
        places = self.op("Range", self.integer(0), size, self.integer(1))
        return self.cast(self.op("Less", places, self.unsqueeze(lengths, 1)))

    def linear(self, module: nn.Linear, x: str) -> str:
        product = self.op("MatMul", x, self.constant(module.weight.t()))
        return self.op("Add", product, self.constant(module.bias))

    def layer_norm(self, module: nn.LayerNorm, x: str) -> str:
        weights = self.constant(module.weight), self.constant(module.bias)
        return self.op("LayerNormalization", x, *weights, axis=-1, epsilon=module.eps)

    def gelu(self, x: str) -> str:
        erf = self.op("Erf", self.op("Div", x, self.number(math.sqrt(2))))
        return self.op("Mul", self.op("Mul", x, self.op("Add", erf, self.number(1))), self.number(0.5))


def build_graph(model: RecognizerModel, temperature: float, metadata: dict[str, str]) -> onnx.ModelProto:
    """The graph of a model in evaluation mode.

    Inputs: `audio` `(batch, samples)` float32 at 16 kHz, zero-padded on the right; `n_samples` `(batch,)` int64, valid
    samples of each row, at least 400. Outputs: `probabilities` `(batch, classes)` with `temperature`, `logits` before
    it, `frames` `(batch, frames, size)`, what is pooled, zeros at padding; and `gender_probabilities`
    `(batch, genders)` where the model has that head.
    """
    g, hubert = Graph(), model.hubert
    audio, n_samples = "audio", "n_samples"
    if hubert.normalize:
        audio = normalize_clips(g, audio, n_samples)
    x, lengths = convolve(g, hubert.feature_extractor, audio, n_samples)
    valid = g.unsqueeze(g.valid(lengths, g.size(x, 1)), 2)
    x = g.layer_norm(hubert.layer_norm, x)
    if hubert.post_extract_proj is not None:
        x = g.linear(hubert.post_extract_proj, x)
    x = encode(g, hubert.encoder, g.op("Mul", x, valid), valid)
    frames, pooled, size = pool(g, model.pooling, x, lengths, valid)
    outputs = {"frames": (frames, ["batch", "frames", size])}
    for kind in model.heads.kinds:
        module = getattr(model.heads, f"{kind}_head")
        size = (module.classes if isinstance(module, PromptHead) else module.classifier.weight).size(0)
        logits = head(g, module, pooled)
        shares = g.op("Div", logits, g.number(temperature)) if kind == "emotion" else logits
        name = "probabilities" if kind == "emotion" else f"{kind}_probabilities"
        outputs[name] = (g.op("Softmax", shares, axis=-1), ["batch", size])
        if kind == "emotion":
            outputs["logits"] = (logits, ["batch", size])
    for name, (value, _) in outputs.items():
        g.nodes.append(helper.make_node("Identity", [value], [name]))
    order = [name for name in ("probabilities", "logits", "gender_probabilities", "frames") if name in outputs]
    graph = helper.make_graph(
        g.nodes, "speech_emotion_recognition",
        [
            helper.make_tensor_value_info("audio", TensorProto.FLOAT, ["batch", "samples"]),
            helper.make_tensor_value_info("n_samples", TensorProto.INT64, ["batch"]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, outputs[name][1]) for name in order],
        list(g.constants.values()),
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto)
    return proto


def normalize_clips(g: Graph, audio: str, n_samples: str) -> str:
    """As `convolution.normalize_clips`, with its sums in float64."""
    n = g.cast(g.unsqueeze(n_samples, 1), TensorProto.DOUBLE)
    valid = g.cast(g.valid(n_samples, g.size(audio, 1)), TensorProto.DOUBLE)
    x = g.op("Mul", g.cast(audio, TensorProto.DOUBLE), valid)
    x = g.op("Mul", g.op("Sub", x, g.op("Div", g.sum(x, 1), n)), valid)
    variance = g.op("Div", g.sum(g.op("Mul", x, x), 1), n)
    deviation = g.op("Sqrt", g.op("Add", variance, g.constant(NORMALIZE_EPS, np.float64)))
    return g.cast(g.op("Div", x, deviation))


def convolve(g: Graph, extractor: nn.Module, audio: str, n_samples: str) -> tuple[str, str]:
    """Audio `(B, N)` to features `(B, T, C)`, and the frames of each row `(B,)`."""
    x, lengths = g.unsqueeze(audio, 1), n_samples
    for block in extractor.conv_layers:
        conv, _, *norm, _ = block
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        bias = [] if conv.bias is None else [g.constant(conv.bias)]
        x = g.op("Conv", x, g.constant(conv.weight), *bias, kernel_shape=[kernel], strides=[stride])
        lengths = g.op("Add", g.op("Div", g.op("Sub", lengths, g.integer(kernel)), g.integer(stride)), g.integer(1))
        if norm and isinstance(norm[0], nn.GroupNorm):
            x = group_norm(g, norm[0], x, lengths)
        elif norm:  # over the channels, between two transpositions
            x = g.op("Transpose", g.layer_norm(norm[0][1], g.op("Transpose", x, perm=[0, 2, 1])), perm=[0, 2, 1])
        x = g.gelu(x)
    return g.op("Transpose", x, perm=[0, 2, 1]), lengths


def group_norm(g: Graph, norm: nn.GroupNorm, x: str, lengths: str) -> str:
    """One group per channel of `(B, C, T)`, over the valid frames of each row."""
    valid, n = g.unsqueeze(g.valid(lengths, g.size(x, 2)), 1), g.cast(g.unsqueeze(lengths, 1, 2))
    x = g.op("Sub", x, g.op("Div", g.sum(g.op("Mul", x, valid), 2), n))
    variance = g.op("Div", g.sum(g.op("Mul", g.op("Mul", x, x), valid), 2), n)
    deviation = g.op("Sqrt", g.op("Add", variance, g.number(norm.eps)))
    scale = g.op("Div", g.constant(norm.weight[:, None]), deviation)
    return g.op("Add", g.op("Mul", x, scale), g.constant(norm.bias[:, None]))


def encode(g: Graph, encoder: nn.Module, x: str, valid: str) -> str:
    """fairseq's `TransformerEncoder`: `(B, T, D)` with zeros at padded frames -> `(B, T, D)`."""
    conv = encoder.pos_conv[0]
    kernel = conv.kernel_size[0]
    # An even kernel would give a frame too many: it is padded by one less at the end.
    positions = g.op(
        "Conv", g.op("Transpose", x, perm=[0, 2, 1]), g.constant(current_weight(conv)), g.constant(conv.bias),
        kernel_shape=[kernel], group=conv.groups, pads=[kernel // 2, kernel // 2 - (kernel % 2 == 0)],
    )  # fmt: skip
    x = g.op("Add", x, g.op("Transpose", g.gelu(positions), perm=[0, 2, 1]))
    if not encoder.layer_norm_first:
        x = g.layer_norm(encoder.layer_norm, x)
    hidden = g.op("Mul", g.op("Sub", g.number(1), g.op("Transpose", valid, perm=[0, 2, 1])), g.number(FAR))
    hidden = g.unsqueeze(hidden, 1)  # (B, 1, 1, T)
    for layer in encoder.layers:
        x = transformer_layer(g, layer, x, hidden)
    return g.layer_norm(encoder.layer_norm, x) if encoder.layer_norm_first else x


def transformer_layer(g: Graph, layer: nn.Module, x: str, hidden: str) -> str:
    if layer.layer_norm_first:
        x = g.op("Add", x, attend(g, layer.self_attn, g.layer_norm(layer.self_attn_layer_norm, x), hidden))
        return g.op("Add", x, feed_forward(g, layer, g.layer_norm(layer.final_layer_norm, x)))
    x = g.layer_norm(layer.self_attn_layer_norm, g.op("Add", x, attend(g, layer.self_attn, x, hidden)))
    return g.layer_norm(layer.final_layer_norm, g.op("Add", x, feed_forward(g, layer, x)))


def attend(g: Graph, attention: nn.Module, x: str, hidden: str) -> str:
    heads = attention.num_heads
    size = attention.embed_dim // heads
    split = g.integer(0, 0, heads, size)

    def project(module: nn.Linear, perm: list[int]) -> str:
        return g.op("Transpose", g.op("Reshape", g.linear(module, x), split), perm=perm)

    q, k, v = (
        project(module, perm)
        for module, perm in (
            (attention.q_proj, [0, 2, 1, 3]), (attention.k_proj, [0, 2, 3, 1]), (attention.v_proj, [0, 2, 1, 3])
        )
    )  # fmt: skip
    scores = g.op("MatMul", g.op("Mul", q, g.number(size**-0.5)), k)
    shares = g.op("Softmax", g.op("Add", scores, hidden), axis=-1)
    attended = g.op("Transpose", g.op("MatMul", shares, v), perm=[0, 2, 1, 3])
    return g.linear(attention.out_proj, g.op("Reshape", attended, g.integer(0, 0, heads * size)))


def feed_forward(g: Graph, layer: nn.Module, x: str) -> str:
    x = g.linear(layer.fc1, x)
    name = getattr(layer.activation_fn, "__name__", "")
    if name not in ("gelu", "relu"):
        raise UserError(f"no ONNX form for the activation {name!r}; expected gelu or relu")
    return g.linear(layer.fc2, g.gelu(x) if name == "gelu" else g.op("Relu", x))


def pool(g: Graph, pooling: Pooling, x: str, lengths: str, valid: str) -> tuple[str, str, int]:
    """What the pooling takes the mean of `(B, T, F)`, zeros at padding; the pooled vectors `(B, D)`; and F."""
    size = pooling.output_dim
    if isinstance(pooling, BiLSTMPooling):
        frames = bilstm(g, pooling.lstm, x, lengths)
    elif isinstance(pooling, AttentionPooling):
        weights = g.op("Exp", g.op("Tanh", g.op("MatMul", x, g.constant(pooling.weight[:, None]))))
        frames = g.op("Mul", g.op("Concat", g.op("Mul", weights, x), weights, axis=2), valid)
        sums = g.op("ReduceSum", frames, g.axes(1), keepdims=0)
        weighted, total = g.op("Split", sums, g.integer(size, 1), axis=1, outputs=2)
        return frames, g.op("Div", weighted, total), size + 1
    else:
        frames = g.op("Mul", x, valid)
    pooled = g.op("Div", g.op("ReduceSum", frames, g.axes(1), keepdims=0), g.unsqueeze(g.cast(lengths), 1))
    return frames, pooled, size


def bilstm(g: Graph, lstm: nn.LSTM, x: str, lengths: str) -> str:
    """`(B, T, D)` to `(B, T, 2 H)`; backwards begins at each row's own end, and what is behind that is zero."""
    x, lengths = g.op("Transpose", x, perm=[1, 0, 2]), g.cast(lengths, TensorProto.INT32)
    hidden = lstm.hidden_size
    for layer in range(lstm.num_layers):

        def stacked(name: str, layer: int = layer) -> np.ndarray:
            return np.stack([_gates(getattr(lstm, f"{name}_l{layer}{way}"), hidden) for way in ("", "_reverse")])

        bias = np.concatenate([stacked("bias_ih"), stacked("bias_hh")], axis=1)
        y, _, _ = g.op(
            "LSTM", x, g.constant(stacked("weight_ih"), np.float32), g.constant(stacked("weight_hh"), np.float32),
            g.constant(bias, np.float32), lengths, outputs=3, hidden_size=hidden, direction="bidirectional",
        )  # fmt: skip
        # (T, 2, B, H) to (T, B, 2 H)
        x = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3]), g.integer(0, 0, 2 * hidden))
    return g.op("Transpose", x, perm=[1, 0, 2])


def _gates(weight: Tensor, hidden: int) -> np.ndarray:
    """torch's gates (input, forget, cell, output) in ONNX's order (input, output, forget, cell)."""
    i, f, c, o = weight.detach().cpu().float().numpy().reshape(4, hidden, *weight.shape[1:])
    return np.concatenate([i, o, f, c])


def head(g: Graph, module: nn.Module, pooled: str) -> str:
    """Pooled vectors `(B, D)` to logits `(B, C)`."""
    if isinstance(module, LinearHead):
        return g.linear(module.classifier, pooled)
    if isinstance(module, PromptHead):
        x = g.linear(module.audio.output, g.op("Relu", g.linear(module.audio.projection, pooled)))
        return cosines(g, x, module.audio.temperature().detach() * module.classes)
    x, classifier = g.op("Relu", g.linear(module.projection, pooled)), module.classifier
    if not isinstance(classifier, AMSoftmax):
        return g.linear(classifier, x)
    weight = nn.functional.normalize(classifier.weight.detach().float(), dim=-1)
    return cosines(g, x, classifier.scale * weight)


def cosines(g: Graph, x: str, scaled: Tensor) -> str:
    """Cosines of `(B, E)` with the rows of `(C, E)`, times the lengths of these rows: `(B, C)`."""
    norm = g.op("Max", g.op("ReduceL2", x, axes=[-1], keepdims=1), g.number(1e-12))
    return g.op("MatMul", g.op("Div", x, norm), g.constant(scaled.t()))
