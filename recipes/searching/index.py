"""An index: a folder that is whole at any time, opened without reading more than a question needs.

index.json             what was read and how, the model, and the stamps of all files; replaced in one move
data-N/passages.arrow  place and text of every passage, in the order of the sources
data-N/vectors.npy     a vector of length 1 for each [passages, size] float32, where there is a model
data-N/words/*.npy     the words of the passages, see `recipes/data/word_index.py`
vectors-*.partial/     while a build goes on, and after a stop: see `kept_vectors.py`
.lock                  held by the process that builds

A build writes the next data-N, then index.json, then removes the data-N before: who has that open goes on reading it.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.common.files import read_json, size_and_time
from weft.recipes.data.word_index import WordIndex, normal_form
from weft.recipes.searching.embedder import Embedder, model_files
from weft.recipes.searching.stamps import same_content, stamps_of
from weft.recipes.searching.vectors import has_faiss, nearest

ABOUT, LOCK, FORMAT = "index.json", ".lock", 1
PASSAGES, VECTORS, WORDS = "passages.arrow", "vectors.npy", "words"
BY = ("meaning", "words", "both")
RANK_ADDED = 60  # G. Cormack et al.: Reciprocal Rank Fusion (2009)
CANDIDATES = 100  # of either order, that are fused
MANY_VECTORS = 200_000  # from here on faiss compares them, where it is installed
Orders = dict[str, tuple[np.ndarray, np.ndarray]]  # by meaning and by words: scores and rows, the best first


@dataclass
class Hit:
    """A passage that was found.

    Attributes:
        score: cosine (meaning), BM25 (words) or the sum of 1 / (60 + rank) over both.
        ranks: its place in each of the orders that were fused, from 1.
        others: further places that hold the same text.
    """

    source: str
    place: str
    line: int
    page: int
    text: str
    score: float
    ranks: dict[str, int] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    @property
    def where(self) -> str:
        """Source and place in words."""
        return f"{self.source}, {self.place}" if self.place else self.source


class SearchIndex:
    """Passages that can be searched.

    Attributes:
        stamp: size and time of index.json before it was read; another one means that the index was built again since.
    """

    def __init__(self, folder: Path) -> None:
        """Open an index; raises RecipeError if it is none, or broken."""
        self.folder = folder
        if not (folder / ABOUT).is_file():
            raise RecipeError(f"{folder} is no index: make one with `search.py build TEXTS {folder}`.")
        self.embedder: Embedder | None = None
        self.device: str | None = None
        advice = f"remove {folder} and build it again."
        with refusing(
            f"index {folder} cannot be read",
            *(OSError, EOFError, ValueError, TypeError, KeyError, pa.ArrowException),
            advice=advice,
        ):
            self._open()

    def _open(self) -> None:
        """Open the files, and again where another build has replaced them between the first and the last."""
        self.stamp = size_and_time(self.folder / ABOUT)
        self.about: dict[str, Any] = read_json(self.folder / ABOUT)
        if self.about["format"] != FORMAT:
            raise ValueError(f"its format is {self.about['format']}, where {FORMAT} is read")
        data = self.folder / self.about["data"]
        try:
            self.passages = pa.ipc.open_file(pa.memory_map(str(data / PASSAGES))).read_all()
            self.words = WordIndex.load(data / WORDS)
            self.vectors = np.load(data / VECTORS, mmap_mode="r") if self.about["model"] else None
        except FileNotFoundError:
            if size_and_time(self.folder / ABOUT) == self.stamp:
                raise
            self._open()
            return
        self.form = normal_form(self.about["stem"])
        parts = [self.words.lengths, *([] if self.vectors is None else [self.vectors])]
        if any(len(part) != len(self) for part in parts):
            raise ValueError("its files are of different lengths")

    def __len__(self) -> int:
        return self.passages.num_rows

    @property
    def by(self) -> str:
        """How it is searched where nothing is said."""
        return self.about["model"]["by"] if self.about["model"] else "words"

    def load_model(self, folder: str | None = None, device: str | None = None) -> None:
        """Load the model of the index; raises RecipeError if its files are no more what they were.

        Args:
            folder: where the same model lies now; None: where it lay.
            device: None: as before, or else a GPU if there is one.
        """
        model = self.about["model"]
        if model is None:
            raise RecipeError(f"{self.folder} was built without a model: ask --by words, or build one with --model.")
        folder = folder or model["folder"]
        if not Path(folder).is_dir():
            raise RecipeError(f"the model of {self.folder} is not in {folder} any more: say with --model where it is.")
        found = stamps_of(model_files(Path(folder)), model["files"], Path(folder))
        if not same_content(found, model["files"]):
            raise RecipeError(
                f"{self.folder} was built with another model than the one in {folder}: build another index with this "
                "one, or ask --by words."
            )
        self.device = device or self.device
        self.embedder = Embedder(folder, self.device)

    def search(
        self, questions: Sequence[str], top: int = 5, by: str | None = None, faiss: bool | None = None
    ) -> list[list[Hit]]:
        """Find the best passages for each question, best first, each text once; such as share no word with it are no
        result of words.

        Args:
            by: "meaning", "words" or "both"; None: as the index says.
            faiss: let faiss compare vectors; None: where it is installed and they are many.

        Raises:
            RecipeError: meaning is asked for, and there is no model.
        """
        by, asked = by or self.by, None
        if by in ("meaning", "both") and questions:
            if self.embedder is None:
                self.load_model()
            asked = self.embedder.of_questions(questions)
        use_faiss = len(self) >= MANY_VECTORS and has_faiss() if faiss is None else faiss
        depth, found = max(CANDIDATES, 4 * top), []
        for number, orders in enumerate(self._orders(questions, asked, by, depth, use_faiss)):
            hits, reach, this = self._hits(orders, top), depth, slice(number, number + 1)
            # the same text counts once, and may fill an order as deep as it was looked at
            while len(hits) < top and any(len(rows) == reach for _, rows in orders.values()):
                reach *= 4
                (orders,) = self._orders(questions[this], None if asked is None else asked[this], by, reach, use_faiss)
                hits = self._hits(orders, top)
            found.append(hits)
        return found

    def _orders(
        self, questions: Sequence[str], asked: np.ndarray | None, by: str, depth: int, faiss: bool
    ) -> list[Orders]:
        """The passages that come first for each question: scores and rows, by meaning and by words.

        Args:
            asked: vectors of the questions; None: those are not asked for.
        """
        orders: list[Orders] = [{} for _ in questions]
        if asked is not None:
            for order, *nearest_ones in zip(orders, *nearest(self.vectors, asked, depth, faiss)):
                order["meaning"] = tuple(nearest_ones)
        if by in ("words", "both"):
            for order, question in zip(orders, questions):
                rows, scores = self.words.best(question, depth, self.form)
                order["words"] = (scores, rows)
        return orders

    def _hits(self, orders: Orders, top: int) -> list[Hit]:
        ranks: dict[int, dict[str, int]] = {}
        for name, (_, rows) in orders.items():
            for rank, row in enumerate(rows.tolist(), start=1):
                ranks.setdefault(row, {})[name] = rank
        if len(orders) == 1:
            (scores, rows) = next(iter(orders.values()))
            scored = list(zip(rows.tolist(), scores.tolist()))
        else:
            fused = {row: sum(1 / (RANK_ADDED + rank) for rank in found.values()) for row, found in ranks.items()}
            scored = sorted(fused.items(), key=lambda each: (-each[1], each[0]))
        hits: dict[str, Hit] = {}
        for row, score in scored:
            hit = self._hit(row, score, ranks[row] if len(orders) > 1 else {})
            if hit.text in hits:
                hits[hit.text].others.append(hit.where)
            elif len(hits) < top:
                hits[hit.text] = hit
        return list(hits.values())

    def _hit(self, row: int, score: float, ranks: dict[str, int]) -> Hit:
        values = {name: self.passages.column(name)[row].as_py() for name in self.passages.column_names}
        source = self.about["sources"][values.pop("source")]["name"]
        return Hit(source=source, score=score, ranks=ranks, **values)

    def texts(self, rows: range) -> list[str]:
        """The texts of some passages."""
        return self.passages.column("text").slice(rows.start, len(rows)).to_pylist()

    def rows_of(self, source: int) -> range:
        """The rows of the passages of one source."""
        ends = [0, *itertools.accumulate(each["passages"] for each in self.about["sources"])]
        return range(ends[source], ends[source + 1])
