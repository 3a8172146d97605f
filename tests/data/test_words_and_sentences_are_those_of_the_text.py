"""Where words and sentences begin depends on the text alone: not on the tokenizer, and in no script on blanks."""
# ruff: noqa: RUF001 - letters and punctuation of many scripts are what is tested

import itertools
import sys
import types

import numpy as np
import pytest
import regex
from helpers.text import CHINESE, EMOJI, make_data, prepare_documents, sentences, write_paragraphs

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.prepare import prepare
from weft.recipes.data.segmentation import get_segmenter, sentence_starts, word_starts
from weft.tokenizer.train import train_tokenizer

ENGLISH = "The dog's tail — “J. Smith” said: 3.14 is pi! Isn't it?  Well… Mr. Lee (80) left.\nNext_line: naïve café."
MIXED = "他说：“今天天气很好。”我们去北京大学吧！ABC公司 3D打印，没问题。"
HINDI = "हिन्दी में किताबें हैं। यह अच्छा है।"
THAI = "ภาษาไทยไม่มีช่องว่าง สวัสดี"
JAPANESE = "これはペンです。「はい。」と言った。データ"
ARABIC = "كِتَابٌ جديد؟ نعم۔ می\u200cخواهم"
KOREAN = "나는 학교에 갔다. 집에 왔다."
TEXTS = [ENGLISH, MIXED, HINDI, THAI, JAPANESE, ARABIC, KOREAN, CHINESE, EMOJI, "x", "  two  blanks \n\n lines "]
KINDS = {"bpe": 400, "wordpiece": 700, "unigram": 420, "char": 400}


def every_character(text):
    """A token for each character: what the text itself says."""
    return [(i, i + 1) for i in range(len(text))]


def words_of(text, offsets=None, segment=None):
    """The text of each word, blanks around it left out."""
    offsets = every_character(text) if offsets is None else offsets
    begins, words = word_starts(text, offsets, segment), []
    for (first, last), is_start in zip(offsets, begins, strict=True):
        if is_start:
            words.append("")
        words[-1] += text[first:last]
    return [word.strip() for word in words if word.strip()]


def sentences_of(text):
    begins = [*np.flatnonzero(sentence_starts(text, every_character(text))), len(text)]
    return [text[first:last].strip() for first, last in itertools.pairwise(begins)]


@pytest.fixture(scope="module", params=KINDS)
def backend(request):
    tokenizer = train_tokenizer(iter(TEXTS * 3), request.param, KINDS[request.param]).backend_tokenizer
    tokenizer.name = request.param
    return tokenizer


SCRIPTS_WITHOUT_BLANKS = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}ー]")


def kind_of(character):
    if character.isspace():
        return "blank"
    if not regex.fullmatch(r"[\p{L}\p{M}\p{N}]", character):
        return "other"
    is_mark = regex.fullmatch(r"\p{M}", character)
    return "unspaced" if SCRIPTS_WITHOUT_BLANKS.fullmatch(character) and not is_mark else "letter"


def naive_words(text, segment):
    """First character of each word and the one after its last."""
    place = 0
    while place < len(text):
        kind, end = kind_of(text[place]), place + 1
        if kind == "blank":
            place = end
            continue
        if kind == "letter":
            while end < len(text) and (
                kind_of(text[end]) == "letter"
                or text[end] == "\u200c"
                or (text[end] in "'’" and end + 1 < len(text) and kind_of(text[end + 1]) == "letter")
            ):
                end += 1
            ends = [end]
        elif kind == "unspaced" and segment is not None:
            while end < len(text) and (kind_of(text[end]) == "unspaced" or regex.fullmatch(r"\p{M}", text[end])):
                end += 1
            ends = list(itertools.accumulate(map(len, segment(text[place:end])), initial=place))[1:]
        else:
            ends = [place + len(regex.match(r"\X", text[place:]).group())]
        for end in ends:
            yield place, end
            place = end


def naive_word_starts(text, offsets, segment=None):
    """The definition, a character and a token at a time."""
    word_of = {}
    for number, (first, last) in enumerate(naive_words(text, segment)):
        word_of.update(dict.fromkeys(range(first, last), number))
    begins, previous, previous_last = [], None, 0
    for first, last in offsets:
        visible = next((i for i in range(first, last) if not text[i].isspace()), None)
        if visible is not None:
            mine = word_of[visible]
        elif text[first:last] == " " and last < len(text) and not text[last].isspace():
            mine = word_of[last]
        else:
            mine = None
        begins.append(not first < previous_last and (mine is None or mine != previous))
        previous, previous_last = mine, last
    return begins


def pairs(run):
    """A segmenter that takes two characters with their marks for a word."""
    return regex.findall(r"\X{1,2}", run)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("segment", [None, pairs])
