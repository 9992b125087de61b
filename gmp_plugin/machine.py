"""What a figure was measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("gmp-plugin", "fairseq-fixed", "torch", "numpy", "scikit-learn", "soundfile")


def describe_machine(device: str) -> dict:
    """Operating system, processor, cores, memory in GB, and the GPU where `device` is one; no names of hosts."""
    found = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(int((_field("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 1e6, 1) or None,
    }
    return found | ({} if device == "cpu" else {"gpu": torch.cuda.get_device_name(device)})


def describe_versions() -> dict:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _field(file: str, name: str) -> str | None:
    lines = Path(file).read_text().splitlines() if Path(file).is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), None)
