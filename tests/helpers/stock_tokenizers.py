"""Tokenizers of stock classes, each with its own way of putting special tokens around a text."""

import json

from transformers import BertTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast, RobertaTokenizer

from helpers.text import sentences
from weft.tokenizer import train

TEXTS = sentences(40)


def train_small(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer that is trained in no time."""
    return train.train_tokenizer(iter(TEXTS), kind, 320)


def _bpe_parts(**added: int) -> tuple[dict[str, int], list[tuple[str, ...]]]:
    model = json.loads(train_small("bpe").backend_tokenizer.to_str())["model"]
    return {**model["vocab"], **added}, [tuple(pair) for pair in model["merges"]]


def gpt2() -> GPT2Tokenizer:
    """One special token for everything, and none around a text."""
    vocabulary, merges = _bpe_parts(**{"<|endoftext|>": 320})
    vocabulary["unused"] = vocabulary.pop("<mask>")
    return GPT2Tokenizer(vocab=vocabulary, merges=merges)


def bert() -> BertTokenizer:
    """[CLS] and [SEP] around a text."""
    names = {"<pad>": "[PAD]", "<s>": "[CLS]", "</s>": "[SEP]", "<unk>": "[UNK]", "<mask>": "[MASK]"}
    model = json.loads(train_small("wordpiece").backend_tokenizer.to_str())["model"]
    return BertTokenizer(vocab={names.get(token, token): index for token, index in model["vocab"].items()})


def roberta() -> RobertaTokenizer:
    """<s> and </s> around a text, two </s> between texts, and offsets without blanks."""
    vocabulary, merges = _bpe_parts()
    return RobertaTokenizer(vocab=vocabulary, merges=merges)


STOCK = {"gpt2": gpt2, "bert": bert, "roberta": roberta, "own": lambda: train_small("bpe")}
