"""The leak audit on small experiments, clean ones and with a leak of every kind planted."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from conftest import tool
from experiment_files import STAGES, ExperimentFiles, save_checkpoint, wave, write_corpus, write_folds, write_label_set

from gmp_plugin import provenance
from gmp_plugin.audit import Audit
from gmp_plugin.corpora.folds import Fold
from gmp_plugin.errors import UserError
from gmp_plugin.experiment import Experiment
from gmp_plugin.manifest import Manifest, UtteranceTable

STAGE1 = "fold1/seed1/stage1/multitask/checkpoint_best.pt"
KMEANS = "fold1/seed1/labels/multitask.layer-3/kmeans.safetensors"
LABELS = "fold1/seed1/labels/multitask.layer-3"
STAGE2 = "fold1/seed1/stage2/multitask.masked/checkpoint_last.pt"
STAGE3 = "fold1/seed1/stage3/multitask.am_softmax/checkpoint_best.pt"
GEMO_CLAP = "fold1/seed1/stage3/original.gemo_clap_fine_tuning/checkpoint_best.pt"
RESULT = "fold1/seed1/stage3/multitask.am_softmax/result.json"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def exp(corpus, tmp_path):
    """An experiment with its corpus, and no artefacts yet."""
    data = tmp_path / "exp" / "data"
    shutil.copytree(corpus, data)
    for file in data.rglob("*.tsv"):
        file.write_text(file.read_text().replace(str(corpus), str(data), 1))
    return ExperimentFiles(tmp_path / "exp")


@pytest.fixture
def run_audit(capsys):
    """Function (folder, *options): exit status, messages on standard output and error, and the audit."""

    def run(folder, *options):
        try:
            tool("audit_leakage")([str(folder), "--show", "1000", *options])
            status = 0
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        err = [line for line in err.splitlines() if line.startswith(("leak", "cannot"))]  # no progress bars
        return SimpleNamespace(status=status, out=out, err=err, audit=Audit.read(folder / "audit.json"))

    return run


def edit(path, change):
    """Apply a function to a JSON file's content."""
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def write_plan(folder, checkpoint, *variants):
    """The workflow's plan: a row for each variant of stage 3, of the folds 1 and 2."""
    rows = {
        f"row {i}": {**dict.fromkeys(("stage1", "labels", "stage2")), "stage3": f"fold{{fold}}/seed{{seed}}/stage3/{v}"}
        for i, v in enumerate(variants)
    }
    Experiment("exp", "csv", "corpus", checkpoint, "nano", [2, 4], [1], ["1", "2"], rows).write(folder)


def test_a_clean_experiment_passes(exp, run_audit):
    for fold in (1, 2, 3):
        exp.write_fold(fold)
    done = run_audit(exp.folder)
    assert (done.status, done.err, done.audit.verdict) == (0, [], "clean")
    assert done.audit.artefacts == {"checkpoints": 9, "k-means files": 3, "label sets": 3, "results": 3}
    assert done.audit.compared == 48 and "48 recordings compared" in done.audit.statement
    assert done.audit.absent == []

    rows = {(s.fold, s.stage, s.split): s for s in done.audit.seen}
    train = exp.manifest(1, "train")
    assert rows["1", "am_softmax_classification", "train"].recordings == len(train)
    assert rows["1", "kmeans", "train"].n_frames == 99
    assert rows["1", "kmeans", "train"].speakers == len({path[:2] for path in train.paths}) == 4
    assert rows["1", "kmeans", "train"].artefacts == 5  # k-means, labels, stage 2, stage 3, result
    assert (rows["1", "evaluation", "test"].recordings, rows["1", "evaluation", "test"].speakers) == (16, 2)
    order = ["multitask_emotion_gender", "kmeans", "labels", "multiscale_label_pretraining"]
    assert list(dict.fromkeys(s.stage for s in done.audit.seen if s.fold == "1"))[:4] == order
    assert f"   1  kmeans                       train           5{len(train):11}        4        99" in done.out

    again = run_audit(exp.folder)  # over its own file, and with the sounds of the first time
    assert again.audit == done.audit
    with pytest.raises(UserError, match="other.json exists already"):
        shutil.copy(exp.folder / "audit.json", exp.folder / "other.json")
        run_audit(exp.folder, "--out", str(exp.folder / "other.json"))
    run_audit(exp.folder, "--out", str(exp.folder / "other.json"), "--force")


