"""Frame labels: fairseq's simple_kmeans and ours in one run, on real speech with a HuBERT-base of random weights.

    python benchmarks/labels.py [--trained CHECKPOINT]   # about 25 minutes on two quiet cores
    python benchmarks/labels.py --quick                  # a smoke test of less than a minute; nothing is written
    python benchmarks/labels.py --sections memory parse  # these again, in the file of an earlier run
    python benchmarks/labels.py --scaling                # the table of docs/scaling.md from results/labels.json

Sections, each written to results/labels.json as soon as it is finished:
fit      all scales at once, against learn_kmeans.py with one initialisation and with its twenty; seconds, and
         inertia on frames held out. Twenty run whole for the least K and the first seed; elsewhere nineteen more are
         added at the time that one took (only initialisations are repeated), and marked as extrapolated.
stream   audio to the label files of all scales: features by stock fairseq's HubertModel to disk and one labelling pass
         per scale, against one stream, in float32 and bfloat16, taking turns on a part of the speech. Labels are
         compared frame by frame, and those that differ must be near-ties; then all frames on the same features. Beside
         the times stands what the products of the model alone would take at the best rate of the machine.
trained  labels in bfloat16 against float32 on a trained checkpoint (--trained).
parse    fairseq's reading of labels per utterance, against ours.
memory   peak memory of labelling one and ten times the same clips, each in a process of its own.
"""

import argparse
import contextlib
import copy
import io
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import sklearn
import soundfile
import torch
from support import label_scaling, near_ties, products, simple_kmeans

from gmp_plugin.devices import default_device
from gmp_plugin.files import atomic_text
from gmp_plugin.hubert.backbone import HubertBackbone, backbone_settings, hubert_config
from gmp_plugin.hubert.checkpoint import HubertCheckpoint, load_hubert
from gmp_plugin.hubert.convert import write_fairseq
from gmp_plugin.hubert.features import LayerFeatures
from gmp_plugin.kmeans import FEW_FRAMES_PER_CENTROID, Assigner, MultiscaleKMeans
from gmp_plugin.kmeans_fit import fit_nested, nearest
from gmp_plugin.labels import label, label_parts
from gmp_plugin.machine import describe_cpu
from gmp_plugin.manifest import FrameLabels, Manifest
from gmp_plugin.shards import default_workers

RESULT = Path(__file__).resolve().parent / "results" / "labels.json"
CORPORA = Path(__file__).resolve().parents[2] / "shared" / "corpora"
LAYER = 10


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke test of less than a minute; nothing is written")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, help="only these, in the file of an earlier run")
    parser.add_argument("--scaling", action="store_true", help="print the table of docs/scaling.md and end")
    parser.add_argument("--corpora", default=str(CORPORA), help="folder with speech")
    parser.add_argument("--trained", help="checkpoint for the section of that name: any that our tools read")
    parser.add_argument("--frames", type=int, default=100_000, help="of the fit")
    parser.add_argument("--scales", type=int, nargs="+", default=[64, 512, 4096])
    parser.add_argument("--seeds", type=int, default=3, help="of the fit")
    parser.add_argument("--rounds", type=int, default=3, help="of the streams")
    parser.add_argument("--stream-seconds", type=float, default=300, help="audio of a round of the streams")
    parser.add_argument("--memory-clips", type=int, default=30, help="and ten times as many")
    parser.add_argument("--layers", type=int, default=12, help="of the model")
    parser.add_argument("--device", default=default_device(), help="of the features (the fits are on the CPU)")
    parser.add_argument("--child", help=argparse.SUPPRESS)  # one measurement of memory in a process of its own
    args = parser.parse_args(argv)
    if args.quick:
        args.frames, args.scales, args.seeds, args.rounds = 2000, [16, 32, 64], 1, 2
        args.stream_seconds, args.memory_clips, args.layers = 20, 3, 2
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    # "float32" is not to mean TensorFloat-32 in one program and float32 in another.
    torch.backends.cudnn.allow_tf32 = False
    if args.child:
        print(peak_mb_of_labelling(Path(args.child), args))
    elif args.scaling:
        print(scaling())
    elif not (clips := sorted(p for e in ("flac", "wav") for p in Path(args.corpora).rglob(f"*.{e}"))):
        print(f"skipped: no speech in {args.corpora}; give another --corpora")
    else:
        with tempfile.TemporaryDirectory() as folder:
            run(clips, args, Path(folder))


