"""The stages' losses, computed outside once more."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import DATASET, TINY
from fairseq import tasks
from fairseq.logging import metrics
from fairseq.trainer import Trainer
from omegaconf import OmegaConf

import gmp_plugin.tasks  # noqa: F401
from gmp_plugin import provenance
from gmp_plugin.manifest import Manifest
from gmp_plugin.optim.fused_adam import FusedAdam
from gmp_plugin.tasks.gemo_clap import GEmoClapTask

ADAM = SimpleNamespace(adam_betas=(0.9, 0.98), adam_eps=1e-8, weight_decay=0.0, lr=[1e-3])


def build(name, task=None, model=None, criterion=None, **dataset):
    """Task, model in evaluation mode (no dropout) and criterion of a stage at tiny size."""
    torch.manual_seed(0)
    common = {"seed": 1, "tensorboard_logdir": None}
    root = OmegaConf.create({"common": common, "checkpoint": {"save_dir": "none"}, "optimization": {"max_update": 9}})
    root.dataset = {**DATASET, **dataset}
    root.task = {"_name": name, **(task or {})}
    root.model = {"_name": name, "hubert": TINY, **(model or {})}
    root.criterion = {"_name": name, **(criterion or {})}
    task = tasks.setup_task(root.task)
    return task, task.build_model(root.model).eval(), task.build_criterion(root.criterion)


def batch(task, split="train"):
    task.load_dataset(split)
    dataset = task.dataset(split)
    return dataset.collater([dataset[i] for i in range(len(dataset))])


def test_stage1_is_nine_tenths_emotion_and_one_tenth_gender(fold):
    task, model, criterion = build("multitask_emotion_gender", {"data": str(fold)})
    sample = batch(task)
    with torch.no_grad():
        loss, n, log = criterion(model, sample)
        output = model(**sample["net_input"])
    emotion, gender = (F.cross_entropy(output[k], sample[k], reduction="sum") for k in ("emotion", "gender"))
    assert n == 8
    assert loss.item() == pytest.approx((0.9 * emotion + 0.1 * gender).item(), rel=1e-6)
    assert sum(v for k, v in log.items() if k.startswith("_emotion:")) == 8


def test_stage1_takes_a_share_for_alpha(fold):
    with pytest.raises(SystemExit, match="criterion.alpha=9.0: expected 0 to 1"):
        build("multitask_emotion_gender", {"data": str(fold)}, criterion={"alpha": 9.0})


def test_uar_in_the_logs_comes_from_summed_counts(fold):
    task, model, criterion = build("multitask_emotion_gender", {"data": str(fold)})
    dataset = (batch(task), task.dataset("train"))[1]
    outputs = []
    with torch.no_grad(), metrics.aggregate() as agg:
        for part in ([0, 1, 2], [3, 4, 5, 6, 7]):
            outputs.append(criterion(model, dataset.collater([dataset[i] for i in part]))[2])
            criterion.reduce_metrics([outputs[-1]])
        logged = agg.get_smoothed_values()
    with torch.no_grad():
        sample = batch(task)
        predicted = model(**sample["net_input"])["emotion"].argmax(-1)
    recalls = [(predicted[sample["emotion"] == c] == c).float().mean().item() for c in range(4)]
    assert logged["uar"] == pytest.approx(100 * sum(recalls) / 4, abs=1e-3)
    assert logged["recall_sad"] == pytest.approx(100 * recalls[3], abs=1e-3)
    assert not any(key.startswith("_") for key in logged)


@pytest.fixture
def km_labels(labelled_fold):
    return {"data": str(labelled_fold), "labels": ["4.km", "8.km"]}


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_stage2_is_the_cross_entropy_of_every_scale_on_masked_frames(km_labels, head):
    task, model, criterion = build("multiscale_label_pretraining", km_labels, {"head": head})
    sample = batch(task)
    with torch.no_grad():
        loss, n, log = criterion(model, sample)
        output = model(**sample["net_input"])
        masked = output["masked"]
        logits = model.prediction(output["x"][masked])
        losses = [
            F.cross_entropy(z, labels[masked], reduction="sum")
            for z, labels in zip(logits, sample["frame_labels"], strict=True)
        ]
    assert n == int(masked.sum()) == log["ntokens"]
    assert 0.2 < n / sum(Manifest.read(km_labels["data"] + "/train.tsv").n_frames()) < 0.8
    assert log["loss_masked_4"] == pytest.approx(losses[0].item(), rel=1e-6)
    assert log["loss_masked_8"] == pytest.approx(losses[1].item(), rel=1e-6)
    penalty = 10 * n * output["features_pen"].item()
    assert loss.item() == pytest.approx(sum(losses).item() + penalty, rel=1e-6)

    with metrics.aggregate() as agg:
        criterion.reduce_metrics([log])
        logged = agg.get_smoothed_values()
    assert logged["loss_masked_8"] == pytest.approx(losses[1].item() / n / math.log(2), abs=1e-3)
    assert logged["ppl_masked_8"] == pytest.approx(math.exp(losses[1].item() / n), rel=1e-2)
    correct = (logits[1].argmax(-1) == sample["frame_labels"][1][masked]).float().mean().item()
    assert logged["accuracy_masked_8"] == pytest.approx(100 * correct, abs=1e-2)


def test_stage2_without_masks_and_loss_on_all_frames(km_labels):
    """The later paper's reading: plain cross-entropy on every frame."""
    weights = {"pred_masked_weight": 0.0, "pred_nomask_weight": 1.0}
    task, model, criterion = build("multiscale_label_pretraining", km_labels, {"mask_prob": 0.0}, weights)
    sample = batch(task)
    with torch.no_grad():
        _, n, log = criterion(model, sample)
    assert n == Manifest.read(km_labels["data"] + "/train.tsv").n_frames().sum()
    assert log["loss_unmasked_4"] > 0


