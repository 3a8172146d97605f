"""The blocks of a stream on disk: writer and readers know of each other by these files only.

data/                the first block: the run's ordinary corpus, with the tokenizer and the held-out text
stream/ledger.json   of each block its begin and end in the stream, and its counts; written before the block
stream/held_out.npy  digests of the held-out documents; no later block has these [documents, 16]
stream/block-N/      the later blocks that are trained on now or next, each a corpus without a tokenizer
stream/readers/      of each process that reads rows, the block that it reads or waits for
stream/failure.txt   the reason that no further block will come
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import get_worker_info

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import read_json, write_json, write_text
from weft.recipes.data.corpus import DESCRIPTION, Corpus
from weft.recipes.data.prepare import prepare_before_group
from weft.recipes.data.streaming.documents import BlockArguments, Cursor, DocumentStream
from weft.recipes.data.text_source import documents_of

FOLDER = "stream"
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Block:
    """A block as the ledger knows it.

    Attributes:
        start: its place in the stream.
        end: the place of the next one.
        digest: of the digests of all documents in between.
        documents: number of those that are trained on.
        tokens: their tokens.
        pairs: their pairs of a token and the one after it.
    """

    start: Cursor
    end: Cursor
    digest: str
    documents: int
    tokens: int
    pairs: int

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Block":
        """Invert `dataclasses.asdict`."""
        return cls(**{**entry, "start": Cursor(**entry["start"]), "end": Cursor(**entry["end"])})

    def rows(self, row_length: int, overlap: int, added: int = 0) -> int:
        """Count its whole rows, of pairs (overlap 1) or of tokens (0), and of `added` places beside these."""
        return ((self.pairs if overlap else self.tokens) + added) // row_length


class StreamFolder:
    """The files of a stream in the folder of its run."""

    def __init__(self, run: Path) -> None:
        self.folder, self.first_block = run / FOLDER, run / "data"
        self.failure, self.held_out = self.folder / "failure.txt", self.folder / "held_out.npy"
        self.readers, self._ledger = self.folder / "readers", self.folder / "ledger.json"

    def block(self, number: int) -> Path:
        """Return the folder of a block."""
        return self.first_block if number == 0 else self.folder / f"block-{number:06d}"

    def numbers(self) -> list[int]:
        """List the later blocks on disk; each is whole."""
        return sorted(int(path.name.removeprefix("block-")) for path in self.folder.glob("block-*"))

    def blocks(self) -> list[Block]:
        """Read the ledger, from the first block on."""
        if not self._ledger.is_file():
            return []
        return [Block.from_json(entry) for entry in read_json(self._ledger)["blocks"]]

    def note(self, blocks: list[Block], arguments: BlockArguments) -> None:
        """Write the ledger."""
        write_json(self._ledger, {"settings": asdict(arguments), "blocks": [asdict(block) for block in blocks]})

    def check_settings(self, arguments: BlockArguments) -> None:
        """Raise RecipeError if the ledger is that of other settings."""
        before, now = read_json(self._ledger)["settings"], asdict(arguments)
        differing = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        if differing:
            raise RecipeError(
                f"{self.folder} is a stream with other settings ({', '.join(differing)} differ): give another "
                f"--output_dir, or remove it and {self.first_block}."
            )

    def announce(self, number: int) -> None:
        """Tell the writer which block this process reads or waits for."""
        worker = get_worker_info()
        name = f"{os.environ.get('RANK', '0')}-{'main' if worker is None else worker.id}"
        (self.readers / name).write_text(f"{number}\n", encoding="utf-8")

    def places(self) -> list[int]:
        """List the blocks of the readers; a file that is just being written is passed over."""
        found = []
        for path in self.readers.iterdir():
            with contextlib.suppress(ValueError, FileNotFoundError):
                found.append(int(path.read_text(encoding="utf-8")))
        return found

    def fail(self, sentence: str) -> None:
        """Have the readers stop when they run out of blocks."""
        write_text(self.failure, sentence + "\n")

    def check(self) -> None:
        """Raise RecipeError if no further block will come."""
        if self.failure.is_file():
            raise RecipeError(self.failure.read_text(encoding="utf-8").strip())

    def clean(self) -> None:
        """Forget the readers and the failure of an earlier process."""
        self.readers.mkdir(parents=True, exist_ok=True)
        for path in (*self.readers.iterdir(), self.failure):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove everything but the first block, at the end of the run."""
        shutil.rmtree(self.folder, ignore_errors=True)


def open_first_block(arguments: BlockArguments, stream: StreamFolder) -> Corpus:
    """Prepare the first block under a launcher, or open it if the stream was begun before.

    From then on the ledger tells by the documents themselves, not by times of files, that the text is still the same.

    Raises:
        RecipeError: the text is broken, or the stream was begun with other settings.
    """
    if stream.blocks():
        stream.check_settings(arguments)
        if (stream.first_block / DESCRIPTION).is_file():
            return Corpus.open(stream.first_block)
    return prepare_before_group(arguments, stream.first_block, read_first_block)


def read_first_block(arguments: BlockArguments, split: str) -> Iterator[tuple[str, int]]:
    """Yield documents as `documents_of` does, of the training text those of the first block only."""
    if split != "train":
        return documents_of(arguments, split)
    return ((text, 0) for text, _ in DocumentStream(arguments).block(arguments.block_bytes))
