"""What labelling a large corpus takes, from the figures of benchmarks/results/labels.json: the table of
docs/scaling.md."""

FRAMES_PER_HOUR = 180_000
FRAMES_PER_CENTROID = 256


def table(result: dict, hours=(1000, 60_000), cores: int = 128) -> str:
    """Markdown rows; the last column says which field of `result` a figure comes from."""
    stream, scales = result["stream"], result["fit"]["scales"]
    dim, frames = result["dim"], FRAMES_PER_CENTROID * max(scales)
    sample_h = frames / FRAMES_PER_HOUR
    text = len(f"{max(scales) - 1} ")
    per_hour, bf16 = stream["ours_core_h_per_audio_h"], stream["bf16_core_h_per_audio_h"]
    rows = [
        ("frames", [_si(h * FRAMES_PER_HOUR, "") for h in hours], "50 a second"),
        ("labelling, float32", [_hours(h * per_hour, "core-hours") for h in hours],
         f"{per_hour:.3f} core-hours per hour of audio, `stream.ours_core_h_per_audio_h`"),
        (f"on {cores} cores", [_hours(h * per_hour / cores, "h") for h in hours], "clips are independent"),
        ("labelling, bfloat16", [_hours(h * bf16, "core-hours") for h in hours],
         f"{bf16:.3f} core-hours per hour of audio, `stream.bf16_core_h_per_audio_h`"),
        ("k-means sample", _same(f"{sample_h:.1f} h of audio, {sample_h * per_hour:.1f} core-hours", hours),
         f"{FRAMES_PER_CENTROID} frames x {max(scales)}, whole utterances"),
        ("fit of all scales", _same(_hours(fit_core_h(result), "core-hours"), hours),
         f"`fit.ours_s` for `fit.frames` on `machine.cores`, in proportion to {frames:,} frames"),
        ("memory of the fit", _same(f"{_si(4 * frames * dim, 'B')} for the sample", hours),
         f"{frames:,} x {dim} x 4 bytes"),
        ("memory of labelling", _same(f"{_si(1e6 * result['memory']['peak_mb_10x'], 'B')}, and the manifest", hours),
         "`memory.peak_mb_10x`: a model, a few clips per worker; parts are written every 10 min of audio"),
        ("disk: stored features (simple_kmeans)", [_si(h * FRAMES_PER_HOUR * 4 * dim, "B") for h in hours],
         f"{dim} x 4 bytes a frame"),
        (f"disk: {len(scales)} `.km` files",
         [_si(h * FRAMES_PER_HOUR * stream["km_bytes_per_frame"], "B") for h in hours],
         f"{stream['km_bytes_per_frame']:.1f} bytes a frame, `stream.km_bytes_per_frame`"),
        ("disk: parts, until the merge", [_si(h * FRAMES_PER_HOUR * 4 * len(scales), "B") for h in hours],
         f"{len(scales)} x 4 bytes a frame"),
        ("labels in memory, training", [_si(h * FRAMES_PER_HOUR * 2 * len(scales), "B") for h in hours],
         f"{len(scales)} x 2 bytes a frame, per process"),
        ("the same while the last file is read",
         [_si(h * FRAMES_PER_HOUR * (2 * (len(scales) - 1) + 2 * text), "B") for h in hours],
         f"{len(scales) - 1} x 2 bytes, and its text twice, whole and in lines, of up to {text} bytes a frame"),
    ]  # fmt: skip
    lines = ["| | " + " | ".join(f"{h:,} h" for h in hours) + " | how |", "|---" * (len(hours) + 2) + "|"]
    return "\n".join(lines + [f"| {name} | {' | '.join(cells)} | {how} |" for name, cells, how in rows])


def fit_core_h(result: dict) -> float:
    """Core-hours of the fit on a full sample: frames times centroids grow with the frames, as the scales stay."""
    fit, cores = result["fit"], result["machine"]["cores"]
    return fit["ours_s"] / 3600 * cores * FRAMES_PER_CENTROID * max(fit["scales"]) / fit["frames"]


def _same(cell: str, hours) -> list[str]:
    return [cell, *["the same"] * (len(hours) - 1)]


def _hours(hours: float, unit: str) -> str:
    return f"{float(f'{hours:.2g}'):,g} {unit}"


def _si(value: float, unit: str) -> str:
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= factor:
            return (
                f"{float(f'{value / factor:.3g}'):g} {letter}{unit}"
                if unit
                else f"{value / factor:.3g} {_WORDS[letter]}"
            )
    return f"{value:.0f} {unit}"


_WORDS = {"T": "trillion", "G": "billion", "M": "million"}
