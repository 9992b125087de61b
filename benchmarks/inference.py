"""Cost of recognising a recording: ours (torch, ONNX, ONNX in int8) beside transformers' pipeline, same backbone.

A WAV file goes in, the classes' probabilities come out: reading, resampling where needed, model and head are all in the
time. Every contender is a process of its own, so that its memory is its own; they answer the same file in turn, one at
a time. Weights may be random, and the input is noise in the rhythm of speech: no time depends on what is said. CPU
seconds stand beside wall seconds, for machines with other jobs. The incumbent is `pipeline("audio-classification")`
with `HubertForSequenceClassification`, given what soundfile reads, one file a call, as its users do; it has no BiLSTM.
A contender that runs out of the memory limit or of the time limit says so.

Example:
    python benchmarks/inference.py                       # writes benchmarks/results/inference.json, some hours
    python benchmarks/inference.py --size small          # the shipped backbone, into the same file
    python benchmarks/inference.py --sections 1s 10s     # these lengths alone, some minutes
    python benchmarks/inference.py --quick               # that and short files, under a minute, writes nothing
"""

import argparse
import json
import logging
import os
import resource
import selectors
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

RESULT = Path(__file__).parent / "results" / "inference.json"
SECTIONS = {"1s": 1, "10s": 10, "10min": 600, "3h": 10_800}
WARM_UP_SECONDS = 60  # longer files are answered once more only where that is measured
QUICK_SECTIONS = {"1s": 1, "4s": 4, "20s": 20}
CONTENDERS = ("ours", "onnx", "onnx int8", "transformers")
SIZES = ("base", "small")  # HuBERT-base, and the backbone that comes with the package
EMOTIONS = ["angry", "happy", "neutral", "sad"]
HEAD = {
    "pooling": "bilstm", "lstm_dim": 256, "lstm_layers": 1, "projection_dim": 256, "head": "am_softmax", "scale": 30.0,
}  # fmt: skip


def write_speech(path, seconds: int) -> None:
    """Noise in the rhythm of syllables, 16 kHz, 16 bits, a minute at a time."""
    rng = np.random.default_rng(1)
    with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16") as stream:
        for start in range(0, seconds, 60):
            n = 16_000 * min(60, seconds - start)
            loudness = np.interp(np.arange(n) / 3200, np.arange(n // 3200 + 2), rng.uniform(0, 0.1, n // 3200 + 2))
            stream.write(loudness * rng.standard_normal(n))


def write_models(folder: Path, size: str) -> None:
    """Our model as a folder and as ONNX; the head has random weights, and HuBERT-base too."""
    from gmp_plugin.export import export_folder, export_onnx, quantize
    from gmp_plugin.hubert.backbone import HubertBackbone, hubert_config
    from gmp_plugin.hubert.checkpoint import HubertCheckpoint, load_hubert
    from gmp_plugin.modules.heads import make_head
    from gmp_plugin.modules.pooling import make_pooling
    from gmp_plugin.recognizer_model import TrainedModel

    torch.manual_seed(0)
    names = {"emotion": EMOTIONS}
    if size == "base":
        settings = {"encoder_layers": 12}
        hubert = HubertCheckpoint(__file__, settings, False, HubertBackbone(hubert_config(settings)).state_dict())
    else:
        hubert = load_hubert(size)
    pooling = make_pooling(HEAD["pooling"], hubert.build().dim, HEAD["lstm_dim"], HEAD["lstm_layers"])
    head = make_head(HEAD["head"], pooling.output_dim, HEAD["projection_dim"], len(EMOTIONS), HEAD["scale"], 0.0)
    tensors = {f"pooling.{k}": v for k, v in pooling.state_dict().items()}
    tensors |= {f"emotion_head.{k}": v for k, v in head.state_dict().items()}
    trained = TrainedModel(__file__, hubert, HEAD, tensors, names, 1.0)
    export_folder(trained, folder / "ours")
    difference = export_onnx(trained, folder / "onnx.onnx")
    quantize(folder / "onnx.onnx", folder / "onnx int8.onnx")
    print(f"largest difference of a logit between ONNX and ours: {difference:.1e}")


def contender(name: str, folder: Path):
    """A function: path of a WAV file -> probabilities."""
    if name == "transformers":
        from transformers import AutoFeatureExtractor, HubertForSequenceClassification, pipeline
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        model = HubertForSequenceClassification.from_pretrained(folder / "ours", num_labels=len(EMOTIONS)).eval()
        extractor = AutoFeatureExtractor.from_pretrained(folder / "ours")
        classify = pipeline("audio-classification", model=model, feature_extractor=extractor, device="cpu")

        def run(path):
            audio, rate = soundfile.read(path, dtype="float32")
            return [found["score"] for found in classify({"raw": audio, "sampling_rate": rate})]

        return run

    from gmp_plugin.recognizer import Recognizer

    recognizer = Recognizer.load(folder / ("ours" if name == "ours" else f"{name}.onnx"))

    def run(path):
        (answer,) = recognizer.stream([path])
        return list(answer.probabilities.values())

    return run


def work(name: str, folder: Path, threads: int, memory_gb: float) -> None:
    """A contender's process: paths on standard input, seconds and peak memory in MB on standard output."""
    torch.set_num_threads(threads)
    run = contender(name, folder)
    # Of data, not of addresses: a CUDA build of torch has gigabytes of those that it never uses.
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory_gb * 1e9), resource.RLIM_INFINITY))
    for line in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
        started, cpu = time.perf_counter(), time.process_time()
        try:
            total = sum(run(line.strip()))
            answer = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu, "sum": total}
        except (MemoryError, RuntimeError) as error:
            answer = {"error": f"out of memory at {memory_gb:g} GB" if _is_memory(error) else str(error)[:200]}
        print(json.dumps({**answer, "peak_mb": _peak_mb()}), flush=True)


