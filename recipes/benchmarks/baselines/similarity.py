"""How well vectors of words agree with pairs of words: learnt ones, and the input embeddings of networks."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weft.recipes.benchmarks.baselines.arguments import BaselineArguments
from weft.recipes.classical.text import Documents
from weft.recipes.classical.word_vectors import (
    FEWEST_PAIRS,
    WordPair,
    agreement,
    grouped_pairs,
    learn_vectors,
    words_of,
)
from weft.recipes.common.markdown import table
from weft.recipes.data.corpus import Corpus
from weft.recipes.evaluation.model_loading import load_model
from weft.tokenizer.encode_as_text import encode_as_text

MOST_WORDS = 20_000_000  # of the training text that vectors are learnt from
TITLES = {"word2vec": "Word2Vec", "fasttext": "FastText"}
OWN_PAIRS = "pairs from the same list of Python's names (keywords, exceptions, modules ...) and from different ones"


def compare_vectors(
    arguments: BaselineArguments, corpus: Corpus, networks: dict[str, Path], pairs: Sequence[WordPair] | None
) -> dict[str, Any] | None:
    """Score vectors of words, learnt from the training text, beside the networks' input embeddings.

    Args:
        networks: the title of each and its folder.
        pairs: of similarity_file; None: those of Python's own names.

    Returns:
        What the pairs are, their number, how many of them the text has, and the correlation of each kind of vectors
        with their scores (None where there is none); None where nothing is compared.
    """
    if not arguments.vectors and not networks:
        return None
    sentences = _sentences(corpus)
    counts = Counter(itertools.chain.from_iterable(sentences))
    given = grouped_pairs(counts, arguments.seed) if pairs is None else pairs
    found = [pair for pair in given if pair.first in counts and pair.second in counts]
    result: dict[str, Any] = {"source": arguments.similarity_file or OWN_PAIRS}
    result |= {"pairs": len(given), "in_the_text": len(found), "spearman": {}}
    if len(found) < FEWEST_PAIRS:
        print(
            f"note: the text has both words of {len(found)} of {len(given)} pairs, too few to compare vectors by: give "
            "a --similarity_file with words of the text"
        )
        return result
    for kind in arguments.vectors:
        print(f"{TITLES[kind]} ...", flush=True)
        vectors = learn_vectors(kind, sentences, arguments.seed)
        result["spearman"][TITLES[kind]] = agreement(vectors.__getitem__, found)
    for title, folder in networks.items():
        result["spearman"][f"input embeddings, {title}"] = agreement(_embedding(folder), found)
    return result


def describe_pairs(result: dict[str, Any]) -> str:
    """A part of a page for what `compare_vectors` found."""
    text = (
        f"{result['in_the_text']:,} of {result['pairs']:,} pairs are in the text: {result['source']}. Spearman's rank "
        "correlation of the cosine of two words with their score:"
    )
    told = [(title, "undefined" if value is None else f"{value:.3f}") for title, value in result["spearman"].items()]
    return "\n\n".join(["## Vectors of words", text, *([table(("vectors", "correlation"), told)] if told else [])])


def _sentences(corpus: Corpus) -> list[list[str]]:
    """The words of the documents that are trained on, as far as MOST_WORDS go."""
    tokenizer, found, number = corpus.tokenizer(), [], 0
    for tokens, begins in Documents(corpus, "train")():
        rows = [tokens[first:last].tolist() for first, last in itertools.pairwise(begins.tolist())]
        for text in tokenizer.batch_decode(rows, skip_special_tokens=True):
            found.append(words_of(text))
            number += len(found[-1])
        if number > MOST_WORDS:
            break
    return [words for words in found if words]


def _embedding(folder: Path) -> Callable[[str], np.ndarray]:
    """What gives the mean of the input embeddings of a word's tokens, as it stands inside of a text."""
    model, tokenizer, _ = load_model(str(folder), "causal", "cpu", "float32")
    matrix = model.get_input_embeddings().weight.detach().numpy()
    return lambda word: matrix[next(iter(encode_as_text(tokenizer, [f" {word}"]))).ids].mean(0)
