"""The sections of an experiment's report, as blocks of `page`."""

import csv
import json
from collections import Counter
from dataclasses import astuple
from pathlib import Path

import numpy as np

from ..audit import Audit
from ..corpora.folds import natural_key
from ..corpora.iemocap import KNOWN_CLASSES
from ..embeddings import Embeddings, silhouettes
from ..errors import UserError
from ..experiment import STAGES
from ..label_plots import agreement_figure, usage_figure
from ..label_report import LabelSet
from ..label_statistics import Agreement, Usage, agreement, plane, usage
from ..page import Box, Bullets, Code, Details, Heading, Picture, Table, Text
from ..training_config import settings
from . import plots
from .analysis import Analysis, recalls
from .learning_curves import read_curves
from .results import RATES, ExperimentResults, RowResults

NONE = "–"
MAPPED = 300  # utterances in a map at most
MANY = 12  # items of a list at most; the rest is behind a line to click on
METHOD = [
    "**Mean and standard deviation** are over folds (n - 1), the seeds of a fold being averaged first: what folds "
    "differ by is the test speakers, not chance in training.",
    "**Intervals** are percentiles of 10 000 bootstrap draws from the test parts of all folds, of the rate averaged "
    "over seeds. Over utterances, they are drawn inside each class, so that every class keeps its count; utterances of "
    "one speaker are taken for independent, which they are not, and the interval is too narrow. Over speakers, all of "
    "a speaker's utterances are drawn together, over all folds: a fold has too few speakers to draw inside it. With "
    "ten speakers that interval, too, is rather narrow: on simulated speakers it held the true rate in 9 of 10 cases, "
    "that over utterances in 3 to 7 of 10.",
    "**Tests** are paired permutation tests: the two rows' answers, averaged over seeds, are swapped for each "
    "utterance, or for each speaker; all ways of swapping where there are at most 10 000, else as many at random. With "
    "n speakers no p over speakers is below 2 / 2^n.",
    "**Seeds** are averaged first everywhere; no interval tells how much another seed would change.",
    "**A row that lacks a run** has no mean, as folds are not alike; `--allow-partial` gives one, and says of how many "
    "runs. A result that does not belong where it lies is never counted.",
]
TITLES = {"stage1": "stage 1", "labels": "k-means and labels", "stage2": "stage 2", "stage3": "stage 3"}


def status_section(experiment: ExperimentResults, allow_partial: bool = False) -> list:
    """Is everything there, and does it count; and what the audit says."""
    problems = [problem.text for problem in experiment.problems]
    results = {row.folder("stage3", run) for row in experiment.rows.values() for run in row.results}
    wanted = {row.folder("stage3", run) for row in experiment.rows.values() for run in row.runs}
    count = f"{_count(experiment.rows, 'row')}, {_count(experiment.folds, 'fold')}, seeds {_join(experiment.seeds)}"
    if problems:
        partial = "a mean of those it has, and says of how many" if allow_partial else "no mean"
        blocks = [
            Text(
                f"**Not complete: {len(results)} of {len(wanted)} results count** ({count}). What is named here is in "
                f"no figure below; a row that lacks a run has {partial}."
            ),
            *_bullets(problems),
        ]
        status = Box("bad", blocks)
    else:
        status = Box("good", [Text(f"**Complete:** {count}; all {len(wanted)} results are there and count.")])
    notes = [Box("note", [Bullets(experiment.notes)])] if experiment.notes else []
    return [status, audit_box(experiment), *notes]


