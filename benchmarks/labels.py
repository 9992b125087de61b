"""Frame labels: fairseq's simple_kmeans and ours in one run, on real speech with a HuBERT-base of random weights.

    python benchmarks/labels.py [--quick] [--corpora ../shared/corpora]

Fit: the functions of fairseq's learn_kmeans.py, with one initialisation and with its twenty (from a timed part of
them: init is repeated, the steps are not), against all scales at once. Stream: features to disk, then one labelling
pass per scale, against one stream. Parse: fairseq's reading of labels per utterance, against ours.
"""

import argparse
import json
import logging
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import fairseq
import numpy as np
import sklearn
import soundfile
import torch

from gmp_plugin import kmeans
from gmp_plugin.hubert.backbone import HubertBackbone, hubert_config
from gmp_plugin.hubert.features import LayerFeatures
from gmp_plugin.kmeans import MultiscaleKMeans
from gmp_plugin.kmeans_fit import fit_nested, nearest
from gmp_plugin.labels import label, label_parts
from gmp_plugin.manifest import FrameLabels, Manifest
from gmp_plugin.shards import default_workers

HERE = Path(__file__).resolve().parent
SIMPLE_KMEANS = Path(fairseq.__file__).parent / "examples" / "hubert" / "simple_kmeans"
LAYER = 10


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke test of less than a minute; nothing is written")
    parser.add_argument("--corpora", default=str(HERE.parents[1] / "shared" / "corpora"), help="folder with speech")
    parser.add_argument("--frames", type=int, default=100_000, help="of the fit")
    parser.add_argument("--scales", type=int, nargs="+", default=[64, 512, 4096])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)  # one measurement of memory in a process of its own
    args = parser.parse_args(argv)
    if args.quick:
        args.frames, args.scales, args.seeds = 2500, [16, 64, 128], 1
    logging.disable(logging.INFO)
    if args.child:
        return child(Path(args.child))

    clips = sorted(p for e in ("flac", "wav") for p in Path(args.corpora).rglob(f"*.{e}"))
    if not clips:
        print(f"skipped: no speech in {args.corpora}; give another --corpora")
        return
    np.random.default_rng(0).shuffle(clips)
    with tempfile.TemporaryDirectory() as folder:
        manifest = choose(clips, 1.3 * args.frames, Path(folder))
        result = measure(manifest, args, Path(folder))
    if not args.quick:
        path = HERE / "results" / "labels.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")


def choose(clips: list[Path], n_frames: float, folder: Path) -> Manifest:
    """A manifest of clips that hold `n_frames` frames."""
    paths, lengths, seconds = [], [], 0.0
    for clip in clips:
        paths.append(str(clip))
        lengths.append(soundfile.info(str(clip)).frames)
        seconds += lengths[-1] / 16_000
        if seconds * 50 > n_frames:
            break
    Manifest("/", tuple(paths), tuple(lengths)).write(folder / "train.tsv")
    return Manifest.read(folder / "train.tsv")


def measure(manifest: Manifest, args, folder: Path) -> dict:
    cores = default_workers("cpu")
    torch.set_num_threads(cores)
    audio_s = sum(manifest.n_samples) / 16_000
    result = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": cores},
        "versions": {m.__name__: m.__version__ for m in (torch, np, sklearn)},
        "audio_s": audio_s, "layer": LAYER, "weights": "random, HuBERT-base", "load_1min": os.getloadavg()[0],
    }  # fmt: skip
    torch.manual_seed(0)
    backbone = HubertBackbone(hubert_config({"encoder_layers": 4 if args.quick else 12})).eval()
    features = LayerFeatures(backbone, min(LAYER, backbone.n_layers), workers=cores)
    x = torch.cat([f for _, f in features.stream(manifest, progress=False)])
    train, held = x[: args.frames], x[args.frames :]
    print(f"{audio_s / 60:.1f} min of speech, {len(train)} frames to fit, {len(held)} held out, {cores} cores")
    result["fit"], centroids = fits(train, held, args)
    result["stream"] = streams(manifest, backbone, centroids, folder)
    result["bf16"] = bf16(manifest, backbone, centroids, folder, result["stream"])
    result["parse"] = parsing(manifest, folder, max(args.scales))
    if not args.quick:
        result["memory"] = memory(folder, manifest)
    return result