def test_stage2_that_masks_nothing_and_wants_masked_frames_only_is_refused(km_labels):
    task, model, criterion = build("multiscale_label_pretraining", km_labels, {"mask_prob": 0.0})
    with pytest.raises(SystemExit, match="nothing is trained; set criterion.pred_nomask_weight=1"):
        criterion(model, batch(task))


def test_stage2_scale_weights(km_labels):
    no_penalty = {"feature_penalty_weight": 0.0}
    build_with = lambda **kw: build("multiscale_label_pretraining", km_labels, criterion={**no_penalty, **kw})  # noqa: E731
    task, model, criterion = build_with(scale_weights=[0.0, 2.0])
    with torch.no_grad():
        loss, _, log = criterion(model, batch(task))
    assert loss.item() == pytest.approx(2 * log["loss_masked_8"], rel=1e-6)
    with pytest.raises(SystemExit, match="scale_weights has 1 values for 2 label sets"):
        build_with(scale_weights=[1.0])
    for weights in ({"pred_masked_weight": 0.0}, {"scale_weights": [0.0, 0.0]}, {"scale_weights": [2.0, -1.0]}):
        with pytest.raises(SystemExit, match=f"{[*weights][0]}.*: expected no weight below 0, and one above it"):
            build_with(**weights)


@pytest.mark.parametrize("mask_prob", [6.5, -0.8])
def test_a_share_of_masked_frames_is_a_share(km_labels, mask_prob):
    with pytest.raises(SystemExit, match=f"model.mask_prob={mask_prob}: expected a share of the frames, 0 to 1"):
        build("multiscale_label_pretraining", km_labels, {"mask_prob": mask_prob})


def test_a_stage2_that_diverges_goes_on_logging(km_labels):
    """A perplexity beyond any number, as fairseq's own logs it."""
    _, _, criterion = build("multiscale_label_pretraining", km_labels)
    log = {"loss": 1e4, "sample_size": 10, "frames_masked": 10, "loss_masked_4": 1e4, "correct_masked_4": 0}
    with metrics.aggregate() as agg:
        criterion.reduce_metrics([log])
        assert agg.get_smoothed_values()["ppl_masked_4"] == math.inf


