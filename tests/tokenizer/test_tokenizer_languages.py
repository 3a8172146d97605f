"""Every type of tokenizer serves every script: text comes back, offsets point into it, pieces are bounded."""

import json
import subprocess
import sys
import unicodedata

import pytest
from helpers.text import sentences
from transformers import AutoTokenizer

from weft.tokenizer import pre_tokenizers, train

TYPES = ("bpe", "wordpiece", "unigram", "char")
TEXTS = {
    "English": "The quick brown fox doesn't jump over 1234567 lazy dogs, l'homme s\u2019il vous plaît.",
    "Chinese": "敏捷的棕色狐狸跳过懒狗。今天是2024年\uff0c天气很好\uff01",
    "Japanese": "吾輩は猫である。コーヒーを飲みました。",
    "Thai": "สวัสดีชาวโลก ภาษาไทยไม่มีช่องว่างระหว่างคำ",
    "Hindi": "नमस्ते दुनिया, यह हिन्दी में एक वाक्य है।",
    "Arabic": "مرحبا بالعالم، هذه جملة باللغة العربية.",
    "Persian": "می‌خواهم کتاب‌ها را بخوانم",  # noqa: RUF001
    "emoji": "ok 👩‍👩‍👧 ❤️ 🇫🇷 1️⃣ done 😀😀",
}
LEARNT = [*TEXTS.values()] * 3 + ["a\nb"] + sentences(20)