def test_words_are_those_of_the_definition(backend, text, segment):
    offsets = backend.encode(text, add_special_tokens=False).offsets
    assert word_starts(text, offsets, segment).tolist() == naive_word_starts(text, offsets, segment)
    assert word_starts(text, np.array(offsets), segment).tolist() == naive_word_starts(text, offsets, segment)


EXPECTED_WORDS = {
    "english": (
        ENGLISH,
        "The dog's tail — “ J . Smith ” said : 3 . 14 is pi ! Isn't it ? Well … Mr . Lee ( 80 ) left . "
        "Next _ line : naïve café .",
    ),
    "chinese": (
        MIXED,
        "他 说 ： “ 今 天 天 气 很 好 。 ” 我 们 去 北 京 大 学 吧 ！ ABC 公 司 3D 打 印 ， 没 问 题 。",
    ),
    "hindi": (HINDI, "हिन्दी में किताबें हैं । यह अच्छा है ।"),
    "thai": ("ภาษาไม่มี", "ภ า ษ า ไ ม่ มี"),
    "japanese": ("「はい。」データ", "「 は い 。 」 デ ー タ"),
    "arabic": (ARABIC, "كِتَابٌ جديد ؟ نعم ۔ می\u200cخواهم"),
    "korean": (KOREAN, "나는 학교에 갔다 . 집에 왔다 ."),
    "emoji": ("👩‍👩‍👧🇫🇷 ok👍🏽", "👩‍👩‍👧 🇫🇷 ok 👍🏽"),
}


@pytest.mark.parametrize("name", EXPECTED_WORDS)
def test_words_look_like_words(name):
    text, expected = EXPECTED_WORDS[name]
    assert words_of(text) == expected.split()


def first_visible(text, first, last):
    """The first visible character of a token, or the one after it where it is the blank before a word."""
    return next((i for i in range(first, last + 1) if text[i : i + 1].strip()), None)


@pytest.mark.parametrize("text", TEXTS)
def test_every_tokenizer_finds_the_same_words_but_for_those_inside_of_a_token(backend, text):
    offsets = backend.encode(text, add_special_tokens=False).offsets
    found = {first_visible(text, *offsets[i]) for i in np.flatnonzero(word_starts(text, offsets))} - {None}
    of_text = {first for first, _ in naive_words(text, None)}
    assert found <= of_text
    inside = {i for first, last in offsets for i in range((first_visible(text, first, last) or first) + 1, last)}
    assert of_text - found <= inside


