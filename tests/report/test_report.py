"""report.py on a hand-made experiment: two folds, two seeds, eight utterances of four speakers, worked by hand."""

import csv
import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import tool
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import balanced_accuracy_score
from torch.utils.tensorboard import SummaryWriter

from gmp_plugin import metrics
from gmp_plugin.audit.findings import Audit, Leak, Seen
from gmp_plugin.errors import UserError
from gmp_plugin.experiment import Experiment
from gmp_plugin.files import sha256
from gmp_plugin.label_report import LabelSet
from gmp_plugin.label_statistics import agreement
from gmp_plugin.manifest import Utterance, UtteranceTable, write_dictionary, write_km_dictionary, write_split
from gmp_plugin.page import Box, Bullets, Code, Details, Heading, Picture, Table, Text, html_page, markdown_page
from gmp_plugin.plots import new_figure
from gmp_plugin.report import read_experiment
from gmp_plugin.report.learning_curves import Curve, mean_curve, read_curves
from gmp_plugin.report.sections import rates

CLASSES = ["angry", "sad"]
SPEAKERS = {"A": "female", "B": "male", "C": "female", "D": "male"}
TRUTH = {"1": [("A", "angry"), ("A", "sad"), ("B", "angry"), ("B", "sad")],
         "2": [("C", "angry"), ("C", "angry"), ("D", "sad"), ("D", "angry")]}  # fmt: skip
# Answers of each row to each fold, one word a seed.
ANSWERS = {"method": {"1": ("asas", "asss"), "2": ("aass", "asss")}, "other": {"1": ("aaaa",) * 2, "2": ("aaaa",) * 2}}
FOLDER = {"method": "fold{fold}/seed{seed}/stage3/k4.am_softmax", "other": "fold{fold}/seed{seed}/stage3/original.ce"}


@pytest.fixture
def folder(tmp_path):
    """The experiment, complete: rows `method`, `other`, and `twin`, which is the method under another name."""
    exp, utterances = tmp_path / "exp", {}
    for fold, truth in TRUTH.items():
        utterances[fold] = [
            Utterance(f"{s}{i}.wav", 16_000 + i, emotion, SPEAKERS[s], s, fold) for i, (s, emotion) in enumerate(truth)
        ]
        write_split(exp / f"data/fold{fold}", "test", "corpus", utterances[fold])
        for name in ("emotion", "gender"):
            names = [getattr(u, name) for part in utterances.values() for u in part]
            write_dictionary(exp / f"data/fold{fold}/dict.{name}.txt", names)
    UtteranceTable("corpus", tuple(u for part in utterances.values() for u in part)).write(exp / "data/utterances.tsv")
    none = dict.fromkeys(("stage1", "labels", "stage2"))
    early = {stage: f"fold{{fold}}/seed{{seed}}/{stage}/k4" for stage in none}
    rows = {
        "method": {"title": "The method", "table": "Table 3", "paper": {"uar": 82.0, "war": 80.0}, **early},
        "other": {"title": "Plain | <b>other</b>", "table": "Table 3", "paper": None, **none},
        "twin": {"title": "Layer -3", "table": "Table 4", "paper": None, **early},
    }
    for name, row in rows.items():
        row["stage3"] = FOLDER.get(name, FOLDER["method"])
    Experiment("tiny", "csv", "corpus", "", "nano", [4], [1, 2], ["1", "2"], rows).write(exp)
    for name, by_fold in ANSWERS.items():
        for fold, answers in by_fold.items():
            for seed, answer in enumerate(answers, start=1):
                path = exp / FOLDER[name].format(fold=fold, seed=seed)
                path.mkdir(parents=True)
                (path / "checkpoint_best.pt").write_text(f"weights of {path}")
                write_result(path, fold, seed, utterances[fold], answer, {"head": name})
    return exp


