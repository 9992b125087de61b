"""Cost of a training update at HuBERT-base size, beside what one would use without this project.

Stage 2 against stock fairseq: `hubert_pretraining`'s model and criterion with fairseq's Adam, on the
same audio, labels, weights and masks. Stages 1 and 3 against transformers'
`HubertForSequenceClassification` with torch's AdamW, without the BiLSTM that ours has on top.
Contenders take turns in one run; medians of whole updates (forward, loss, backward, optimiser). Peak
memory is that of a process of its own. With four clips and 4096 classes fairseq's loss leaves no room for
another contender: there each one is alone, time included. Then what an update waits for its data,
decoded from FLAC files, beside the same batches ready in memory.

Every case is written when it is done, with the machine's load at its start and end.

Example:
    python benchmarks/training.py           # writes benchmarks/results/training.json, about 20 minutes
    python benchmarks/training.py --quick   # two small layers, under a minute, writes nothing
    python benchmarks/training.py --sections loading padding     # these alone, into the same file
"""

import argparse
import json
import logging
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import soundfile
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
from gmp_plugin.files import atomic_text
from gmp_plugin.hubert.backbone import hubert_config
from gmp_plugin.hubert.masking import span_mask
from gmp_plugin.machine import describe_machine
from gmp_plugin.manifest import Manifest
from gmp_plugin.optim.fused_adam import FusedAdam

RESULT = Path(__file__).parent / "results" / "training.json"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ADAM = {
    "adam_betas": "(0.9,0.98)", "adam_eps": 1e-6, "weight_decay": 0.01, "lr": [1e-4],
    "use_old_adam": False, "fp16_adam_stats": False, "tpu": False,
}  # fmt: skip
QUICK = {"encoder_layers": 2, "encoder_embed_dim": 192, "encoder_ffn_embed_dim": 384, "encoder_attention_heads": 4}
NANO = {
    "conv_feature_layers": "[(32,10,5)] + [(32,3,2)] * 2 + [(64,3,2)] * 2 + [(64,2,2)] * 2", "encoder_layers": 4,
    "encoder_embed_dim": 96, "encoder_ffn_embed_dim": 192, "encoder_attention_heads": 4, "conv_pos": 32,
    "conv_pos_groups": 8,
}  # fmt: skip

# The incumbent is the first of each case, and what is compared with it the second.
PLAIN = ["fairseq", "ours", "ours, linear heads"]
UTTERANCES = ["transformers", "ours", "ours, convolutions kept"]
CASES = [
    {"stage": 2, "scales": [64, 512], "dtype": "float32", "contenders": [*PLAIN, "ours, activations recomputed"]},
    {"stage": 2, "scales": [64, 512, 4096], "dtype": "float32", "contenders": PLAIN},
    {"stage": 2, "scales": [64, 512], "dtype": "bfloat16", "contenders": PLAIN},
    {"stage": 2, "scales": [64, 512, 4096], "dtype": "bfloat16", "contenders": PLAIN},
    *(
        {
            "stage": s,
            "scales": [],
            "dtype": "float32",
            "contenders": ["transformers", "ours", "ours, convolutions kept"],
        }
        for s in (1, 3)
    ),
]


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


def stage(name: str, size: dict, scales=(), task=None, **model):
    """Our task, model and criterion of a stage, from fresh weights."""
    root = OmegaConf.create(
        {
            "common": {"seed": 1, "tensorboard_logdir": None}, "checkpoint": {"save_dir": "none"},
            "optimization": {"max_update": 0}, "dataset": {"train_subset": "train"},
        }
    )  # fmt: skip
    root.task, root.criterion = {"_name": name, "data": "none", "conv_cache_gb": 0, **(task or {})}, {"_name": name}
    root.model = {"_name": name, "hubert": {"encoder_layers": 12, **size}, **model}
    task = tasks.setup_task(root.task)
    task.state.merge_state_dict({"scales": list(scales), "emotion": list("ahns"), "gender": list("fm")})
    return task, task.build_model(root.model), task.build_criterion(root.criterion)


