"""Whole words are words under every tokenizer, and sentences without blanks are masked as evenly as all others."""

import importlib
import random
import re
from itertools import pairwise

import numpy as np
import pytest
from helpers.masks import cut, write_marked
from helpers.text import WORDS, prepare_documents

from weft.recipes.pretraining.datasets.masking import Masker, MaskingArguments
from weft.recipes.pretraining.objectives.masked import make_vocabulary
from weft.tokenizer.train import TOKENIZER_TYPES

CHARACTERS = "天地人山水火木日月星云雨风花草树鸟鱼马牛羊门车船书笔家国中外大小多少上下左右前后红白黑来去看听说"
COMMA = "\uff0c"
RATE = 0.3


def english(draw):
    """Every third word is made up, so that no tokenizer knows it as a whole."""
    words = draw.choices(WORDS, k=draw.randint(25, 45))
    words[::3] = ["".join(draw.choices("abdefgiklmnoprstu", k=draw.randint(3, 9))) for _ in words[::3]]
    return " ".join(words).capitalize() + ". "


def chinese(draw):
    """Clauses of two-character words, and no blank anywhere."""
    return COMMA.join("".join(draw.choices(CHARACTERS, k=2 * draw.randint(6, 9))) for _ in range(3)) + "。"


def prepare_language(folder, sentence, tokenizer_type, segmenter="characters"):
    draw = random.Random(4)
    texts = ["".join(sentence(draw) for _ in range(6)).strip() for _ in range(90)]
    fields = {"vocab_size": 400, "tokenizer_type": tokenizer_type, "segmenter": segmenter, "validation_fraction": 0.02}
    return prepare_documents(folder, texts, **fields)


def masker_for(corpus, **fields):
    return Masker(corpus, MaskingArguments(**fields), make_vocabulary(corpus.tokenizer()), 0)


def masked_shares(corpus, masker):
    """The masked share of each sentence."""
    shares = []
    for document in corpus.documents("train").tolist():
        first, last = int(corpus.offsets[document]), int(corpus.offsets[document + 1])
        selected = masker([cut(corpus, document, 0, last - first)], RATE)[0][1:-1]
        starts = np.flatnonzero(corpus.begins("sentences", first + 1, last - 1))
        shares += [sentence.mean() for sentence in np.split(selected, starts[starts > 0])]
    return np.array(shares)


@pytest.mark.parametrize("sentence", [english, chinese])
@pytest.mark.parametrize("tokenizer_type", TOKENIZER_TYPES)
def test_every_sentence_is_masked_in_part(tmp_path, tokenizer_type, sentence):
    corpus = prepare_language(tmp_path, sentence, tokenizer_type)
    for scheme in ("token", "word", "span", "ngram"):
        shares = masked_shares(corpus, masker_for(corpus, masking=scheme))
        assert len(shares) == 6 * len(corpus.documents("train"))
        assert abs(shares.mean() - RATE) < 5 * shares.std() / len(shares) ** 0.5 < 0.05
        assert ((shares == 0) | (shares == 1)).mean() < (0.1 if scheme == "span" else 0.01), scheme


def test_words_between_blanks_would_mask_a_chinese_clause_wholly_or_not_at_all(tmp_path):
    """What the text above would look like if words were what stands between blanks and punctuation."""
    corpus = prepare_language(tmp_path, chinese, "char")
    stops = [corpus.tokenizer().convert_tokens_to_ids(mark) for mark in COMMA + "。"]
    documents = [corpus.tokens[a:b].tolist() for a, b in zip(corpus.offsets, corpus.offsets[1:])]
    words = [
        [True, *(ids[i - 1] in stops or ids[i] in stops or i == 1 for i in range(1, len(ids)))] for ids in documents
    ]
    sentences = [[True, *(i == 1 or ids[i - 1] == stops[1] for i in range(1, len(ids)))] for ids in documents]
    clauses = write_marked(tmp_path / "clauses", documents, words, sentences)
    arguments = MaskingArguments(masking="word")
    shares = masked_shares(clauses, Masker(clauses, arguments, make_vocabulary(corpus.tokenizer()), 0))
    assert (shares < 0.1).mean() > 0.2


