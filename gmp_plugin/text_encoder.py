"""The text side of GEmo-CLAP: prompts, and a RoBERTa with its tokeniser, by transformers."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from .errors import UserError

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")  # in RoBERTa's order


def prompt_texts(names, template: str, prompts: dict | None = None) -> list[str]:
    """The prompt of each class: `template` with the name in place of {}, or the one that `prompts` has for it.

    Raises `UserError` for a template without {}, and for two classes with one prompt.
    """
    if "{}" not in template:
        raise UserError(
            f"task.prompt={template!r} has no {{}}, which stands for the class; "
            "give it as 'task.prompt=\"emotion is {}\"'"
        )
    texts = [str((prompts or {}).get(name, template.replace("{}", name))) for name in names]
    if len(set(texts)) < len(texts):
        raise UserError(f"two classes have the same prompt: {', '.join(map(repr, texts))}; change task.prompts")
    return texts


class TextEncoder(nn.Module):
    """A RoBERTa: tokens to the first one's vector of the last layer.

    Args:
        settings: fields of transformers' `RobertaConfig`.
        tokenizer: content of a `tokenizer.json`.
    """

    def __init__(self, settings: dict, tokenizer: str):
        super().__init__()
        transformers = _transformers()
        try:
            config = transformers.RobertaConfig(**settings)
            self.roberta = transformers.RobertaModel(config, add_pooling_layer=False)
        except (TypeError, ValueError) as error:
            raise UserError(f"model.text: {error}") from None
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, folder) -> "TextEncoder":
        """From a RoBERTa's folder in Hugging Face layout, as `roberta-base`; `UserError` if it is none."""
        transformers = _transformers()
        kind = _model_type(folder)
        if kind != "roberta":
            raise UserError(f"model.text_path={folder} holds a model of type {kind!r}; expected 'roberta'")
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            roberta, found = transformers.RobertaModel.from_pretrained(
                folder, local_files_only=True, add_pooling_layer=False, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"model.text_path={folder} cannot be read: {str(error).splitlines()[0]}") from None
        if found["missing_keys"]:
            raise UserError(
                f"model.text_path={folder}: its weights lack {len(found['missing_keys'])} tensors of a RoBERTa, as "
                f"{sorted(found['missing_keys'])[0]}"
            )
        encoder = cls(_plain(roberta.config), tokenizer.backend_tokenizer.to_str())
        encoder.load_state_dict({f"roberta.{name}": tensor.float() for name, tensor in roberta.state_dict().items()})
        return encoder

    @classmethod
    def fresh(cls, settings: dict) -> "TextEncoder":
        """With random weights, on bytes, which need no vocabulary; `settings` as in the class."""
        unknown = sorted(set(settings) - set(_transformers().RobertaConfig().to_dict()))
        if unknown:
            raise UserError(f"model.text: unknown settings {', '.join(unknown)}; known are those of RobertaConfig")
        tokenizer = byte_tokenizer()
        return cls({"type_vocab_size": 1, **settings, "vocab_size": tokenizer.get_vocab_size()}, tokenizer.to_str())

    @property
    def dim(self) -> int:
        return self.roberta.config.hidden_size

    @property
    def kept(self) -> dict:
        """The arguments that make such an encoder again, as plain values for a checkpoint."""
        return {"settings": _plain(self.roberta.config), "tokenizer": self.tokenizer}

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """Token numbers of each text, between the special tokens; `UserError` for one that is too long."""
        from tokenizers import Tokenizer

        tokens = [encoding.ids for encoding in Tokenizer.from_str(self.tokenizer).encode_batch(texts)]
        # RoBERTa counts positions from the padding token's number.
        longest = self.roberta.config.max_position_embeddings - self.roberta.config.pad_token_id - 1
        for text, ids in zip(texts, tokens, strict=True):
            if len(ids) > longest:
                raise UserError(f"the prompt {text!r} has {len(ids)} tokens; the text encoder takes {longest}")
        return tokens

    def forward(self, tokens: list[list[int]]) -> Tensor:
        """C token sequences -> `(C, dim)`, whatever other sequences there are."""
        pad = self.roberta.config.pad_token_id
        device = self.roberta.embeddings.word_embeddings.weight.device
        ids = nn.utils.rnn.pad_sequence([torch.tensor(t) for t in tokens], batch_first=True, padding_value=pad)
        valid = nn.utils.rnn.pad_sequence([torch.ones(len(t)) for t in tokens], batch_first=True)
        out = self.roberta(input_ids=ids.to(device), attention_mask=valid.long().to(device))
        return out.last_hidden_state[:, 0]


def byte_tokenizer():
    """A `tokenizers.Tokenizer` of RoBERTa's kind that merges nothing: every byte of a text is a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    numbers = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocab=numbers, merges=[], unk_token="<unk>"))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", numbers["</s>"]), ("<s>", numbers["<s>"]), add_prefix_space=False
    )
    return tokenizer


def _transformers():
    try:
        import transformers
    except ImportError:
        raise UserError("GEmo-CLAP's text encoder needs transformers: pip install transformers") from None
    return transformers


def _model_type(folder) -> str | None:
    try:
        return json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError) as error:
        raise UserError(
            f"model.text_path={folder}: expected the folder of a RoBERTa in Hugging Face layout, with a config.json "
            f"that can be read ({error})"
        ) from None


def _plain(config) -> dict:
    """What of a `RobertaConfig` makes the same model again."""
    settings = {k: v for k, v in config.to_diff_dict().items() if isinstance(v, str | int | float | bool | None)}
    return {k: v for k, v in settings.items() if k not in ("transformers_version", "model_type", "dtype")}