def updater(loss_of, optimizer, cast):
    """One update of a model; returns the loss per frame or utterance."""

    def update(sample: dict) -> float:
        optimizer.zero_grad()
        loss, size = loss_of(cast(sample))
        (loss / size).backward()
        optimizer.step()
        return loss.item() / size

    return update


def ours(name, size, scales, dtype, task=None, **model):
    _, network, criterion = stage(name, size, scales, task, **model)
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
    same = {"layerdrop": 0.0, "activation_dropout": 0.0}  # as fairseq's HuBERT-base, and so ours
    config = HubertConfig(**{names[k]: v for k, v in size.items()}, num_labels=4, **same)
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
    """Updates by name; of `case["contenders"]`, or of `names` alone."""
    dtype, scales = DTYPES[case["dtype"]], case["scales"]

    def stage2(head, **settings):
        torch.manual_seed(0)
        return ours("multiscale_label_pretraining", {**size, **settings}, scales, dtype, head=head)

    def utterances(conv_cache_gb):
        name = "multitask_emotion_gender" if case["stage"] == 1 else "am_softmax_classification"
        task = {"conv_cache_gb": conv_cache_gb}
        return ours(name, size, (), dtype, task, freeze_feature_extractor=True, mask_prob=0.065)

    makers = {
        "fairseq": lambda: stock_pretraining(size, scales, dtype, stage2("cosine")[0]),
        "transformers": lambda: transformers_classifier(size, dtype),
        "ours": lambda: stage2("cosine") if case["stage"] == 2 else utterances(0),
        "ours, linear heads": lambda: stage2("linear"),
        "ours, activations recomputed": lambda: stage2("cosine", checkpoint_activations=True),
        "ours, convolutions kept": lambda: utterances(3),  # as from the second epoch on
    }
    return {name: makers[name]()[1] for name in names or case["contenders"]}


def equal_losses(size: dict) -> dict:
    """The loss of stock fairseq and ours in the same state, without dropout."""
    case = {"stage": 2, "scales": (64, 512), "dtype": "float32"}
    still = {**size, "dropout": 0.0, "attention_dropout": 0.0, "dropout_input": 0.0, "dropout_features": 0.0}
    two = contenders(case, still, ["fairseq", "ours"])
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


