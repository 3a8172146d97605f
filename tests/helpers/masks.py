"""Corpora of given ids with words and sentences, and masking of a whole document in plain loops."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from weft.recipes.data.corpus import Corpus, CorpusWriter
from weft.recipes.data.source_mixture import Source
from weft.recipes.pretraining.datasets.counter_rng import make_key, uniform
from weft.recipes.pretraining.datasets.masking import Masker, MaskingArguments, Vocabulary, begin_probability
from weft.recipes.pretraining.datasets.packed import DocumentSpan

PAD, START, END, MASK = 0, 1, 2, 4
VOCAB_SIZE = 60
VOCABULARY = Vocabulary(mask=MASK, ordinary=np.arange(5, VOCAB_SIZE), special=np.array([PAD, START, END, MASK]))


def write_marked(
    folder: Path,
    documents: Sequence[Sequence[int]],
    words: Sequence[Sequence[bool]],
    sentences: Sequence[Sequence[bool]] | None = None,
    held_out: Callable[[int], bool] = lambda i: False,
    sources: Sequence[Source] = (Source("all"),),
    source_of: Sequence[int] | None = None,
) -> Corpus:
    """A corpus of given ids, with the tokens that begin a word and a sentence (none: the same)."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = CorpusWriter(folder, VOCAB_SIZE, sources, with_boundaries=True)
    for i, ids in enumerate(documents):
        begins = [np.array(each[i], dtype=bool) for each in (words, words if sentences is None else sentences)]
        writer.add(list(ids), len(ids), held_out(i), 0 if source_of is None else source_of[i], begins)
    ends = {"start_token_id": START, "end_token_id": END}
    writer.close({"vocab_size": VOCAB_SIZE, "source": "ids", **ends})
    return Corpus.open(folder)


def write_sources(
    folder: Path, weights: Sequence[float | str], documents: int = 60, sentence: int = 5
) -> tuple[Corpus, list[list[int]]]:
    """A corpus of documents in which no id is there twice, in turn of each source, and their ids."""
    lengths = np.random.default_rng(3).integers(1, 30, documents)
    ends = np.cumsum(lengths) + 5
    ids = [list(range(end - length, end)) for end, length in zip(ends, lengths)]
    sources = [Source(f"source {i}", weight) for i, weight in enumerate(weights)]
    source_of = [i % len(weights) for i in range(documents)]
    words, sentences = ([[i % size == 0 for i in range(len(each))] for each in ids] for size in (1, sentence))
    return write_marked(folder, ids, words, sentences, sources=sources, source_of=source_of), ids


def random_text(lengths: Sequence[int], seed: int = 0, longest: int = 4) -> tuple[list[list[int]], list[list[bool]]]:
    """Documents of so many tokens between start and end token, in words of up to `longest` tokens."""
    draw = np.random.default_rng(seed)
    documents, words = [], []
    for length in lengths:
        begins: list[bool] = []
        while len(begins) < length:
            begins += [True, *[False] * int(draw.integers(longest))]
        documents.append([START, *draw.integers(5, VOCAB_SIZE, length).tolist(), END])
        words.append([True, *begins[:length], True])
    return documents, words


def whole(corpus: Corpus, document: int, pass_number: int = 0) -> DocumentSpan:
    """A document in one span."""
    return cut(corpus, document, 0, int(corpus.offsets[document + 1] - corpus.offsets[document]), pass_number)


def cut(corpus: Corpus, document: int, first: int, last: int, pass_number: int = 0) -> DocumentSpan:
    """The tokens [first, last) of a document."""
    offset = int(corpus.offsets[document])
    return DocumentSpan(document, first, corpus.tokens[offset + first : offset + last], pass_number, False)


def mask_by_hand(masker: Masker, document: int, rate: float, pass_number: int = 0) -> tuple[list[bool], list[int]]:
    """Which tokens of a whole document are selected, and what stands in their place, token by token."""
    arguments, vocabulary, corpus = masker.arguments, masker.vocabulary, masker.corpus
    first, last = int(corpus.offsets[document]), int(corpus.offsets[document + 1])
    ids = corpus.tokens[first:last].tolist()
    begins = [True] * len(ids)
    if arguments.masking != "token":
        begins = corpus.begins("words", first, last).tolist()
        begins[0] = True
    units = [place for place, flag in enumerate(begins) if flag]
    key = make_key(masker.seed, pass_number, document)
    shares = length_shares_by_hand(arguments)
    probability = begin_probability(rate, tuple(arguments.length_shares()))

    covered_from: dict[int, int] = {}  # unit -> where the last span that covers it begins
    for unit in range(-len(shares), len(units)):
        place = units[unit] if unit >= 0 else unit
        if uniform(key, place, 0) < probability:
            for covered in range(unit, unit + draw_length(float(uniform(key, place, 1)), shares)):
                covered_from[covered] = place

    selected, result, unit = [], [], -1
    for place, token in enumerate(ids):
        unit += begins[place]
        selected.append(unit in covered_from and token not in vocabulary.special)
        result.append(token)
        if selected[-1]:
            fate = uniform(key, covered_from[unit] if arguments.masking == "span" else place, 2)
            if fate < arguments.mask_token_share:
                result[-1] = vocabulary.mask
            elif fate < arguments.mask_token_share + arguments.random_token_share:
                result[-1] = int(vocabulary.ordinary[int(uniform(key, place, 3) * len(vocabulary.ordinary))])
    return selected, result


def length_shares_by_hand(arguments: MaskingArguments) -> list[float]:
    """How often a span has 1, 2, ... units, by the papers' definitions."""
    if arguments.masking == "span":
        success, longest = arguments.span_success, arguments.max_span
        every = [success * (1 - success) ** (length - 1) for length in range(1, longest + 1)]
    elif arguments.masking == "ngram":
        every = [1 / n for n in range(1, arguments.max_ngram + 1)]
    else:
        every = [1.0]
    return [share / sum(every) for share in every]


def draw_length(number: float, shares: Sequence[float]) -> int:
    """The length that a random number stands for."""
    for length, share in enumerate(shares, 1):
        if number < share:
            return length
        number -= share
    return len(shares)