def scaling() -> str:
    result = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    missing = [name for name in ("fit", "stream", "memory") if name not in result]
    if missing:
        raise SystemExit(f"error: {RESULT} lacks {', '.join(missing)}; run --sections {' '.join(missing)}")
    return label_scaling.table(result)


def run(clips: list[Path], args, folder: Path) -> None:
    cores = default_workers("cpu")
    torch.set_num_threads(cores)
    np.random.default_rng(0).shuffle(clips)
    speech = Speech(choose(clips, 1.3 * args.frames / 50, folder / "train.tsv"), args, folder, cores)
    head = {
        "machine": {"cpu": describe_cpu(), "cores": cores, "device": args.device},
        "versions": {m.__name__: m.__version__ for m in (torch, np, sklearn)},
        "audio_s": speech.seconds, "weights": "random, HuBERT-base", "dim": speech.backbone.dim, "layer": speech.layer,
    }  # fmt: skip
    result = dict(head)
    if args.sections and RESULT.is_file() and not args.quick:
        before = json.loads(RESULT.read_text())
        if any(before.get(name) != head[name] for name in head):
            print(f"{RESULT.name} is of another machine, version or corpus: it begins anew")
        else:
            result = before
    print(f"{speech.seconds / 60:.1f} min of speech, {len(speech.x)} frames, {cores} cores")
    for name in args.sections or SECTIONS:
        load = os.getloadavg()[0]
        print(f"\n{name} (load average {load:.1f})", flush=True)
        started = time.perf_counter()
        found = SECTIONS[name](speech)
        if found is None:
            continue
        result[name] = {"load_1min": load, "took_s": time.perf_counter() - started, **found}
        if not args.quick:
            RESULT.parent.mkdir(exist_ok=True)
            with atomic_text(RESULT) as stream:
                stream.write(json.dumps(result, indent=1) + "\n")


@dataclass
class Speech:
    """Clips, the model, and the features `x` `(frames, D)` of the clips."""

    manifest: Manifest
    args: argparse.Namespace
    folder: Path
    cores: int
    centroids: dict = field(default_factory=dict)

    @cached_property
    def backbone(self) -> HubertBackbone:
        return random_backbone(self.args.layers).to(self.args.device)

    @property
    def layer(self) -> int:
        return min(LAYER, self.args.layers)

    @property
    def seconds(self) -> float:
        return sum(self.manifest.n_samples) / 16_000

    @cached_property
    def x(self) -> torch.Tensor:
        return all_features(self.features(self.backbone), self.manifest)

    @property
    def train(self) -> torch.Tensor:
        return self.x[: self.args.frames]

    def features(self, backbone, layer: int | None = None, dtype: str = "float32") -> LayerFeatures:
        gpu = self.args.device != "cpu"
        return LayerFeatures(
            backbone, layer or self.layer, default_workers(self.args.device), batch_seconds=120 * gpu, dtype=dtype
        )

    def km(self) -> MultiscaleKMeans:
        if not self.centroids:
            self.centroids = fit_nested(self.train, self.args.scales, 0)
        return as_km(self.centroids, self.layer)