def write_result(path, fold, seed, utterances, answer, model):
    predicted = [{"a": 0, "s": 1}[letter] for letter in answer]
    counts = metrics.confusion_counts([CLASSES.index(u.emotion) for u in utterances], predicted, 2)
    result = {
        "fold": fold, "seed": seed, "classes": CLASSES, "confusion": counts.tolist(),
        **{name: 100 * getattr(metrics, name)(counts) for name in ("uar", "war", "macro_f1")},
        "recalls": dict(zip(CLASSES, (100 * metrics.recalls(counts)).tolist(), strict=True)),
        "utterances": [
            {"path": u.path, "truth": u.emotion, "predicted": CLASSES[y], "logits": [(1 - y) * z, y * z]}
            for z, (u, y) in enumerate(zip(utterances, predicted, strict=True), start=seed)
        ],
        "manifest_sha256": sha256(path.parents[3] / f"data/fold{fold}/test.tsv"),
        "checkpoint": f"elsewhere/{path.name}/checkpoint_best.pt",
        "checkpoint_sha256": sha256(path / "checkpoint_best.pt"),
        "config": {"model": {**model, "seed": seed}, "task": {"data": f"data/fold{fold}"}}, "config_sha256": "0",
        "machine": {"cpu": "abacus", "cores": 2}, "versions": {"torch": "2.11.0"},
        "provenance": [{"stage": "am_softmax_classification", "split": "train"}],
    }  # fmt: skip
    (path / "result.json").write_text(json.dumps(result))


def at(folder, row="method", fold="1", seed=1):
    return folder / FOLDER[row].format(fold=fold, seed=seed) / "result.json"


def edit(path, **changes):
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, **changes}))


def report(folder, *options):
    """The Markdown; the other files lie beside it."""
    tool("report")([str(folder), *map(str, options), "--force"])
    return (folder / "report.md").read_text()


def lines(markdown, first):
    """Cells of the Markdown tables' lines that begin with a cell."""
    rows = [[cell.strip(" *") for cell in line.split(" | ")] for line in markdown.splitlines() if line[:1] == "|"]
    return [[cell.strip("|* ") for cell in row] for row in rows if row[0].strip("|* ") == first]


def test_means_are_of_folds_with_their_seeds_averaged(folder, capsys):
    """UAR of the method: fold 1 (100 + 75) / 2, fold 2 (250/3 + 200/3) / 2, so 87.5 and 75.

    Its macro-F1: fold 1 (1 + (2/3 + 4/5) / 2) / 2, fold 2 ((4/5 + 2/3) / 2 + 1/2) / 2.
    """
    text = report(folder)
    assert lines(text, "The method")[0] == ["The method", "4", "81.2 ± 8.8", "75.0 ± 17.7", "74.2 ± 17.7"]
    assert lines(text, "Plain \\| &lt;b>other&lt;/b>")[0][2:4] == ["50.0 ± 0.0", "62.5 ± 17.7"]
    assert lines(text, "mean")[0] == ["mean", "87.5 / 87.5", "75.0 / 62.5", "81.2 / 75.0"]
    assert lines(text, "2")[0] == ["2", "75.0 / 75.0", "66.7 / 50.0", "70.8 / 62.5"]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["row"] == "method" and summary["folds"] == ["1", "2"] and summary["problems"] == []
    assert summary["uar"]["folds"] == pytest.approx([87.5, 75]) and summary["uar"]["mean"] == pytest.approx(81.25)
    assert summary["uar"]["std"] == pytest.approx(12.5 / 2**0.5) and summary["rows"]["twin"]["uar"] == summary["uar"]
    printed = capsys.readouterr().out
    assert "method, seeds 1, 2: test parts" in printed and re.search(r"mean +81.2 +75.0", printed)


def test_pooled_rates_and_the_test_against_the_first_row(folder):
    """Hits of the angry 1, 1/2, 1, 1/2, 0 and of the sad 1, 1, 1: UAR (0.6 + 1) / 2, WAR 6 of 8.

    Of the differences to the other row, -1/6 for A, 1/20 - 1/6 for B, 1/20 for C and 1/10 - 1/6 for D, the sum is -0.3;
    4 of the 16 ways to swap speakers are as far from 0.
    """
    text = report(folder)
    pooled = next(row for row in lines(text, "The method") if len(row) == 7)
    assert (pooled[1], pooled[4]) == ("80.0", "75.0")
    uar, war = (row for row in lines(text, "Plain \\| &lt;b>other&lt;/b>") if len(row) == 8)
    assert (uar[2], uar[6], uar[7], war[2]) == ("−30.0", "0.250", "0.250", "−12.5")
    assert not [row for row in lines(text, "Layer -3") if len(row) == 8]  # the first row under another name
    rows = json.loads((folder / "summary.json").read_text())["rows"]
    assert rows["method"]["uar"]["pooled"] == pytest.approx(80)
    low, high = rows["method"]["uar"]["interval_speakers"]
    assert low < 80 < high
    against = rows["other"]["against_first_row"]
    assert against["uar"]["difference"] == pytest.approx(-30) and against["uar"]["p_holm"] == pytest.approx(0.25)
    assert against["war"]["difference"] == pytest.approx(-12.5) and "against_first_row" not in rows["method"]


