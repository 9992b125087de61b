"""Cost of HuBERT-base: this backbone beside stock fairseq and transformers, same weights, same machine.

Every contender runs once per round, in turn, so that a busy machine slows all alike; the table shows
medians, and the median over the rounds of each time as a multiple of ours. Features are compared first:
equal work or no row.

Example:
    python benchmarks/forward.py           # writes benchmarks/results/forward.json
    python benchmarks/forward.py --quick   # short clips, under a minute, writes nothing
"""

import argparse
import json
import logging
import statistics
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from fairseq.models.hubert.hubert import HubertModel
from fairseq.tasks.hubert_pretraining import HubertPretrainingConfig
from torch.nn.utils.rnn import pad_sequence

from gmp_plugin.hubert.backbone import HubertBackbone, backbone_settings, hubert_config
from gmp_plugin.hubert.huggingface import from_settings, hf_state_dict
from gmp_plugin.machine import describe_cpu

RESULT = Path(__file__).parent / "results" / "forward.json"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def models(dtype, device) -> dict:
    """HuBERT-base three times with the same random weights."""
    from transformers import HubertConfig as HFConfig
    from transformers import HubertModel as HFModel

    torch.manual_seed(0)
    cfg = hubert_config({"dropout_input": 0.1})
    stock = HubertModel(cfg, HubertPretrainingConfig(), [None])
    stock.remove_pretraining_modules()
    weights = stock.state_dict()
    ours = HubertBackbone(cfg)
    ours.load_state_dict(weights)
    settings = backbone_settings(cfg)
    hf = HFModel(HFConfig(**from_settings(settings, weights)))
    hf.load_state_dict(hf_state_dict(weights, settings, parametrized=True))
    return {name: m.to(device, dtype) for name, m in (("ours", ours), ("fairseq", stock), ("transformers", hf))}


def clips(seconds, dtype, device) -> list:
    torch.manual_seed(1)
    return [torch.randn(int(s * 16_000), device=device).to(dtype) for s in seconds]


def forwards(model: dict, waves: list) -> dict:
    """A function per contender that returns a list of features, one `(T, D)` per clip.

    With clips of several lengths, fairseq goes one clip at a time, as its reader does: in a padded
    batch its features, and those of transformers, change with the padding.
    """
    source, n = pad_sequence(waves, batch_first=True), torch.tensor([len(w) for w in waves], device=waves[0].device)
    equal = bool((n == n[0]).all())
    attention_mask = None if equal else (torch.arange(source.size(1), device=n.device) < n[:, None]).long()

    def ours():
        out = model["ours"](source, n)
        return [x[:t] for x, t in zip(out["x"], out["n_frames"].tolist(), strict=True)]

    def fairseq():
        if equal:
            return list(model["fairseq"].extract_features(source)[0])
        return [model["fairseq"].extract_features(w[None])[0][0] for w in waves]

    def transformers():
        return list(model["transformers"](source, attention_mask=attention_mask).last_hidden_state)

    return {"ours": ours, "fairseq": fairseq, "transformers": transformers}


def training_steps(model: dict, waves: list) -> dict:
    """A function per contender: one forward with span masks and dropout, and one backward."""
    source, n = torch.stack(waves), torch.tensor([len(w) for w in waves], device=waves[0].device)
    ids = torch.arange(len(waves))
    masks = model["ours"](source, n, mask=True, ids=ids)["mask_indices"]

    def step(name, forward):
        def run():
            model[name].zero_grad(set_to_none=True)
            forward().float().square().mean().backward()

        return run

    return {
        "ours": step("ours", lambda: model["ours"](source, n, mask=True, ids=ids)["x"]),
        "fairseq": step("fairseq", lambda: model["fairseq"].extract_features(source, mask=True)[0]),
        "transformers": step(
            "transformers", lambda: model["transformers"](source, mask_time_indices=masks).last_hidden_state
        ),
    }


def race(contenders: dict, rounds: int, device: str) -> dict:
    """Seconds of every run, by contender: one warm-up, then `rounds` rounds in turn."""
    seconds = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            if device != "cpu":
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def max_error(a: list, b: list) -> float:
    return max((x.float() - y.float()).abs().max().item() for x, y in zip(a, b, strict=True))


def measure(device: str, quick: bool) -> list[dict]:
    equal, mixed, train = ([1.5] * 2, [0.5, 1, 1.5], [1] * 2) if quick else ([3] * 4, [0.5, 1, 2, 3, 5], [2] * 2)
    rounds = 2 if quick else 7
    rows = []
    for name, dtype in DTYPES.items():
        model = models(dtype, device)
        for title, seconds in ((f"forward, {len(equal)} clips of {equal[0]} s", equal),
                               (f"forward, {len(mixed)} clips of {mixed[0]} to {mixed[-1]} s", mixed)):  # fmt: skip
            for m in model.values():
                m.eval()
            contenders = forwards(model, clips(seconds, dtype, device))
            with torch.inference_mode():
                error = max_error(contenders["ours"](), contenders["fairseq"]())
                times = race(contenders, rounds, device)
            rows.append({"case": title, "dtype": name, "max_error_to_fairseq": error, "seconds": times})
            show(rows[-1])
        for m in model.values():
            m.train()
        times = race(training_steps(model, clips(train, dtype, device)), rounds, device)
        rows.append({"case": f"training step, {len(train)} clips of {train[0]} s", "dtype": name, "seconds": times})
        show(rows[-1])
    return rows


def show(row: dict) -> None:
    median = {name: statistics.median(s) for name, s in row["seconds"].items()}
    row["median_seconds"] = {name: round(s, 4) for name, s in median.items()}
    # Round by round: what else the machine does in a round, it does to all of them.
    ratios = {
        name: [s / ours for s, ours in zip(runs, row["seconds"]["ours"], strict=True)]
        for name, runs in row["seconds"].items()
    }
    row["times_ours"] = {name: round(statistics.median(r), 2) for name, r in ratios.items()}
    row["seconds"] = {name: [round(s, 4) for s in runs] for name, runs in row["seconds"].items()}
    cells = "  ".join(f"{name} {s:8.3f} s ({row['times_ours'][name]:.2f}x)" for name, s in median.items())
    error = f"  max error {row['max_error_to_fairseq']:.1e}" if "max_error_to_fairseq" in row else ""
    print(f"{row['case']:34} {row['dtype']:9} {cells}{error}", flush=True)


def machine(device: str) -> dict:
    found = {"cpu": describe_cpu(), "threads": torch.get_num_threads()}
    found["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    return found | ({"gpu": torch.cuda.get_device_name()} if device != "cpu" else {"gpu": "none: not run"})


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short clips, few rounds, nothing written")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    logging.disable(logging.WARNING)  # fairseq prints its configuration
    warnings.filterwarnings("ignore")
    rows = measure(args.device, args.quick)
    if not args.quick:
        packages = ("torch", "fairseq-fixed", "transformers")
        report = {"machine": machine(args.device), "versions": {p: version(p) for p in packages}, "rows": rows}
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(report, indent=1) + "\n")
        print(f"written: {RESULT.relative_to(Path(__file__).parents[1])}")


if __name__ == "__main__":
    main()