def alone(case: dict, name: str, clips: int, args) -> dict:
    """Seconds of the last of two updates of one contender in a process of its own, and its peak memory in GiB."""
    command = [
        sys.executable,
        __file__,
        "--only",
        json.dumps([case, name, clips]),
        *(["--quick"] if args.quick else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def only(case: dict, name: str, size: dict, seconds: float, clips: int) -> None:
    sample = batch(seconds, clips, case["scales"])
    update = contenders(case, size, [name])[name]
    for _ in range(2):
        started = time.perf_counter()
        update(sample)
    # Not `ru_maxrss`: that starts at the parent's size.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) / 2**20
    print(json.dumps({"seconds": time.perf_counter() - started, "peak_GiB": peak}))


def largest_batch(clips: int, args) -> list[dict]:
    """Three scales with all the clips, which takes fairseq 17 GB; each contender in a process of its own."""
    rows = []
    for dtype in DTYPES:
        case = {"stage": 2, "scales": [64, 512, 4096], "dtype": dtype}
        row = {**case, "clips": clips}
        for name in ("fairseq", "ours", "ours, activations recomputed"):
            row[name] = alone(case, name, clips, args)
            print(f"{dtype} {name:30} {row[name]['seconds']:6.2f} s {row[name]['peak_GiB']:6.2f} GiB", flush=True)
        rows.append(row)
    return rows


def clips_of(case: dict, clips: int) -> int:
    """Two at most with 4096 classes: fairseq's loss takes 12 GB with four clips of 4 s (see `largest_batch`)."""
    return min(clips, 2) if 4096 in case["scales"] else clips


def time_updates(size: dict, seconds: float, clips: int, rounds: int, args, done=()):
    """Rows of all cases but those `done`, as they are done."""
    for case in CASES:
        if any(all(row[key] == case[key] for key in ("stage", "scales", "dtype")) for row in done):
            continue
        load = os.getloadavg()[0]
        medians = time_case(case, size, seconds, clips_of(case, clips), rounds)
        measured = () if args.quick and case != CASES[0] else medians
        memory = {name: alone(case, name, clips_of(case, clips), args)["peak_GiB"] for name in measured}
        incumbent, mine = list(medians)[:2]
        row = {
            **{key: case[key] for key in ("stage", "scales", "dtype")}, "clips": clips_of(case, clips),
            "seconds": medians, "times_faster": medians[incumbent] / medians[mine], "peak_GiB": memory,
            "load": [load, os.getloadavg()[0]],
        }  # fmt: skip
        scales = "+".join(map(str, case["scales"]))
        print(f"stage {case['stage']} {scales} {case['dtype']}: {row['times_faster']:.2f}x")
        for name in medians:
            print(f"  {name:30} {medians[name]:6.2f} s {memory.get(name, math.nan):6.2f} GiB", flush=True)
        yield row


def iemocap_lengths(n: int) -> list[int]:
    """Lengths in samples, drawn as IEMOCAP's (median 3.58 s, mean 4.55 s)."""
    rng = np.random.default_rng(0)
    seconds = np.clip(rng.lognormal(np.log(3.58), np.sqrt(2 * np.log(4.55 / 3.58)), n), 0.585, 34.1)
    return (seconds * frames.SAMPLE_RATE).astype(int).tolist()


def padding_on_iemocap() -> float:
    """Share of padding in batches of 64."""
    lengths = np.array(iemocap_lengths(4290))
    dataset = SpeechDataset(Manifest("/", tuple(map(str, range(len(lengths)))), tuple(lengths.tolist())))
    np.random.seed(1)
    batches = dataset.batch_by_size(dataset.ordered_indices(), max_sentences=64)
    padded = sum(int(lengths[b].max()) * len(b) for b in batches)
    return 1 - lengths.sum() / padded


LOADERS = {  # workers, bytes of decoded audio in memory; None: batches in memory
    "batches in memory": None,
    "files": (0, 0),
    "files, 2 workers": (2, 0),
    "audio in memory": (0, 10**9),
    "audio in memory, 2 workers": (2, 10**9),
}


def loading(size: dict, clips: int, batch_size: int, rounds: int) -> dict:
    """Stage 1 on FLAC files, with each way to load them: seconds per update and the share spent waiting for data.

    The same epoch each in turn, by the iterator that fairseq's trainer uses: a thread of it reads ahead, with
    workers or without; their start is included.
    """
    task, network, criterion = stage("multitask_emotion_gender", size)
    optimizer = FusedAdam(OmegaConf.create(ADAM), network.parameters())
    update = updater(lambda sample: criterion(network.train(), sample)[:2], optimizer, lambda sample: sample)
    waited, total = ({name: [] for name in LOADERS} for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        datasets = {name: on_disk(folder, clips, kind[1] if kind else 0) for name, kind in LOADERS.items()}
        # A whole epoch to warm up: oneDNN builds kernels for every shape.
        for name in [next(iter(LOADERS)), *rounds * list(LOADERS)]:
            epochs = task.get_batch_iterator(
                datasets[name], max_sentences=batch_size, num_workers=LOADERS[name][0] if LOADERS[name] else 0,
                data_buffer_size=10, disable_iterator_cache=True,
            )  # fmt: skip
            batches = epochs.next_epoch_itr()
            seconds = one_epoch(batches if LOADERS[name] else iter(list(batches)), update)
            waited[name].append(seconds[0])
            total[name].append(seconds[1])
    updates = -(-clips // batch_size)
    return {
        name: {
            "seconds_per_update": statistics.median(total[name][-rounds:]) / updates,
            "waiting": sum(waited[name][-rounds:]) / sum(total[name][-rounds:]),
        }
        for name in LOADERS
    }


def one_epoch(batches, update) -> tuple[float, float]:
    """Seconds of waiting for batches, and seconds in all."""
    waited, started = 0.0, time.perf_counter()
    while True:
        asked = time.perf_counter()
        sample = next(batches, None)
        waited += time.perf_counter() - asked
        if sample is None:
            return waited, time.perf_counter() - started
        update(sample)


def on_disk(folder: str, clips: int, cache_bytes: int) -> SpeechDataset:
    """`clips` FLAC files of noise, of IEMOCAP's lengths; written once."""
    lengths = iemocap_lengths(clips)
    names = tuple(f"{i}.flac" for i in range(clips))
    for name, n in zip(names, lengths, strict=True):
        if not (Path(folder) / name).exists():
            noise = np.random.default_rng(n).standard_normal(n)
            soundfile.write(Path(folder) / name, 0.1 * noise.clip(-9, 9), frames.SAMPLE_RATE)
    labels = {"emotion": np.arange(clips) % 4, "gender": np.arange(clips) % 2}
    return SpeechDataset(Manifest(folder, names, tuple(lengths)), labels, cache_bytes=cache_bytes)


def time_loading(quick: bool) -> dict:
    """The worst case, a model whose update is short, and HuBERT-base."""
    sizes = {"nano": (NANO, 24, 8, 1)} if quick else {"nano": (NANO, 256, 16, 2), "base": ({}, 12, 4, 1)}
    load, result = os.getloadavg()[0], {}
    for name, (size, clips, batch_size, rounds) in sizes.items():
        result[name] = {"clips": clips, "batch_size": batch_size, "loaders": loading(size, clips, batch_size, rounds)}
        print(f"loading, {name} size, batches of {batch_size}:")
        for loader, row in result[name]["loaders"].items():
            print(f"  {loader:30} {row['seconds_per_update']:6.2f} s an update, {100 * row['waiting']:.1f} % waiting")
    return {**result, "load": [load, os.getloadavg()[0]]}


SECTIONS = ("equal_maths_loss", "updates", "largest_batch", "loading", "padding")


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small and short; writes nothing")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS, help="all by default")
    parser.add_argument("--resume", action="store_true", help="updates: leave out the cases that the file has")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")
    size, seconds, clips, rounds = (QUICK, 1.0, 2, 2) if args.quick else ({}, 4.0, 4, 3)
    if args.only:
        case, name, clips = json.loads(args.only)
        only(case, name, size, seconds, clips)
        return

    result = {
        "machine": {**describe_machine("cpu"), "threads": torch.get_num_threads()},
        "versions": {name: version(name) for name in ("torch", "fairseq-fixed", "transformers")},
        "clips": clips, "seconds_per_clip": seconds, "rounds": rounds, "order": "contenders take turns",
    }  # fmt: skip
    if set(args.sections) < set(SECTIONS) and RESULT.exists():
        result = {**json.loads(RESULT.read_text()), **result}

    def keep(section: str, value) -> None:
        result[section] = value
        if not args.quick:
            with atomic_text(RESULT) as stream:
                stream.write(json.dumps(result, indent=1) + "\n")

    if "equal_maths_loss" in args.sections:
        losses = equal_losses(size)
        keep("equal_maths_loss", losses)
        print(f"loss per frame, equal maths: fairseq {losses['fairseq']:.6f}, ours {losses['ours']:.6f}, "
              f"relative difference {losses['relative_difference']:.1e}", flush=True)  # fmt: skip
    if "padding" in args.sections:
        padding = padding_on_iemocap()
        keep("padding_share_iemocap_lengths", padding)
        print(f"padding in batches of 64 on IEMOCAP's lengths: {100 * padding:.1f} %")
    if "loading" in args.sections:
        keep("loading", time_loading(args.quick))
    if "largest_batch" in args.sections and not args.quick:
        keep("largest_batch", largest_batch(clips, args))
    if "updates" in args.sections:
        rows = result.get("updates", []) if args.resume else []
        for row in time_updates(size, seconds, clips, rounds, args, list(rows)):
            rows.append(row)
            keep("updates", rows)


if __name__ == "__main__":
    main()
