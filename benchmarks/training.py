"""Cost of a training update at HuBERT-base size, beside what one would use without this project.

Stage 2 against stock fairseq: `hubert_pretraining`'s model and criterion with fairseq's Adam, on the
same audio, labels, weights and masks. Stages 1 and 3 against transformers'
`HubertForSequenceClassification` with torch's AdamW. Contenders take turns in one run; medians of
whole updates (forward, loss, backward, optimiser). Peak memory is that of a process of its own.

Example:
    python benchmarks/training.py           # writes benchmarks/results/training.json, about 20 minutes
    python benchmarks/training.py --quick   # two small layers, under a minute, writes nothing
"""

import argparse
import json
import logging
import platform
import statistics
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from fairseq import tasks
from fairseq.criterions.hubert_criterion import HubertCriterion
from fairseq.data import Dictionary
from fairseq.models.hubert import hubert as fairseq_hubert
from fairseq.optim.adam import FairseqAdam
from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
from omegaconf import OmegaConf

import gmp_plugin.tasks  # noqa: F401
from gmp_plugin import frames
from gmp_plugin.data.speech_dataset import SpeechDataset
from gmp_plugin.hubert.backbone import hubert_config
from gmp_plugin.hubert.masking import span_mask
from gmp_plugin.manifest import Manifest
from gmp_plugin.optim.fused_adam import FusedAdam

RESULT = Path(__file__).parent / "results" / "training.json"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ADAM = {
    "adam_betas": "(0.9,0.98)", "adam_eps": 1e-6, "weight_decay": 0.01, "lr": [1e-4],
    "use_old_adam": False, "fp16_adam_stats": False, "tpu": False,
}  # fmt: skip
QUICK = {"encoder_layers": 2, "encoder_embed_dim": 192, "encoder_ffn_embed_dim": 384, "encoder_attention_heads": 4}


def batch(seconds: float, clips: int, scales) -> dict:
    """Clips of equal length (stock fairseq's features change with padding) and random labels."""
    torch.manual_seed(1)
    source = torch.randn(clips, int(seconds * frames.SAMPLE_RATE))
    total = frames.n_frames(source.size(1))
    ids = torch.arange(clips)
    return {
        "id": ids, "nsentences": clips, "ntokens": source.numel(),
        "net_input": {"source": source, "n_samples": torch.full((clips,), source.size(1)), "ids": ids},
        "frame_labels": [torch.randint(k, (clips, total)) for k in scales],
        "emotion": torch.arange(clips) % 4, "gender": torch.arange(clips) % 2,
    }  # fmt: skip


def stage(name: str, size: dict, scales=(), **model):
    """Our model and criterion of a stage, from fresh weights."""
    root = OmegaConf.create(
        {
            "common": {"seed": 1, "tensorboard_logdir": None}, "checkpoint": {"save_dir": "none"},
            "optimization": {"max_update": 0},
        }
    )  # fmt: skip
    root.task, root.criterion = {"_name": name, "data": "none"}, {"_name": name}
    root.model = {"_name": name, "hubert": {"encoder_layers": 12, **size}, **model}
    task = tasks.setup_task(root.task)
    task.state.merge_state_dict({"scales": list(scales), "emotion": list("ahns"), "gender": list("fm")})
    return task.build_model(root.model), task.build_criterion(root.criterion)


def updater(loss_of, optimizer, cast):
    """One update of a model; returns the loss per frame or utterance."""

    def update(sample: dict) -> float:
        optimizer.zero_grad()
        loss, size = loss_of(cast(sample))
        (loss / size).backward()
        optimizer.step()
        return loss.item() / size

    return update


def ours(name, size, scales, dtype, **model):
    network, criterion = stage(name, size, scales, **model)
    network.to(dtype).train()
    optimizer = FusedAdam(OmegaConf.create(ADAM), [p for p in network.parameters() if p.requires_grad])
    return network, updater(lambda sample: criterion(network, sample)[:2], optimizer, caster(dtype))


def caster(dtype):
    def cast(sample):
        return {**sample, "net_input": {**sample["net_input"], "source": sample["net_input"]["source"].to(dtype)}}

    return cast