def _is_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "allocate memory" in str(error) or "not enough memory" in str(error)


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1000


class Worker:
    """A contender's process, seen from outside; `answer` is None once it is dead."""

    def __init__(self, name: str, folder: Path, args):
        command = [sys.executable, __file__, "--only", json.dumps([name, str(folder)]), "--threads", str(args.threads)]
        command += ["--memory-gb", str(args.memory_gb)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.gone = None

    def answer(self, path, limit_s: float) -> dict:
        if self.gone:
            return {"error": self.gone}
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(limit_s):
                return self.give_up(f"no answer in {limit_s:.0f} s")
        line = self.process.stdout.readline()
        return json.loads(line) if line else self.give_up("its process ended")

    def give_up(self, reason: str) -> dict:
        self.gone = reason
        self.process.kill()
        return {"error": reason}


def measure(section: str, seconds: int, workers: dict, folder: Path, args) -> dict:
    path = folder / f"{section}.wav"
    write_speech(path, seconds)
    rounds = args.rounds or (
        2 if args.quick else 20 if seconds <= 1 else 7 if seconds <= 10 else 3 if seconds <= 600 else 1
    )
    answers: dict[str, list] = {name: [] for name in workers}
    warm_up = seconds <= WARM_UP_SECONDS
    for number in range(rounds + warm_up):
        for name, worker in workers.items():
            if answers[name] and "error" in answers[name][-1]:
                continue
            answers[name].append(worker.answer(path, args.limit_min * 60))
        if number == 0 and warm_up:
            answers = {name: [a for a in found if "error" in a] for name, found in answers.items()}
    path.unlink()
    row = {"section": section, "seconds_of_audio": seconds, "rounds": rounds, "load_1min": os.getloadavg()[0]}
    for name, found in answers.items():
        if "error" in found[-1]:
            row[name] = {"error": found[-1]["error"]}
            continue
        times, cpu = ([a[key] for a in found] for key in ("seconds", "cpu_seconds"))
        row[name] = {
            "seconds": [round(t, 4) for t in times], "median_seconds": statistics.median(times),
            "real_time_factor": statistics.median(times) / seconds,
            "cpu_real_time_factor": statistics.median(cpu) / seconds,
            "peak_mb": round(max(a["peak_mb"] for a in found)),
        }  # fmt: skip
    show(row)
    return row


def show(row: dict) -> None:
    print(f"{row['section']:>6}", end="")
    for name in CONTENDERS:
        found = row.get(name, {"error": "not run"})
        if "error" in found:
            print(f"  {name}: {found['error']}", end="")
        else:
            rate, cpu = found["real_time_factor"], found["cpu_real_time_factor"]
            print(f"  {name}: RTF {rate:.4f} (CPU {cpu:.4f}), {found['peak_mb']} MB", end="")
    print(flush=True)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small size and short files; nothing is written")
    parser.add_argument("--size", choices=SIZES, default="base", help="of the backbone (%(default)s)")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="all by default")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS, help="all by default")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (torch's)")
    parser.add_argument("--rounds", type=int, help="runs of each (default: fewer for longer files)")
    parser.add_argument("--limit-min", type=float, default=60, help="minutes for one answer (%(default)s)")
    parser.add_argument(
        "--memory-gb", type=float, default=_three_quarters(), help="for each (%(default).0f: 3/4 of it)"
    )
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if args.only:
        name, folder = json.loads(args.only)
        work(name, Path(folder), args.threads, args.memory_gb)
        return

    sections = QUICK_SECTIONS if args.quick else {name: SECTIONS[name] for name in args.sections}
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder), "small" if args.quick else args.size)
        workers = {name: Worker(name, Path(folder), args) for name in args.contenders}
        try:
            for section, seconds in sections.items():
                row = measure(section, seconds, workers, Path(folder), args)
                if not args.quick:
                    write(row, args)
        finally:
            for worker in workers.values():
                worker.process.kill()


def write(row: dict, args) -> None:
    """Put a section into the file, beside those and those contenders that are there."""
    from gmp_plugin.machine import describe_machine

    rows = json.loads(RESULT.read_text())["rows"] if RESULT.is_file() else []
    before = next((r for r in rows if (r["size"], r["section"]) == (args.size, row["section"])), {})
    rows = [r for r in rows if r is not before] + [{"size": args.size, **before, **row}]
    result = {
        "head": HEAD, "machine": describe_machine("cpu"), "threads": args.threads, "memory_limit_gb": args.memory_gb,
        "versions": {p: version(p) for p in ("torch", "transformers", "onnxruntime", "fairseq-fixed")},
        "rows": sorted(rows, key=lambda r: (r["size"], r["seconds_of_audio"])),
    }  # fmt: skip
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def _three_quarters() -> float:
    return 0.75 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


if __name__ == "__main__":
    main()