@pytest.mark.parametrize(
    "parts, origin, heirs, message",
    [
        ("stage1_train", STAGE1, 5, "stage multitask_emotion_gender, split train: 1 recording of the test part"),
        ("stage1_valid", STAGE1, 5, "stage multitask_emotion_gender, split valid: 1 recording of the test part"),
        ("kmeans", KMEANS, 4, "stage kmeans, split train: 1 recording of the test part"),
        ("labels_train", LABELS, 0, "stage labels, split train: 1 recording of the test part"),
        ("labels_valid", LABELS, 0, "stage labels, split valid: 1 recording of the test part"),
        ("stage2_train", STAGE2, 2, "stage multiscale_label_pretraining, split train: 1 recording of the test part"),
        ("stage2_valid", STAGE2, 2, "stage multiscale_label_pretraining, split valid: 1 recording of the test part"),
        ("stage3_train", STAGE3, 1, "stage am_softmax_classification, split train: 1 recording of the test part"),
        ("stage3_valid", STAGE3, 1, "stage am_softmax_classification, split valid: 1 recording of the test part"),
    ],
)
def test_a_test_recording_anywhere_is_named(exp, run_audit, parts, origin, heirs, message):
    split = parts.partition("_")[2] or "train"
    exp.write_fold(1, **{parts: exp.add(1, split, "1F/3.wav")})
    done = run_audit(exp.folder)
    assert (done.status, done.audit.verdict) == (1, "leaks")
    inherited = f" and {heirs} more that inherit it" if heirs else ""
    assert done.err == [f"leak: {origin}{inherited}: fold 1, {message}: 1F/3.wav (speaker 1F)"]
    assert len(done.audit.leaks[0].artefacts) == heirs + 1
    assert done.audit.leaks[0].recordings == ("1F/3.wav",)


FLESA_ADAPTED = "fold1/seed1/stage3/original.layer0.75.k500.flesa_fine_tuning/checkpoint_best.pt"
FLESA_LABELS = "flesa_adapted.layer0.75.k50"


def write_sisters(exp, flesa, gemo_clap):
    """What the rows of FLESA and GEmo-CLAP leave in fold 1, whose first fine-tunings have read these manifests."""

    def both(stage, train):
        valid = exp.manifest(1, "valid")
        return [provenance.entry(STAGES[stage], *part) for part in (("valid", valid), ("train", train))]

    run, train = exp.run(1), exp.manifest(1, "train")
    adapted = both("stage3", flesa)
    save_checkpoint(exp.folder / FLESA_ADAPTED, "stage3", adapted)
    labels = [*adapted, provenance.entry("kmeans", "train", train, n_frames=99)]
    exp.write_labels(1, labels, variant=FLESA_LABELS)
    save_checkpoint(run / f"stage2/{FLESA_LABELS}/checkpoint_last.pt", "stage2", [*labels, *both("stage2", train)])
    contrast = both("gemo_clap", gemo_clap)
    best = save_checkpoint(exp.folder / GEMO_CLAP, "gemo_clap", contrast)
    exp.write_result(1, best, contrast, exp.manifest(1, "test"))


def test_flesa_and_gemo_clap_are_read(exp, run_audit):
    train = exp.manifest(1, "train")
    write_sisters(exp, train, train)
    done = run_audit(exp.folder)
    assert (done.status, done.err) == (0, [])
    assert done.audit.artefacts == {"checkpoints": 3, "k-means files": 1, "label sets": 1, "results": 1}
    seen = {(s.stage, s.split): s.recordings for s in done.audit.seen}
    assert seen["gemo_clap", "train"] == seen["am_softmax_classification", "train"] == len(train)

    leaking = exp.add(1, "train", "1F/3.wav")
    write_sisters(exp, leaking, leaking)
    done = run_audit(exp.folder)
    what = "split train: 1 recording of the test part: 1F/3.wav (speaker 1F)"
    assert done.status == 1 and set(done.err) == {
        f"leak: {FLESA_ADAPTED} and 3 more that inherit it: fold 1, stage am_softmax_classification, {what}",
        f"leak: {GEMO_CLAP} and 1 more that inherit it: fold 1, stage gemo_clap, {what}",
    }