def audit_box(experiment: ExperimentResults) -> Box:
    """The verdict of the leak audit, `audit.json`."""
    path = experiment.folder / "audit.json"
    if not path.is_file():
        text = "**No audit was run**: nothing here says that no test recording touched training."
        return Box("bad", [Text(text), Text(f"`python manifest_tools/audit_leakage.py {experiment.folder}`")])
    try:
        audit = Audit.read(path)
    except UserError as error:
        return Box("bad", [Text(f"**The audit cannot be read:** {error}")])
    clean = audit.verdict == "clean"
    blocks = [Text(f"**Leak audit:** {audit.statement}." + ("" if clean else " **Do not believe these figures.**"))]
    blocks += _bullets([leak.message for leak in audit.leaks] + audit.unauditable)
    results = [experiment.folder / row.folder("stage3", run) for row in experiment.rows.values() for run in row.results]
    if any((folder / "result.json").stat().st_mtime > path.stat().st_mtime for folder in results):
        blocks.append(Text("There are results that are newer than the audit: run it again."))
    seen = [
        [s.fold, s.stage, s.split, f"{s.artefacts}", f"{s.recordings}", f"{s.speakers}", f"{s.n_frames or NONE}"]
        for s in audit.seen
    ]
    head = ["fold", "stage", "split", "artefacts", "recordings", "speakers", "frames"]
    notes = [Bullets([*audit.absent, *audit.notes])] * bool(audit.absent or audit.notes)
    if seen or notes:
        blocks.append(Details("What has seen what", [*([Table(head, seen)] if seen else []), *notes]))
    return Box("good" if clean else "bad", blocks)


def _bullets(items: list[str]) -> list:
    """A list, of which many items are behind a line to click on."""
    blocks = [Bullets(items[:MANY])] if items else []
    return blocks + ([Details(f"{len(items) - MANY} more", [Bullets(items[MANY:])])] if items[MANY:] else [])


def results_section(experiment: ExperimentResults, found: dict[str, Analysis]) -> list:
    """Means over folds, as papers have them, a table for each question; the headline row stands in each."""
    chance = 100 / max(1, len(experiment.classes))
    blocks = [
        Heading("Results"),
        Text(
            f"Mean ± standard deviation over the folds' test parts, seeds averaged within a fold. Guessing among "
            f"{_join(experiment.classes)} has a UAR of {chance:.1f} %."
        ),
    ]
    for title in dict.fromkeys(row.table for row in experiment.rows.values()):
        rows = [row for row in experiment.rows.values() if row.table == title or row is experiment.headline]
        paper = shows_paper(experiment) and any(row.paper for row in rows if row.table == title)
        head = ["", "runs", "UAR %", "WAR %", "macro-F1 %"] + ["paper, IEMOCAP: UAR %", "paper, IEMOCAP: WAR %"] * paper
        lines = []
        for row in rows:
            line = [_title(row), _runs(row)] + [_mean(found[row.name].summary[rate]) for rate in RATES]
            if paper:
                line += [_figure((row.paper or {}).get(rate)) for rate in ("uar", "war")]
            lines.append(line)
        blocks.append(Table(head, lines, (rows.index(experiment.headline),), title, soft=(5, 6)))
    if shows_paper(experiment):
        blocks.append(Text("The columns in grey are the figures of Pan et al. (2024), not ours.", soft=True))
    elif any(row.paper for row in experiment.rows.values()):
        text = "The paper's figures are of the complete IEMOCAP, and so do not stand beside those of this corpus."
        blocks.append(Text(text, soft=True))
    return blocks


def shows_paper(experiment: ExperimentResults) -> bool:
    """The paper's figures are shown beside those of the complete IEMOCAP only: a recall is comparable on no other
    recordings, and the generated corpus, which has IEMOCAP's shape, is none."""
    known = sum((Counter(classes) for classes in KNOWN_CLASSES.values()), Counter())
    same = Counter(u.emotion for u in experiment.utterances.values()) == known
    return experiment.plan.corpus == "iemocap" and same


