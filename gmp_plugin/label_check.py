"""Whether frame labels, ours or foreign, belong to their manifests."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from .errors import UserError
from .frames import SAMPLE_RATE
from .label_record import of_other_centroids, of_other_recordings
from .manifest import FrameLabels, Manifest, read_km_dictionary


@dataclass
class LabelCheck:
    """What was found: problems with file and line, one summary line per label file, and splits without labels."""

    problems: list[str] = field(default_factory=list)
    summaries: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)


def summarize_labels(name: str, labels: FrameLabels, n_clusters: int) -> str:
    """`512.km: 4290 utterances, 1003877 frames, 510 of 512 clusters in use`."""
    used = np.count_nonzero(np.bincount(labels.values, minlength=n_clusters))
    return f"{name}: {len(labels)} utterances, {len(labels.values)} frames, {used} of {n_clusters} clusters in use"


def check_labels(data, labels, names: list[str] | None = None, n_audio: int = 200) -> LabelCheck:
    """Check every label file `LABELS/SPLIT.NAME` against `DATA/SPLIT.tsv` and `LABELS/dict.NAME.txt`.

    Args:
        names: label sets, as `64.km`; those with a dictionary that ends in `km.txt` when left out.
        n_audio: recordings per split, evenly spread, whose header is compared with the manifest.

    Raises `UserError` where there is nothing to check.
    """
    data, labels = Path(data), Path(labels)
    manifests = sorted(data.glob("*.tsv"))
    if not manifests:
        raise UserError(f"{data} has no manifest (.tsv); give the folder of one fold as --data")
    if names is None:
        found = [p.name.removeprefix("dict.").removesuffix(".txt") for p in labels.glob("dict.*km.txt")]
        names = sorted(found, key=lambda name: (len(name), name))
    if not names:
        raise UserError(
            f"{labels} has no dictionary dict.K.km.txt; make it with dump_km_label.py, or for foreign labels write "
            "the lines `0 1` to `K-1 1`"
        )
    check = LabelCheck(problems=of_other_centroids(labels))
    dictionaries = {name: _try(check, read_km_dictionary, labels / f"dict.{name}.txt") for name in names}
    any_file = False
    for path in manifests:
        files = {name: labels / f"{path.stem}.{name}" for name in names}
        present = {name: file for name, file in files.items() if file.exists()}
        if (unfinished := labels / f".{path.stem}.parts").is_dir():
            check.problems.append(
                f"the labels of {path.stem} are not finished, there is {unfinished}; run dump_km_label.py again"
            )
        if not present:
            if path.stem == "train":
                check.problems.append(f"{labels} has no labels of {path}; make them with dump_km_label.py")
            else:
                check.without.append(path.stem)
            continue
        any_file = True
        for name in sorted(set(files) - set(present)):
            check.problems.append(f"{files[name]} does not exist, but {next(iter(present.values())).name} does")
        manifest = _try(check, Manifest.read, path)
        if manifest is None:
            continue
        check.problems += of_other_recordings(labels, path.stem, manifest)
        check.problems += _check_audio(manifest, n_audio)
        for name, file in present.items():
            if dictionaries[name] is not None:
                _check_file(check, file, manifest, dictionaries[name])
    if not any_file:
        raise UserError(
            f"{labels} has no label file for the splits {', '.join(p.stem for p in manifests)} of {data}; "
            f"expected names as {manifests[0].stem}.{names[0]}"
        )
    return check


def _try(check: LabelCheck, function, path):
    try:
        return function(path)
    except UserError as error:
        check.problems.append(str(error))


def _check_file(check: LabelCheck, file: Path, manifest: Manifest, n_clusters: int) -> None:
    examined = _try(check, lambda path: FrameLabels.examine(path, manifest, n_clusters), file)
    if examined is None:
        return
    labels, problems = examined
    check.problems += problems
    if labels is not None:
        check.summaries.append(summarize_labels(file.name, labels, n_clusters))


def _check_audio(manifest: Manifest, n_audio: int) -> list[str]:
    """Problems of some recordings: missing, another sampling rate, another length."""
    problems = []
    for index in np.unique(np.linspace(0, len(manifest) - 1, min(n_audio, len(manifest))).astype(int)).tolist():
        path, where = manifest.audio_path(index), manifest.where(index)
        try:
            header = soundfile.info(str(path))
        except (soundfile.SoundFileError, OSError) as error:
            problems.append(f"{where}: {path} cannot be read: {error}")
            continue
        if (header.samplerate, header.frames) != (SAMPLE_RATE, manifest.n_samples[index]):
            problems.append(
                f"{where}: {path} has {header.frames} samples at {header.samplerate} Hz, expected "
                f"{manifest.n_samples[index]} at {SAMPLE_RATE} Hz; make the manifest with make_manifest.py"
            )
    return problems