@pytest.mark.parametrize("part, origin", [("stage1_train", STAGE1), ("kmeans", KMEANS), ("labels_train", LABELS)])
def test_the_validation_part_must_not_train(exp, run_audit, part, origin):
    name = exp.manifest(1, "valid").paths[0]
    exp.write_fold(1, **{part: exp.add(1, "train", name)})
    done = run_audit(exp.folder)
    assert done.status == 1 and len(done.err) == 1
    assert done.err[0].startswith(f"leak: {origin}")
    assert done.err[0].endswith(f"split train: 1 recording of the validation part: {name} (speaker {name[:2]})")


def test_kmeans_must_not_be_fitted_on_the_validation_part(exp, run_audit):
    exp.write_fold(1)
    one = torch.load(exp.folder / STAGE1, weights_only=True)["task_state"]["provenance"]
    valid = exp.manifest(1, "valid")
    exp.write_labels(1, [*one, provenance.entry("kmeans", "valid", valid)])
    done = run_audit(exp.folder)
    assert (
        f"split valid: {len(valid)} recordings of the validation part: {', '.join(valid.paths[:3])} and" in done.err[0]
    )


def test_a_test_recording_in_a_manifest(exp, run_audit):
    exp.add(1, "train", "1F/3.wav").write(exp.folder / "data/fold1/train.tsv")
    done = run_audit(exp.folder)
    file = exp.folder / "data/fold1/train.tsv"
    message = "fold 1, stage manifest, split train: 1 recording of the test part: 1F/3.wav (speaker 1F)"
    assert done.err == [f"leak: {file}: {message}"]


def test_a_test_recording_that_was_moved_to_another_part(exp, run_audit):
    """It is in no test part then, but its speaker is."""
    exp.add(1, "valid", "1F/3.wav").write(exp.folder / "data/fold1/valid.tsv")
    test = exp.folder / "data/fold1/test.tsv"
    test.write_text(test.read_text().replace("1F/3.wav\t3200\n", ""))
    err = run_audit(exp.folder).err
    assert "valid.tsv: fold 1, stage manifest, split valid: a speaker of the test part in 1 other recording" in err[0]
    assert err[0].endswith(": 1F/3.wav (speaker 1F)")
    assert "split test: in no fold's test part: 1F/3.wav (speaker 1F)" in err[1]
    assert len(err) == 2


def test_a_speaker_in_both_parts(exp, run_audit):
    """Folds as a random division of recordings makes them."""
    table = UtteranceTable.read(exp.folder / "data/utterances.tsv").utterances
    folds = [
        Fold(
            (str(k),), *(tuple(i for i in range(48) if (i + k) % 3 in part and i % 7 in rest)
            for part, rest in (((0, 1), range(5)), ((0, 1), (5, 6)), ((2,), range(7))))
        )
        for k in range(3)
    ]  # fmt: skip
    write_folds(exp.folder / "data", table, folds)
    for fold in (1, 2, 3):
        exp.write_fold(fold)
    done = run_audit(exp.folder)
    assert done.status == 1
    assert all("a speaker of the test part in" in line for line in done.err)
    speakers = {(leak.fold, leak.stage, leak.split, *leak.speakers) for leak in done.audit.leaks}
    everyone = {"1F", "1M", "2F", "2M", "3F", "3M"}
    for stage in ("manifest", "multitask_emotion_gender", "kmeans", "labels", "am_softmax_classification"):
        assert {s for fold, at, split, s in speakers if (fold, at, split) == ("2", stage, "train")} == everyone