def test_bytes_of_a_character_are_never_parted():
    text = "犬と猫🐈"
    offsets = [(0, 1), (0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (3, 4), (3, 4)]
    assert word_starts(text, offsets).tolist() == [True, False, False, False, True, True, False, False]
    assert sentence_starts("。犬", [(0, 1), (0, 2), (1, 2)]).tolist() == [True, False, False]


def test_a_blank_before_a_word_begins_it_and_other_white_space_stands_alone():
    text = "a b  c\nd "
    assert word_starts(text, every_character(text)).tolist() == [
        *(True, True, False),  # a, blank + b
        *(True, True, False),  # the first of two blanks, blank + c
        *(True, True, True),  # line end, d, blank at the end
    ]
    assert word_starts("ab cd", [(0, 2), (2, 3), (3, 4), (4, 5)]).tolist() == [True, True, False, False]


def test_tokens_without_their_blanks_are_placed_by_what_lies_between_them():
    trimmed = [(0, 2), (3, 3), (3, 5)]  # as tokenizers give that trim offsets: the second is the blank
    assert word_starts("ab cd", trimmed).tolist() == [True, True, False]
    assert word_starts("ab", [(0, 0), (0, 2)]).tolist() == [True, False]  # a blank that the tokenizer put there
    assert word_starts("", []).tolist() == [] and sentence_starts("", []).tolist() == []


EXPECTED_SENTENCES = {
    "english": ["He left. ", "“Did he?” ", "Yes! ", "And then… ", "Nothing."],
    "initials, titles, decimals, abbreviations": ["Mr. J. R. Smith paid $3.50, e.g. in cash. ", "Dr. Who came."],
    "no blank behind": ["See example.com/a.b?c=1 or v1.2.3 now"],
    "lower case goes on": ["“What?” he said. ", "Then he left."],
    "list items": ["1. Read it.\n", "2. Write it."],
    "line ends": ["A title\n", "And a line\n\n", "and another"],
    "chinese": ["他说：“今天很好。”", "我们走吧！", "真的吗？！", "好……不好"],
    "chinese with latin marks": ["真的吗?", "不信!", "好"],
    "japanese": ["「はい。」", "と言った。", "終わり"],
    "hindi": ["यह अच्छा है। ", "हाँ।"],
    "arabic": ["چرا؟ ", "بله۔ ", "نعم"],
    "greek": ["Τι κάνεις; ", "Καλά; a"],
    "no greek": ["Wait; Smith left."],
    "full-width decimals": ["約３．１４です。", "はい"],
}


@pytest.mark.parametrize("name", EXPECTED_SENTENCES)
def test_sentences_look_like_sentences(name):
    expected = EXPECTED_SENTENCES[name]
    assert sentences_of("".join(expected)) == [sentence.strip() for sentence in expected]


def test_every_sentence_begins_with_a_word_and_all_are_found(backend):
    for text in (ENGLISH, MIXED, HINDI, KOREAN, "Two.  Blanks.\n\n  Indented. A\tTab"):
        offsets = backend.encode(text, add_special_tokens=False).offsets
        begins = sentence_starts(text, offsets)
        assert begins.sum() == sentence_starts(text, every_character(text)).sum()
        assert not (begins & ~word_starts(text, offsets)).any()


@pytest.fixture
def own_module(monkeypatch):
    module = types.ModuleType("own_segmenter")
    module.pairs, module.loses, module.number = pairs, lambda run: [run[1:]], 5
    monkeypatch.setitem(sys.modules, "own_segmenter", module)


def test_a_segmenter_of_ones_own_cuts_runs(own_module):
    assert words_of("去北京大学 ok", segment=get_segmenter("own_segmenter:pairs")) == ["去北", "京大", "学", "ok"]
    assert get_segmenter("characters") is None


def test_a_segmenter_that_loses_characters_is_refused(own_module):
    with pytest.raises(RecipeError, match=r"cut '北京' into \['京'\], which do not join to it"):
        words_of("去 北京", segment=lambda run: [run] if len(run) == 1 else [run[1:]])


@pytest.mark.parametrize(
    "name, message",
    [
        ("nonsense", "choose characters or jieba"),
        ("no_such_module:f", "cannot be loaded .*no_such_module"),
        ("own_segmenter:missing", "cannot be loaded"),
        ("own_segmenter:number", "is a int, where a function is needed"),
    ],
)
def test_a_segmenter_that_cannot_be_used_is_named(own_module, tmp_path, name, message):
    path = write_paragraphs(tmp_path / "a.txt", sentences(3))
    with pytest.raises(RecipeError, match=rf"segmenter.*{message}"):
        prepare(make_data(train_files=[path], segmenter=name), tmp_path / "corpus", quiet=True)
    assert not (tmp_path / "corpus").exists()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(RecipeError, match="pip install jieba"):
        get_segmenter("jieba")


def test_jieba_finds_words_of_chinese(capfd):
    pytest.importorskip("jieba")
    assert words_of("我们去北京大学吧 ok", segment=get_segmenter("jieba")) == ["我们", "去", "北京大学", "吧", "ok"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["document", "tail"])
def test_a_corpus_knows_them_for_every_token(tmp_path, kind, split):
    corpus = prepare_documents(
        tmp_path, [*TEXTS[:8], *sentences(30)], segmenter="characters", tokenizer_type=kind, validation_split=split,
        validation_fraction=0.2, vocab_size=KINDS[kind],
    )  # fmt: skip
    documents = [*(text.strip("\n") for text in TEXTS[:8]), *sentences(30)]
    backend, expected = corpus.tokenizer().backend_tokenizer, {"words": [], "sentences": []}
    for text in documents:
        cut = int(len(text) * 0.8) if split == "tail" else len(text)
        for part in filter(None, (text[:cut], text[cut:])):
            offsets = backend.encode(part, add_special_tokens=False).offsets
            last = [True] if part is text or part == text[cut:] else []  # a head has no end token
            expected["words"] += [True, *word_starts(part, offsets), *last]
            expected["sentences"] += [True, *sentence_starts(part, offsets), *last]
    number = len(corpus.tokens)
    assert corpus.has_boundaries
    for name, flags in expected.items():
        assert corpus.begins(name, 0, number).tolist() == flags
        for first, last in ((0, 1), (3, 3), (5, 21), (8, 16), (7, 17), (number - 9, number)):
            assert corpus.begins(name, first, last).tolist() == flags[first:last]
    assert (corpus.folder / "words.bits").stat().st_size == -(-number // 8)


def test_a_corpus_without_them_says_how_to_get_them(tmp_path):
    corpus = prepare_documents(tmp_path, sentences(5))
    assert not corpus.has_boundaries and not list(corpus.folder.glob("*.bits"))
    with pytest.raises(RecipeError, match=r"where words begin.*--segmenter characters"):
        corpus.begins("words", 0, 1)


def test_the_tokens_are_the_same_with_and_without(tmp_path):
    plain = prepare_documents(tmp_path / "plain", [*TEXTS[:8], *sentences(30)], tokenizer_type="bpe")
    marked = prepare_documents(
        tmp_path / "marked", [*TEXTS[:8], *sentences(30)], tokenizer_type="bpe", segmenter="characters"
    )
    assert plain.tokens.tolist() == marked.tokens.tolist()
