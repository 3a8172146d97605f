"""A trained tokenizer gives the text back, keeps to its size, and loads anywhere without code."""

import json
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from helpers.text import CHINESE, EMOJI, sentences, write_paragraphs
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from weft.recipes import train_tokenizer
from weft.recipes.common.errors import RecipeError
from weft.tokenizer import train

TYPES = ("bpe", "wordpiece", "unigram", "char")
CODE = "def f(x):\n\tif x  >  1:\n\t\treturn  'a'\n\n\n  # trailing   \n"
TEXTS = [*sentences(60), CHINESE, EMOJI, CODE, "  leading and trailing blanks  ", "line\n\nline\r\nline\u3000wide"]
VOCAB_SIZE = 400


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A saved tokenizer of each type, all trained on the same texts."""
    root = tmp_path_factory.mktemp("tokenizers")
    for kind in TYPES:
        train.train_tokenizer(iter(TEXTS), kind, VOCAB_SIZE, model_max_length=77).save_pretrained(root / kind)
    return root


@pytest.fixture(params=TYPES)
def saved(request, folders):
    """Kind and folder of each tokenizer."""
    return request.param, folders / request.param


def round_trip(tokenizer, text):
    return tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids)


@pytest.mark.parametrize("kind", ["bpe", "char"])
@pytest.mark.parametrize("text", TEXTS[60:])
def test_bpe_and_char_give_back_every_character(folders, kind, text):
    assert round_trip(AutoTokenizer.from_pretrained(folders / kind), text) == text


def test_unigram_gives_back_every_blank_and_line(folders):
    tokenizer = AutoTokenizer.from_pretrained(folders / "unigram")
    for text in [*TEXTS[:60], "  leading  and trailing \n\n blanks  ", CHINESE]:
        assert round_trip(tokenizer, text) == text


def test_unigram_normalises_compatibility_characters_and_nothing_else(folders):
    tokenizer = AutoTokenizer.from_pretrained(folders / "unigram")
    assert round_trip(tokenizer, "wide\u3000wide and e\u0301") == "wide wide and é"


def test_wordpiece_gives_back_words_with_single_blanks(folders):
    tokenizer = AutoTokenizer.from_pretrained(folders / "wordpiece")
    for text in ("the stone is made of light", "Number is Number"):  # its cased form: no lower-casing
        assert round_trip(tokenizer, f"  {text}\n") == text
    assert round_trip(tokenizer, CHINESE).replace(" ", "") == CHINESE


def test_it_loads_without_code_and_without_pickles(saved):
    _, folder = saved
    assert {path.name for path in folder.iterdir()} <= {
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    }
    for path in folder.iterdir():
        json.loads(path.read_text())
    assert "auto_map" not in json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert tokenizer.backend_tokenizer.get_vocab_size() == len(tokenizer)


def test_the_longest_input_is_kept(saved):
    assert AutoTokenizer.from_pretrained(saved[1]).model_max_length == 77


def test_the_start_token_comes_first_when_called(saved):
    tokenizer = AutoTokenizer.from_pretrained(saved[1])
    ids = tokenizer("the stone").input_ids
    assert ids == [tokenizer.bos_token_id, *tokenizer("the stone", add_special_tokens=False).input_ids]
    assert tokenizer.bos_token_id not in ids[1:] and tokenizer.eos_token_id not in ids


def test_special_tokens_have_the_same_ids_in_every_type(saved):
    tokenizer = AutoTokenizer.from_pretrained(saved[1])
    names = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
    assert tokenizer.convert_tokens_to_ids(names) == [0, 1, 2, 3, 4]
    special = [tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.mask_token]
    assert special == names
    assert sorted(tokenizer.all_special_ids) == [0, 1, 2, 3, 4]


def test_the_mask_token_can_be_written_in_a_text(saved):
    kind, folder = saved
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("the <mask> is", add_special_tokens=False).input_ids
    assert ids.count(tokenizer.mask_token_id) == 1
    before = ids[: ids.index(tokenizer.mask_token_id)]
    # the blank before a mask belongs to the masked word, except where every character is a token
    assert tokenizer.decode(before) == ("the " if kind == "char" else "the")


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("vocab_size", [262, 300, 1000])
def test_the_vocabulary_has_at_most_the_size_asked_for(kind, vocab_size):
    tokenizer = train.train_tokenizer(iter(TEXTS), kind, vocab_size)
    assert len(tokenizer) <= vocab_size
    assert max(tokenizer.get_vocab().values()) < vocab_size
    if kind == "bpe" and vocab_size <= 300:
        assert len(tokenizer) == vocab_size  # there is enough text to fill it


def test_a_wordpiece_alphabet_larger_than_the_vocabulary_is_cut(folders):
    letters = [chr(0x0400 + i) for i in range(250)]
    tokenizer = train.train_tokenizer(iter(["".join(letters), "".join(reversed(letters)), "ab ab ab"]), "wordpiece", 60)
    assert len(tokenizer) <= 60
    assert round_trip(tokenizer, "ab") == "ab"  # the most frequent characters are kept


def test_each_character_is_one_token_of_char(folders):
    tokenizer = AutoTokenizer.from_pretrained(folders / "char")
    for text in TEXTS:
        assert len(tokenizer(text, add_special_tokens=False).input_ids) == len(text)


def test_char_keeps_the_most_frequent_characters(folders):
    tokenizer = train.train_tokenizer(iter(["aaaa bbb cc d"]), "char", 5 + 3)
    assert set(tokenizer.get_vocab()) - set(train.SPECIAL_TOKENS) == {"a", "b", " "}
    assert tokenizer("abd", add_special_tokens=False).input_ids[-1] == tokenizer.unk_token_id


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_nothing_is_unknown_to_bpe_and_unigram(folders, kind):
    tokenizer = AutoTokenizer.from_pretrained(folders / kind)
    strange = "".join(map(chr, [*range(1, 0x300), 0x1234, 0x20000, 0xFFFD, 0x1F9FF]))
    ids = tokenizer(strange, add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == (strange if kind == "bpe" else unicodedata.normalize("NFKC", strange))


@pytest.mark.parametrize("kind", ["wordpiece", "char"])
def test_what_was_not_in_the_text_is_unknown_to_the_others(folders, kind):
    tokenizer = AutoTokenizer.from_pretrained(folders / kind)
    assert tokenizer.unk_token_id in tokenizer("Ж", add_special_tokens=False).input_ids


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "char"])
def test_training_twice_gives_the_same_tokenizer(folders, kind):
    tokenizer = train.train_tokenizer(iter(TEXTS), kind, VOCAB_SIZE, model_max_length=77)
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(folders / kind).get_vocab()


def test_an_unknown_type_and_too_small_a_size_are_refused():
    with pytest.raises(ValueError, match="'words' is unknown: choose one of bpe, wordpiece, unigram, char"):
        train.train_tokenizer(iter(TEXTS), "words", 500)
    for kind, least in (("bpe", 261), ("char", 6), ("wordpiece", 7), ("unigram", 262)):
        with pytest.raises(ValueError, match=f"vocab_size={least - 1} is too small.*at least {least}"):
            train.train_tokenizer(iter(TEXTS), kind, least - 1)
    with pytest.raises(ValueError, match="sample_characters=0 leaves no text"):
        train.train_tokenizer(iter(TEXTS), "bpe", 300, sample_characters=0)
    with pytest.raises(ValueError, match="add_prefix_space is for tokenizer_type bpe and unigram, not char"):
        train.train_tokenizer(iter(TEXTS), "char", 300, add_prefix_space=True)


def test_the_command_writes_a_folder_once(tmp_path, monkeypatch, capsys):
    path = write_paragraphs(tmp_path / "a.txt", TEXTS[:60])
    words = ["train.py", "--train_files", path, "--vocab_size", "300", "--model_max_length", "64"]
    monkeypatch.setattr("sys.argv", [*words, "--output_dir", str(tmp_path / "tokenizer")])
    train_tokenizer.main()
    printed = capsys.readouterr().out
    assert "bpe tokenizer with 300 tokens" in printed
    letters = sum(character.isalpha() for text in TEXTS[:60] for character in text)
    assert re.search(rf"^Latin +{letters:,} +[\d.]+ +0.0000% +0.0000%$", printed, re.MULTILINE)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert (len(tokenizer), tokenizer.model_max_length) == (300, 64)
    with pytest.raises(RecipeError, match="tokenizer exists"):
        train_tokenizer.main()
    monkeypatch.setattr("sys.argv", [*words, "--tokenizer_type", "words", "--output_dir", str(tmp_path / "other")])
    with pytest.raises(RecipeError, match="tokenizer_type is 'words'"):
        train_tokenizer.main()
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["train", "judge"])
def test_the_commands_are_beside_their_library_too(name):
    script = Path(train.__file__).with_name(f"{name}.py")
    done = subprocess.run([sys.executable, script, "--no_such_field", "1"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: unknown field --no_such_field")