def fits(train, held, args) -> tuple[dict, dict]:
    """Seconds and held-out inertia of each K and seed, incumbent and ours in turn."""
    get_km_model = load("learn_kmeans").get_km_model
    out = {"scales": args.scales, "incumbent": [], "ours": []}
    settings = {"init": "k-means++", "max_iter": 100, "batch_size": 10_000, "tol": 0.0, "max_no_improvement": 100}
    print(f"\n{'fit':>24} {'K':>5} {'seed':>4} {'seconds':>8} {'20 inits':>10} {'inertia held out':>17}")
    for seed in range(args.seeds):
        start = time.perf_counter()
        centroids = fit_nested(train, args.scales, seed)
        ours_s = time.perf_counter() - start
        for k in args.scales:
            inertia = nearest(held, centroids[k])[1].double().mean().item()
            out["ours"].append({"k": k, "seed": seed, "inertia": inertia, "all_scales_s": ours_s})
            print(f"{'ours (all scales)':>24} {k:5} {seed:4} {ours_s:8.1f} {'':>10} {inertia:17.3f}", flush=True)
        for k in args.scales:
            row = incumbent(get_km_model, settings, train, held, k, seed)
            out["incumbent"].append(row)
            mark = "" if row["twenty_whole"] else "*"
            print(
                f"{'simple_kmeans, 1 init':>24} {k:5} {seed:4} {row['one_init_s']:8.1f} "
                f"{row['twenty_inits_s']:9.1f}{mark or ' '} {row['inertia']:17.3f}",
                flush=True,
            )
    one = sum(r["one_init_s"] for r in out["incumbent"]) / args.seeds
    twenty = sum(r["twenty_inits_s"] for r in out["incumbent"]) / args.seeds
    ours = sum(r["all_scales_s"] for r in out["ours"]) / len(out["ours"])
    out["ratio_one_init"], out["ratio_twenty_inits"] = one / ours, twenty / ours
    worse = [
        (o["k"], o["seed"]) for o, i in zip(out["ours"], out["incumbent"], strict=True) if o["inertia"] > i["inertia"]
    ]
    out["ours_worse_at"] = worse
    print(f"ratio: {one / ours:.1f}x with one init, {twenty / ours:.1f}x with twenty (* extrapolated from one init)")
    print(f"held-out inertia worse than the incumbent's at (K, seed): {worse or 'none'}")
    return out, kmeans.fit(train, args.scales, 0)[0]


def incumbent(get_km_model, settings, train, held, k: int, seed: int) -> dict:
    """One K with one initialisation whole; with twenty whole for the least K, else nineteen more
    initialisations are added at the measured time of one."""
    x = train.numpy()
    np.random.seed(seed)
    model = get_km_model(k, n_init=1, reassignment_ratio=0.0, **settings)
    model.verbose = 0
    start = time.perf_counter()
    model.fit(x)
    one = time.perf_counter() - start
    row = {"k": k, "seed": seed, "one_init_s": one, "twenty_whole": k <= 64}
    if k <= 64:
        np.random.seed(seed)
        model = get_km_model(k, n_init=20, reassignment_ratio=0.0, **settings)
        model.verbose = 0
        start = time.perf_counter()
        model.fit(x)
        row["twenty_inits_s"] = time.perf_counter() - start
    else:
        row["init_s"] = init = init_seconds(x, k, seed)
        row["twenty_inits_s"] = one + 19 * init
    row["inertia"] = -model.score(held.numpy()) / len(held)
    return row


def init_seconds(x, k: int, seed: int) -> float:
    """One initialisation as `MiniBatchKMeans` makes it: k-means++ on 3 batches of frames."""
    from sklearn.cluster import kmeans_plusplus

    size = min(len(x), max(30_000, 3 * k))
    part = x[np.random.default_rng(seed).choice(len(x), size, replace=False)]
    start = time.perf_counter()
    kmeans_plusplus(part, k, random_state=seed)
    return time.perf_counter() - start


def streams(manifest, backbone, centroids, folder) -> dict:
    """Seconds from audio to the label files; the incumbent's model is the same backbone, its threads all cores."""
    km = as_km(centroids, min(LAYER, backbone.n_layers))
    incumbent_s, disk = stock_dump(manifest, backbone, km, folder)
    start = time.perf_counter()
    features = LayerFeatures(backbone, km.layer, workers=default_workers("cpu"))
    label(label_parts(manifest, km, folder / "ours"), features, km)
    ours_s = time.perf_counter() - start
    same = {k: agreement(folder, manifest, k) for k in km.scales}
    audio_h = sum(manifest.n_samples) / 16_000 / 3600
    print(f"\naudio to {len(km.scales)} label files: incumbent {incumbent_s:.1f} s, ours {ours_s:.1f} s,", end=" ")
    print(f"{incumbent_s / ours_s:.2f}x; {ours_s / audio_h:.0f} s per hour of audio; labels equal {same}")
    print(f"features on disk: incumbent {disk / 1e6:.0f} MB, ours none")
    return {
        "incumbent_s": incumbent_s, "ours_s": ours_s, "ratio": incumbent_s / ours_s, "labels_equal": same,
        "ours_s_per_audio_hour": ours_s / audio_h, "incumbent_features_bytes": disk,
    }  # fmt: skip


