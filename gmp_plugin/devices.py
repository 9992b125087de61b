"""Where to compute."""

import torch


def default_device(model=None) -> str:
    """`cuda` if there is a GPU, else `cpu`; `cpu` for an ONNX model, whose onnxruntime we install."""
    return "cuda" if torch.cuda.is_available() and not str(model).endswith(".onnx") else "cpu"