def test_confusion_gender_and_speakers(folder):
    """Women: angry 1, 1, 1/2 and sad 1; men: angry 1/2, 0 and sad 1, 1; speaker B: angry 1/2, sad 1."""
    text = report(folder)
    assert lines(text, "angry")[0] == ["angry", "60.0%  (6)", "40.0%  (4)"]
    assert lines(text, "sad")[0] == ["sad", "0.0%  (0)", "100.0%  (6)"]
    women, men = (row for row in lines(text, "The method") if row[1] in ("female", "male"))
    assert women == ["The method", "female", "4", "91.7", "87.5", "83.3", "100.0"]
    assert men == ["The method", "male", "4", "62.5", "62.5", "25.0", "100.0"]
    assert lines(text, "B")[0] == ["B", "male", "2", "75.0", "75.0", "50.0", "100.0"]
    assert lines(text, "C")[0] == ["C", "female", "2", "75.0", "75.0", "75.0", "–"]


def test_calibration_is_by_temperatures_that_the_folds_own_answers_had_no_part_in(folder):
    """Temperatures by scipy, errors by hand in a loop over bins."""
    row = lines(report(folder).split("Are the probabilities right?")[1], "The method")[0]
    answers = {}
    for fold in ("1", "2"):
        for seed in (1, 2):
            for u in json.loads(at(folder, fold=fold, seed=seed).read_text())["utterances"]:
                answers.setdefault(fold, []).append((np.array(u["logits"], float), CLASSES.index(u["truth"])))

    def loss(temperature, fold):
        return -sum(log_softmax(z / temperature)[y] for z, y in answers[fold])

    how = {"method": "bounded", "bounds": (0.05, 100), "options": {"xatol": 1e-6}}
    fitted = {fold: minimize_scalar(loss, args=(other,), **how).x for fold, other in (("1", "2"), ("2", "1"))}
    assert [float(t) for t in row[3].split(" to ")] == pytest.approx(sorted(fitted.values()), abs=0.006)
    for column, temperature in ((1, {"1": 1, "2": 1}), (2, fitted)):
        sure = [(softmax(z / temperature[f]).max(), z.argmax() == y) for f, pairs in answers.items() for z, y in pairs]
        error = 0
        for k in range(15):
            inside = [(p, hit) for p, hit in sure if k / 15 < p <= (k + 1) / 15]
            error += abs(sum(hit - p for p, hit in inside)) / len(sure)
        assert float(row[column]) == pytest.approx(100 * error, abs=0.06)