def fits(speech: Speech) -> dict:
    """Seconds and held-out inertia of each K and seed, incumbent and ours in turn."""
    args, train, held = speech.args, speech.train, speech.x[speech.args.frames :]
    ours, incumbent = [], []
    print(f"{'':>24} {'K':>5} {'seed':>4} {'seconds':>8} {'20 inits':>10} {'inertia held out':>17}")
    for seed in range(args.seeds):
        started = time.perf_counter()
        centroids = fit_nested(train, args.scales, seed)
        seconds = time.perf_counter() - started
        speech.centroids = speech.centroids or centroids
        inertia = {k: nearest(held, centroids[k])[1].double().mean().item() for k in args.scales}
        ours.append({"seed": seed, "seconds": seconds, "inertia": inertia})
        for k in args.scales:
            print(f"{'ours (all scales)':>24} {k:5} {seed:4} {seconds:8.1f} {'':>10} {inertia[k]:17.3f}", flush=True)
        for k in args.scales:
            row = incumbent_fit(train, held, k, seed, twenty=k == min(args.scales) and seed == 0)
            incumbent.append(row)
            print(
                f"{'simple_kmeans, 1 init':>24} {k:5} {seed:4} {row['one_init_s']:8.1f} "
                f"{row['twenty_inits_s']:9.1f}{'' if row['twenty_whole'] else '*'} {row['inertia']:17.3f}",
                flush=True,
            )
    return {"frames": len(train), "held_out": len(held), "scales": args.scales, **summary(ours, incumbent)}


def summary(ours: list[dict], incumbent: list[dict]) -> dict:
    """Ratios, of seconds over all scales and of inertia per K."""
    seeds = len(ours)
    ours_s = sum(row["seconds"] for row in ours) / seeds
    one, twenty = (sum(row[name] for row in incumbent) / seeds for name in ("one_init_s", "twenty_inits_s"))
    print(f"ratio: {one / ours_s:.1f}x with one init, {twenty / ours_s:.1f}x with twenty (* extrapolated from one)")
    ratios = {}
    for k in ours[0]["inertia"]:
        theirs = {row["seed"]: row["inertia"] for row in incumbent if row["k"] == k}
        each = [row["inertia"][k] / theirs[row["seed"]] for row in ours]
        ratios[k] = {"mean": statistics.mean(each), "seeds": each}
        print(f"held-out inertia, ours / incumbent, K {k:5}: mean {ratios[k]['mean']:.4f}, seeds", end=" ")
        print(" ".join(f"{r:.4f}" for r in each))
    whole = [row for row in incumbent if row["twenty_whole"]]
    for row in whole:
        row["ratio_of_inertia_twenty"] = ours[row["seed"]]["inertia"][row["k"]] / row["inertia_twenty"]
        print(f"  against twenty inits, K {row['k']}, seed {row['seed']}: {row['ratio_of_inertia_twenty']:.4f}")
    return {
        "ours_s": ours_s, "incumbent_one_init_s": one, "incumbent_twenty_inits_s": twenty,
        "ratio_one_init": one / ours_s, "ratio_twenty_inits": twenty / ours_s, "inertia_ratio": ratios,
        "ours": ours, "incumbent": incumbent,
    }  # fmt: skip


def incumbent_fit(train, held, k: int, seed: int, twenty: bool) -> dict:
    """One K with one initialisation, and with `twenty`, or an extrapolation to them."""
    model, seconds, init_s = simple_kmeans.fit(train.numpy(), k, seed, n_init=1)
    row = {"k": k, "seed": seed, "one_init_s": seconds, "init_s": init_s, "steps": model.n_steps_}
    row["inertia"] = -model.score(held.numpy()) / len(held)
    row["twenty_whole"] = twenty
    row["twenty_inits_s"] = seconds + 19 * init_s
    if twenty:
        model, row["twenty_inits_s"], _ = simple_kmeans.fit(train.numpy(), k, seed, n_init=20)
        row["inertia_twenty"] = -model.score(held.numpy()) / len(held)
    return row