def test_folds_that_are_not_a_division_of_the_corpus(exp, run_audit):
    exp.add(2, "test", "1F/3.wav").write(exp.folder / "data/fold2/test.tsv")
    train = exp.folder / "data/fold2/train.tsv"
    train.write_text("".join(line for line in train.read_text().splitlines(True) if "1F" not in line))
    valid = exp.folder / "data/fold2/valid.tsv"
    valid.write_text("".join(line for line in valid.read_text().splitlines(True) if "1F" not in line))
    err = run_audit(exp.folder).err
    assert (
        "fold 2, stage manifest, split test: the test part has speakers 1F, 2F, 2M, but is said to hold out" in err[0]
    )
    assert "fold 1, 2, stage manifest, split test: in the test parts of several folds: 1F/3.wav (speaker 1F)" in err[1]
    assert len(err) == 2


ONE = wave(100, 4000)
COPIES = {
    "wav": (ONE, ".wav", "identical samples"),
    "flac of 24 bits": (ONE, ".flac", "identical samples"),
    "padded with silence": (np.concatenate([np.zeros(777), ONE, np.zeros(1600)]), ".flac", "identical samples"),
    "trimmed": (ONE[200:], ".wav", "a changed copy"),
    "quieter": (0.3 * ONE, ".wav", "a changed copy"),
    "other polarity and offset": (0.01 - ONE, ".flac", "a changed copy"),
}


@pytest.mark.parametrize("copy, suffix, how", COPIES.values(), ids=COPIES)
def test_one_recording_under_two_names(tmp_path, run_audit, copy, suffix, how):
    """1F/0 and its copy 2M/4 are on different sides in the folds 1 and 2, and on the same in fold 3."""
    write_corpus(tmp_path / "data", {"1F/0.wav": ONE, "2M/4.wav": copy}, {"2M/4.wav": suffix})
    done = run_audit(tmp_path)
    assert done.status == 1 and len(done.err) == 2
    for line, fold, names in zip(done.err, (1, 2), (f"2M/4{suffix}, 1F/0.wav", f"1F/0.wav, 2M/4{suffix}"), strict=True):
        assert f"fold {fold}, stage manifest" in line and f"the same recording ({how}" in line
        assert line.endswith(f"by another name, in the test part: {names} (speakers 1F, 2M)")
    without = run_audit(tmp_path, "--no-sound")
    assert (without.status, without.audit.compared) == (0, None)
    assert "recordings were not compared by sound" in without.out


def test_one_recording_twice_on_the_same_side_is_a_note(tmp_path, run_audit):
    write_corpus(tmp_path / "data", {"1F/0.wav": ONE, "1F/1.wav": ONE, "3M/0.wav": 0 * ONE, "2F/0.wav": 0 * ONE})
    done = run_audit(tmp_path)
    assert done.status == 0
    assert done.audit.notes[0].startswith(
        "1F/0.wav and 1F/1.wav are the same recording (identical samples), on one side"
    )
    assert len([note for note in done.audit.notes if "same recording" in note]) == 1  # silence is none


def test_labels_of_the_test_part(exp, run_audit):
    exp.write_fold(1)
    write_label_set(exp.folder / LABELS, exp.manifest(1, "test"))
    done = run_audit(exp.folder)
    assert [line.split(":")[:2] for line in done.err][0] == ["leak", f" {LABELS}"]
    assert (
        "stage labels, split test: 16 recordings of the test part: 1F/0.wav, 1F/1.wav, 1F/2.wav and 13" in done.err[0]
    )

    (exp.folder / LABELS / "test.labels.json").unlink()  # as other tools leave them
    err = run_audit(exp.folder).err
    assert "split test: labels of the test part (16 recordings) lie among those of training: 1F/0.wav" in err[0]


def test_label_sets_without_a_record_are_compared_line_by_line(exp, run_audit):
    exp.write_fold(1)
    folder = exp.folder / LABELS
    for split in ("train", "valid"):
        (folder / f"{split}.labels.json").unlink()
    assert run_audit(exp.folder).status == 0
    n = len(exp.manifest(1, "train"))
    lines = (folder / "train.4.km").read_text().splitlines(True)
    (folder / "train.4.km").write_text("".join([*lines, "0 1 2\n"]))
    (folder / "valid.2.km").write_text((folder / "valid.2.km").read_text().replace(" ", " 0 ", 1))
    (folder / "all.km").write_text("0\n")
    err = run_audit(exp.folder).err
    assert err[0] == f"cannot be audited: {LABELS}: nothing says which recordings all.*.km are of"
    assert f"train.4.km has {n + 1} lines, but" in err[1]
    assert "valid.2.km, line 1: 10 labels, but" in err[2] and "has 9 frames; they are of other" in err[2]