@pytest.mark.parametrize("tokenizer_type", TOKENIZER_TYPES)
def test_words_of_english_are_masked_as_one(tmp_path, tokenizer_type):
    """Against the words that Python itself finds in the text."""
    corpus = prepare_language(tmp_path, english, tokenizer_type)
    tokenizer, masker = corpus.tokenizer(), masker_for(corpus, masking="word")
    several = 0
    for document in corpus.documents("train").tolist()[:30]:
        first, last = int(corpus.offsets[document]), int(corpus.offsets[document + 1])
        selected = masker([cut(corpus, document, 0, last - first)], RATE)[0][1:-1].tolist()
        ids = corpus.tokens[first + 1 : last - 1].tolist()
        words: list[list[bool]] = []
        for token, flag in zip(tokenizer.convert_ids_to_tokens(ids), selected):
            piece = token.replace("Ġ", " ").replace("▁", " ")
            goes_on = piece.startswith("##") or (tokenizer_type != "wordpiece" and piece.isalpha())
            if not (goes_on and words):
                words.append([])
            words[-1].append(flag)
        assert all(len(set(word)) == 1 for word in words)
        several += sum(len(word) > 1 for word in words)
    assert several > 100


@pytest.mark.parametrize("tokenizer_type", TOKENIZER_TYPES)
def test_the_words_of_a_segmenter_are_masked_together(tmp_path, monkeypatch, tokenizer_type):
    module = tmp_path / "cutting_in_twos.py"
    module.write_text("def cut(run):\n    return [run[i : i + 2] for i in range(0, len(run), 2)]\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    corpus = prepare_language(tmp_path / "corpus", chinese, tokenizer_type, segmenter="cutting_in_twos:cut")
    tokenizer, masker = corpus.tokenizer(), masker_for(corpus, masking="word", mask_token_share=1, random_token_share=0)
    alone = 0
    for document in corpus.documents("train").tolist()[:30]:
        first, last = int(corpus.offsets[document]), int(corpus.offsets[document + 1])
        ids = corpus.tokens[first + 1 : last - 1].tolist()
        selected = masker([cut(corpus, document, 0, last - first)], RATE)[0][1:-1].tolist()
        text = tokenizer.decode(ids).replace(" ", "")
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        flags: list[set[bool]] = [set() for _ in text]
        pair = [-1] * len(text)
        place = 0
        for clause in re.split(f"[{COMMA},。]", text)[:-1]:  # unigram's normaliser makes an ASCII comma of it
            pair[place : place + len(clause)] = [place + i // 2 * 2 for i in range(len(clause))]
            place += len(clause) + 1
        joined = set()  # words that share a token with another: such a token is masked with the first
        for (begin, end), flag in zip(offsets, selected, strict=True):
            for i in range(begin, end):
                flags[i].add(flag)
            if len(set(pair[begin:end])) > 1:
                joined.update(pair[begin:end])
        words = sorted(set(pair) - joined - {-1})
        assert all(flags[i] == flags[i + 1] and len(flags[i]) == 1 for i in words)
        alone += sum(flags[i] != flags[j] for i, j in pairwise(words) if j == i + 2)
    assert alone > 100


def test_an_unknown_token_is_text_unless_it_is_an_end_token_too(tmp_path):
    """BERT's may be masked, but replaces nothing; GPT-2's one special token is neither."""
    corpus = prepare_language(tmp_path, english, "wordpiece")
    tokenizer = corpus.tokenizer()
    known = make_vocabulary(tokenizer)
    names = tokenizer.convert_ids_to_tokens(known.special.tolist())
    assert sorted(names) == ["</s>", "<mask>", "<pad>", "<s>"] and known.mask == tokenizer.mask_token_id
    special = {*known.special.tolist(), tokenizer.unk_token_id}
    assert known.ordinary.tolist() == [i for i in range(len(tokenizer)) if i not in special]
    tokenizer.bos_token = tokenizer.eos_token = tokenizer.pad_token = tokenizer.unk_token
    assert tokenizer.unk_token_id in make_vocabulary(tokenizer).special
