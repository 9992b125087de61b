"""An exported ONNX model in the place of `RecognizerModel`."""

import base64
import json

import numpy as np
import safetensors.torch
import torch

from . import frames, provenance
from .errors import UserError
from .exported import check, trim_silence_db
from .extras import need
from .recognizer_model import Heads

# Keys: what `exported.describe` gives; the head's safetensors, base64; what the weights have seen; whether it is int8.
METADATA, HEAD, PROVENANCE = "gmp_plugin", "gmp_plugin_head", "gmp_plugin_provenance"
INT8 = "gmp_plugin_int8"


class OnnxEngine:
    """Frames by onnxruntime. The heads, which any window of frames may need, come out of the file's metadata.

    Attributes:
        names, temperature, trim_silence_db: as `TrainedModel` has them.
        content: the whole description in the file.
        provenance: what the weights have seen.
        int8: activations are scaled over a whole batch, so that recordings are computed one by one.
    """

    def __init__(self, session, content: dict, heads: Heads, provenance: list, int8: bool = False):
        self.session, self.content, self.heads, self.provenance = session, content, heads, provenance
        self.int8 = int8
        self.names, self.temperature = content["classes"], content["temperature"]
        self.trim_silence_db = trim_silence_db(content)

    @classmethod
    def load(cls, path, device: str = "cpu") -> "OnnxEngine":
        """`UserError` for a file that is missing, damaged, or not ours."""
        onnxruntime = need("onnxruntime", "onnx", "to run an exported .onnx model")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        providers = ["CPUExecutionProvider"]
        if device.startswith("cuda"):
            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise UserError(
                    f"{path}: the onnxruntime that is installed here knows no GPU; give --device cpu, or "
                    "pip install onnxruntime-gpu in its place"
                )
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(device.partition(":")[2] or 0)}))
        try:
            with open(path, "rb"):
                pass
            session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime's exceptions have no common class
            raise UserError(f"{path} cannot be loaded as an ONNX model: {str(error).splitlines()[0]}") from None
        metadata = session.get_modelmeta().custom_metadata_map
        try:
            content = check(json.loads(metadata[METADATA]), path)
            tensors = safetensors.torch.load(base64.b64decode(metadata[HEAD]))
            heads = Heads(content["head"], content["classes"], tensors)
            seen = json.loads(metadata.get(PROVENANCE, "[]"))
            provenance.validate(seen, path)
        except (KeyError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path} is no model of gmp-ser export ({error!r})") from None
        return cls(session, content, heads.eval(), seen, INT8 in metadata)

    def frames(self, waves: list[np.ndarray]) -> list[np.ndarray]:
        """As `RecognizerModel.frames`."""
        if self.int8 and len(waves) > 1:
            return [x for wave in waves for x in self.frames([wave])]
        n_samples = np.array([len(wave) for wave in waves], dtype=np.int64)
        audio = np.zeros((len(waves), n_samples.max()), dtype=np.float32)
        for row, wave in zip(audio, waves, strict=True):
            row[: len(wave)] = wave
        (x,) = self.session.run(["frames"], {"audio": audio, "n_samples": n_samples})
        return [row[:n] for row, n in zip(x, frames.n_frames(n_samples).tolist(), strict=True)]

    @torch.inference_mode()
    def logits(self, means: np.ndarray) -> dict[str, np.ndarray]:
        """As `RecognizerModel.logits`."""
        x = torch.from_numpy(np.asarray(means, dtype=np.float32))
        return {kind: logits.numpy() for kind, logits in self.heads(x).items()}