def stock_dump(manifest, backbone, km, folder) -> tuple[float, int]:
    """fairseq's scripts' steps: features of each clip to a file, then `ApplyKmeans` for each K."""
    import joblib
    from npy_append_array import NpyAppendArray

    apply = load("dump_km_label").ApplyKmeans
    out = folder / "stock"
    out.mkdir()
    start = time.perf_counter()
    lengths = []
    with NpyAppendArray(str(out / "features.npy")) as array, torch.no_grad():
        for i in range(len(manifest)):
            audio, _ = soundfile.read(manifest.audio_path(i), dtype="float32")
            x = backbone(torch.from_numpy(audio)[None], output_layer=km.layer)["x"][0]
            array.append(x.numpy())
            lengths.append(len(x))
    offsets = np.cumsum([0, *lengths])
    for k in km.scales:
        joblib.dump(SimpleNamespace(cluster_centers_=km.centroids[k].numpy()), out / "km.bin")
        assign = apply(out / "km.bin")
        features = np.load(out / "features.npy", mmap_mode="r")
        with open(out / f"train.{k}.km", "w") as stream:
            for a, b in zip(offsets, offsets[1:], strict=False):
                stream.write(" ".join(map(str, assign(features[a:b]).tolist())) + "\n")
    return time.perf_counter() - start, (out / "features.npy").stat().st_size


def as_km(centroids, layer: int) -> MultiscaleKMeans:
    empty = dict.fromkeys(centroids, 0.0)
    return MultiscaleKMeans(centroids, {}, empty, layer, "0" * 64, 0, 0)


def agreement(folder: Path, manifest: Manifest, k: int) -> float:
    """Share of frames with the incumbent's label."""
    ours, theirs = (FrameLabels.read(folder / who / f"train.{k}.km", manifest, k) for who in ("ours", "stock"))
    return float((ours.values == theirs.values).mean())


def bf16(manifest, backbone, centroids, folder, stream) -> dict:
    """The same stream in bfloat16 (the weights are converted for good: last of all)."""
    km = as_km(centroids, min(LAYER, backbone.n_layers))
    start = time.perf_counter()
    features = LayerFeatures(backbone, km.layer, workers=default_workers("cpu"), dtype="bfloat16")
    label(label_parts(manifest, km, folder / "bf16", "bfloat16"), features, km)
    seconds = time.perf_counter() - start
    equal = {}
    for k in km.scales:
        ours, half = (FrameLabels.read(folder / who / f"train.{k}.km", manifest, k) for who in ("ours", "bf16"))
        equal[k] = float((ours.values == half.values).mean())
    print(f"in bfloat16 {seconds:.1f} s, {stream['incumbent_s'] / seconds:.2f}x; labels as in float32 {equal}")
    return {"ours_s": seconds, "ratio": stream["incumbent_s"] / seconds, "labels_equal_to_float32": equal}


def parsing(manifest, folder, k: int) -> dict:
    """Seconds to give the labels of every utterance of an epoch: fairseq's `HubertDataset.get_label` and ours."""
    from fairseq.data import Dictionary
    from fairseq.tasks.hubert_pretraining import LabelEncoder

    path = folder / "ours" / f"train.{k}.km"
    dictionary = Dictionary.load(str(folder / "ours" / f"dict.{k}.km.txt"))
    encode, lines = LabelEncoder(dictionary), path.read_text().splitlines()
    start = time.perf_counter()
    for line in lines:
        encode(line)
    stock = time.perf_counter() - start
    start = time.perf_counter()
    labels = FrameLabels.read(path, manifest, k)
    once = time.perf_counter() - start
    start = time.perf_counter()
    for i in range(len(labels)):
        torch.from_numpy(labels[i]).long()
    ours = time.perf_counter() - start
    n = len(labels.values)
    print(f"\nlabels of an epoch: fairseq {stock / n * 1e9:.0f} ns a frame, ours {ours / n * 1e9:.1f}", end=" ")
    print(f"({stock / ours:.0f}x), after {once / n * 1e9:.0f} ns a frame once at the start")
    return {"stock_ns": stock / n * 1e9, "ours_ns": ours / n * 1e9, "once_ns": once / n * 1e9, "ratio": stock / ours}


def memory(folder: Path, manifest: Manifest) -> dict:
    """Peak resident MB of labelling one and ten times the same corpus, each in a process of its own."""
    few = 60
    peaks = {}
    for times in (1, 10):
        own = folder / f"memory{times}"
        own.mkdir()
        Manifest("/", times * manifest.paths[:few], times * manifest.n_samples[:few]).write(own / "train.tsv")
        command = [sys.executable, __file__, "--child", str(own)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[times] = float(done.stdout.split()[-1])
    print(f"peak memory of labelling: {peaks[1]:.0f} MB at 1x, {peaks[10]:.0f} MB at 10x the corpus ({few} clips)")
    return {"clips": few, "peak_mb_1x": peaks[1], "peak_mb_10x": peaks[10]}


def child(folder: Path) -> None:
    torch.manual_seed(0)
    backbone = HubertBackbone(hubert_config({"encoder_layers": 2})).eval()
    km = as_km({k: torch.randn(k, 768) for k in (64, 512, 4096)}, 2)
    features = LayerFeatures(backbone, 2, workers=default_workers("cpu"))
    label(label_parts(Manifest.read(folder / "train.tsv"), km, folder / "out"), features, km)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def load(name: str):
    """A script of fairseq's simple_kmeans."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(f"simple_kmeans_{name}", SIMPLE_KMEANS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
