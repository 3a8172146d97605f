"""Folders of texts to search, and a model that needs no library: vectors of the words that a text has."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weft.recipes import search
from weft.recipes.data.segmentation import word_spans
from weft.recipes.data.word_index import terms_of
from weft.recipes.searching import build, index

TEXTS = {
    "animals.txt": "The otter swims in the river. It eats fish.\n\nThe heron stands in the reeds and waits.\n",
    "tools.md": "# Tools\n\nA hammer drives nails. A saw cuts wood.\n\nGlue holds what nails cannot.\n",
    "deep/weather.txt": "Rain falls on the hills. Wind comes from the west.\n\nSnow lies until March.\n",
}


class ToyEmbedder:
    """Adds a fixed random vector for each word; remembers what it was given."""

    size, longest = 24, 40
    embedded: list[str] = []

    def __init__(self, folder: str, device: str | None = None) -> None:
        self.salt = (Path(folder) / "model.safetensors").read_text()

    def offsets(self, text: str) -> np.ndarray:
        return word_spans(text)

    def of_passages(self, texts: Sequence[str], batch_size: int) -> np.ndarray:
        self.embedded.extend(texts)
        return np.stack([self._vector(text) for text in texts])

    def of_questions(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> np.ndarray:
        vector = np.full(self.size, 1e-3, np.float32)
        for term in terms_of(text):
            seed = int.from_bytes(hashlib.sha256((self.salt + term).encode()).digest()[:4], "big")
            vector += np.random.default_rng(seed).standard_normal(self.size, np.float32)
        return vector / np.linalg.norm(vector)


def use_toy_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the toy in the place of sentence-transformers."""
    monkeypatch.setattr(ToyEmbedder, "embedded", [])
    monkeypatch.setattr(build, "Embedder", ToyEmbedder)
    monkeypatch.setattr(index, "Embedder", ToyEmbedder)


def make_model(folder: Path, weights: str = "one") -> Path:
    """A folder that looks like one of sentence-transformers."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "path": ""}]))
    (folder / "model.safetensors").write_text(weights)
    return folder


def write_texts(folder: Path, texts: dict[str, str] = TEXTS) -> Path:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def run(*words: Any) -> None:
    """Run the command."""
    search.main([str(word) for word in words])


def rows_of(found: index.SearchIndex) -> list[dict[str, Any]]:
    """All passages of an index, each with the name of its source."""
    names = [source["name"] for source in found.about["sources"]]
    return [row | {"source": names[row["source"]]} for row in found.passages.to_pylist()]