def streams(speech: Speech) -> dict:
    """Seconds from audio to the label files, and whether they say the same."""
    args, km, folder = speech.args, speech.km(), speech.folder / "streams"
    part = choose([Path(speech.manifest.audio_path(i)) for i in range(len(speech.manifest))], args.stream_seconds,
                  folder / "train.tsv")  # fmt: skip
    weights = HubertCheckpoint(
        "random", backbone_settings(speech.backbone.cfg), False, speech.backbone.cpu().state_dict()
    )
    write_fairseq(weights, folder / "hubert.pt")
    incumbent = simple_kmeans.Dump(folder / "hubert.pt", speech.layer, args.device)
    float32 = speech.features(speech.backbone.to(args.device))
    bfloat16 = speech.features(copy.deepcopy(speech.backbone), dtype="bfloat16")
    x = all_features(float32, part)  # to compare, and to warm up
    times = {"incumbent": [], "ours": [], "bf16": []}
    contenders = {
        "incumbent": lambda out: incumbent(folder / "train.tsv", km.centroids, out),
        "ours": lambda out: label(label_parts(part, km, out), float32, km),
        "bf16": lambda out: label(label_parts(part, km, out, "bfloat16"), bfloat16, km),
    }
    for number in range(args.rounds):
        for name, stream in contenders.items():
            started = time.perf_counter()
            with contextlib.redirect_stderr(io.StringIO()):  # progress bars
                stream(folder / f"{name}{number}")
            times[name].append(time.perf_counter() - started)
    median = {name: statistics.median(seconds) for name, seconds in times.items()}
    hours = sum(part.n_samples) / 16_000 / 3600
    floor = least_seconds(speech, part)
    used = speech.cores if args.device == "cpu" else 1
    for name, seconds in median.items():
        print(f"{name:>10}: {seconds:.2f} s, {median['incumbent'] / seconds:.2f}x, {seconds / hours:.0f} s per hour")

    y = torch.from_numpy(np.load(folder / "incumbent0" / "train_0_1.npy"))
    found = {k: FrameLabels.read(folder / "ours0" / f"train.{k}.km", part, k).values for k in km.scales}
    agreement, half = {}, {}
    for k in km.scales:
        own, theirs = (torch.from_numpy(v.astype(np.int64))
                       for v in (found[k], simple_kmeans.labels(folder / "incumbent0", "train", k)))  # fmt: skip
        agreement[k] = near_ties.compare(own, theirs, x, y, km.centroids[k])
        in_bf16 = FrameLabels.read(folder / "bf160" / f"train.{k}.km", part, k).values
        half[k] = float((in_bf16 == found[k]).mean())
        show_agreement(f"labels from audio, K {k}", agreement[k])
    same = same_features(speech, km)
    print("in bfloat16 as in float32: " + ", ".join(f"K {k} {100 * v:.2f} %" for k, v in half.items()))
    features_bytes = (folder / "incumbent0" / "train_0_1.npy").stat().st_size
    km_bytes = sum((folder / "ours0" / f"train.{k}.km").stat().st_size for k in km.scales)
    print(f"features on disk: incumbent {features_bytes / 1e6:.0f} MB, ours none")
    return {
        "audio_s": 3600 * hours, "seconds": times, "median_s": median,
        "products": floor,
        "ratio": median["incumbent"] / median["ours"], "ratio_bf16": median["incumbent"] / median["bf16"],
        "ours_s_per_audio_hour": median["ours"] / hours,
        "ours_core_h_per_audio_h": used * median["ours"] / 3600 / hours,
        "bf16_core_h_per_audio_h": used * median["bf16"] / 3600 / hours,
        "largest_feature_difference": (x - y).abs().max().item(),
        "agreement": agreement, "agreement_on_the_same_features": same, "bf16_labels_equal": half,
        "incumbent_features_bytes": features_bytes, "km_bytes_per_frame": km_bytes / len(x),
    }  # fmt: skip