def test_csv_has_a_line_for_each_row_fold_and_seed(folder):
    at(folder, "other", "2", 2).unlink()
    with pytest.raises(UserError):
        report(folder)
    with open(folder / "report.csv", encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [(r["row"], r["fold"], r["seed"]) for r in table[:5]] == [
        ("method", "1", "1"), ("method", "1", "2"), ("method", "2", "1"), ("method", "2", "2"), ("other", "1", "1"),
    ]  # fmt: skip
    assert len(table) == 12 and table[7]["uar"] == table[7]["result"] == ""
    third = table[2]
    assert (third["uar"], third["war"], third["recall_angry"]) == ("83.3333", "75.0000", "66.6667")
    assert third["utterances"] == "4" and third["result"] == "fold2/seed1/stage3/k4.am_softmax/result.json"


def test_a_rate_can_be_computed_from_the_csv_of_answers_alone(folder):
    """Every answer of the results that count, with the speaker; scikit-learn's balanced accuracy is the UAR."""
    at(folder, "other", "2", 2).unlink()
    with pytest.raises(UserError):
        report(folder)
    with open(folder / "answers.csv", encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert len(table) == 2 * 16 + 12  # the method twice, under both names
    assert list(table[0].values()) == ["method", "1", "1", "A0.wav", "A", "angry", "angry"]
    mine = [r for r in table if (r["row"], r["fold"], r["seed"]) == ("method", "2", "1")]
    uar = balanced_accuracy_score([r["emotion"] for r in mine], [r["recognised"] for r in mine])
    assert 100 * uar == pytest.approx(json.loads(at(folder, fold="2").read_text())["uar"])
    (folder / "data" / "utterances.tsv").unlink()
    with pytest.raises(UserError):
        report(folder)
    assert (folder / "answers.csv").read_text().splitlines()[1] == "method,1,1,A0.wav,,angry,angry"


def test_page_needs_nothing_else_and_says_the_same(folder):
    (folder / "report_pictures").mkdir()
    (folder / "report_pictures" / "old.svg").touch()
    text = report(folder)
    page = (folder / "report.html").read_text()
    for foreign in ("http", "<script", "<link", "@import", "src="):
        assert foreign not in page
    assert "prefers-color-scheme: dark" in page and page.count("<svg") == text.count("](report_pictures/")
    assert "Plain | &lt;b&gt;other&lt;/b&gt;" in page and "<b>other" not in page
    for name in re.findall(r"\]\((.*?)\)", text):
        picture = (folder / name).read_text()
        assert picture.startswith("<svg") and 'xmlns="http://www.w3.org/2000/svg"' in picture
    assert not (folder / "report_pictures" / "old.svg").exists()
    used = set(re.findall(r"href=\"#([\w-]+)\"", page))
    assert used <= set(re.findall(r"id=\"([\w-]+)\"", page))
    numbers = re.findall(r"\d+\.\d", " ".join(re.findall(r"<td[^>]*>(.*?)</td>", page)))
    assert numbers == re.findall(r"\d+\.\d", " ".join(line for line in text.splitlines() if line[:1] == "|"))


def stage_checkpoint(folder, stage, fold, seed, updates):
    path = folder / f"fold{fold}/seed{seed}/{stage}/k4/checkpoint_last.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": {}, "cfg": {"optimization": {"max_update": updates}, "common": {"seed": seed}}}, path)


def no_result(folder):
    at(folder, fold="2", seed=2).unlink()


def no_seed(folder):
    for fold in "12":
        at(folder, fold=fold, seed=2).unlink()


def no_fold(folder):
    for seed in (1, 2):
        at(folder, fold="2", seed=seed).unlink()


def damaged(folder):
    at(folder).write_text(at(folder).read_text()[:99])


def foreign(folder):
    at(folder).write_text('{"uar": 99}')


def of_another_seed(folder):
    shutil.copy(at(folder, seed=2), at(folder))


def of_another_config(folder):
    edit(at(folder), config={"model": {"head": "method", "margin": 0.3, "seed": 1}})


def of_other_ancestors(folder):
    edit(at(folder), provenance=[{"stage": "kmeans", "split": "train"}])


def of_other_classes(folder):
    edit(at(folder), classes=["anger", "sad"])


def of_another_manifest(folder):
    path = at(folder)
    edit(path, utterances=json.loads(path.read_text())["utterances"][:3])


def of_other_labels(folder):
    emotions = folder / "data/fold1/test.emotion"
    emotions.write_text(emotions.read_text().replace("sad", "angry", 1))


def of_an_older_manifest(folder):
    edit(at(folder), manifest_sha256="0")


def of_an_older_checkpoint(folder):
    at(folder).with_name("checkpoint_best.pt").write_text("trained again")


def with_polished_rates(folder):
    edit(at(folder, seed=2), uar=100.0)


def copied(folder):
    source = json.loads(at(folder, seed=2).read_text())
    edit(at(folder), **{key: source[key] for key in source.keys() - {"seed", "checkpoint_sha256"}})


def with_another_stage1(folder):
    for fold, seed in (("1", 1), ("1", 2), ("2", 1), ("2", 2)):
        stage_checkpoint(folder, "stage1", fold, seed, 9 if (fold, seed) == ("1", 1) else 200)


def without_a_majority(folder):
    for seed in (1, 2):
        edit(at(folder, seed=seed), config={"model": {"head": "method", "margin": 0.3, "seed": seed}})


THIS = "fold1/seed1/stage3/k4.am_softmax/result.json does not count: "