def test_labels_that_were_changed_after_they_were_written(exp, run_audit):
    exp.write_fold(1)
    (exp.folder / LABELS / "train.4.km").write_text("0\n")
    done = run_audit(exp.folder)
    assert done.audit.verdict == "cannot be audited" and done.status == 1
    assert "train.4.km is gone or was changed since train.labels.json was written" in done.err[0]


def test_labels_of_other_centroids_than_the_folder_says(exp, run_audit):
    """What they have seen is then not what its provenance says."""
    exp.write_fold(1)
    folder = exp.folder / LABELS
    origin = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps([*origin[:-1], {**origin[-1], "centroids": "one"}]))
    for split, centroids in (("train", "one"), ("valid", "another")):
        record = json.loads((folder / f"{split}.labels.json").read_text())
        (folder / f"{split}.labels.json").write_text(json.dumps({**record, "centroids": centroids}))
    done = run_audit(exp.folder)
    assert done.audit.verdict == "cannot be audited" and done.status == 1
    assert "the labels of valid are of other centroids than provenance.json says" in done.err[0]


def test_a_stale_result(exp, run_audit):
    exp.write_fold(1)
    entries = torch.load(exp.folder / STAGE3, weights_only=True)["task_state"]["provenance"]
    save_checkpoint(exp.folder / STAGE3, "stage3", entries, "trained again")
    done = run_audit(exp.folder)
    assert len(done.err) == 1
    assert done.err[0].startswith(f"leak: {RESULT}: fold 1, stage evaluation: stale result: its checkpoint")
    (exp.folder / STAGE3).unlink()
    done = run_audit(exp.folder)
    assert done.audit.verdict == "cannot be audited"
    assert "is not there any more" in done.err[0]


def test_a_result_of_something_else_than_its_test_part(exp, run_audit):
    exp.write_fold(1, result=exp.manifest(2, "test"))
    edit(exp.folder / RESULT, lambda result: {**result, "fold": "2"})
    err = run_audit(exp.folder).err
    assert "the result says that it is of fold 2" in err[0]
    assert "evaluated on 16 recordings outside of the test part: 2F/0.wav" in err[1]
    assert "the result leaves out 16 of 16 recordings of the test part: 1F/0.wav" in err[2]
    assert len(err) == 3


def test_a_checkpoint_of_another_fold(exp, run_audit):
    """Its whole training part but for session 3 and the validation part is the fold's test part."""
    exp.write_fold(1)
    exp.write_fold(2)
    shutil.copy(exp.folder / STAGE1.replace("fold1", "fold2"), exp.folder / STAGE1)
    done = run_audit(exp.folder)
    n = sum(path.startswith("1") for path in exp.manifest(2, "train").paths)
    assert done.status == 1
    assert any(f"{STAGE1}: fold 1, stage multitask_emotion_gender, split train: {n} recordings" in e for e in done.err)


@pytest.mark.parametrize("artefact", [STAGE1, KMEANS, LABELS, RESULT])
def test_artefacts_without_provenance_cannot_be_audited(exp, run_audit, artefact):
    exp.write_fold(1)
    if artefact == STAGE1:
        save_checkpoint(exp.folder / STAGE1, "stage1", None)
    elif artefact == KMEANS:
        exp.write_labels(1, [])
    elif artefact == LABELS:
        (exp.folder / LABELS / "provenance.json").unlink()
        for split in ("train", "valid"):
            (exp.folder / LABELS / f"{split}.labels.json").unlink()
    else:
        edit(exp.folder / RESULT, lambda result: {**result, "provenance": []})
    done = run_audit(exp.folder)
    assert done.status == 1
    assert f"cannot be audited: {artefact}: it carries no provenance" in done.err