def least_seconds(speech: Speech, part: Manifest) -> dict:
    """What the products of the model alone would take at the best rate that this machine gives to one."""
    used = speech.cores if speech.args.device == "cpu" else 1
    ten_seconds = products.operations(speech.backbone, 160_000, speech.layer)
    total, found = ten_seconds * sum(part.n_samples) / 160_000, {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        rate = products.best_rate(dtype, speech.args.device, used)
        found[name] = {"gflops": rate / 1e9, "least_s": total / rate}
        print(
            f"products alone, {name}: {total / rate:.2f} s at {rate / 1e9:.0f} GFLOP/s, the best rate of this machine"
        )
    return {"operations_per_audio_s": ten_seconds / 10, **found}


def same_features(speech: Speech, km: MultiscaleKMeans) -> dict:
    """Labels of all frames from the same features and centroids: fairseq's `ApplyKmeans` against ours."""
    ours, found, clips = Assigner(km.centroids), {}, speech.x.split(speech.manifest.n_frames().tolist())
    labels = [ours(clip) for clip in clips]
    for k in km.scales:
        theirs = simple_kmeans.apply_kmeans(km.centroids[k], speech.folder)
        expected = torch.from_numpy(np.concatenate([theirs(clip.numpy()) for clip in clips]))
        own = torch.cat([clip[k] for clip in labels])
        found[k] = near_ties.compare(own, expected, speech.x, speech.x, km.centroids[k])
        show_agreement(f"labels from the same features, K {k}", found[k])
    return found


def show_agreement(what: str, found: dict) -> None:
    print(f"{what}: {100 * found['equal']:.3f} % of {found['frames']} equal; {found['differ']} differ,", end=" ")
    print(f"{found['unexplained']} of them no near-tie (farther by {found['largest_excess']:.1e} at most)", flush=True)


def trained(speech: Speech) -> dict | None:
    """Labels in bfloat16 and float32 of a trained checkpoint, k-means fitted on its own features."""
    if not speech.args.trained:
        print("skipped: give --trained CHECKPOINT")
        return None
    loaded = load_hubert(speech.args.trained)
    backbone = loaded.build().eval().to(speech.args.device)
    features = speech.features(backbone, -3)
    x = all_features(features, speech.manifest)
    half = all_features(speech.features(copy.deepcopy(backbone), -3, "bfloat16"), speech.manifest)
    train = x[: speech.args.frames]
    scales = [k for k in speech.args.scales if FEW_FRAMES_PER_CENTROID * k <= len(train)]
    centroids = fit_nested(train, scales, 0)
    assign = Assigner(centroids)
    own, other = assign(x), assign(half)
    equal, farther = {}, {}
    for k in scales:
        equal[k] = (own[k] == other[k]).double().mean().item()
        distances = [(x - centroids[k][labels[k]]).pow(2).sum(1).double().mean().item() for labels in (own, other)]
        farther[k] = distances[1] / distances[0] - 1
        print(f"K {k}: {100 * equal[k]:.2f} % of {len(x)} labels as in float32;", end=" ")
        print(f"those in bfloat16 are {100 * farther[k]:.4f} % farther from the float32 features", flush=True)
    return {
        "checkpoint_sha256": loaded.sha256, "layers": backbone.n_layers, "dim": backbone.dim, "layer": features.layer,
        "frames": len(x), "bf16_labels_equal": equal, "bf16_labels_farther": farther,
    }  # fmt: skip


def parsing(speech: Speech) -> dict:
    """Seconds to give the labels of every utterance of an epoch: fairseq's `HubertDataset.get_label` and ours."""
    from fairseq.data import Dictionary
    from fairseq.tasks.hubert_pretraining import LabelEncoder

    manifest, k = speech.manifest, max(speech.args.scales)
    km = as_km({k: speech.km().centroids[k]}, speech.layer)
    clips = speech.x.split(manifest.n_frames().tolist())
    known = {i: {k: v[k].numpy()} for i, v in enumerate(map(Assigner(km.centroids), clips))}
    label(label_parts(manifest, km, speech.folder / "parse"), speech.features(speech.backbone), km, known=known)
    path = speech.folder / "parse" / f"train.{k}.km"
    dictionary = Dictionary.load(str(path.with_name(f"dict.{k}.km.txt")))
    encode, lines = LabelEncoder(dictionary), path.read_text().splitlines()
    stock, ours = [], []
    started = time.perf_counter()
    labels = FrameLabels.read(path, manifest, k)
    once = time.perf_counter() - started
    for _ in range(3):
        started = time.perf_counter()
        for line in lines:
            encode(line)
        stock.append(time.perf_counter() - started)
        started = time.perf_counter()
        for i in range(len(labels)):
            torch.from_numpy(labels[i]).long()
        ours.append(time.perf_counter() - started)
    n = len(labels.values)
    stock_ns, ours_ns, once_ns = (1e9 * s / n for s in (statistics.median(stock), statistics.median(ours), once))
    print(f"labels of an epoch: fairseq {stock_ns:.0f} ns a frame, ours {ours_ns:.1f}", end=" ")
    print(f"({stock_ns / ours_ns:.0f}x), after {once_ns:.0f} ns a frame once at the start")
    return {"stock_ns": stock_ns, "ours_ns": ours_ns, "once_ns": once_ns, "ratio": stock_ns / ours_ns}


def memory(speech: Speech) -> dict:
    """Peak resident MB of labelling one and ten times the same clips, each in a process of its own."""
    clips, peaks = speech.args.memory_clips, {}
    for times in (1, 10):
        manifest = Manifest(
            speech.manifest.root, times * speech.manifest.paths[:clips], times * speech.manifest.n_samples[:clips]
        )
        tsv = speech.folder / f"memory{times}" / "train.tsv"
        manifest.write(tsv)
        command = [sys.executable, __file__, "--child", str(tsv), "--layers", str(speech.args.layers)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
        peaks[times] = float(done.stdout.split()[-1])
    print(f"peak memory of labelling: {peaks[1]:.0f} MB for {clips} clips, {peaks[10]:.0f} MB for {10 * clips}")
    return {"clips": clips, "peak_mb_1x": peaks[1], "peak_mb_10x": peaks[10]}


def peak_mb_of_labelling(tsv: Path, args) -> float:
    km = as_km({k: torch.randn(k, 768) for k in (64, 512, 4096)}, min(LAYER, args.layers))
    features = LayerFeatures(random_backbone(args.layers), km.layer, workers=default_workers("cpu"))
    label(label_parts(Manifest.read(tsv), km, tsv.parent / "out"), features, km)
    # Not `ru_maxrss`: that starts at the parent's size.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e6


def random_backbone(layers: int) -> HubertBackbone:
    torch.manual_seed(0)
    return HubertBackbone(hubert_config({"encoder_layers": layers})).eval()


def all_features(features: LayerFeatures, manifest: Manifest) -> torch.Tensor:
    """`(frames, D)` on the CPU."""
    return torch.cat([x.cpu() for _, x in features.stream(manifest, progress=False)])


def as_km(centroids, layer: int) -> MultiscaleKMeans:
    return MultiscaleKMeans(centroids, {}, dict.fromkeys(centroids, 0.0), layer, "0" * 64, 0, 0)


def choose(clips: list[Path], seconds: float, tsv: Path) -> Manifest:
    """A manifest of the first clips that hold so much audio."""
    paths, lengths = [], []
    for clip in clips:
        paths.append(str(clip))
        lengths.append(soundfile.info(str(clip)).frames)
        if sum(lengths) > 16_000 * seconds:
            break
    Manifest("/", tuple(paths), tuple(lengths)).write(tsv)
    return Manifest.read(tsv)


SECTIONS = {"fit": fits, "stream": streams, "trained": trained, "parse": parsing, "memory": memory}

if __name__ == "__main__":
    main()
