"""A corpus on disk: the tokens of all documents in one memory-mapped file, and where each document begins.

corpus.json     what is in it, from which files, with which settings
tokens.bin      token ids of all documents one after another, start and end tokens included (uint16 or uint32)
offsets.npy     where document i begins in tokens.bin; one more entry for the end [documents + 1]
bytes.npy       UTF-8 bytes of each document's text [documents]
validation.npy  True for documents that are held out [documents]
tokenizer/      the tokenizer, as `AutoTokenizer` loads it
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import read_json, write_json

FORMAT_VERSION = 1
DESCRIPTION = "corpus.json"


@dataclass(frozen=True)
class Corpus:
    """A prepared folder, opened for reading; the arrays stay on disk until they are used."""

    folder: Path

    @classmethod
    def open(cls, folder: str | Path) -> "Corpus":
        """Raises RecipeError where `folder` is not a prepared corpus of this version."""
        corpus = cls(Path(folder))
        if not (corpus.folder / DESCRIPTION).is_file():
            raise RecipeError(f"{folder} is not a prepared corpus: make one with recipes/prepare_data.py.")
        if corpus.description["format_version"] != FORMAT_VERSION:
            raise RecipeError(
                f"{folder} has format version {corpus.description['format_version']}, this program reads "
                f"{FORMAT_VERSION}: prepare it again."
            )
        return corpus

    def __getstate__(self) -> dict[str, Any]:
        """Data-loader workers get the folder and map the arrays themselves."""
        return {"folder": self.folder}

    @cached_property
    def description(self) -> dict[str, Any]:
        return read_json(self.folder / DESCRIPTION)

    @cached_property
    def tokens(self) -> np.ndarray:
        return np.memmap(self.folder / "tokens.bin", dtype=self.description["dtype"], mode="r")

    @cached_property
    def offsets(self) -> np.ndarray:
        return np.load(self.folder / "offsets.npy", mmap_mode="r", allow_pickle=False)

    @cached_property
    def byte_counts(self) -> np.ndarray:
        return np.load(self.folder / "bytes.npy", mmap_mode="r", allow_pickle=False)

    @cached_property
    def is_validation(self) -> np.ndarray:
        return np.load(self.folder / "validation.npy", mmap_mode="r", allow_pickle=False)

    @property
    def has_end_tokens(self) -> bool:
        """Whether the last token of each document is an end token rather than text."""
        return self.description["end_token_id"] is not None

    def documents(self, split: str) -> np.ndarray:
        """Indices of the documents of "train" or "validation"."""
        return np.flatnonzero(self.is_validation if split == "validation" else ~self.is_validation)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return AutoTokenizer.from_pretrained(self.folder / "tokenizer")


class CorpusWriter:
    """Writes the arrays of a corpus into a folder, document by document."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        self.folder = folder
        self.dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
        self.file: BinaryIO = (folder / "tokens.bin").open("wb")
        self.lengths: list[int] = []
        self.byte_counts: list[int] = []
        self.is_validation: list[bool] = []

    def add(self, ids: list[int], byte_count: int, is_validation: bool) -> None:
        """Append a document: its ids with start and end tokens, and the bytes of its text."""
        self.file.write(np.asarray(ids, dtype=self.dtype).tobytes())
        self.lengths.append(len(ids))
        self.byte_counts.append(byte_count)
        self.is_validation.append(is_validation)

    def close(self, description: dict[str, Any]) -> None:
        """Write what is left; `description` is completed with the counts of each split."""
        self.file.close()
        lengths = np.asarray(self.lengths, dtype=np.int64)
        byte_counts = np.asarray(self.byte_counts, dtype=np.int64)
        held_out = np.asarray(self.is_validation, dtype=bool)
        np.save(self.folder / "offsets.npy", np.concatenate(([0], np.cumsum(lengths))))
        np.save(self.folder / "bytes.npy", byte_counts)
        np.save(self.folder / "validation.npy", held_out)
        splits = {
            name: {
                "documents": int(chosen.sum()),
                "bytes": int(byte_counts[chosen].sum()),
                "tokens": int(lengths[chosen].sum()),
            }
            for name, chosen in (("train", ~held_out), ("validation", held_out))
        }
        write_json(
            self.folder / DESCRIPTION,
            {"format_version": FORMAT_VERSION, "dtype": self.dtype.str, **description, "splits": splits},
        )
