"""GEmo-CLAP: prompts, a small random RoBERTa of transformers, the loss, recognition, and what a checkpoint keeps."""

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from conftest import DATASET, TINY, tool
from fairseq import tasks
from omegaconf import OmegaConf
from torch.nn.utils.rnn import pad_sequence
from training import command, run

import gmp_plugin.tasks  # noqa: F401
from gmp_plugin.errors import UserError
from gmp_plugin.evaluation import EmotionClassifier
from gmp_plugin.text_encoder import TextEncoder, byte_tokenizer, prompt_texts

TEXT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


@pytest.fixture
def roberta(tmp_path):
    """A folder of a RoBERTa with random weights and a tokeniser of words, and the model and tokeniser themselves."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "emotion", "is", "happy", "angry", "sad", "neutral"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    torch.manual_seed(0)
    model = RobertaForMaskedLM(RobertaConfig(vocab_size=len(words), max_position_embeddings=12, **TEXT)).eval()
    fast.save_pretrained(tmp_path / "roberta")
    model.save_pretrained(tmp_path / "roberta")
    return tmp_path / "roberta", model.roberta, fast


def build(data, task=None, model=None, criterion=None):
    """Task, model in evaluation mode and criterion at tiny size."""
    torch.manual_seed(0)
    common = {"seed": 1, "tensorboard_logdir": None}
    root = OmegaConf.create({"common": common, "checkpoint": {"save_dir": "none"}, "optimization": {"max_update": 9}})
    root.dataset = DATASET
    root.task = {"_name": "gemo_clap", "data": str(data), **(task or {})}
    root.model = {"_name": "gemo_clap", "hubert": TINY, "projection_dim": 8, "text": TEXT, **(model or {})}
    root.criterion = {"_name": "gemo_clap", **(criterion or {})}
    task = tasks.setup_task(root.task)
    return task, task.build_model(root.model).eval(), task.build_criterion(root.criterion)


def batch(task):
    task.load_dataset("train")
    dataset = task.dataset("train")
    return dataset.collater([dataset[i] for i in range(len(dataset))])


def test_prompts():
    assert prompt_texts(["sad", "angry"], "emotion is {}") == ["emotion is sad", "emotion is angry"]
    assert prompt_texts(["sad", "angry"], "so {}!", {"angry": "rage"}) == ["so sad!", "rage"]
    with pytest.raises(UserError, match=r"task.prompt='sad' has no {}"):
        prompt_texts(["sad"], "sad")
    with pytest.raises(UserError, match="two classes have the same prompt: 'rage', 'rage'"):
        prompt_texts(["sad", "angry"], "{}", {"sad": "rage", "angry": "rage"})


def test_misspelt_settings_of_the_text_side_are_named(fold, caplog):
    with pytest.raises(
        UserError, match="model.text: unknown settings num_hiden_layers; known are those of RobertaConfig"
    ):
        TextEncoder.fresh({"num_hiden_layers": 7})
    build(fold, {"prompts": {"angy": "emotion is anger"}})
    assert "task.prompts: angy: no class here, which are" in caplog.text


def test_text_encoder_is_transformers_own_alone_and_in_a_batch(roberta):
    folder, model, tokenizer = roberta
    encoder = TextEncoder.load(folder).eval()
    texts = ["emotion is happy", "sad", "emotion is unheard of"]
    tokens = encoder.tokenize(texts)
    assert tokens == tokenizer(texts)["input_ids"]
    with torch.no_grad():
        together = encoder(tokens)
        for row, ids in zip(together, tokens, strict=True):
            expected = model(torch.tensor([ids])).last_hidden_state[0, 0]
            torch.testing.assert_close(row, expected, atol=1e-6, rtol=1e-5)
    again = TextEncoder(**json.loads(json.dumps(encoder.kept))).eval()
    again.load_state_dict(encoder.state_dict())
    assert again.tokenize(texts) == tokens
    assert torch.equal(again(tokens), encoder(tokens))
    with pytest.raises(UserError, match="has 13 tokens; the text encoder takes 10"):
        encoder.tokenize(["sad " * 11])


def test_a_fresh_text_encoder_reads_any_text():
    encoder = TextEncoder.fresh(TEXT)
    texts = ["emotion is happy", "ärgerlich", "怒"]
    tokens = encoder.tokenize(texts)
    assert [len(ids) - 2 for ids in tokens] == [len(text.encode()) for text in texts]
    assert not any(3 in ids for ids in tokens)  # <unk>
    assert max(map(max, tokens)) < byte_tokenizer().get_vocab_size() == encoder.roberta.config.vocab_size


@pytest.mark.parametrize("variant, norm, alpha", [("sl", "softmax", None), ("ml", "l1", None), ("ml", "softmax", 0.3)])
def test_training_compares_the_recordings_of_a_batch(fold, variant, norm, alpha):
    """The loss once more, pair by pair."""
    task, model, criterion = build(fold, criterion={"variant": variant, "target_norm": norm, "alpha": alpha})
    sample = batch(task)
    with torch.no_grad():
        found, n, log = criterion.train()(model, sample)
        output = model(**sample["net_input"])
    emotion, gender = sample["emotion"].tolist(), sample["gender"].tolist()
    texts = [output["classes"][e] for e in emotion]
    share = alpha or {"sl": 0.8, "ml": 0.9}[variant]

    def side(rows, columns, weights):
        total = 0
        for i, x in enumerate(rows):
            agree = torch.tensor([[float(kind[i] == other) for other in kind] for kind in (emotion, gender)])
            predicted = torch.stack([x @ y for y in columns]) / 0.07
            for weight, (e, g) in weights:
                matrix = e * agree[0] + g * agree[1]
                target = matrix.softmax(0) if norm == "softmax" else matrix / matrix.sum()
                total += weight * F.kl_div(predicted.log_softmax(0), target, reduction="sum")
        return total

    weights = [(1, (share, 1 - share))] if variant == "sl" else [(share, (1, 0)), (1 - share, (0, 1))]
    expected = (side(output["embedding"], texts, weights) + side(texts, output["embedding"], weights)) / 2
    assert n == 8 and sum(v for k, v in log.items() if k.startswith("_emotion:")) == 8
    assert found.item() == log["loss"] == pytest.approx(expected.item(), rel=1e-5)
    classes = F.cross_entropy(output["emotion"], sample["emotion"], reduction="sum").item()
    assert log["loss_emotion"] == pytest.approx(classes, rel=1e-5)
    with torch.no_grad():
        validation = criterion.eval()(model, sample)[0].item()
    assert validation == pytest.approx(classes, rel=1e-5)


def test_recognition_is_by_the_cosine_to_the_prompts(fold):
    task, model, _ = build(fold)
    sample = batch(task)
    with torch.no_grad():
        output = model(**sample["net_input"])
        pooled = model.pool(**sample["net_input"])
        audio = model.emotion_head.output(model.emotion_head.projection(pooled).relu())
        tokens = model.text.tokenize(["emotion is " + name for name in ("angry", "happy", "neutral", "sad")])
        text = model.text_head.output(model.text_head.projection(model.text(tokens)).relu())
    cosines = F.cosine_similarity(audio[:, None], text[None], dim=-1)
    torch.testing.assert_close(output["emotion"], cosines / 0.07)
    embedding, logits = model.prompt_head()(pooled)
    torch.testing.assert_close(logits, output["emotion"])
    torch.testing.assert_close(embedding, output["embedding"])


def test_every_trainable_parameter_gets_a_gradient_and_a_batch_left_out_gives_none(fold):
    task, model, criterion = build(fold)
    sample = batch(task)
    model.train()
    criterion(model, {**sample, "left_out": True})[0].backward()
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)
    model.zero_grad()
    criterion(model, sample)[0].backward()
    without = {n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    # The bytes that no prompt has, and positions, are rows of one tensor; keys' biases do nothing in a softmax.
    assert {n for n in without if not n.endswith("key.bias")} <= {"hubert.mask_emb"}


def test_a_checkpoint_needs_no_folder_and_recognises_other_classes(fold, roberta, tmp_path):
    """Trained from a RoBERTa's folder by the command line, which is then removed."""
    folder, *_ = roberta
    run(*command("gemo_clap", fold, tmp_path / "clap", 2, f"model.text_path={folder}"))
    shutil.rmtree(folder)
    checkpoint = tmp_path / "clap" / "checkpoint_last.pt"
    classifier = EmotionClassifier.load(checkpoint)
    assert classifier.names == ["angry", "happy", "neutral", "sad"]
    waves = [torch.randn(n) for n in (3000, 9000)]
    with torch.no_grad():
        alone = torch.cat([classifier.model(wave[None])["emotion"] for wave in waves])
        source = pad_sequence(waves, batch_first=True)
        together = classifier.model(source, torch.tensor([3000, 9000]))["emotion"]
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)

    result = tmp_path / "result.json"
    arguments = ["--checkpoint", str(checkpoint), "--manifest", f"{fold}/test.tsv", "--out", str(result)]
    tool("evaluate")([*arguments, "--fold", "1", "--embeddings", str(tmp_path / "embeddings.npz")])
    first = json.loads(result.read_text())
    assert first["classes"] == classifier.names and first["provenance"][-1]["stage"] == "evaluation"

    (fold / "dict.emotion.txt").write_text("bored 1\nhappy 1\nsad 1\n")
    (fold / "test.emotion").write_text("bored\nsad\n")
    with pytest.raises(UserError, match="test.emotion, line 1: label 'bored' is not in the classes of"):
        tool("evaluate")([*arguments, "--force"])
    tool("evaluate")([*arguments, "--force", "--zero-shot"])
    second = json.loads(result.read_text())
    assert second["classes"] == ["bored", "happy", "sad"] and second["zero_shot"]
    for a, b in zip(first["utterances"], second["utterances"], strict=True):
        # The same prompts give the same scores, whatever other classes there are.
        assert b["logits"][1:] == pytest.approx([a["logits"][1], a["logits"][3]], abs=2e-4)