def test_stage2_label_smoothing_in_training_alone(km_labels):
    task, model, criterion = build(
        "multiscale_label_pretraining", km_labels, criterion={"label_smoothing": 0.1, "feature_penalty_weight": 0.0}
    )
    sample = batch(task)
    with torch.no_grad():
        output = model(**sample["net_input"])
        masked = output["masked"]
        logits = model.prediction(output["x"][masked])
        expected = {
            smoothing: sum(
                F.cross_entropy(z, y[masked], reduction="sum", label_smoothing=smoothing)
                for z, y in zip(logits, sample["frame_labels"], strict=True)
            ).item()
            for smoothing in (0.0, 0.1)
        }
        assert criterion.train()(model, sample)[0].item() == pytest.approx(expected[0.1], rel=1e-6)
        assert criterion.eval()(model, sample)[0].item() == pytest.approx(expected[0.0], rel=1e-6)


def test_balanced_class_weights(fold):
    (fold / "train.emotion").write_text("angry\n" * 5 + "happy\nneutral\nsad\n")
    task, model, criterion = build(
        "am_softmax_classification", {"data": str(fold)}, criterion={"class_weights": "balanced"}
    )
    sample = batch(task)
    weights = torch.tensor([8 / 20, 2.0, 2.0, 2.0])
    torch.testing.assert_close(task.balanced_weights("emotion"), weights)
    with torch.no_grad():
        logits = model(**sample["net_input"])["emotion"] - 6 * F.one_hot(sample["emotion"], 4)
        losses = F.cross_entropy(logits, sample["emotion"], reduction="none")
        weighted = (weights[sample["emotion"]] * losses).sum().item()
        assert criterion.train()(model, sample)[0].item() == pytest.approx(weighted, rel=1e-5)
        assert criterion.eval()(model, sample)[0].item() == pytest.approx(losses.sum().item(), rel=1e-5)


@pytest.mark.parametrize("head", ["am_softmax", "cross_entropy"])
def test_stage3_loss(fold, head):
    task, model, criterion = build("am_softmax_classification", {"data": str(fold)}, {"head": head})
    sample = batch(task)
    with torch.no_grad():
        loss, n, _ = criterion(model, sample)
        logits = model(**sample["net_input"])["emotion"].double()
    if head == "am_softmax":
        logits -= 30 * 0.2 * F.one_hot(sample["emotion"], 4)
    expected = F.cross_entropy(logits, sample["emotion"], reduction="sum")
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["multitask_emotion_gender", "am_softmax_classification"])
@pytest.mark.parametrize("kind, size", [("attention", 32), ("mean", 32), ("bilstm", 16)])
def test_poolings_of_stages_1_and_3(fold, name, kind, size):
    task, model, criterion = build(name, {"data": str(fold)}, {"pooling": kind, "lstm_dim": 8})
    sample = batch(task)
    assert model.pool(**sample["net_input"]).shape == (8, size)
    criterion(model, sample)[0].backward()
    assert all(p.grad.any() for p in model.pooling.parameters())


def test_linear_head_is_cross_entropy_on_the_pooled_vector(fold):
    model = {"pooling": "attention", "head": "linear"}
    task, model, criterion = build("am_softmax_classification", {"data": str(fold)}, model)
    sample = batch(task)
    with torch.no_grad():
        pooled = model.pool(**sample["net_input"])
        logits = F.linear(pooled, model.emotion_head.classifier.weight, model.emotion_head.classifier.bias)
        expected = F.cross_entropy(logits, sample["emotion"], reduction="sum")
        assert criterion(model, sample)[0].item() == pytest.approx(expected.item(), rel=1e-5)
        torch.testing.assert_close(model(**sample["net_input"])["embedding"], pooled)


STAGES = ["multitask_emotion_gender", "multiscale_label_pretraining", "am_softmax_classification"]


@pytest.mark.parametrize("name", STAGES)
def test_every_trainable_parameter_gets_a_gradient(km_labels, name):
    task, model, criterion = build(name, km_labels if "label" in name else {"data": km_labels["data"]})
    model.train()
    criterion(model, batch(task))[0].backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert without <= {"hubert.mask_emb"}