def intervals_section(experiment: ExperimentResults, found: dict[str, Analysis]) -> list:
    """Pooled rates with their intervals."""
    shown = [one for one in found.values() if one.estimates]
    if not shown:
        return [Heading("How sure the rates are"), Text("No row has all its runs.")]
    head = ["", "UAR %", "95 %, utterances", "95 %, speakers", "WAR %", "95 %, utterances", "95 %, speakers"]
    rows = []
    for one in shown:
        row = [_title(one.row)]
        for rate in ("uar", "war"):
            e = one.estimates[rate]
            row += [f"{100 * e.value:.1f}", _interval(e.utterances), _interval(e.speakers)]
        rows.append(row)
    own = shown[0].pool
    speakers = experiment.speakers(own.paths)
    many = "" if speakers is None else f" of {len(set(speakers))} speakers"
    figure = plots.rates_figure(
        [_title(one.row) for one in shown],
        [one.estimates for one in shown],
        [{rate: one.summary[rate]["folds"] for rate in ("uar", "war")} for one in shown],
        [(one.row.paper or {}) if shows_paper(experiment) else {} for one in shown],
    )
    return [
        Heading("How sure the rates are"),
        Text(
            f"The test parts of all folds together, {len(own.paths)} utterances{many}, so that a rate differs a little "
            "from the mean over folds. The intervals are bootstrap intervals of the mean over seeds: over utterances, "
            "drawn inside each class, and over speakers, whole speakers being drawn. The one over speakers is the one "
            "to quote: it is about new voices."
        ),
        Table(head, rows, bold=_bold(experiment, shown)),
        Picture("rates", figure, "Rates of the rows with their intervals, and their folds"),
    ]


def tests_section(experiment: ExperimentResults, found: dict[str, Analysis]) -> list:
    """Every row against the headline row."""
    title = _title(experiment.headline)
    shown = [one for one in found.values() if one.against]
    blocks = [Heading("Rows against the first")]
    if not shown:
        return [*blocks, Text("There is no other row with results to compare with the first.")]
    blocks.append(
        Text(
            f"Each row less **{title}**, on the same utterances, in percent points; below 0, the row is worse. "
            "p is that of no difference, by swapping the two rows' answers to utterances, or to all of a speaker; "
            f"the last column corrects the one over speakers for the {len(shown)} comparisons (Holm)."
        )
    )
    head = ["", "runs", "difference", "95 %, utterances", "95 %, speakers", "p, utterances", "p, speakers", "p, Holm"]
    for rate in ("uar", "war"):
        rows = []
        for one in shown:
            e, p = one.against.estimates[rate], one.against.p[rate]
            rows.append(
                [_title(one.row), f"{one.against.n_runs}", _signed(100 * e.value, "+.1f"), _interval(e.utterances, "+"),
                 _interval(e.speakers, "+"), _p(p.utterances), _p(p.speakers), _p(one.against.holm[rate])]
            )  # fmt: skip
        blocks.append(Table(head, rows, caption=RATES[rate]))
    figure = plots.differences_figure([_title(one.row) for one in shown], [o.against.estimates for o in shown])
    return [*blocks, Picture("differences", figure, f"Differences of the rows to {title}")]


def runs_section(experiment: ExperimentResults) -> list:
    """Every fold and seed."""
    blocks = [Heading("Folds and seeds"), Text("UAR and WAR in percent of every run; a dash is a run that lacks.")]
    for row in experiment.rows.values():
        head = ["seed"] + [f"fold {fold}" for fold in experiment.folds] + ["mean"]
        rows = []
        for seed in experiment.seeds:
            runs = [row.results.get((fold, seed)) for fold in experiment.folds]
            cells = [f"{r['uar']:.1f} / {r['war']:.1f}" if r else NONE for r in runs]
            whole = None not in runs
            mean = " / ".join(f"{np.mean([r[rate] for r in runs]):.1f}" for rate in ("uar", "war")) if whole else NONE
            rows.append([f"{seed}", *cells, mean])
        rows.append(["mean", *_fold_means(row, experiment)])
        table = Table(head, rows, bold=(len(rows) - 1,))
        if row is experiment.headline:
            blocks += [Heading(_title(row), 3), table]
        else:
            blocks.append(Details(_title(row), [table]))
    return blocks


def _fold_means(row: RowResults, experiment: ExperimentResults) -> list[str]:
    """Mean of the seeds of every fold, and of the folds; a dash where a run lacks."""
    lacking = {fold for fold, _ in row.missing}
    means = [
        None if fold in lacking else np.array([row.rate(rate, fold) for rate in ("uar", "war")])
        for fold in experiment.folds
    ]
    means.append(None if lacking else np.mean(means, axis=0))
    return [NONE if mean is None else f"{mean[0]:.1f} / {mean[1]:.1f}" for mean in means]


