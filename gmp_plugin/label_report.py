"""A page about the frame labels of a manifest: one HTML file that holds its pictures."""

import re
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np

from . import label_plots, provenance
from .data.audio import read_audio
from .errors import UserError
from .files import atomic_text
from .hubert.checkpoint import load_hubert
from .kmeans import MultiscaleKMeans
from .label_record import read_record
from .label_statistics import agreement, majority, plane, usage
from .layer_probe import LayerScore, probe_layers
from .manifest import FrameLabels, Manifest, read_km_dictionary
from .page import html_document, html_table, png
from .utterance_classes import read_classes


@dataclass
class LabelSet:
    """Frame labels of one manifest with what is known of its utterances.

    `labels[K]` are the frame labels, `classes[property]` is the class number of each utterance `(N,)` and
    the classes' names, `notes` say which properties are not known, and why.
    """

    manifest: Manifest
    labels: dict[int, FrameLabels]
    classes: dict[str, tuple[np.ndarray, list[str]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, manifest_path, folder) -> "LabelSet":
        """Labels `FOLDER/SPLIT.K.km` of every K with a dictionary, and what `read_classes` finds.

        Raises `UserError` for labels that do not fit the manifest.
        """
        manifest, folder = Manifest.read(manifest_path), Path(folder)
        split = Path(manifest_path).stem
        found = [(p, re.fullmatch(r"dict\.(\d+)\.km\.txt", p.name)) for p in folder.glob("dict.*.km.txt")]
        dictionaries = {int(match[1]): path for path, match in found if match}
        if files := read_record(folder, split).get("files"):  # what else lies there is of an earlier fit
            dictionaries = {k: path for k, path in dictionaries.items() if f"{split}.{k}.km" in files}
        if not dictionaries:
            raise UserError(f"{folder} has no dictionary dict.K.km.txt; make the labels with dump_km_label.py")
        labels = {
            k: FrameLabels.read(folder / f"{split}.{k}.km", manifest, read_km_dictionary(dictionaries[k]))
            for k in sorted(dictionaries)
        }
        return cls(manifest, labels, *read_classes(manifest))

    def frame_classes(self, name: str) -> np.ndarray:
        """Class numbers of a property, one per frame."""
        return np.repeat(self.classes[name][0], self.manifest.n_frames())

    def choose_clips(self, n: int) -> list[int]:
        """Utterances of middling length, every emotion in its turn."""
        classes = self.classes["emotion"][0] if "emotion" in self.classes else np.zeros(len(self.manifest), dtype=int)
        lengths = np.asarray(self.manifest.n_samples)
        turns = []
        for c in np.unique(classes):
            mine = np.flatnonzero(classes == c)
            near = mine[np.argsort(np.abs(lengths[mine] - np.median(lengths[mine])), kind="stable")]
            turns += [(turn, c, int(i)) for turn, i in enumerate(near[:n])]
        return [i for _, _, i in sorted(turns)[:n]]


def write_label_report(
    manifest_path, folder, out, km_path=None, checkpoint=None, layers: list[int] | None = None, n_clips: int = 4,
    **probe_options,
) -> None:  # fmt: skip
    """Write the page.

    Args:
        folder: of the labels `SPLIT.K.km` and `dict.K.km.txt`.
        out: `.html` file to write.
        km_path: file of learn_kmeans.py, for the map of centroids.
        checkpoint: HuBERT of the layer table; no table without it.
        layers: of the table; all when left out.
        n_clips: clips to draw.
        probe_options: `device` and the options of `probe_layers`.
    """
    if Path(manifest_path).stem == "test":
        raise UserError(f"{manifest_path} is the test part, which is read once, at the end: give train.tsv")
    data = LabelSet.read(manifest_path, folder)
    km = None if km_path is None else _load_kmeans(km_path, Path(folder), data)
    sections = [usage_section(data), agreement_section(data), map_section(data, km), clip_section(data, km, n_clips)]
    scores = None if checkpoint is None else probe_layers(data.manifest, checkpoint, layers, **probe_options)
    same_model = km is not None and checkpoint is not None and load_hubert(checkpoint).sha256 == km.checkpoint_sha256
    sections.append(layer_section(data, km.layer if same_model else None, scores))
    page = html_document(
        f"Frame labels of {Path(manifest_path).stem}", [_summary(data, km, manifest_path, folder), *sections]
    )
    with atomic_text(out) as stream:
        stream.write(page)


def _load_kmeans(path, folder: Path, data: LabelSet) -> MultiscaleKMeans:
    km = MultiscaleKMeans.load(path)
    origin = folder / provenance.FILE
    others = origin.is_file() and provenance.read(origin) != km.provenance
    own = read_record(folder, Path(data.manifest.file).stem).get("centroids")
    if others or own not in (None, provenance.fitted(km.provenance)):
        raise UserError(f"the labels in {folder} are of other centroids than {path}; give the file they were made with")
    scales = [k for k in data.labels if k in km.scales]
    if not scales:
        raise UserError(f"{path} holds the scales {km.scales}, the labels in {folder} are of {list(data.labels)}")
    return km.select(scales)


def _summary(data: LabelSet, km: MultiscaleKMeans | None, manifest_path, folder) -> str:
    n_frames = int(data.manifest.n_frames().sum())
    lines = [
        f"{len(data.manifest)} utterances, {n_frames} frames ({n_frames / 50 / 60:.1f} minutes) of "
        f"<code>{escape(str(manifest_path))}</code>, labels in <code>{escape(str(folder))}</code>."
    ]
    if km is not None:
        layer = f"layer {km.layer} of checkpoint <code>{escape(km.checkpoint_sha256[:12])}</code>"
        lines.append(
            f"Centroids: {layer if km.layer else 'MFCCs'}, fitted on {km.n_frames} frames with seed {km.seed}."
        )
    notes = "".join(f"<li>{escape(note)}</li>" for note in data.notes)
    return f"<p>{' '.join(lines)}</p>" + (f"<ul class=soft>{notes}</ul>" if notes else "")


def usage_section(data: LabelSet) -> str:
    usages = {k: usage(labels.values, k) for k, labels in data.labels.items()}
    rows = [
        [f"K = {k}", f"{found.in_use} of {k}", f"{found.perplexity:.1f}", f"{found.perplexity / k:.0%}",
         f"{found.shares[0]:.1%}", f"{found.counts.sum() / max(1, found.in_use):.0f}"]
        for k, found in usages.items()
    ]  # fmt: skip
    head = ["scale", "clusters in use", "perplexity", "perplexity / K", "largest cluster", "frames per used cluster"]
    return (
        "<h2>How the clusters are used</h2><p>Perplexity is the number of equally used clusters that would be as "
        "varied. Far below K, or with clusters out of use, a smaller scale would tell as much.</p>"
        + html_table(head, rows)
        + png(label_plots.usage_figure(usages), "Sorted frequencies of the clusters of each scale")
    )


def agreement_section(data: LabelSet) -> str:
    title = "<h2>What the labels know about the speaker and the emotion</h2>"
    if not data.classes:
        return title + "<p>Emotion, gender and speaker are not known for this manifest.</p>"
    n_frames = data.manifest.n_frames()
    found = {
        name: {k: agreement(labels.values, classes, n_frames) for k, labels in data.labels.items()}
        for name, (classes, _) in data.classes.items()
    }
    rows = [
        [name, f"{len(np.unique(data.classes[name][0]))}", f"{k}", f"{a.purity:.1%}", f"{a.chance_purity:.1%}",
         f"{a.nmi:.3f}", f"{a.chance_nmi:.3f}"]
        for name, by_scale in found.items() for k, a in by_scale.items()
    ]  # fmt: skip
    return (
        f"{title}<p>Purity is the share of frames whose class is the commonest in their cluster; normalised mutual "
        "information is 0 for labels that tell nothing and 1 for labels that tell all and nothing else. Both rise with "
        "the number of clusters alone: <em>chance</em> is the same with the classes dealt to other utterances, and "
        "what counts is the distance from it.</p>"
        + html_table(["property", "classes", "K", "purity", "by chance", "NMI", "by chance"], rows)
        + png(label_plots.agreement_figure(found), "Purity and normalised mutual information of each scale")
    )


def map_section(data: LabelSet, km: MultiscaleKMeans | None) -> str:
    title = "<h2>Map of the centroids</h2>"
    if km is None:
        return f"{title}<p>Not drawn, because no k-means file was given (<code>--kmeans</code>).</p>"
    points, how = plane({k: km.centroids[k].numpy() for k in km.scales})
    counts = {k: usage(data.labels[k].values, k).counts for k in km.scales}
    majorities = names = None
    colour = "Colour and area are the cluster's frames."
    if "emotion" in data.classes:
        names = data.classes["emotion"][1]
        frame_classes = data.frame_classes("emotion")
        majorities = {k: majority(data.labels[k].values, frame_classes, k) for k in km.scales}
        colour = "Colour and shape show the emotion most of its frames belong to, the area its frames."
    return (
        f"{title}<p>{how}; the axes are the same for all scales. {colour} Grey crosses are clusters without frames "
        "in this manifest.</p>"
        + png(label_plots.map_figure(points, counts, majorities, names), "Centroids of each scale in a plane")
    )


def clip_section(data: LabelSet, km: MultiscaleKMeans | None, n_clips: int) -> str:
    order = {k: np.linspace(0, 1, k) for k in data.labels}
    how = "their numbers"
    if km is not None:
        how = "the first principal component of the centroids, so that neighbours look alike"
        order |= _along_first_component({k: km.centroids[k].numpy() for k in km.scales})
    parts = [
        "<h2>Labels on the spectrogram</h2><p>One track for each scale, 50 labels a second, with the number where "
        f"there is room. Colours follow {how}.</p>"
    ]
    for i in data.choose_clips(n_clips):
        about = [names[classes[i]] for classes, names in data.classes.values()]
        name = data.manifest.paths[i]
        parts.append(f"<h3>{escape(name)} <span class=soft>{escape(', '.join(about))}</span></h3>")
        tracks = {k: labels[i] for k, labels in data.labels.items()}
        figure = label_plots.track_figure(read_audio(data.manifest, i).numpy(), tracks, order)
        parts.append(png(figure, f"Spectrogram and labels of {name}"))
    return "".join(parts)


def _along_first_component(centroids: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Rank of each centroid `(K, D)` along one direction for all scales, 0 to 1, `(K,)` each.

    The direction is the first principal component of the largest scale: one of each scale's own could point the
    other way, and the same sound would be dark in one track and bright in the next.
    """
    largest = centroids[max(centroids)]
    mean = largest.mean(0)
    direction = np.linalg.svd(largest - mean, full_matrices=False)[2][0]
    along = {k: (x - mean) @ direction for k, x in centroids.items()}
    return {k: np.argsort(np.argsort(x)) / (k - 1) for k, x in along.items()}


def layer_section(data: LabelSet, label_layer: int | None, scores: list[LayerScore] | None) -> str:
    """`label_layer` is marked as the one of the labels, None where they are of another checkpoint."""
    title = "<h2>Which layer holds most emotion</h2>"
    if scores is None:
        return f"{title}<p>Not measured, because no checkpoint was given (<code>--checkpoint</code>).</p>"
    highest = max(score.uar for score in scores)
    best = " and ".join(f"layer {score.layer}" for score in scores if score.uar == highest)
    rows = [
        [f"{s.layer}" + (" (labels)" if s.layer == label_layer else "")]
        + [f"{rate:.1%}" for rate in (s.uar, s.war, s.train_uar)]
        for s in scores
    ]
    bold = [i for i, s in enumerate(scores) if s.uar == highest]
    valid = Manifest.read(Path(data.manifest.file).with_name("valid.tsv"))
    chance = 1 / len(np.unique(data.classes["emotion"][0]))
    return (
        f"{title}<p>A linear probe per layer (logistic regression on the standardised mean of a clip's frames), "
        f"trained on these {len(data.manifest)} utterances and measured on the {len(valid)} of the validation part; "
        f"the test part is not read. Best: {best}. One validation utterance is {1 / len(valid):.1%} of WAR: "
        "differences of a few utterances mean nothing. A stage-1 checkpoint was trained on these utterances and "
        "chosen on the validation part: the table compares layers, it is no result.</p>"
        + html_table(["layer", "UAR", "WAR", "UAR on its own training part"], rows, bold)
        + png(label_plots.layer_figure(scores, chance), "Unweighted average recall of each layer")
    )
