"""Small texts and corpora that tests make for themselves."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus, CorpusWriter
from weft.recipes.data.prepare import prepare

START, END = 1, 2
CHINESE = "敏捷的棕色狐狸跳过懒狗。今天天气很好、我们去公园散步吧。"
EMOJI = "Family 👩‍👩‍👧 and flag 🇫🇷, e\u0301 as two code points, naïve café."
WORDS = ("the", "of", "a", "to", "in", "is", "that", "river", "stone", "light", "seven", "quietly", "made", "under")


def sentences(number: int, seed: int = 0, words: int = 30) -> list[str]:
    """Documents of one line each, all of them different."""
    draw = random.Random(seed)
    return [f"Number {i}: " + " ".join(draw.choices(WORDS, k=draw.randint(3, words))) + "." for i in range(number)]


def write_paragraphs(path: Path, documents: Sequence[str]) -> str:
    """A .txt file with a blank line between documents."""
    path.write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return str(path)


def make_data(**changes: Any) -> DataArguments:
    """Settings with a vocabulary that is trained in no time."""
    return DataArguments(**{"vocab_size": 300, **changes})


def prepare_documents(folder: Path, documents: Sequence[str], **changes: Any) -> Corpus:
    """A corpus in folder/corpus out of a text file in `folder`."""
    folder.mkdir(exist_ok=True)
    path = write_paragraphs(folder / "text.txt", documents)
    return prepare(make_data(train_files=[path], **changes), folder / "corpus", quiet=True)


def pieces(corpus: Corpus, split: str | None = None) -> list[list[int]]:
    """Token ids of each document, of one split or of all."""
    chosen = range(len(corpus.byte_counts)) if split is None else corpus.documents(split)
    return [corpus.tokens[corpus.offsets[i] : corpus.offsets[i + 1]].tolist() for i in chosen]


def texts(corpus: Corpus, split: str | None = None) -> list[str]:
    """Text of each document, as the corpus' own tokenizer decodes it."""
    tokenizer = corpus.tokenizer()
    return [tokenizer.decode(ids, skip_special_tokens=True) for ids in pieces(corpus, split)]


def write_ids(
    folder: Path,
    documents: Sequence[Sequence[int]],
    held_out: Callable[[int], bool] = lambda i: False,
    byte_counts: Sequence[int] | None = None,
    end_token_id: int | None = END,
) -> Corpus:
    """A corpus of given token ids, without text and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = CorpusWriter(folder, 1000)
    for i, ids in enumerate(documents):
        writer.add(list(ids), len(ids) if byte_counts is None else byte_counts[i], held_out(i))
    writer.close({"end_token_id": end_token_id, "source": "ids"})
    return Corpus.open(folder)


def random_documents(lengths: Sequence[int], seed: int = 0, vocab_size: int = 1000) -> list[list[int]]:
    """Documents of so many tokens, start and end token included where there is room for them."""
    draw = np.random.default_rng(seed)
    inner = [draw.integers(3, vocab_size, max(0, length - 2)).tolist() for length in lengths]
    return [[START, *ids, END][:length] for ids, length in zip(inner, lengths)]