def test_an_artefact_that_does_not_speak_of_its_own_training(exp, run_audit):
    exp.write_fold(1)
    entries = torch.load(exp.folder / STAGE3, weights_only=True)["task_state"]["provenance"]
    save_checkpoint(exp.folder / STAGE3, "stage3", entries[:-2])
    err = run_audit(exp.folder).err
    message = "its provenance lacks its own entry, of stage am_softmax_classification, split train"
    assert f"cannot be audited: {STAGE3}: {message}" in err


def test_weights_that_came_past_the_record(exp, run_audit):
    """fairseq took them up by another setting than the one that carries on what they have seen."""
    exp.write_fold(1)
    state = torch.load(exp.folder / STAGE3, weights_only=True)
    state["cfg"]["checkpoint"] = {"finetune_from_model": "fold2/best.pt", "restore_file": "checkpoint_last.pt"}
    torch.save(state, exp.folder / STAGE3)
    err = run_audit(exp.folder).err
    message = "it started by checkpoint.finetune_from_model=fold2/best.pt, and what those weights have seen"
    assert f"cannot be audited: {STAGE3}: {message} is not known" in err


def test_artefacts_that_cannot_be_read(exp, run_audit):
    exp.write_fold(1)
    exp.write_fold(2)
    (exp.folder / STAGE1).write_bytes((exp.folder / STAGE1).read_bytes()[:500])
    (exp.folder / KMEANS).write_bytes(b"no tensors")
    (exp.folder / RESULT).write_text('{"uar": ')
    (exp.folder / LABELS / "provenance.json").write_text('[{"stage": "kmeans"}]')
    torch.save({"model": {}, "run": print}, exp.folder / "fold2/evil.pt")
    safetensors.torch.save_file({"x": torch.zeros(3)}, exp.folder / "model.safetensors")
    (exp.folder / "provenance.json").write_text("[")
    err = run_audit(exp.folder).err
    assert len(err) == 6 and all(line.startswith("cannot be audited") for line in err)
    for part in (
        f"{STAGE1}: checkpoint {exp.folder / STAGE1} is damaged", f"{KMEANS}: {exp.folder / KMEANS} is no k-means file",
        f"{RESULT}: {exp.folder / RESULT} is damaged", "the provenance is no list of entries with stage, split",
        "fold2/evil.pt: checkpoint", "write model.safetensors again (convert_hubert.py, gmp-ser export)",
    ):  # fmt: skip
        assert sum(part in line for line in err) == 1, part


def test_recordings_that_no_table_knows(exp, run_audit):
    exp.write_fold(1, stage2_train=exp.add(1, "train", "unknown.wav"))
    done = run_audit(exp.folder)
    table = exp.folder / "data/utterances.tsv"
    assert done.err == [
        f"cannot be audited: {STAGE2} and 2 more that inherit it: stage multiscale_label_pretraining, split train, "
        f"has read unknown.wav, which {table} does not know"
    ]
    manifest = exp.folder / "data/fold1/train.tsv"
    manifest.write_text(manifest.read_text() + "unknown.wav\t3200\n")
    assert any(f"{manifest}: unknown.wav: no recording of {table}" in line for line in run_audit(exp.folder).err)


def test_recordings_that_cannot_be_heard(exp, run_audit):
    (exp.folder / "data/audio/2F/5.wav").unlink()
    done = run_audit(exp.folder)
    assert done.audit.compared == 47
    assert "utterances.tsv, line 24: " in done.err[0] and "2F/5.wav cannot be read" in done.err[0]


@pytest.fixture
def elsewhere(exp, tmp_path):
    """Function (rename, fold=1): another place that holds the corpus's audio, under other file names."""

    def copy(rename=lambda path: path):
        for path in (exp.folder / "data/audio").rglob("*.wav"):
            target = tmp_path / "elsewhere" / rename(str(path.relative_to(exp.folder / "data/audio")))
            target.parent.mkdir(parents=True, exist_ok=True)
            samples, rate = soundfile.read(path)
            soundfile.write(target, samples, rate, format="FLAC")
        return tmp_path / "elsewhere"

    return copy


