"""Small models and corpora that the tests share."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # results are compared to the bit, and processes are as many as cores

REPO = Path(__file__).resolve().parents[1]
CONFIGS = REPO / "examples" / "iemocap"
SHARED_CORPORA = REPO.parent / "shared" / "corpora"

# Of fairseq's settings of datasets, those that our tasks read.
DATASET = {"train_subset": "train", "max_tokens": None, "max_tokens_valid": None}

# A HuBERT of a few thousand parameters with HuBERT's frame geometry.
TINY = {
    "conv_feature_layers": "[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 2",
    "encoder_layers": 4,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48,
    "encoder_attention_heads": 2,
    "conv_pos": 16,
    "conv_pos_groups": 4,
}


def pytest_collection_modifyitems(items):
    """The longest first, so that no worker is alone with them at the end."""
    items.sort(key=lambda item: item.path.name != "test_workflow.py")


@pytest.fixture
def write_audio():
    """Function (path, n_samples, rate=16000, seed=0): write noise as a wav file."""

    def write(path, n_samples, rate=16_000, seed=0):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal(n_samples), rate)
        return path

    return write


@pytest.fixture
def fold(tmp_path, write_audio):
    """A fold of twelve noisy utterances of 0.1 to 1 s, with labels and dictionaries: its folder."""
    from gmp_plugin.manifest import Utterance, write_dictionary, write_split

    lengths = np.linspace(1600, 16_000, 12).astype(int).tolist()
    emotions, genders = ["angry", "happy", "neutral", "sad"], ["female", "male"]
    utterances = []
    for i, n in enumerate(lengths):
        write_audio(tmp_path / "audio" / f"u{i}.wav", n, seed=i)
        utterances.append(Utterance(f"u{i}.wav", n, emotions[i % 4], genders[i % 2], f"s{i % 2}", "1"))
    folder = tmp_path / "fold1"
    for split, part in (("train", utterances[:8]), ("valid", utterances[8:10]), ("test", utterances[10:])):
        write_split(folder, split, str(tmp_path / "audio"), part)
    write_dictionary(folder / "dict.emotion.txt", [u.emotion for u in utterances])
    write_dictionary(folder / "dict.gender.txt", [u.gender for u in utterances])
    return folder


@pytest.fixture
def labelled_fold(fold):
    """The fold with label sets of 4 and 8 clusters beside its manifests."""
    from gmp_plugin.manifest import Manifest, write_km_dictionary

    for split in ("train", "valid"):
        manifest = Manifest.read(fold / f"{split}.tsv")
        for k in (4, 8):
            lines = (" ".join(str((3 * j + i) % k) for j in range(n)) for i, n in enumerate(manifest.n_frames()))
            (fold / f"{split}.{k}.km").write_text("\n".join(lines) + "\n")
            write_km_dictionary(fold / f"dict.{k}.km.txt", k)
    return fold


@pytest.fixture
def stock_checkpoint(tmp_path):
    """Function (path=None, **settings): a checkpoint as fairseq's own HuBERT pretraining writes it."""
    import torch

    def make(path=tmp_path / "hubert.pt", normalize=False, **settings):
        model, state = stock_hubert({**TINY, **settings}, normalize)
        torch.save(state, path)
        return model, path

    return make


def stock_hubert(settings, normalize=False):
    """fairseq's `HubertModel` with random weights, and what its trainer would save of it."""
    import torch
    from fairseq.data import Dictionary
    from fairseq.models.hubert.hubert import HubertModel
    from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
    from omegaconf import OmegaConf

    from gmp_plugin.hubert.backbone import hubert_config

    torch.manual_seed(0)
    dictionary = Dictionary()
    for k in range(5):
        dictionary.add_symbol(str(k))
    cfg = hubert_config(settings)
    model = HubertModel(cfg, HubertPretrainingConfig(), [dictionary]).eval()
    plain = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    state = {
        "cfg": {
            "model": {**plain, "_name": "hubert"},
            "task": {"_name": "hubert_pretraining", "normalize": normalize, "label_dir": "/home/author/labels"},
        },
        "args": None,
        "model": model.state_dict(),
        "task_state": {"dictionaries": [dictionary]},
        "extra_state": {},
    }
    return model, state


def load_script(path):
    """A script as a module of its own, whatever other module has its name."""
    import importlib.util
    import sys

    path = Path(path)
    spec = importlib.util.spec_from_file_location(f"script_{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # simple_kmeans imports its neighbours
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def tool(name):
    """`main(argv)` of one of our command-line tools."""
    return load_script(REPO / "manifest_tools" / f"{name}.py").main