def confusion_section(experiment: ExperimentResults, found: dict[str, Analysis]) -> list:
    """Confusion matrices of the rows, folds and seeds together."""
    blocks = [
        Heading("Confusion matrices"),
        Text("Folds and seeds together, an utterance once for each seed: share of the spoken class, and count."),
    ]
    for one in found.values():
        if one.pool is None:
            continue
        counts = one.pool.confusion
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        rows = [
            [name] + [f"{share:.1%}  ({count})" for share, count in zip(*pair, strict=True)]
            for name, *pair in zip(experiment.classes, shares, counts, strict=True)
        ]
        shades = [[None, *line] for line in shares.tolist()]
        table = Table(["spoken \\ recognised", *experiment.classes], rows, shades=shades)
        if one.row is experiment.headline:
            blocks += [Heading(_title(one.row), 3), table]
        else:
            blocks.append(Details(_title(one.row), [table]))
    return blocks


def speakers_section(experiment: ExperimentResults, found: dict[str, Analysis]) -> list:
    """Recall by gender for all rows, by speaker for each."""
    blocks = [Heading("Gender and speakers")]
    shown = [one for one in found.values() if one.pool is not None]
    if not shown or experiment.speakers(shown[0].pool.paths) is None:
        return [*blocks, Text("Not shown: no row has all its runs, or the speakers are not known.")]
    head = ["utterances", "UAR %", "WAR %", *(f"{name} %" for name in experiment.classes)]
    rows, bold = [], []
    for one in shown:
        genders = experiment.genders(one.pool.paths)
        for gender in sorted(set(genders)):
            bold += [len(rows)] * (one.row is experiment.headline)
            rows.append([_title(one.row), gender, *_rates_of(one, genders == gender, experiment)[0]])
    blocks += [
        Text("Recall in percent, seeds averaged, folds together; every speaker by the models that never heard them."),
        Table(["", "gender", *head], rows, tuple(bold)),
    ]
    for one in shown:
        speakers, genders = experiment.speakers(one.pool.paths), experiment.genders(one.pool.paths)
        rows, marks, by_class, uars = [], [], [], []
        for speaker in sorted(set(speakers), key=natural_key):
            gender = genders[speakers == speaker][0]
            cells, numbers, uar = _rates_of(one, speakers == speaker, experiment)
            rows.append([speaker, gender, *cells])
            marks.append(f"{speaker}\n{gender}")
            by_class.append(numbers)
            uars.append(uar)
        figure = plots.speakers_figure(marks, np.array(by_class), uars, experiment.classes)
        picture = Picture(f"speakers_{one.row.name}", figure, f"Recall of every speaker, {_title(one.row)}")
        table = Table(["speaker", "gender", *head], rows)
        if one.row is experiment.headline:
            blocks += [Heading(_title(one.row), 3), picture, Details("The figures", [table])]
        else:
            blocks.append(Details(_title(one.row), [picture, table]))
    return blocks


def _rates_of(
    one: Analysis, members: np.ndarray, experiment: ExperimentResults
) -> tuple[list[str], list[float], float]:
    by_class, uar, war = recalls(one.pool, members, len(experiment.classes))
    cells = [f"{members.sum()}", f"{100 * uar:.1f}", f"{100 * war:.1f}"]
    cells += [NONE if r is None else f"{100 * r:.1f}" for r in by_class]
    return cells, [float("nan") if r is None else 100 * r for r in by_class], 100 * uar


def curves_section(experiment: ExperimentResults) -> list:
    """Learning curves of the stages' folders."""
    blocks = [
        Heading("Learning curves"),
        Text("A thin line is a run (a fold with a seed), the thick one their mean. Checkpoints of stages 1 and 3 are "
             "chosen by the UAR on the validation part, whose speakers the training part has too: what new speakers "
             "bring is in the tables above only."),
    ]  # fmt: skip
    for stage in ("stage1", "stage2", "stage3"):
        for template, rows in experiment.templates(stage).items():
            folders = [rows[0].folder(stage, run) for run in rows[0].runs]
            runs = [curves for folder in folders if (curves := read_curves(experiment.folder / folder))]
            name = f"{TITLES[stage].capitalize()}, `{Path(template).name}`, {_count(runs, 'run')}"
            if not runs:
                blocks.append(Text(f"{name}: no TensorBoard files.", soft=True))
                continue
            alt = f"Learning curves of {TITLES[stage]}, {Path(template).name}"
            picture = Picture(f"curves_{stage}_{Path(template).name}", plots.curves_figure(stage, runs), alt)
            if experiment.headline in rows:
                blocks += [Text(f"**{name}**"), picture]
            else:
                blocks.append(Details(name, [picture]))
    return blocks