@pytest.mark.parametrize(
    "spoil, count, message",
    [
        (no_result, 3, "method: 1 of 4 runs are not finished, seed 2 of fold 2"),
        (no_seed, 2, "method: 2 of 4 runs are not finished, seed 2"),
        (no_fold, 2, "method: 2 of 4 runs are not finished, fold 2"),
        (damaged, 3, THIS + "it cannot be read"),
        (foreign, 3, THIS + "it lacks fold, seed, war,"),
        (of_another_seed, 3, THIS + "it is of seed 2"),
        (of_another_config, 3, "has another config than most runs of fold{fold}/seed{seed}/stage3/k4.am_softmax "
                               "(model.margin is 0.3, not absent)"),
        (of_other_ancestors, 3, '(stages.past is ["kmeans"], not ["am_softmax_classification"])'),
        (of_other_classes, 3, THIS + "its classes are anger, sad, those of the fold angry, sad"),
        (of_another_manifest, 3, THIS + "it is of another manifest than fold1/test.tsv: 3 utterances against 4, B3.wav "
                                        "is in one of them only"),
        (of_other_labels, 2, THIS + "it has A1.wav as sad, fold1/test.tsv as angry"),
        (of_an_older_manifest, 3, THIS + "fold1/test.tsv has changed since"),
        (of_an_older_checkpoint, 3, THIS + "checkpoint_best.pt has changed since: evaluate again"),
        (with_polished_rates, 3, "fold1/seed2/stage3/k4.am_softmax/result.json does not count: its rates do not follow "
                                 "from its predictions"),
        (copied, 2, THIS + "it has the very scores of fold1/seed2/stage3/k4.am_softmax/result.json: one is a copy"),
        (with_another_stage1, 3, THIS + "fold1/seed1/stage1/k4 has another config than most runs of "
                                        "fold{fold}/seed{seed}/stage1/k4 (optimization.max_update is 9, not 200)"),
        (without_a_majority, 0, THIS + "the runs of fold{fold}/seed{seed}/stage3/k4.am_softmax have different configs"),
    ],
)  # fmt: skip
def test_bad_results_are_named_and_in_no_mean(folder, capsys, spoil, count, message):
    spoil(folder)
    with pytest.raises(UserError, match=r"problems with the results, named above"):
        report(folder)
    printed, text = capsys.readouterr().out, (folder / "report.md").read_text()
    assert message in printed and message in text.split("## Results")[0]
    assert f"**Not complete: {sum(len(r.results) for r in read_experiment(folder).rows.values()) - count} of 8" in text
    row = next(row for row in lines(text, f"The method ({count} of 4 runs)") if len(row) == 5)
    assert row[1:] == [f"{count} of 4", "–", "–", "–"]
    assert json.loads((folder / "summary.json").read_text())["uar"]["mean"] is None
    assert not [row for row in lines(text, "Plain \\| &lt;b>other&lt;/b>") if len(row) == 8]  # nothing to test against


def test_a_partial_mean_is_given_on_request_and_marked(folder, capsys):
    no_result(folder)
    text = report(folder, "--allow-partial")
    name = "The method (3 of 4 runs)"
    assert lines(text, name)[0][1:4] == ["3 of 4", "85.4 ± 2.9", "81.2 ± 8.8"]  # folds 87.5 and 83.3, 87.5 and 75
    assert "missing: method: 1 of 4 runs" in capsys.readouterr().out
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["missing_runs"] == 1 and summary["uar"]["folds"] == pytest.approx([87.5, 250 / 3])
    uar = next(row for row in lines(text, "Plain \\| &lt;b>other&lt;/b>") if len(row) == 8)
    assert uar[1] == "3"  # compared on the runs that both have


def test_wrong_results_are_an_error_even_so(folder):
    damaged(folder)
    with pytest.raises(UserError, match="2 problems|1 problems"):
        report(folder, "--allow-partial")


def test_nothing_finished_is_a_report_too(folder):
    for path in folder.glob("fold*/seed*"):
        shutil.rmtree(path)
    with pytest.raises(UserError):
        report(folder)
    text = (folder / "report.md").read_text()
    assert "method: none of the 4 runs is finished" in text and "0 of 8 results count" in text


def test_results_that_are_not_asked_for_are_noted(folder):
    shutil.copytree(folder / "fold1/seed1", folder / "fold1/seed9")
    assert "2 results on disk are not part of the experiment" in report(folder)


def test_checkpoints_may_be_gone(folder):
    for path in folder.rglob("*.pt"):
        path.unlink()
    assert "**Complete:** 3 rows, 2 folds, seeds 1, 2; all 8 results" in report(folder)


