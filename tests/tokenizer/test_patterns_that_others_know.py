"""Patterns that programs beside tokenizers read: written without names of scripts, or those of another family."""

import json

import pytest
from helpers.text import CHINESE, EMOJI, sentences
from tokenizers import Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from weft.tokenizer import pre_tokenizers as patterns
from weft.tokenizer.pre_tokenizers import spell_out_scripts
from weft.tokenizer.train import train_tokenizer

TEXTS = [
    *sentences(40),
    CHINESE,
    EMOJI,
    "it's l'été, rock'n'roll; 'those' 123456 x" + "y" * 80 + "  \n\n\t  end ",
    "हिन्दी में नहीं लिखा ก็ไม่ได้เขียน かな々カナー漢字abc ພາສາລາວ ខ្មែរ မြန်မာ བོད་ 한국어 ㄅㄆㄇ",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 a\u0301\u0302 \U00020000\U0002a6d6\u3007",
]


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_scripts_as_ranges_cut_text_alike(kind: str) -> None:
    ours = train_tokenizer(iter(TEXTS * 3), kind, 700)
    content = json.loads(ours.backend_tokenizer.to_str())
    spelt = spell_out_scripts(content)
    written = json.dumps(spelt["pre_tokenizer"])
    assert r"\\p{Han}" in json.dumps(content["pre_tokenizer"])
    assert "&&" not in written and not any(name in written for name in ("Han", "Hiragana", "Thai", "Tibetan"))
    assert {name: part for name, part in spelt.items() if name != "pre_tokenizer"} == {
        name: part for name, part in content.items() if name != "pre_tokenizer"
    }
    theirs = Tokenizer.from_str(json.dumps(spelt))
    for text in TEXTS:
        assert theirs.encode(text).ids == ours(text).input_ids, text


def test_every_character_is_on_the_same_side() -> None:
    """Of the sets that the ranges stand for, in the engine that cuts text."""
    ranges = patterns._ranges_of(patterns.UNSPACED)
    cuts = [pre_tokenizers.Split(patterns.Regex(f"[{inside}]"), "isolated") for inside in (patterns.UNSPACED, ranges)]
    for start in range(0, 0x32000, 0x1000):
        text = "".join(chr(code) for code in range(start, start + 0x1000) if not 0xD800 <= code < 0xE000)
        named, spelt = (cut.pre_tokenize_str(text) for cut in cuts)
        assert named == spelt, hex(start)


def test_gpt2s_cut_is_that_of_gpt2() -> None:
    tokenizer = train_tokenizer(iter(TEXTS * 3), "bpe", 700, pre_tokenizer="gpt2")
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    assert content["pre_tokenizer"] == {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    bytes_alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    written_out = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    cut = pre_tokenizers.Split(patterns.Regex(patterns.GPT2), "isolated")
    written_out.pre_tokenizer = pre_tokenizers.Sequence([cut, bytes_alone])
    for text in TEXTS:
        assert written_out.encode(text).ids == tokenizer(text).input_ids
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    assert isinstance(tokenizer, PreTrainedTokenizerFast) and tokenizer("a").input_ids[0] == tokenizer.bos_token_id


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="pre_tokenizer 'gpt4' is unknown: choose one of weft, gpt2"):
        train_tokenizer(iter(TEXTS), "bpe", 700, pre_tokenizer="gpt4")
    for kind, options in (("unigram", {}), ("bpe", {"add_prefix_space": True})):
        with pytest.raises(ValueError, match="pre_tokenizer gpt2 is for tokenizer_type bpe without add_prefix_space"):
            train_tokenizer(iter(TEXTS), kind, 700, pre_tokenizer="gpt2", **options)