def labels_section(experiment: ExperimentResults) -> list:
    """Usage of the clusters, and what they know, mean of the runs."""
    blocks = [Heading("Frame labels")]
    if not experiment.templates("labels"):
        return [*blocks, Text("No row uses frame labels.")]
    blocks.append(
        Text(
            "Labels of the training parts, mean of the runs. Perplexity is the number of equally used clusters that "
            "would be as varied. Purity and normalised mutual information (NMI) rise with the number of clusters "
            "alone: what counts is the distance from chance, which is the same with the classes dealt to other "
            "utterances."
        )
    )
    for template, rows in experiment.templates("labels").items():
        usages, agreements, n_runs, notes = _label_statistics(experiment, rows[0])
        name = f"Labels `{Path(template).name}`, {_count(range(n_runs), 'run')}"
        own = [Text(note, soft=True) for note in notes]
        if n_runs:
            head = ["scale", "clusters in use", "perplexity", "perplexity / K", "largest cluster"]
            own += [
                Table(head, _usage_rows(usages)),
                Table(["property", "K", "purity", "by chance", "NMI", "by chance"], _agreement_rows(agreements)),
                Picture(f"agreement_{Path(template).name}", agreement_figure(_mean_agreements(agreements)),
                        f"What the labels {Path(template).name} know about emotion, gender and speaker"),
                Picture(f"usage_{Path(template).name}", usage_figure(_mean_usages(usages)),
                        f"Sorted frequencies of the clusters of {Path(template).name}"),
            ]  # fmt: skip
        blocks += [Text(f"**{name}**"), *own] if experiment.headline in rows else [Details(name, own)]
    return blocks


def _label_statistics(experiment: ExperimentResults, row: RowResults):
    """Usages of each scale and agreements of each property and scale, one of every run; the runs, and notes."""
    usages, agreements, n_runs, notes = {}, {}, 0, []
    for run in row.runs:
        folder = row.folder("labels", run)
        if not (experiment.folder / folder / "train.labels.json").is_file() and not list(
            (experiment.folder / folder).glob("train.*.km")
        ):
            continue
        try:
            data = LabelSet.read(experiment.folder / "data" / f"fold{run[0]}" / "train.tsv", experiment.folder / folder)
        except UserError as error:
            notes.append(f"{folder}: {error}")
            continue
        n_runs += 1
        n_frames = data.manifest.n_frames()
        for k, labels in data.labels.items():
            usages.setdefault(k, []).append(usage(labels.values, k))
            for name, (classes, _) in data.classes.items():
                found = agreement(labels.values, classes, n_frames)
                agreements.setdefault(name, {}).setdefault(k, []).append(found)
    return usages, agreements, n_runs, notes


def _usage_rows(usages: dict) -> list[list[str]]:
    rows = []
    for k, found in usages.items():
        in_use, perplexity, largest = np.mean([(u.in_use, u.perplexity, u.shares[0]) for u in found], axis=0)
        rows.append([f"K = {k}", f"{in_use:.1f}", f"{perplexity:.1f}", f"{perplexity / k:.0%}", f"{largest:.1%}"])
    return rows


def _agreement_rows(agreements: dict) -> list[list[str]]:
    return [
        [name, f"{k}", f"{a.purity:.1%}", f"{a.chance_purity:.1%}", f"{a.nmi:.3f}", f"{a.chance_nmi:.3f}"]
        for name, by_scale in _mean_agreements(agreements).items()
        for k, a in by_scale.items()
    ]