def test_the_audits_verdict_stands_at_the_top(folder):
    assert "**No audit was run**" in report(folder).split("## Results")[0]
    leak = Leak("1", "kmeans", "train", "has read the test part", ("A0.wav",), ("A",), ("fold1/km",))
    seen = Seen("1", "kmeans", "train", 2, 4, 2, 99)
    for audit, expected, good in (
        (Audit("exp", ["1", "2"], seen=[seen], notes=["no sound"]), "**Leak audit:** clean: no recording", True),
        (Audit("exp", leaks=[leak]), "**Leak audit:** NOT CLEAN: 1 leaks", False),
        (Audit("exp", unauditable=["fold2/km: no header"]), "fold2/km: no header", False),
    ):
        audit.write(folder / "audit.json")
        top = report(folder).split("## Results")[0]
        assert expected in top and ("Do not believe these figures" in top) != good
        assert (folder / "report.html").read_text().count('<div class="box good">') == 1 + good
        assert lines(top.replace("> ", ""), "1") == ([["1", "kmeans", "train", "2", "4", "2", "99"]] if good else [])
        assert all(leak.message in top for leak in audit.leaks)
    os.utime(folder / "audit.json", (0, 0))
    assert "results that are newer than the audit" in report(folder)
    (folder / "audit.json").write_text("[]")
    assert "**The audit cannot be read:**" in report(folder)


def test_the_papers_figures_stand_beside_its_own_corpus_alone(folder, monkeypatch):
    assert "82.0" not in report(folder)
    plan = json.loads((folder / "experiment.json").read_text())
    (folder / "experiment.json").write_text(json.dumps({**plan, "corpus": "iemocap"}))
    text = report(folder)  # a corpus in IEMOCAP's shape, as the generated one
    assert "82.0" not in text and "figures are of the complete IEMOCAP" in text
    monkeypatch.setattr(rates, "KNOWN_CLASSES", {"1": {"angry": 5, "sad": 3}})
    text = report(folder)
    assert "paper, IEMOCAP: UAR %" in text and "not ours" in text
    assert lines(text, "The method")[0][5:] == ["82.0", "80.0"]


def test_speakers_that_are_not_known_are_said_to_be(folder):
    (folder / "data/utterances.tsv").unlink()
    text = report(folder)
    assert "nothing is known of speakers and genders" in text
    assert next(row for row in lines(text, "The method") if len(row) == 7)[3] == "–"


def test_learning_curves_of_restarts_and_their_mean(tmp_path):
    for steps, shift in (((1, 2, 3), 0), ((3, 4), 10)):
        with SummaryWriter(str(tmp_path / "tensorboard" / "valid")) as writer:
            for step in steps:
                writer.add_scalar("uar", step + shift, step, walltime=shift + step)
                writer.add_scalar("wps", 1, step)
    (curve,) = read_curves(tmp_path).values()
    assert curve.updates.tolist() == [1, 2, 3, 4] and curve.values.tolist() == [1, 2, 13, 14]
    assert read_curves(tmp_path / "nowhere") == {}
    mean = mean_curve([Curve(np.array([0, 2, 4]), np.array([0.0, 2, 4])), Curve(np.array([1, 3, 4]), np.zeros(3))])
    assert mean.updates.tolist() == [1, 2, 3, 4] and mean.values.tolist() == [0.5, 1, 1.5, 2]