def stock_pretraining(size, scales, dtype, like):
    """fairseq's model and criterion with the weights, masks and heads of `like`, our stage-2 model."""
    dictionaries = []
    for k in scales:
        dictionary = Dictionary(extra_special_symbols=None)
        dictionary.symbols, dictionary.count, dictionary.indices = [], [], {}
        for i in range(k):
            dictionary.add_symbol(str(i))
        dictionaries.append(dictionary)
    cfg = hubert_config(
        {
            "encoder_layers": 12,
            **size,
            "final_dim": 256,
            "untie_final_proj": True,
            "skip_nomask": True,
            "mask_prob": 0.8,
        }
    )
    network = fairseq_hubert.HubertModel(cfg, HubertPretrainingConfig(), dictionaries)
    heads = [like.prediction.heads[str(k)] for k in scales]
    network.load_state_dict(
        {
            **like.hubert.state_dict(),
            "final_proj.weight": torch.cat([h.projection.weight for h in heads]),
            "final_proj.bias": torch.cat([h.projection.bias for h in heads]),
            "label_embs_concat": torch.cat([h.embedding for h in heads]),
        }
    )
    network.to(dtype).train()
    criterion = HubertCriterion(None, 1.0, 0.0, loss_weights=[10.0])
    optimizer = FairseqAdam(OmegaConf.create(ADAM), [p for p in network.parameters() if p.requires_grad])

    def same_masks(shape, *args, **kwargs):
        return span_mask([shape[1]] * shape[0], shape[1], 0.8, 10, range(shape[0]), seed=1, update=0)

    fairseq_hubert.compute_mask_indices = same_masks

    def loss_of(sample):
        source = sample["net_input"]["source"]
        net_input = {"source": source, "padding_mask": torch.zeros(source.shape, dtype=torch.bool)}
        sample = {"id": sample["id"], "target_list": sample["frame_labels"], "net_input": net_input}
        return criterion(network, sample)[:2]

    return network, updater(loss_of, optimizer, caster(dtype))


def transformers_classifier(size, dtype):
    from transformers import HubertConfig, HubertForSequenceClassification

    names = {
        "encoder_layers": "num_hidden_layers", "encoder_embed_dim": "hidden_size",
        "encoder_ffn_embed_dim": "intermediate_size", "encoder_attention_heads": "num_attention_heads",
    }  # fmt: skip
    config = HubertConfig(**{names[k]: v for k, v in size.items()}, num_labels=4)
    network = HubertForSequenceClassification(config)
    network.freeze_feature_encoder()
    network.to(dtype).train()
    params = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=1e-4)

    def loss_of(sample):
        return network(sample["net_input"]["source"], labels=sample["emotion"]).loss * len(sample["id"]), len(
            sample["id"]
        )

    return network, updater(loss_of, optimizer, caster(dtype))


def contenders(case: dict, size: dict, names=None) -> dict:
    """Updates by name, the incumbent first. Case: `stage`, `scales`, `dtype`."""
    dtype, scales = DTYPES[case["dtype"]], case["scales"]

    def stage2(head):
        torch.manual_seed(0)
        return ours("multiscale_label_pretraining", size, scales, dtype, head=head)

    def utterances():
        name = "multitask_emotion_gender" if case["stage"] == 1 else "am_softmax_classification"
        return ours(name, size, (), dtype, freeze_feature_extractor=True, mask_prob=0.065)

    if case["stage"] == 2:
        makers = {
            "fairseq": lambda: stock_pretraining(size, scales, dtype, stage2("cosine")[0]),
            "ours": lambda: stage2("cosine"),
            "ours, linear heads": lambda: stage2("linear"),
        }
    else:
        makers = {"transformers": lambda: transformers_classifier(size, dtype), "ours": utterances}
    return {name: make()[1] for name, make in makers.items() if names is None or name in names}