def _mean_agreements(agreements: dict) -> dict:
    return {
        name: {k: Agreement(*np.mean([astuple(a) for a in found], axis=0).tolist()) for k, found in by_scale.items()}
        for name, by_scale in agreements.items()
    }


def _mean_usages(usages: dict) -> dict:
    """Of the sorted shares: the most used cluster of one run has nothing to do with that of another."""
    return {k: Usage(np.mean([u.shares for u in found], axis=0)) for k, found in usages.items()}


def embeddings_section(experiment: ExperimentResults) -> list:
    """Maps of the headline row's test parts before and after stage 3, and silhouettes of all rows."""
    blocks = [Heading("Embeddings of stage 3")]
    rows, maps = [], []
    for row in experiment.rows.values():
        scores: dict[tuple[str, str], list[float]] = {}
        for run, result in row.results.items():
            embeddings = _embeddings(experiment, row, run, result)
            if embeddings is None:
                continue
            both = {"before": embeddings.before, "after": embeddings.after}
            both = {name: vectors for name, vectors in both.items() if vectors is not None}
            for name, vectors in both.items():
                for what, value in silhouettes(vectors, embeddings.classes).items():
                    scores.setdefault((name, what), []).append(value)
            if row is experiment.headline and run[1] == experiment.seeds[0]:
                maps.append((run[0], both, embeddings.classes))
        if scores:
            cells = [
                _signed(float(np.mean(scores[key])), ".2f") if (key := (name, what)) in scores else NONE
                for what in ("emotion", "gender", "speaker")
                for name in ("before", "after")
            ]
            rows.append([_title(row), *cells])
    if not rows:
        return [*blocks, Text("There are none: `evaluate.py --embeddings` writes them beside the result.")]
    head = [""] + [f"{what}, {when}" for what in ("emotion", "gender", "speaker") for when in ("before", "after")]
    blocks += [
        Text(
            "Test parts, before stage 3 (mean over time of the last layer of the HuBERT that it started from) and "
            "after it (the vector before the last layer of the head). The silhouette, mean of the runs, is near 1 "
            "where utterances of one class keep together, and 0 where they do not. Maps of large test parts show every "
            f"second, or third, utterance, {MAPPED} at most."
        ),
        Table(head, rows, caption="Silhouettes"),
    ]
    for i, (fold, both, classes) in enumerate(maps):
        planes = {}
        for name, vectors in both.items():
            points, how = plane({len(vectors): vectors})
            planes[f"{name} ({how})"] = points[len(vectors)][:: -(-len(vectors) // MAPPED)]
        classes = {what: values[:: -(-len(values) // MAPPED)] for what, values in classes.items()}
        alt = f"Maps of the test part of fold {fold} before and after stage 3"
        picture = Picture(f"embeddings_fold{fold}", plots.embeddings_figure(planes, classes), alt)
        name = f"{_title(experiment.headline)}, fold {fold}, seed {experiment.seeds[0]}"
        blocks += [Text(f"**{name}**"), picture] if i == 0 else [Details(name, [picture])]
    return blocks


def _embeddings(experiment: ExperimentResults, row: RowResults, run, result: dict) -> Embeddings | None:
    path = experiment.folder / row.folder("stage3", run) / "embeddings.npz"
    if not path.is_file():
        return None
    embeddings = Embeddings.load(path)
    return embeddings if embeddings.checkpoint_sha256 == result["checkpoint_sha256"] else None


def costs_section(experiment: ExperimentResults) -> list:
    """Time and memory of the stages, from Snakemake's benchmark files."""
    rows, total = [], 0.0
    for stage in STAGES:
        for template, users in experiment.templates(stage).items():
            found = [_time(experiment.folder / users[0].folder(stage, run)) for run in users[0].runs]
            found = [one for one in found if one]
            if not found:
                continue
            seconds, cpu, memory = ([one[key] for one in found] for key in ("s", "cpu_time", "max_rss"))
            total += sum(seconds)
            rows.append(
                [TITLES[stage], Path(template).name, f"{len(found)}", _duration(np.mean(seconds)),
                 f"{_duration(min(seconds))} to {_duration(max(seconds))}", _duration(np.nanmean(cpu)),
                 f"{np.nanmax(memory) / 1024:.2f} GB"]
            )  # fmt: skip
    blocks = [Heading("Time and memory")]
    if not rows:
        return [*blocks, Text("Not known: there are no time.tsv files beside the stages.")]
    head = ["stage", "folder", "runs", "time, mean", "least to most", "processor time", "most memory"]
    return [
        *blocks,
        Text(f"As Snakemake measured it, in all {_duration(total)}, jobs after each other. A stage that was stopped "
             "and went on counts from its last start."),
        Table(head, rows),
    ]  # fmt: skip


def _time(folder: Path) -> dict[str, float] | None:
    """The last line of `time.tsv` as numbers, NaN for what was not measured; None without the file."""
    if not (folder / "time.tsv").is_file():
        return None
    lines = list(csv.DictReader((folder / "time.tsv").open(encoding="utf-8"), delimiter="\t"))
    numbers = {}
    for key in ("s", "cpu_time", "max_rss"):
        try:
            numbers[key] = float(lines[-1][key])
        except (IndexError, KeyError, ValueError, TypeError):
            numbers[key] = float("nan")
    return None if np.isnan(numbers["s"]) else numbers


def setup_section(experiment: ExperimentResults) -> list:
    """Machine, versions, configs."""
    results = [result for row in experiment.rows.values() for result in row.results.values()]
    machines, versions = (
        Counter(json.dumps(result[key]) for result in results if key in result) for key in ("machine", "versions")
    )
    blocks = [Heading("Machine, versions, configs")]
    for counter, name in ((machines, "evaluated on"), (versions, "with")):
        for text, count in counter.most_common():
            what = ", ".join(f"{key} {value}" for key, value in json.loads(text).items() if value is not None)
            blocks.append(Text(f"{count} results {name}: {what}."))
    about = {key: value for key, value in vars(experiment.plan).items() if key != "rows"}
    blocks.append(Details("The experiment", [Code(json.dumps(about, indent=1))]))
    for stage in STAGES:
        for template in experiment.templates(stage):
            if template in experiment.configs:
                own = settings(experiment.configs[template])
                code = Code("\n".join(f"{key}: {json.dumps(value)}" for key, value in own.items()))
                blocks.append(Details(f"{TITLES[stage].capitalize()}, `{Path(template).name}`", [code]))
    rows = [[row.name, _title(row), *(_variant(row, stage) for stage in STAGES)] for row in experiment.rows.values()]
    return [*blocks, Details("The rows and their folders", [Table(["name", "", *TITLES.values()], rows)])]


def _variant(row: RowResults, stage: str) -> str:
    return NONE if row.templates[stage] is None else Path(row.templates[stage]).name


def method_section() -> list:
    return [Heading("How the figures are made"), Bullets(METHOD)]


def _title(row: RowResults) -> str:
    return row.title + (f" ({len(row.results)} of {len(row.runs)} runs)" if row.missing else "")


def _runs(row: RowResults) -> str:
    return f"{len(row.runs)}" if not row.missing else f"{len(row.results)} of {len(row.runs)}"


def _mean(summary: dict) -> str:
    if summary["mean"] is None:
        return NONE
    return f"{summary['mean']:.1f}" + ("" if summary["std"] is None else f" ± {summary['std']:.1f}")


def _figure(value) -> str:
    return NONE if value is None else f"{value:.1f}"


def _interval(ends, sign: str = "") -> str:
    return NONE if ends is None else " to ".join(_signed(100 * end, f"{sign}.1f") for end in ends)


def _signed(value: float, form: str) -> str:
    """With a minus sign instead of a hyphen, and none before a zero."""
    text = f"{value:{form}}"
    return text.replace("-", "" if float(text) == 0 else "−")


def _p(p: float | None) -> str:
    if p is None:
        return NONE
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _bold(experiment: ExperimentResults, shown: list[Analysis]) -> tuple[int, ...]:
    return tuple(i for i, one in enumerate(shown) if one.row is experiment.headline)


def _duration(seconds: float) -> str:
    if np.isnan(seconds):
        return NONE
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _count(things, name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


def _join(values) -> str:
    return ", ".join(map(str, values))
