"""Words that come again are not encoded again, and the tokens are those of the whole text, bit for bit."""

import random

import numpy as np
import pytest
from helpers.text import CHINESE, EMOJI, sentences
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from weft.tokenizer import encode_words_once
from weft.tokenizer.encode_as_text import encode_as_text
from weft.tokenizer.encode_words_once import PATTERNS, WordEncoder, cuts_between_words
from weft.tokenizer.train import train_tokenizer

# What may stand beside a blank, or look like one, or change what stands around it.
PIECES = [
    *" \t\n\r\v\f\x1c\x1f\x85\xa0\u1680\u2003\u2028\u202f\u3000\u180e\u200b\u200c\u200d\ufeff",
    "  ",
    "\r\n",
    "\n\n",
]
PIECES += [
    *"aZé'\u2019.,!?-_7\u0120\u2581\u0301\u0939\u093f\u0e01\u4e2d\u3042\U0001f600\x00\xa8\u0345\u037a",
    "'s",
    " 's",
    "\u2019ll",
    "it's",
    "12345",
]
PIECES += [
    "the",
    " the",
    " The",
    "don't",
    "word,",
    "(word",
    "<s>",
    " </s>",
    "<mask>",
    "<tool>",
    " <tool>",
    "a" * 70,
    ".\n",
]
PIECES += [
    "हिन्दी",
    " नहीं",
    "می‌خواهم",
    "中国人",
    "ก็ไม่",
    "\U0001f469\u200d\U0001f4bb",
    "e\u0301",
    " \u0301",
    "=" * 20,
    " " * 70,
]


def awkward_texts(number: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    made = ["".join(draw.choices(PIECES, k=draw.randint(0, 40))) for _ in range(number // 2)]
    made += [" ".join(draw.choices(PIECES, k=draw.randint(0, 40))) for _ in range(number // 2)]
    return [*made, "", " ", "  ", "a", " a", "a ", "\n", *sentences(20), CHINESE, EMOJI]


LEARNT = [*sentences(60), *awkward_texts(600, 9), " \n  \n\n   \t " * 99]  # tokens of several blanks too


def byte_level(pattern: str | None = None, normalizer=None, prefix: bool = False, **model) -> PreTrainedTokenizerFast:
    """A small byte-level BPE with another first cut."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizer
    last = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=pattern is None)
    first = [] if pattern is None else [pre_tokenizers.Split(Regex(pattern), "isolated")]
    backend.pre_tokenizer = pre_tokenizers.Sequence([*first, last]) if first else last
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(LEARNT, trainer)
    for name, value in model.items():
        changed = backend.model
        setattr(changed, name, value)
        backend.model = changed
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def ours(**settings) -> PreTrainedTokenizerFast:
    return train_tokenizer(iter(LEARNT), "bpe", 1500, **settings)


def with_added(token: str, **settings) -> PreTrainedTokenizerFast:
    tokenizer = byte_level(PATTERNS[2])
    tokenizer.add_tokens([AddedToken(token, special=False, **settings)])
    return tokenizer


CUT = {
    "ours": ours,
    "ours with a prefixed blank": lambda: ours(add_prefix_space=True),
    "ours with special tokens": lambda: ours(special_tokens=["<tool>", "the user"]),
    "GPT-2": byte_level,
    "GPT-2 with a prefixed blank": lambda: byte_level(prefix=True),
    "Llama 3": lambda: byte_level(PATTERNS[1], ignore_merges=True),
    "Qwen 2": lambda: byte_level(PATTERNS[2], normalizers.NFC()),
}
WHOLE = {
    "another pattern": lambda: byte_level(r"\w+\s*|\W"),
    "NFKC": lambda: byte_level(normalizer=normalizers.NFKC()),
    "dropout": lambda: byte_level(dropout=0.5),
    "a token that text may become": lambda: with_added("<tool>", normalized=False),
    "wordpiece": lambda: train_tokenizer(iter(sentences(60)), "wordpiece", 400),
    "unigram": lambda: train_tokenizer(iter(sentences(60)), "unigram", 400),
    "char": lambda: train_tokenizer(iter(sentences(60)), "char", 400),
}


def assert_as_text(encoder: WordEncoder, texts: list[str]) -> None:
    expected = encode_as_text(encoder.tokenizer, texts)
    for text, ids, encoding in zip(texts, encoder.encode(texts), expected, strict=True):
        assert ids.dtype == np.uint32 and ids.tolist() == encoding.ids, repr(text)


@pytest.mark.parametrize("name", CUT)
def test_tokens_of_remembered_words_are_those_of_the_text(name):
    tokenizer = CUT[name]()
    assert cuts_between_words(tokenizer)
    encoder = WordEncoder(tokenizer)
    for seed in range(2):  # the second finds words of the first
        assert_as_text(encoder, awkward_texts(500, seed))


@pytest.mark.parametrize("name", WHOLE)
def test_where_no_cut_is_known_of_texts_are_encoded_as_a_whole(name):
    tokenizer = WHOLE[name]()
    assert not cuts_between_words(tokenizer)
    if name != "dropout":
        assert_as_text(WordEncoder(tokenizer), awkward_texts(50, 0))


def test_a_word_is_encoded_once_and_few_are_remembered_long(monkeypatch):
    given = []

    def count(tokenizer, texts, with_offsets=True):
        given.append(sum(map(len, texts)))
        return encode_as_text(tokenizer, texts, with_offsets)

    monkeypatch.setattr(encode_words_once, "encode_as_text", count)
    monkeypatch.setattr(encode_words_once, "MOST_WORDS", 200)
    encoder = WordEncoder(ours())
    texts = sentences(200)
    encoder.encode(texts)
    assert sum(given) < sum(map(len, texts)) / 4
    given.clear()
    encoder.encode(texts)
    assert sum(given) == 0  # but for empty batches
    for number in range(20):
        assert_as_text(encoder, [" ".join(f"w{number}x{index}" for index in range(100)), "b" * 5000, *texts])
        assert len(encoder._known) < 700  # of 2,000 that were met
    assert not any(len(word) > encode_words_once.LONGEST_WORD for word in encoder._known)