def test_stages_are_shown_where_they_left_something(folder, labelled_fold):
    """Curves, labels, time, configs of stage 1, and embeddings of stage 3."""
    for fold, seed in (("2", 1), ("2", 2)):
        stage = folder / f"fold{fold}/seed{seed}/stage1/k4"
        with SummaryWriter(str(stage / "tensorboard" / "valid")) as writer:
            writer.add_scalar("uar", 50, 1)
            writer.add_scalar("uar", 60, 2)
        stage_checkpoint(folder, "stage1", fold, seed, 200)
        (stage / "time.tsv").write_text(f"s\th:m:s\tmax_rss\tcpu_time\n{60 * seed}\t0:01:00\t2048\t-\n")
    labels = folder / "fold1/seed1/labels/k4"
    labels.mkdir(parents=True)
    for name in ("train.4.km", "dict.4.km.txt"):
        shutil.copy(labelled_fold / name, labels / name)
    for name in ("train.tsv", "train.emotion", "train.gender", "dict.emotion.txt", "dict.gender.txt"):
        (folder / "data/fold1" / name).write_text((labelled_fold / name).read_text())
    write_km_dictionary(labels / "dict.4.km.txt", 4)
    for seed in (1, 2):  # the fold has other classes now: its results would not count
        shutil.rmtree(folder / f"fold1/seed{seed}/stage3")
    result = json.loads(at(folder, fold="2").read_text())
    arrays = {"after": np.random.default_rng(0).normal(size=(4, 3)), "emotion": ["angry", "angry", "sad", "angry"]}
    for path, sha in ((at(folder, fold="2"), result["checkpoint_sha256"]), (at(folder, fold="2", seed=2), "stale")):
        np.savez(path.with_name("embeddings.npz"), paths=list("abcd"), checkpoint_sha256=sha, **arrays)

    text = report_of_a_part(folder)
    assert "Stage 1, `k4`, 2 runs" in text and "curves_stage1_k4.svg" in text
    assert lines(text, "stage 1") == [["stage 1", "k4", "2", "90 s", "60 s to 2.0 min", "–", "2.00 GB"]]
    data = LabelSet.read(folder / "data/fold1/train.tsv", labels)
    found = agreement(data.labels[4].values, data.classes["emotion"][0], data.manifest.n_frames())
    assert ["emotion", "4", f"{found.purity:.1%}"] == lines(text, "emotion")[0][:3]
    assert "embeddings_fold2.svg" in text
    assert "optimization.max_update: 200" in text and "cpu abacus, cores 2" in text


def report_of_a_part(folder):
    with pytest.raises(UserError):
        report(folder)
    return (folder / "report.md").read_text()


def test_a_folder_without_experiment_and_an_existing_report_are_user_errors(folder):
    with pytest.raises(UserError, match=r"experiment.json is no experiment"):
        tool("report")([str(folder / "data")])
    report(folder)
    with pytest.raises(UserError, match="report.html exists already"):
        tool("report")([str(folder)])
    tool("report")([str(folder), "--out", str(folder / "new")])
    assert (folder / "new" / "report.html").is_file()


def test_pictures_keep_their_texts_and_take_the_pages_colours():
    figure = new_figure(2)
    axes = figure.subplots()
    axes.plot([0.001, 0.0012], [1, 2], color="black")
    axes.set_title("0.12345 of <all>")
    page, (text, pictures) = (
        html_page("T", [Picture("a", figure, 'say "it"')]),
        markdown_page("T", [Picture("a", figure, "it")], "pictures"),
    )
    for picture in (page.split("<body>")[1], pictures["a.svg"]):
        assert "0.12345 of &lt;all&gt;" in picture and "0.00100" in picture
        assert "stroke: var(--ink)" in picture and "#000000" not in picture.split("</style>")[-1]
        assert not re.search(r'[ "(]\d+\.\d{3,}[^<]*>', picture)
    assert 'aria-label="say &quot;it&quot;"' in page and "![it](pictures/a.svg)" in text
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', page))
    assert used == set(re.findall(r'id="([^"]+)"', page))


def test_blocks_become_html_and_markdown():
    blocks = [
        Heading("A & B"), Text("see `a<b` and **this**"), Bullets(["one <i>"]), Code("x < y"),
        Table(["", "n %"], [["r|s", "1"], ["t", "2"]], bold=(1,), soft=(1,), shades=[[None, 0.5], [None, None]]),
        Details("more", [Text("inside")]), Box("bad", [Text("careful")]),
    ]  # fmt: skip
    page = html_page("T", blocks)
    for part in (
        '<h2 id="a-b">A &amp; B</h2>', '<a href="#a-b">', "<code>a&lt;b</code> and <strong>this</strong>",
        "<li>one &lt;i&gt;</li>", "<pre>x &lt; y</pre>", '<td class=shade style="--share:0.50">1</td>',
        "<tr class=best><td>t</td><td class=soft>2</td></tr>", "n&nbsp;%", '<div class="box bad"><p>careful</p>',
        "<details><summary>more</summary>\n<p>inside</p>",
    ):  # fmt: skip
        assert part in page
    text, pictures = markdown_page("T", blocks, "pictures")
    assert pictures == {}
    for part in ("# T\n\n## A & B", "- one &lt;i>", "| r\\|s | 1 |", "| **t** | 2 |", "> careful", "```\nx < y\n```"):
        assert part in text
