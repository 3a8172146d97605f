"""A tokenizer of each type learns from any text: of one character, of NUL, of blanks, of emoji, of next to nothing."""

import json

import pytest
from transformers import AutoTokenizer

from weft.recipes import train_tokenizer as command
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.prepare import prepare
from weft.tokenizer.train import TOKENIZER_TYPES, train_tokenizer

NUL = ["\0" * number for number in range(1, 40)]
TEXTS = {
    "one character": ["a"],
    "nul": NUL,
    "nul and letters": ["a\0b c\0"] * 5,
    "control characters": ["\x01\x02\x7f\x85"],
    "emoji": ["\U0001f600"] * 3,
    "marks alone": ["\u0301" * 3],
    "joiners alone": ["\u200d"],
    "private use": ["\ue000\U000f0000"],
    "byte order mark": ["\ufeffhello"],
    "two words": ["ab ab ab cd"],
    "one long word": ["a" * 10_000],
    "what Metaspace writes": ["\u2581\u2581a \u2581"],
    "what stands for bytes": ["<0x41> <0x00>"],
    "special tokens": ["<s></s><unk>" * 3],
}
DROPPED = {"nul", "control characters", "joiners alone", "private use"}  # by wordpiece, as BERT does


@pytest.mark.parametrize("vocab_size", [262, 300, 8192])
@pytest.mark.parametrize("kind", TOKENIZER_TYPES)
@pytest.mark.parametrize("name", list(TEXTS))
def test_any_text_gives_a_tokenizer_that_reads_it(tmp_path, kind, name, vocab_size):
    texts = TEXTS[name]
    if kind == "wordpiece" and name in DROPPED:
        with pytest.raises(ValueError, match=r"wordpiece keeps no character of the text.*choose bpe or unigram"):
            train_tokenizer(iter(texts), kind, vocab_size)
        return
    tokenizer = train_tokenizer(iter(texts), kind, vocab_size)
    tokenizer.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = list(tokenizer.get_vocab().values())
    assert len(set(ids)) == len(ids) and max(ids) < vocab_size
    for text in texts[:5]:
        made = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
        assert made and (kind == "wordpiece" or tokenizer.unk_token_id not in made)
        if kind in ("bpe", "char"):
            assert tokenizer.decode(made) == text
    for part in ("tokenizer.json", "tokenizer_config.json"):
        json.loads((tmp_path / part).read_text(), parse_constant=lambda word: pytest.fail(word))  # NaN is no JSON


@pytest.mark.parametrize("kind", TOKENIZER_TYPES)
@pytest.mark.parametrize("texts", [[""], [" ", "\n\t"]])
def test_a_tokenizer_is_not_trained_on_nothing(tmp_path, kind, texts, monkeypatch):
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    words = ["--train_files", path, "--tokenizer_type", kind, "--vocab_size", 300, "--output_dir", tmp_path / "out"]
    monkeypatch.setattr("sys.argv", ["train.py", *map(str, words)])
    with pytest.raises(RecipeError, match="there is no text in"):
        command.main()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char"])
def test_a_corpus_of_nul_is_prepared_with_the_tokenizer_it_trains(tmp_path, kind):
    path = tmp_path / "nul.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in NUL))
    corpus = prepare(DataArguments(train_files=[str(path)], tokenizer_type=kind, vocab_size=300), tmp_path / "c", True)
    assert len(corpus.byte_counts) == len(NUL) and corpus.description["unknown_rate"] == 0