@pytest.mark.parametrize("there", [True, False], ids=["there", "gone"])
@pytest.mark.parametrize("old", [True, False], ids=["old", "new"])
def test_the_corpus_may_have_lain_elsewhere(exp, elsewhere, run_audit, there, old):
    """In a cache of resampled audio, say; early provenances did not say where."""
    root = elsewhere(lambda path: f"{path}.flac")
    parts = {}
    for part, split in (("stage1_train", "train"), ("kmeans", "train"), ("stage3_valid", "valid")):
        m = exp.manifest(1, split)
        parts[part] = Manifest(str(root), tuple(f"{path}.flac" for path in m.paths), m.n_samples, m.file)
    leaky = Manifest(str(root), (*parts["kmeans"].paths, "1M/6.wav.flac"), (3200,) * 99)
    exp.write_fold(1, **parts)
    if old:
        for path in (exp.folder / STAGE1, exp.folder / STAGE2):
            state = torch.load(path, weights_only=True)
            for e in state["task_state"]["provenance"]:
                e.pop("root")
                e["utterances"] = [path.removesuffix(".flac") for path in e["utterances"]]
            torch.save(state, path)
    if not there:
        shutil.rmtree(root)
    assert run_audit(exp.folder).err == []
    exp.write_fold(1, **{**parts, "kmeans": leaky})
    assert "split train: 1 recording of the test part: 1M/6.wav (speaker 1M)" in run_audit(exp.folder).err[0]


def test_a_recording_under_another_name_elsewhere_is_heard(exp, elsewhere, run_audit):
    root = elsewhere(lambda path: path.replace("/", "_").replace(".wav", "-x.flac"))
    m = exp.manifest(1, "train")
    names = [path.replace("/", "_").replace(".wav", "-x.flac") for path in (*m.paths, "1M/6.wav")]
    exp.write_fold(1, kmeans=Manifest(str(root), tuple(names), (3200,) * len(names), m.file))
    err = run_audit(exp.folder).err
    assert len(err) == 1 and "stage kmeans, split train: 1 recording of the test part: 1M/6.wav (speaker 1M)" in err[0]
    assert run_audit(exp.folder, "--no-sound").audit.verdict == "cannot be audited"


@pytest.fixture
def pretrained(exp, tmp_path, stock_checkpoint):
    """Function (entries, named=True): start fold 1 from a HuBERT with this provenance; what it is called."""

    def start(entries, named=True):
        _, path = stock_checkpoint(tmp_path / "hubert.pt")
        state = torch.load(path, weights_only=False)
        state["task_state"]["provenance"] = entries
        torch.save(state, path)
        exp.write_fold(1)
        own = torch.load(exp.folder / STAGE1, weights_only=True)["task_state"]["provenance"]
        save_checkpoint(exp.folder / STAGE1, "stage1", [*entries, *own], str(path))
        if named:
            write_plan(exp.folder, str(path))
        return str(path)

    return start


def test_pretraining_on_another_corpus(exp, tmp_path, pretrained, run_audit):
    """Whose files may even be called the same: they sound different."""
    for name, seed in (("1F/0.wav", 900), ("61/70968/0.wav", 901)):
        (tmp_path / "libri" / name).parent.mkdir(parents=True)
        soundfile.write(tmp_path / "libri" / name, wave(seed), 16_000)
    books = Manifest(str(tmp_path / "libri"), ("1F/0.wav", "61/70968/0.wav"), (3200, 3200), "libri.tsv")
    path = pretrained([provenance.entry("kmeans", "train", books), provenance.entry("hubert", "train", books)])
    done = run_audit(exp.folder)
    assert (done.status, done.err) == (0, [])
    note = (
        f"pretraining of {path}, stage hubert, split train: 2 recordings of {tmp_path / 'libri'}, none of this corpus"
    )
    assert f"{note} (compared by path, 2 of them by sound)" in done.audit.notes
    assert all(s.stage != "hubert" for s in done.audit.seen)


