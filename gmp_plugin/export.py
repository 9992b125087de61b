"""A trained recogniser out: as a folder in Hugging Face layout, and as ONNX."""

import base64
import json
import logging
import os
import shutil
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import safetensors.torch

from . import frames, provenance
from .errors import UserError
from .exported import HEAD, RECOGNIZER, describe
from .extras import need
from .files import atomic_path, atomic_text, refuse_existing, sha256
from .hubert.checkpoint import HubertCheckpoint
from .hubert.convert import write_huggingface
from .model_card import CardText, model_card
from .recognizer_model import TrainedModel, quiet

ONNX_BYTES = 1.9e9  # protobuf ends at 2 GB
OWN = {"README.md", "config.json", "preprocessor_config.json", "model.safetensors", HEAD, RECOGNIZER, provenance.FILE}
AGREEMENT = 1e-4  # largest difference of a logit between ONNX and our model, on a scale of -30..30
WHY = "to export to ONNX"


def export_folder(trained: TrainedModel, folder, card: CardText | None = None, force: bool = False) -> None:
    """Write the backbone as `transformers` loads it, `head.safetensors`, `recognizer.json`, and a model card.

    The folder appears at once, complete; with `force`, an earlier export is moved aside until it does. Where recordings
    lay on this machine is left out of it.
    """
    folder = Path(os.path.realpath(folder))
    refuse_existing(folder, force=force)
    _refuse_foreign(folder)
    card = card or CardText()
    hubert = HubertCheckpoint(
        trained.hubert.path, trained.hubert.settings, trained.hubert.normalize, trained.hubert.state_dict,
        provenance.published(trained.provenance, card.corpus),
    )  # fmt: skip
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = Path(mkdtemp(prefix=f".{folder.name}.", dir=folder.parent)), None
    try:
        write_huggingface(hubert, temporary, force=True)
        tensors = {name: tensor.contiguous() for name, tensor in trained.tensors.items()}
        with atomic_path(temporary / HEAD) as path:
            safetensors.torch.save_file(tensors, path)
        with atomic_text(temporary / RECOGNIZER) as stream:
            json.dump(describe(trained, _about(trained, card)), stream, indent=1)
        with atomic_text(temporary / "README.md") as stream:
            stream.write(model_card(trained, card))
        temporary.chmod(0o755)
        if folder.is_dir():
            _refuse_foreign(folder)  # something may have come since
            old = Path(mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            os.replace(folder, old)
        try:
            os.replace(temporary, folder)
        except OSError:
            if old:
                os.replace(old, folder)
            raise
    finally:
        for leftover in filter(None, (temporary, old)):
            shutil.rmtree(leftover, ignore_errors=True)


def export_onnx(trained: TrainedModel, path, card: CardText | None = None, force: bool = False) -> float:
    """Write an ONNX file, and return how far its logits are from our model's on a few noises of several lengths.

    Raises `UserError` above `AGREEMENT`; the file is then not written.
    """
    need("onnx", "onnx", WHY), need("onnxruntime", "onnx", WHY)
    from .onnx_engine import HEAD as HEAD_KEY
    from .onnx_engine import METADATA, PROVENANCE, OnnxEngine
    from .onnx_graph import build_graph

    refuse_existing(path, force=force)
    model = trained.build()
    size = sum(p.numel() for p in model.parameters()) * 4
    if size > ONNX_BYTES:
        raise UserError(
            f"{trained.path}: {size / 1e9:.1f} GB do not fit into an ONNX file, which holds 2 GB; give --to hf"
        )
    heads = safetensors.torch.save({k: v.contiguous() for k, v in model.heads.state_dict().items()})
    card = card or CardText()
    seen = provenance.published(trained.provenance, card.corpus)
    metadata = {METADATA: json.dumps(describe(trained, _about(trained, card))), PROVENANCE: json.dumps(seen)}
    metadata[HEAD_KEY] = base64.b64encode(heads).decode()
    proto = build_graph(model, trained.temperature or 1.0, metadata)
    with atomic_path(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())
        engine = OnnxEngine.load(temporary)
        difference = disagreement(model, engine)
        if not difference <= AGREEMENT:
            raise UserError(f"the ONNX model's logits differ by {difference:.1e} from {trained.path}'s; not written")
    return difference


def quantize(path, out, force: bool = False) -> None:
    """Write the int8 form of an exported ONNX file: weights of linear layers and LSTMs, activations as they come.

    The convolutions stay in float32: in int8 they are slower, and cost most of the accuracy.
    """
    onnx = need("onnx", "onnx", WHY)
    need("onnxruntime", "onnx", WHY)
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from .onnx_engine import INT8

    refuse_existing(out, force=force)
    # It advises a preprocessing that changes nothing here.
    with atomic_path(out) as temporary, quiet(None, logging.ERROR):
        quantize_dynamic(
            path, temporary, op_types_to_quantize=["MatMul", "LSTM"], per_channel=True, weight_type=QuantType.QInt8
        )
        proto = onnx.load(temporary)
        proto.metadata_props.add(key=INT8, value="1")
        temporary.write_bytes(proto.SerializeToString())


def disagreement(model, engine) -> float:
    """Largest difference of a logit, over batches of noises of 25 ms to 3 s; each noise is in two batches."""
    rng = np.random.default_rng(0)
    waves = [(0.1 * rng.standard_normal(n)).astype(np.float32) for n in (frames.RECEPTIVE_FIELD, 5000, 16_000, 48_123)]
    expected = np.concatenate([model.logits(x.mean(0)[None])["emotion"] for x in model.frames(waves)])
    found = np.stack(
        [
            np.concatenate([engine.logits(x.mean(0)[None])["emotion"] for x in outputs])
            for outputs in (engine.frames(waves), [engine.frames([wave])[0] for wave in waves])
        ]
    )
    return float(np.abs(found - expected).max())


def _about(trained: TrainedModel, card: CardText) -> dict:
    kept = ("fold", "seed", "uar", "war", "macro_f1", "recalls", "n_utterances", "ece", "ece_uncalibrated")
    source = Path(trained.path)
    return {
        "title": card.title,
        "licence": card.licence,
        "source_sha256": sha256(source) if source.is_file() else trained.hubert.sha256,
        "results": [{key: result[key] for key in kept if key in result} for result in card.results],
    }


def _refuse_foreign(folder: Path) -> None:
    """`UserError` if there is something that `export_folder` does not write."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give another --out")
    others = sorted({path.name for path in folder.iterdir()} - OWN)
    if others:
        raise UserError(f"{folder} holds {others[0]}, which is no part of an export; move it, or give another --out")
