"""An endless sequence of documents out of text that need not fit on the disk, cut into blocks.

The sequence passes over the sources of the text again and again, each time in another order that follows from
(split_seed, pass). A cursor tells a place in it, also in the middle of a source. A block holds the documents from a
cursor on until it has enough bytes or the pass ends. So it is a function of the text and the cursor.
"""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from weft.recipes.common.command_line import parse_count
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import option
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.selection import digest_of
from weft.recipes.data.text_source import TextSource


@dataclass
class StreamArguments:
    """Whether the text is read during training."""

    stream: bool = option(
        False,
        "read the text block by block while it is trained on, for text that does not fit on the disk; the "
        "first block trains the tokenizer, unless one is given, and has the held-out text, unless there are "
        "validation_files; duplicates are dropped within a block",
    )
    block_size: str = option("64M", "stream: bytes of text of a block, within which documents are shuffled", rare=True)

    def check(self, data: DataArguments, has_length: bool) -> None:
        """Refuse settings that a stream cannot follow.

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
    """Parse a number of bytes: 64M, 2e6 ...; raises RecipeError for anything else."""
    try:
        return parse_count(text)
    except RecipeError as error:
        raise RecipeError(f"block_size is {text!r}: give a number of bytes, for example 64M.") from error


@dataclass
class BlockArguments(DataArguments):
    """Settings that the blocks of a stream depend on."""

    block_bytes: int = 0

    CAN_CUT_TAILS: ClassVar[bool] = False


@dataclass(frozen=True)
class Cursor:
    """A place in the sequence.

    Attributes:
        number: of the pass.
        file: index of the source in the order of the pass.
        record: number of documents of that source that were read.
        digest: of these documents, so that a change of the source shows.
        state: as `TextSource.state` told it; one place may have several. None: the place is reached by reading
            `record` documents.
    """

    number: int = 0
    file: int = 0
    record: int = 0
    digest: str = ""
    state: dict[str, Any] | None = field(default=None, compare=False)


class DocumentStream:
    """Reads the sequence from a cursor on."""

    def __init__(self, arguments: DataArguments, cursor: Cursor | None = None) -> None:
        self.arguments, self.sources = arguments, arguments.sources()
        self._go_to(cursor or Cursor())

    def _go_to(self, cursor: Cursor) -> None:
        self._start, self._number, self._file, self._record = cursor, cursor.number, cursor.file, cursor.record
        self._documents: Iterator[str] | None = None
        self._hash = hashlib.blake2b(digest_size=16)

    @property
    def _source(self) -> TextSource:
        order = np.random.default_rng([self.arguments.split_seed, self._number]).permutation(len(self.sources))
        return self.sources[order[self._file]]

    @property
    def cursor(self) -> Cursor:
        """The place behind the last document that was read."""
        if self._documents is None:
            return self._start
        state = self._source.state()
        digest = "" if state is not None or self._record == 0 else self._hash.hexdigest()
        return Cursor(self._number, self._file, self._record, digest, state)

    def block(self, size: int) -> Iterator[tuple[str, bytes]]:
        """Yield the documents of the next block, each with its digest.

        Args:
            size: UTF-8 bytes of documents at which the block ends. It ends with a pass too.

        Raises:
            RecipeError: a source is broken or was changed, or a whole pass has no document.
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
        """Return the next document, or None at the end of the pass."""
        while self._file < len(self.sources):
            if self._documents is None:
                self._open()
            text = next(self._documents, None)
            if text is not None:
                return text
            self._go_to(Cursor(self._number, self._file + 1))
        return None

    def _open(self) -> None:
        """Begin to read a source behind the documents that were read before."""
        wanted = self._start
        self._documents = self._source.read(wanted.state, wanted.record)
        if wanted.state is not None:
            return
        self._record = 0
        for text in itertools.islice(self._documents, wanted.record):
            self._note(text)
        if wanted.record and (self._record, self._hash.hexdigest()) != (wanted.record, wanted.digest):
            raise RecipeError(
                f"{self._source.name} was changed: its first {wanted.record:,} documents are not those that were read "
                "before; put the file back, or begin a new run with another --output_dir."
            )