def test_pretraining_on_a_corpus_without_a_name(exp, pretrained, run_audit):
    """As weights have it that were exported without --corpus; what they have read is none of this corpus's files."""
    entry = provenance.entry("multitask", "train", Manifest("/x", ("wav/03a01Fa.wav",), (3200,), "train.tsv"))
    path = pretrained(provenance.published([entry], None))
    done = run_audit(exp.folder)
    assert (done.status, done.err) == (0, [])
    assert any(
        f"pretraining of {path}, stage multitask" in n and "of an unnamed corpus, none of" in n
        for n in done.audit.notes
    )


def test_a_converted_checkpoint_in_the_folder_is_no_problem(exp, run_audit):
    """It is of fairseq's task, in which nothing was trained here."""
    exp.write_fold(1)
    state = torch.load(exp.folder / STAGE1, weights_only=True)
    state["cfg"]["task"]["_name"] = "hubert_pretraining"
    torch.save(state, exp.folder / STAGE1.replace(Path(STAGE1).name, "converted.pt"))
    assert run_audit(exp.folder).err == []


@pytest.mark.parametrize("named", [True, False])
def test_pretraining_on_this_corpus(exp, elsewhere, pretrained, run_audit, named):
    root = elsewhere(lambda path: path.replace("/", "_").replace(".wav", ".flac"))
    some = Manifest(str(root), ("2F_1.flac", "3M_0.flac"), (3200, 3200), "all.tsv")
    path = pretrained([provenance.entry("hubert", "train", some)], named)
    err = run_audit(exp.folder).err
    what = "pretraining has read 2 of its 2 recordings from this corpus: 2F/1.wav, 3M/0.wav (speakers 2F, 3M)"
    assert err == [f"leak: {path}: fold 2, 3, stage hubert, split train: {what}"]


def test_pretraining_that_says_nothing(exp, pretrained, run_audit):
    path = pretrained([])
    done = run_audit(exp.folder)
    assert done.status == 0
    assert done.audit.notes == [f"pretraining data of {path} unknown: it carries no provenance"]


def test_fresh_weights_are_noted(exp, run_audit):
    exp.write_fold(1)
    assert run_audit(exp.folder).audit.notes == ["training started from fresh weights: there was no pretraining"]


def test_an_unfinished_experiment_is_audited_as_far_as_it_goes(exp, run_audit):
    exp.write_fold(2)
    assert run_audit(exp.folder).audit.absent == ["fold 1: no artefact", "fold 3: no artefact"]
    write_plan(exp.folder, "", "multitask.am_softmax", "multitask.cross_entropy", "multitask.am_softmax")
    done = run_audit(exp.folder)
    assert done.status == 0
    assert done.audit.absent == [
        "fold1/seed1/stage3/multitask.am_softmax/result.json",
        "fold1/seed1/stage3/multitask.cross_entropy/result.json",
        "fold2/seed1/stage3/multitask.cross_entropy/result.json",
    ]


def test_folds_alone_can_be_audited(exp, run_audit):
    done = run_audit(exp.folder / "data")
    assert (done.status, done.audit.artefacts, done.audit.folds) == (0, {}, ["1", "2", "3"])


def test_artefacts_of_a_fold_without_manifests(exp, run_audit):
    exp.write_fold(1)
    (exp.folder / "data/fold1/test.tsv").unlink()
    done = run_audit(exp.folder)
    assert done.audit.verdict == "cannot be audited"
    assert any("the manifests of fold 1 are not all in" in line for line in done.err)


def test_the_verdict_can_be_left_to_the_file(exp, run_audit):
    exp.write_fold(1, kmeans=exp.add(1, "train", "1F/3.wav"))
    done = run_audit(exp.folder, "--exit-zero")
    assert (done.status, done.audit.verdict) == (0, "leaks")
    content = json.loads((exp.folder / "audit.json").read_text())
    assert content["verdict"] == "leaks" and content["statement"].startswith("NOT CLEAN: 1 leaks")
    assert content["leaks"][0]["message"] in done.err[0]


def test_bad_input(exp, tmp_path, run_audit):
    with pytest.raises(UserError, match="has no data/utterances.tsv"):
        run_audit(tmp_path)
    (exp.folder / "experiment.json").write_text("{}")
    with pytest.raises(UserError, match="experiment.json is no experiment"):
        run_audit(exp.folder)