def test_zero_shot_needs_prompts(fold, tmp_path):
    run(*command("stage3", fold, tmp_path / "stage3", 2))
    with pytest.raises(UserError, match="was not trained with prompts; --zero-shot is for checkpoints of gemo_clap"):
        tool("evaluate")(
            ["--checkpoint", f"{tmp_path}/stage3/checkpoint_last.pt", "--manifest", f"{fold}/test.tsv", "--zero-shot",
             "--out", f"{tmp_path}/result.json"]
        )  # fmt: skip


@pytest.mark.parametrize(
    "task, model, message",
    [
        ({"prompt": "sad"}, {}, "error: task.prompt='sad' has no {}"),
        ({}, {"text": None}, "error: no text encoder: give model.text_path=ROBERTA, or model.text"),
        ({}, {"text_path": "/nowhere"}, "error: model.text_path=/nowhere: expected the folder of a RoBERTa"),
        ({}, {"text": {**TEXT, "num_attention_heads": 3}}, "error: model.text: "),
    ],
)
def test_wrong_settings_end_with_one_message(fold, task, model, message):
    with pytest.raises(SystemExit, match=message):
        build(fold, task, model)


def test_a_folder_that_is_no_roberta(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "hubert"}')
    with pytest.raises(UserError, match="holds a model of type 'hubert'; expected 'roberta'"):
        TextEncoder.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    with pytest.raises(UserError, match="cannot be read: "):
        TextEncoder.load(tmp_path)