def test_a_recording_of_one_frame_trains_and_classifies(km_labels, fold, write_audio):
    """Shorter than any mask: 400 samples."""
    manifest = Manifest.read(fold / "train.tsv")
    write_audio(manifest.audio_path(0), 400)
    lines = (fold / "train.tsv").read_text().replace("u0.wav\t1600", "u0.wav\t400")
    (fold / "train.tsv").write_text(lines)
    for k in (4, 8):
        rows = (fold / f"train.{k}.km").read_text().split("\n")
        (fold / f"train.{k}.km").write_text("\n".join(["0", *rows[1:]]))
    for name in STAGES:
        task, model, criterion = build(name, km_labels if "label" in name else {"data": str(fold)})
        task.load_dataset("train")
        dataset = task.dataset("train")
        model.train()
        for part in ([0], [0, 7]):
            loss, _, _ = criterion(model, dataset.collater([dataset[i] for i in part]))
            loss.backward()
            assert torch.isfinite(loss)


def test_label_errors_reach_the_terminal_as_one_message(km_labels, fold):
    (fold / "train.emotion").write_text("bored\n" * 8)
    task, _, _ = build("am_softmax_classification", {"data": str(fold)})
    with pytest.raises(SystemExit, match=r"error: .*train.emotion, line 1: label 'bored' is not in"):
        task.load_dataset("train")
    (fold / "valid.8.km").write_text("0 1\n")
    task, _, _ = build("multiscale_label_pretraining", km_labels)
    with pytest.raises(SystemExit, match=r"error: .*valid.8.km has 1 lines, but .*valid.tsv lists 2 utterances"):
        task.load_dataset("valid")
    with pytest.raises(SystemExit, match=r"error: task.data=.*nowhere is no folder"):
        build("am_softmax_classification", {"data": str(fold / "nowhere")})


def test_a_training_part_of_another_name_is_trained_on_alike(fold):
    """Shuffled, balanced and weighted by its own classes."""
    for suffix in ("tsv", "emotion"):
        lines = (fold / f"train.{suffix}").read_text().splitlines(keepends=True)
        (fold / f"train_half.{suffix}").write_text("".join(lines[:-4]))
    emotions = (fold / "train_half.emotion").read_text().split()
    (fold / "train_half.emotion").write_text(
        "\n".join(emotions[:1] * 3 + [next(e for e in emotions if e != emotions[0])])
    )
    task, _, _ = build(
        "am_softmax_classification", {"data": str(fold), "balanced_sampling": True}, train_subset="train_half"
    )
    task.load_dataset("train_half")
    drawn = task.dataset("train_half").class_labels["emotion"][task.dataset("train_half").ordered_indices()]
    assert sorted(np.bincount(drawn)[drawn]) == [2, 2, 2, 2]  # of four utterances, three of which are of one class
    assert task.balanced_weights("emotion").sort().values.tolist() == pytest.approx([1 / 3, 1, 1, 1])
    task.load_dataset("valid")
    orders = [list(task.dataset("valid").ordered_indices()) for _ in range(5)]
    assert all(order == orders[0] for order in orders)


def test_recordings_that_no_batch_holds_are_not_left_out(fold):
    """fairseq would train without them."""
    for name, part in ("max_tokens", "train"), ("max_tokens_valid", "valid"):
        longest = max(Manifest.read(fold / f"{part}.tsv").n_samples)
        task, _, _ = build("am_softmax_classification", {"data": str(fold)}, **{name: longest - 1})
        found = rf"{part}.tsv, line \d+: u\d+.wav has {longest} samples.*dataset.{name}={longest - 1} holds"
        with pytest.raises(SystemExit, match=found):
            task.load_dataset(part)
        build("am_softmax_classification", {"data": str(fold)}, **{name: longest})[0].load_dataset(part)
    task, _, _ = build("am_softmax_classification", {"data": str(fold), "max_sample_size": 1000}, max_tokens=1000)
    task.load_dataset("train")


def test_no_checkpoint_and_no_architecture(fold):
    with pytest.raises(SystemExit, match="error: no HuBERT to start from: give model.hubert_path=CHECKPOINT"):
        build("am_softmax_classification", {"data": str(fold)}, {"hubert": None})


