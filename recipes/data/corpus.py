"""A corpus on disk: the tokens of all documents in one memory-mapped file, and the place of each document.

corpus.json     its counts, files and settings
tokens.bin      token ids of all documents one after another, start and end tokens included (uint16 or uint32)
offsets.npy     place in tokens.bin at which each document begins; one more entry for the end [documents + 1]
bytes.npy       UTF-8 bytes of each document's text [documents]
validation.npy  True for documents that are held out [documents]
sources.npy     index of each document's source, if there are several [documents]
words.bits      flags of the tokens that begin a word, eight to a byte, if a segmenter was asked for
sentences.bits  the same of sentences
tokenizer/      the tokenizer, as `AutoTokenizer` loads it
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from transformers import PreTrainedTokenizerBase

from weft.recipes.common.checkpoint_files import load_tokenizer
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import read_json, write_json
from weft.recipes.data.source_mixture import ALL, Source, SourceMixture
from weft.tokenizer.special_tokens import without_start_and_end

FORMAT_VERSION = 2
DESCRIPTION = "corpus.json"
BOUNDARIES = ("words", "sentences")


def token_dtype(vocab_size: int) -> np.dtype:
    """Return the smallest type of a corpus' tokens that holds every id of a vocabulary."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


@dataclass(frozen=True)
class Corpus:
    """A prepared folder, opened for reading. The arrays stay on disk until they are used."""

    folder: Path

    @classmethod
    def open(cls, folder: str | Path) -> "Corpus":
        """Open a folder; raises RecipeError if it is not a prepared corpus of this version."""
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
        """Give data-loader workers the folder only; they map the arrays themselves."""
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

    @cached_property
    def source_of(self) -> np.ndarray:
        """Index of each document's source [documents], or that of its validation file."""
        path = self.folder / "sources.npy"
        if not path.is_file():
            return np.zeros(len(self.byte_counts), dtype=np.uint16)
        return np.load(path, mmap_mode="r", allow_pickle=False)

    @property
    def sources(self) -> list[Source]:
        """The sources of the training text, with their weights."""
        return [Source(source["name"], source["weight"]) for source in self.description["sources"]]

    @property
    def source_weights(self) -> list[float | str]:
        """Number of passes of an epoch over the training text of each source, or the text of stages."""
        return [source.weight for source in self.sources]

    @property
    def mixture(self) -> SourceMixture:
        """What these weights make of an epoch."""
        return SourceMixture.of(self.sources)

    @property
    def has_boundaries(self) -> bool:
        """Whether the corpus says where words and sentences begin."""
        # The files of a stream's block may be gone while it is still read.
        return "_boundaries" in self.__dict__ or (self.folder / f"{BOUNDARIES[0]}.bits").is_file()

    @cached_property
    def _boundaries(self) -> dict[str, np.ndarray]:
        return {kind: np.memmap(self.folder / f"{kind}.bits", dtype=np.uint8, mode="r") for kind in BOUNDARIES}

    def begins(self, kind: str, first: int, last: int) -> np.ndarray:
        """Flag those tokens [first, last) of `tokens` that begin one of `kind`, "words" or "sentences"; start and end
        tokens do both.

        Returns:
            [last - first] bool.

        Raises:
            RecipeError: the corpus was prepared without a segmenter.
        """
        if not self.has_boundaries:
            raise RecipeError(
                f"{self.folder} does not say where {kind} begin: prepare it again into another folder with --segmenter "
                "characters, or jieba for words of Chinese."
            )
        bits = np.unpackbits(self._boundaries[kind][first // 8 : -(-last // 8)])
        return bits[first % 8 : first % 8 + last - first].view(bool)

    @property
    def has_end_tokens(self) -> bool:
        """Whether the last token of each document is an end token rather than text."""
        return self.description["end_token_id"] is not None

    def documents(self, split: str) -> np.ndarray:
        """Return the indices of the documents of "train" or "validation"."""
        return np.flatnonzero(self.is_validation if split == "validation" else ~self.is_validation)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer; it puts nothing around a text where nothing stands around the documents."""
        tokenizer = load_tokenizer(str(self.folder / "tokenizer"))
        # corpora of before hold the tokenizer as it was given
        return tokenizer if self.has_end_tokens else without_start_and_end(tokenizer)


class CorpusWriter:
    """Writes the arrays of a corpus into a folder, document by document."""

    def __init__(
        self, folder: Path, vocab_size: int, sources: Sequence[Source] = (Source(ALL),), with_boundaries: bool = False
    ) -> None:
        self.folder = folder
        self.dtype = token_dtype(vocab_size)
        self.file: BinaryIO = (folder / "tokens.bin").open("wb")
        self.sources = list(sources)
        self.boundaries = [_BitWriter(folder / f"{kind}.bits") for kind in BOUNDARIES] if with_boundaries else []
        # of each document; as arrays, since lists of millions take many times the memory
        self.lengths, self.byte_counts = array("q"), array("q")
        self.is_validation, self.source_of = array("b"), array("H")

    def add(
        self,
        ids: Sequence[int] | np.ndarray,
        byte_count: int,
        is_validation: bool,
        source: int = 0,
        begins: Sequence[np.ndarray] = (),
    ) -> None:
        """Append a document.

        Args:
            begins: flags of the tokens that begin one of each of `BOUNDARIES` [tokens] bool; none without segmenter.
        """
        self.file.write(np.asarray(ids, dtype=self.dtype).tobytes())
        self.lengths.append(len(ids))
        self.byte_counts.append(byte_count)
        self.is_validation.append(is_validation)
        self.source_of.append(source)
        for writer, flags in zip(self.boundaries, begins, strict=True):
            writer.add(flags)

    def close(self, description: dict[str, Any], validation_files: Sequence[str] = ()) -> None:
        """Write the other files; `description` is completed with the counts of each split, of each source, and of each
        of the validation files, whose documents come in their order."""
        self.file.close()
        for writer in self.boundaries:
            writer.close()
        lengths = np.asarray(self.lengths, dtype=np.int64)
        byte_counts = np.asarray(self.byte_counts, dtype=np.int64)
        held_out = np.asarray(self.is_validation, dtype=bool)
        source_of = np.asarray(self.source_of, dtype=np.uint16)
        np.save(self.folder / "offsets.npy", np.concatenate(([0], np.cumsum(lengths))))
        np.save(self.folder / "bytes.npy", byte_counts)
        np.save(self.folder / "validation.npy", held_out)
        if len(self.sources) > 1:
            np.save(self.folder / "sources.npy", source_of)

        def count(chosen: np.ndarray) -> dict[str, int]:
            return {
                "documents": int(chosen.sum()),
                "bytes": int(byte_counts[chosen].sum()),
                "tokens": int(lengths[chosen].sum()),
            }

        write_json(
            self.folder / DESCRIPTION,
            {
                "format_version": FORMAT_VERSION,
                "dtype": self.dtype.str,
                **description,
                "splits": {"train": count(~held_out), "validation": count(held_out)},
                "sources": [
                    {"name": source.name, "weight": source.weight, **count(~held_out & (source_of == index))}
                    for index, source in enumerate(self.sources)
                ],
                "validation_files": [
                    {"name": name, **count(held_out & (source_of == index))}
                    for index, name in enumerate(validation_files)
                ],
            },
        )


class _BitWriter:
    """Writes flags, eight to a byte, without a gap between documents."""

    def __init__(self, path: Path) -> None:
        self.file: BinaryIO = path.open("wb")
        self.waiting = np.zeros(0, dtype=bool)

    def add(self, flags: np.ndarray) -> None:
        flags = np.concatenate((self.waiting, flags))
        whole = len(flags) // 8 * 8
        self.file.write(np.packbits(flags[:whole]).tobytes())
        self.waiting = flags[whole:]

    def close(self) -> None:
        self.file.write(np.packbits(self.waiting).tobytes())
        self.file.close()
