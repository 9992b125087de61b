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
        "cpu": describe_cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(int(_fields("/proc/meminfo").get("MemTotal", "0 kB").split()[0]) / 1e6, 1) or None,
    }
    return found | ({} if device == "cpu" else {"gpu": torch.cuda.get_device_name(device)})


def describe_cpu() -> str:
    """The processor's name with its family and model, as hypervisors call all generations "AMD EPYC"."""
    found = _fields("/proc/cpuinfo")
    name = found.get("model name") or platform.processor() or platform.machine()
    return name + (f" (family {found['cpu family']}, model {found['model']})" if "cpu family" in found else "")


def describe_versions() -> dict:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _fields(file: str) -> dict[str, str]:
    """What a file of /proc says, of the first processor where there are several."""
    lines = Path(file).read_text().splitlines() if Path(file).is_file() else []
    pairs = [map(str.strip, line.split(":", 1)) for line in reversed(lines) if ":" in line]
    return dict(pairs)