def test_out_of_memory_ends_the_training(fold, monkeypatch):
    """fairseq would leave such batches out, which are those of the longest recordings, and end as if all were well."""
    task, model, criterion = build("am_softmax_classification", {"data": str(fold)})
    sample = batch(task)

    def forward(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(model, "forward", forward)
    message = r"out of memory with 8 recordings of up to 0\.\d s at once; give a smaller dataset.batch_size"
    with pytest.raises(SystemExit, match=message):
        task.train_step(sample, model, criterion, FusedAdam(ADAM, model.parameters()), 1)
    task.batch_remedy = GEmoClapTask.batch_remedy  # whose loss is another with smaller batches
    with pytest.raises(SystemExit, match=r"s at once; give \+model.hubert.checkpoint_activations=true"):
        task.train_step(sample, model, criterion, FusedAdam(ADAM, model.parameters()), 1)
    monkeypatch.setattr(model, "forward", lambda *args, **kwargs: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        task.train_step(sample, model, criterion, FusedAdam(ADAM, model.parameters()), 1)


@pytest.mark.parametrize("half", ["bf16", "fp16"])
def test_audio_is_not_rounded_where_the_model_is(fold, half):
    """fairseq's trainer rounds float32 inputs to the model's type."""
    task, model, _ = build("am_softmax_classification", {"data": str(fold)})
    audio = batch(task)["net_input"]["source"]
    trainer = SimpleNamespace(cfg=SimpleNamespace(common=SimpleNamespace(fp16=half == "fp16", bf16=half == "bf16")))
    as_trained = Trainer._fp_convert_sample(trainer, {"source": audio, "other": audio.float()})
    assert as_trained["other"].dtype != torch.float32 and torch.equal(as_trained["source"], audio)
    with torch.no_grad():
        assert model(audio)["embedding"].dtype == torch.float32


def test_models_need_no_numbers_of_utterances(fold):
    """Which only seed the masks: those of fairseq's loader have them."""
    _, model, _ = build("am_softmax_classification", {"data": str(fold)}, {"mask_prob": 0.5})
    model.train()
    audio = torch.randn(2, 8000)
    outputs = []
    for ids in (None, torch.tensor([0, 1])):
        torch.manual_seed(0)
        outputs.append(model(audio, None, ids)["emotion"])
    assert torch.equal(*outputs)


def test_labels_of_other_recordings_do_not_train(labelled_fold):
    """Though lines and lengths fit, as of a corpus cut into equal parts, in another order."""
    train = Manifest.read(labelled_fold / "train.tsv")
    record = {"provenance": [provenance.entry("labels", "train", train)]}
    (labelled_fold / "train.labels.json").write_text(json.dumps(record))
    task, _, _ = build("multiscale_label_pretraining", {"data": str(labelled_fold), "labels": ["4.km", "8.km"]})
    task.load_dataset("train")
    record["provenance"][0]["utterances"].reverse()
    (labelled_fold / "train.labels.json").write_text(json.dumps(record))
    with pytest.raises(SystemExit, match="the labels of train are of other recordings than .*train.tsv lists"):
        task.load_dataset("train")


def test_labels_of_two_fits_do_not_train(labelled_fold):
    """Of train by one k-means, of valid by another, as where one of them was made anew."""
    entry = {"stage": "kmeans", "split": "train", "manifest": "m", "root": "/", "utterances": [], "centroids": "one"}
    (labelled_fold / "provenance.json").write_text(json.dumps([entry]))
    (labelled_fold / "train.labels.json").write_text(json.dumps({"centroids": "one"}))
    task, _, _ = build("multiscale_label_pretraining", {"data": str(labelled_fold), "labels": ["4.km", "8.km"]})
    task.load_dataset("train")
    (labelled_fold / "valid.labels.json").write_text(json.dumps({"centroids": "another"}))
    with pytest.raises(SystemExit, match="the labels of valid are of other centroids than provenance.json says"):
        task.load_dataset("valid")
