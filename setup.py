from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (ROOT / "gmp_plugin" / "__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)

setup(
    name="gmp-plugin",
    version=VERSION,
    description="GMP-ATL speech emotion recognition on HuBERT, as a fairseq plugin",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["gmp_plugin", "gmp_plugin.*"]),
    package_data={"gmp_plugin": ["weights/*/*"]},
    install_requires=[
        # Upstream's 0.12.2 does not import on Python 3.11. It builds against an installed torch:
        # see `make setup` for the order.
        "fairseq-fixed>=0.12.3,<0.12.4",
        "torch>=2.6",
        "torchaudio>=2.6",
        "numpy",
        "npy-append-array",
        "scikit-learn",
        "scipy",
        "soundfile",
        "tensorboard",
        "matplotlib",
        "tqdm",
        "safetensors",
        "snakemake>=8",
    ],
    entry_points={"console_scripts": ["gmp-ser=gmp_plugin.cli:main"]},
    extras_require={
        "onnx": ["onnx", "onnxruntime"],
        "demo": ["gradio>=6.31,<7"],
        "text": ["transformers"],  # GEmo-CLAP's text encoder
        "test": [
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "transformers",
            "faiss-cpu",
            "ruff",
            "onnx",
            "onnxruntime",
            "gradio>=6.31,<7",
            "playwright",
        ],
    },
)