def equal_losses(size: dict) -> dict:
    """The loss of stock fairseq and ours in the same state, without dropout."""
    case = {"stage": 2, "scales": (64, 512), "dtype": "float32"}
    still = {**size, "dropout": 0.0, "attention_dropout": 0.0, "dropout_input": 0.0, "dropout_features": 0.0}
    two = contenders(case, still)
    sample = batch(2.0, 2, case["scales"])
    losses = {name: two[name](sample) for name in ("fairseq", "ours")}
    return {**losses, "relative_difference": abs(losses["ours"] / losses["fairseq"] - 1)}


def time_case(case: dict, size: dict, seconds: float, clips: int, rounds: int) -> dict:
    """Median seconds per update, the contenders taking turns."""
    sample = batch(seconds, clips, case["scales"])
    runs = contenders(case, size)
    times = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, update in runs.items():
            started = time.perf_counter()
            update(sample)
            if number:  # the first is a warm-up
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory(case: dict, name: str, args) -> float:
    """GiB of a process that makes two updates with one contender."""
    command = [sys.executable, __file__, "--only", json.dumps([case, name]), *(["--quick"] if args.quick else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def only(case: dict, name: str, size: dict, seconds: float, clips: int) -> None:
    sample = batch(seconds, clips, case["scales"])
    update = contenders(case, size, [name])[name]
    for _ in range(2):
        update(sample)
    # Not `ru_maxrss`: that starts at the parent's size.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]) / 2**20)


def padding_on_iemocap() -> float:
    """Share of padding in batches of 64, for lengths drawn as IEMOCAP's (median 3.58 s, mean 4.55 s)."""
    rng = np.random.default_rng(0)
    seconds = np.clip(rng.lognormal(np.log(3.58), np.sqrt(2 * np.log(4.55 / 3.58)), 4290), 0.585, 34.1)
    lengths = (seconds * frames.SAMPLE_RATE).astype(int)
    dataset = SpeechDataset(Manifest("/", tuple(map(str, range(len(lengths)))), tuple(lengths.tolist())))
    np.random.seed(1)
    batches = dataset.batch_by_size(dataset.ordered_indices(), max_sentences=64)
    padded = sum(int(lengths[b].max()) * len(b) for b in batches)
    return 1 - lengths.sum() / padded


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small and short; writes nothing")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    size, seconds, clips, rounds = (QUICK, 1.0, 2, 2) if args.quick else ({}, 4.0, 4, 5)
    if args.only:
        case, name = json.loads(args.only)
        only(case, name, size, seconds, clips)
        return

    losses = equal_losses(size)
    print(f"loss per frame, equal maths: fairseq {losses['fairseq']:.6f}, ours {losses['ours']:.6f}, "
          f"relative difference {losses['relative_difference']:.1e}")  # fmt: skip
    cases = [{"stage": 2, "scales": s, "dtype": d} for d in DTYPES for s in ([64, 512], [64, 512, 4096])]
    cases += [{"stage": s, "scales": [], "dtype": "float32"} for s in (1, 3)]
    rows = []
    for case in cases:
        medians = time_case(case, size, seconds, clips, rounds)
        names = list(medians)[:2]
        memory = {name: peak_memory(case, name, args) for name in names}
        other = names[0]
        rows.append({**case, "seconds": medians, "peak_GiB": memory, "times_faster": medians[other] / medians["ours"]})
        scales = "+".join(map(str, case["scales"]))
        print(f"stage {case['stage']} {scales:12} {case['dtype']:9} "
              + "  ".join(f"{n} {s:.2f} s" for n, s in medians.items())
              + f"  {rows[-1]['times_faster']:.2f}x; peak "
              + ", ".join(f"{n} {m:.1f} GiB" for n, m in memory.items()), flush=True)  # fmt: skip
    padding = padding_on_iemocap()
    print(f"padding in batches of 64 on IEMOCAP's lengths: {100 * padding:.1f} %")
    if not args.quick:
        machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
        versions = {name: version(name) for name in ("torch", "fairseq-fixed", "transformers")}
        result = {
            "machine": machine, "versions": versions, "clips": clips, "seconds_per_clip": seconds, "rounds": rounds,
            "equal_maths_loss": losses, "updates": rows, "padding_share_iemocap_lengths": padding,
        }  # fmt: skip
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