def normalised(kind, text):
    """What a type is bound to give back of a text: bpe and char all of it."""
    if kind == "unigram":
        return unicodedata.normalize("NFKC", text)
    if kind == "wordpiece":  # blanks are not its to keep, and BERT's cleaning takes joiners for control characters
        return "".join(character for character in text if unicodedata.category(character) not in ("Zs", "Cc", "Cf"))
    return text


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tokenizer of each type that has seen all scripts."""
    root = tmp_path_factory.mktemp("languages")
    for kind in TYPES:
        train.train_tokenizer(iter(LEARNT), kind, 1500).save_pretrained(root / kind)
    return root


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("kind", TYPES)
def test_every_script_comes_back(folders, kind, language):
    tokenizer, text = AutoTokenizer.from_pretrained(folders / kind), TEXTS[language]
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in ids
    assert normalised(kind, tokenizer.decode(ids)) == normalised(kind, text)


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("kind", TYPES)
def test_offsets_point_into_the_text_as_it_was_given(folders, kind, language):
    tokenizer, text = AutoTokenizer.from_pretrained(folders / kind), f"  {TEXTS[language]}\n"
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    covered = set()
    for (first, end), token in zip(encoding.offset_mapping, encoding.input_ids):
        covered.update(range(first, end))
        part, shown = text[first:end], tokenizer.decode([token])
        if kind == "wordpiece":
            shown = shown.removeprefix("##")
        if kind == "unigram":  # NFKC makes two characters of some, which may be two tokens
            assert shown == "\ufffd" or shown in normalised(kind, part)
        elif "\ufffd" not in shown:  # not some bytes of a character
            assert shown == normalised(kind, part)
    kept = [index for index, character in enumerate(text) if normalised(kind, character)]
    assert covered.issuperset(kept)


def test_they_load_in_a_process_that_knows_nothing_of_weft(folders):
    text = TEXTS["Chinese"] + TEXTS["Thai"]
    program = (
        "import json, sys\nfrom transformers import AutoTokenizer\n"
        "print(json.dumps([AutoTokenizer.from_pretrained(name)(sys.argv[1]).input_ids for name in sys.argv[2:]]))\n"
        "assert 'weft' not in sys.modules"
    )
    names = [str(folders / kind) for kind in TYPES]
    printed = subprocess.run([sys.executable, "-c", program, text, *names], capture_output=True, text=True, check=True)
    expected = [AutoTokenizer.from_pretrained(name)(text).input_ids for name in names]
    assert json.loads(printed.stdout.splitlines()[-1]) == expected


def cut(text):
    return [piece for piece, _ in pre_tokenizers.split_pieces().pre_tokenize_str(text)]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("the cat's 12345 dogs", ["the", " cat", "'s", " 1234", "5", " dogs"]),
        ("we'll, l'homme", ["we", "'ll", ",", " l", "'", "homme"]),
        ("नमस्ते दुनिया।", ["नमस्ते", " दुनिया", "।"]),
        ("iPhone手机壳。好", ["iPhone", "手机壳", "。", "好"]),
        ("食べるのはABC", ["食べるのは", "ABC"]),
        ("ภาษาไทย น้ำ", ["ภาษาไทย", " ", "น้ำ"]),
        ("می‌خواهم کتاب", ["می‌خواهم", " کتاب"]),
        ("a 👩‍👩‍👧!", ["a", " 👩‍👩‍👧!"]),
        ("x:\n    y", ["x", ":", "\n   ", " y"]),
    ],
)
def test_pieces_are_words_in_any_script(text, expected):
    assert cut(text) == expected


@pytest.mark.parametrize("unit", ["中", "ไ", "क", "a", "7", "-", " ", "\n", "\u0301", "あ", "👍", "'"])
def test_no_piece_is_longer_than_the_bound_and_none_is_lost(unit):
    text = unit * 1000
    assert "".join(cut(text)) == text
    assert max(map(len, cut(text))) <= pre_tokenizers.LONGEST_WORD + 1
    if unit in "中ไあ":
        assert max(map(len, cut(text))) == pre_tokenizers.LONGEST_RUN


def test_what_is_cut_in_use_was_cut_in_training():
    """A long run teaches no token longer than the bound, and short runs teach tokens of several characters."""
    tokenizer = train.train_tokenizer(iter(["中国人民" * 500, "中国", "中国"]), "bpe", 400)
    longest = max((tokenizer.decode([index]) for index in range(5, len(tokenizer))), key=len)
    assert len(longest) == pre_tokenizers.LONGEST_RUN and set(longest) == set("中国人民")
    assert "中国" in {tokenizer.decode([index]) for index in range(len(tokenizer))}


def test_wordpiece_keeps_long_words_known(folders):
    tokenizer = AutoTokenizer.from_pretrained(folders / "wordpiece")
    for text in ("ไทย" * 200, "the" * 200):
        assert tokenizer.unk_token_id not in tokenizer(text).input_ids


def test_characters_that_are_too_many_are_bytes_in_unigram_and_unknown_in_wordpiece():
    frequent, rare = "的一是", "".join(map(chr, range(0x5000, 0x5400)))
    texts = [frequent * 50, rare]
    unigram = train.train_tokenizer(iter(texts), "unigram", 400)
    assert unigram.decode(unigram(rare, add_special_tokens=False).input_ids) == rare
    wordpiece = train.train_tokenizer(iter(texts), "wordpiece", 100)
    assert wordpiece.unk_token_id in wordpiece(rare[-1]).input_ids
    assert wordpiece.unk_token_id not in wordpiece(frequent).input_ids


@pytest.mark.parametrize("kind", TYPES)
def test_a_special_token_that_is_spelt_out_can_be_read_as_text(folders, kind):
    tokenizer = AutoTokenizer.from_pretrained(folders / kind)
    for word in ("<s>", "<mask>", "<0x41>"):
        ids = tokenizer(word, add_special_tokens=False, split_special_tokens=True).input_ids
        assert len(ids) > 1 and not set(ids) & {0, 1, 2, 4}


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_with_a_prefix_blank_a_first_word_is_a_word_like_any_other(kind):
    plain = train.train_tokenizer(iter(LEARNT), kind, 600)
    prefixed = train.train_tokenizer(iter(LEARNT), kind, 600, add_prefix_space=True)

    def ids(tokenizer, text, **options):
        return tokenizer(text, add_special_tokens=False, **options).input_ids

    assert ids(plain, "river") != ids(plain, " river")
    assert ids(prefixed, "river") == ids(prefixed, " river")
    assert ids(prefixed, "  river") != ids(prefixed, " river")
    assert ids(prefixed, ["river", "stone"], is_split_into_words=True) == ids(prefixed, "river stone")
    encoding = prefixed("river stone", return_offsets_mapping=True, add_special_tokens=False)
    assert encoding.offset_mapping[0][0] == 0 and encoding.offset_mapping[-1][1] == len("river stone")
