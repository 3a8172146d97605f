"""An endless sequence of documents out of text that need not fit on the disk, cut into blocks.

The sequence passes over the files again and again, each time in another order that follows from (split_seed, pass), or
over a data set of the Hub in its own order. A cursor tells a place in it, also in the middle of a file. A block is what
comes from a cursor on until it has so many bytes or the pass ends, so it is a function of the text and the cursor.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from weft.recipes.common.command_line import parse_count
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.selection import digest_of
from weft.recipes.data.text_files import open_dataset, read_documents, read_examples
from weft.recipes.data.text_source import clean


@dataclass
class StreamArguments:
    """Whether the text is read while it is trained on."""

    stream: bool = field(
        default=False,
        metadata={
            "help": "read the text block by block while it is trained on, for text that does not fit on the disk; the "
            "first block trains the tokenizer, unless one is given, and has the held-out text, unless there are "
            "validation_files; duplicates are dropped within a block"
        },
    )
    block_size: str = field(
        default="64M", metadata={"help": "stream: bytes of text of a block, within which documents are shuffled"}
    )

    def check(self, data: DataArguments, has_length: bool) -> None:
        """Refuse what a stream cannot do.

        Args:
            data: where the text comes from.
            has_length: whether the run's length is given in tokens, steps or time.

        Raises:
            RecipeError: names the field and says what to do.
        """
        parse_bytes(self.block_size)
        if not data.train_files and data.dataset_name is None:
            raise RecipeError("stream is given without text to read: give train_files or dataset_name.")
        if not has_length:
            raise RecipeError("a stream has no end, so the run needs its length: give tokens or max_steps, or budget.")
        if data.source_weights:
            raise RecipeError(
                "source_weights cannot be given together with stream: each pass reads every file once; leave it out, "
                "or name a file in train_files as often as it shall count."
            )
        if data.validation_split != "document":
            raise RecipeError(
                f"validation_split is {data.validation_split!r}, which a stream cannot hold out of text that comes "
                "again: choose document, or give validation_files."
            )


def parse_bytes(text: str) -> int:
    """A number of bytes: 64M, 2e6 ...; raises RecipeError for anything else."""
    try:
        return parse_count(text)
    except RecipeError as error:
        raise RecipeError(f"block_size is {text!r}: give a number of bytes, for example 64M.") from error


@dataclass
class BlockArguments(DataArguments):
    """What the blocks of a stream depend on."""

    block_bytes: int = 0


@dataclass(frozen=True)
class Cursor:
    """A place in the sequence.

    Attributes:
        number: of the pass.
        file: in the order of the pass.
        record: how many documents of that file are behind.
        digest: of these documents, so that it shows if the file was changed.
        state: where a data set stands, as `datasets` tells it, which it does in several ways for one place; None: at
            its beginning, or not a data set.
    """

    number: int = 0
    file: int = 0
    record: int = 0
    digest: str = ""
    state: dict[str, Any] | None = field(default=None, compare=False)


class DocumentStream:
    """The sequence from a cursor on."""

    def __init__(self, arguments: DataArguments, cursor: Cursor | None = None) -> None:
        """Raises RecipeError, when it is read, where a file is broken or was changed before the cursor."""
        self.arguments = arguments
        self._go_to(cursor or Cursor())

    def _go_to(self, cursor: Cursor) -> None:
        self._start, self._number, self._file, self._record = cursor, cursor.number, cursor.file, cursor.record
        self._documents: Iterator[str] | None = None
        self._dataset: Any = None
        self._hash = hashlib.blake2b(digest_size=16)

    @property
    def cursor(self) -> Cursor:
        """The place behind the last document that was read."""
        if self._documents is None:
            return self._start
        state = None if self._dataset is None else self._dataset.state_dict()
        digest = "" if self._dataset is not None or self._record == 0 else self._hash.hexdigest()
        return Cursor(self._number, self._file, self._record, digest, state)

    def block(self, size: int) -> Iterator[tuple[str, bytes]]:
        """The documents of the next block, cleaned, each with its digest.

        Args:
            size: UTF-8 bytes of all of them, from which on the block ends. It ends with a pass too.

        Raises:
            RecipeError: a file is broken or was changed, or there is no document in a whole pass.
        """
        byte_count, is_begun, empty_passes = 0, False, 0
        while byte_count < size:
            text = self._next_of_pass()
            if text is not None:
                is_begun, byte_count = True, byte_count + len(text.encode())
                yield text, self._note(text)
                continue
            self._go_to(Cursor(self._number + 1))
            if is_begun:
                return
            empty_passes += 1
            if empty_passes > 1:
                raise RecipeError(f"there is no text in {self.arguments.describe_source()}.")

    def _note(self, text: str) -> bytes:
        digest = digest_of(text)
        self._hash.update(digest)
        self._record += 1
        return digest

    def _next_of_pass(self) -> str | None:
        """The next document, or None where the pass ends."""
        while self._file < self._num_files:
            if self._documents is None:
                self._open()
            text = next(self._documents, None)
            if text is not None:
                return text
            self._go_to(Cursor(self._number, self._file + 1))
        return None

    @property
    def _num_files(self) -> int:
        return len(self.arguments.train_files) if self.arguments.dataset_name is None else 1

    def _open(self) -> None:
        """Begin to read a file, behind the documents that the cursor has behind it."""
        arguments, wanted = self.arguments, self._start
        if arguments.dataset_name is not None:
            name, column = arguments.dataset_name, arguments.text_column
            self._dataset = open_dataset(name, arguments.dataset_config_name, arguments.dataset_split)
            if wanted.state is not None:
                self._dataset.load_state_dict(wanted.state)
            self._documents = map(clean, read_examples(self._dataset, name, column, wanted.record))
            return
        order = np.random.default_rng([arguments.split_seed, self._number]).permutation(self._num_files)
        path = Path(arguments.train_files[order[self._file]])
        self._documents = map(clean, read_documents(path, arguments.text_column, arguments.documents))
        self._record = 0
        while self._record < wanted.record:
            text = next(self._documents, None)
            if text is None:
                break
            self._note(text)
        if wanted.record and (self._record, self._hash.hexdigest()) != (wanted.record, wanted.digest):
            raise RecipeError(
                f"{path} was changed: its first {wanted.record:,} documents are not those that were read before; put "
                "the file back, or begin a new run with another --output_dir."
            )
