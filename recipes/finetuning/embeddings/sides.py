"""What scores texts: an embedding model, a reranker, and what needs neither, BM25 and averaged word vectors.

Each is asked the same way: `index` takes the texts that are searched and gives a function of queries, whose scores are
[queries, texts]; `similarities` are of pairs, [pairs].
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from weft.recipes.classical.word_vectors import FASTTEXT, VECTOR_SIZE, learn_vectors, words_of
from weft.recipes.data.word_index import WordIndex, largest

Search = Callable[[Sequence[str]], np.ndarray]

CANDIDATES = 100  # texts that BM25 gives a reranker for each query


class Side(Protocol):
    """Scores texts."""

    def index(self, documents: Sequence[str]) -> Search:
        """What gives the scores of these texts for queries."""

    def similarities(self, firsts: Sequence[str], seconds: Sequence[str]) -> np.ndarray:
        """How alike the two texts of each pair are, [pairs]."""


class Embedder:
    """An embedding model of sentence-transformers, or its first numbers alone."""

    def __init__(self, model: Any, batch_size: int, size: int | None = None) -> None:
        self.model, self.options = model, {"batch_size": batch_size, "truncate_dim": size, "show_progress_bar": False}
        self.options["normalize_embeddings"] = model.similarity_fn_name == "cosine"

    def index(self, documents: Sequence[str]) -> Search:
        found = self.model.encode_document(list(documents), **self.options)
        return lambda queries: self.model.encode_query(list(queries), **self.options) @ found.T

    def similarities(self, firsts: Sequence[str], seconds: Sequence[str]) -> np.ndarray:
        one, other = (self.model.encode(list(texts), **self.options) for texts in (firsts, seconds))
        return (one * other).sum(1)


@functools.lru_cache(2)
def index_of(documents: tuple[str, ...]) -> WordIndex:
    """The words of texts, counted once for all evaluations that search them."""
    return WordIndex.of(documents)


class Bm25:
    """Okapi's BM25, as `recipes/search.py` ranks by it."""

    def index(self, documents: Sequence[str]) -> Search:
        found = index_of(tuple(documents))
        return lambda queries: np.stack([found.scores(query) for query in queries])

    def similarities(self, firsts: Sequence[str], seconds: Sequence[str]) -> np.ndarray:
        found = index_of(tuple(seconds))
        return np.array([found.score(first, place) for place, first in enumerate(firsts)])


class WordVectors:
    """The mean of the vectors of a text's words, which gensim's FastText learns from the training texts."""

    def __init__(self, texts: Sequence[str], seed: int) -> None:
        self.vectors = learn_vectors(FASTTEXT, [words for words in map(words_of, texts) if words], seed)

    def index(self, documents: Sequence[str]) -> Search:
        found = self._embed(documents)
        return lambda queries: self._embed(queries) @ found.T

    def similarities(self, firsts: Sequence[str], seconds: Sequence[str]) -> np.ndarray:
        return (self._embed(firsts) * self._embed(seconds)).sum(1)

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        rows = [[self.vectors[word] for word in words_of(text)] for text in texts]
        means = np.stack([np.mean(row, 0) if row else np.zeros(VECTOR_SIZE, dtype=np.float32) for row in rows])
        return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


class Reranker:
    """A cross-encoder of sentence-transformers, over the texts that BM25 finds first."""

    def __init__(self, model: Any, batch_size: int) -> None:
        self.model, self.options = model, {"batch_size": batch_size, "show_progress_bar": False}

    def index(self, documents: Sequence[str]) -> Search:
        # so that of equal ones none comes first for its split
        order = np.array(sorted(range(len(documents)), key=documents.__getitem__))
        words = index_of(tuple(documents[place] for place in order))

        def scores(queries: Sequence[str]) -> np.ndarray:
            places = order[np.stack([largest(words.scores(query), CANDIDATES) for query in queries])]
            pairs = [(query, documents[place]) for query, row in zip(queries, places) for place in row]
            result = np.full((len(queries), len(documents)), -np.inf, dtype=np.float32)
            again = np.asarray(self.model.predict(pairs, **self.options)).reshape(places.shape)
            np.put_along_axis(result, places, again, 1)
            return result

        return scores

    def similarities(self, firsts: Sequence[str], seconds: Sequence[str]) -> np.ndarray:
        return np.asarray(self.model.predict(list(zip(firsts, seconds)), **self.options))
