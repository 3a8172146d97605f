"""Prepares the blocks of a stream ahead of the processes that read them, and removes those behind.

`keep_writing` starts it in a process of its own, which ends with the process that started it. Readers and writer know
of each other by files only, so no process waits for another in a collective operation.
"""

import contextlib
import hashlib
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from weft.recipes.common.errors import RecipeError, refusing_unwritable
from weft.recipes.common.files import new_folder, only_one_process, read_json, remove_folder, write_json
from weft.recipes.common.processes import end_with_parent, is_first_of_machine
from weft.recipes.data.corpus import Corpus, CorpusWriter
from weft.recipes.data.selection import DIGEST_BYTES, Selection, digest_of
from weft.recipes.data.streaming.blocks import POLL_SECONDS, Block, StreamFolder
from weft.recipes.data.streaming.documents import BlockArguments, Cursor, DocumentStream
from weft.recipes.data.text_source import texts_of
from weft.recipes.data.tokenization import document_encoder, load_tokenizer
from weft.tokenizer.vocabulary import number_of_ids

AHEAD, BEHIND = 2, 1  # blocks to keep ahead of the first reader and behind the last
NICENESS = 10


class BlockWriter:
    """Prepares blocks one after another, and again those that a reader waits for."""

    def __init__(self, stream: StreamFolder, arguments: BlockArguments, first_place: int) -> None:
        """Args:
        first_place: the block that readers begin with, as long as none has announced its own.
        """
        self.stream, self.arguments, self.first_place = stream, arguments, first_place
        self.tokenizer = load_tokenizer(str(stream.first_block / "tokenizer"))
        self.blocks = stream.blocks()
        self.documents = DocumentStream(arguments)
        if not self.blocks:
            self._note_first_block()
        digests = np.load(stream.held_out, allow_pickle=False)
        self.held_out = {digest.tobytes() for digest in digests}

    def step(self) -> bool:
        """Prepare the next block that is needed and remove those that are not; return whether one was prepared.

        Raises:
            RecipeError: the text is broken, or was changed.
        """
        places = self.stream.places() or [self.first_place]
        needed = {number for place in places for number in range(place, place + AHEAD + 1)} - {0}
        on_disk = self.stream.numbers()
        for number in on_disk:
            if number not in needed and not min(places) - BEHIND <= number <= max(places):
                remove_folder(self.stream.block(number))
        missing = sorted(needed - set(on_disk))
        if missing:
            self._prepare(min(missing[0], len(self.blocks)))
        return bool(missing)

    def _prepare(self, number: int) -> None:
        is_known = number < len(self.blocks)
        start = self.blocks[number].start if is_known else self.blocks[-1].end
        if self.documents.cursor != start:
            self.documents = DocumentStream(self.arguments, start)
        target = self.stream.block(number)
        with new_folder(target) as partial:
            block = self._write(partial)
            if is_known and block != self.blocks[number]:
                raise RecipeError(
                    f"block {number} of {self.stream.folder} is not what it was: the text was changed after it was "
                    "read; put the files back, or begin a new run with another --output_dir."
                )
            if not is_known:  # before the block is there: without it, the block would be prepared again
                self.blocks.append(block)
                self.stream.note(self.blocks, self.arguments)

    def _write(self, folder: Path) -> Block:
        """Write the next block of the stream as a corpus without held-out text."""
        start, combined, selection = self.documents.cursor, hashlib.blake2b(digest_size=16), Selection(self.arguments)
        writer = CorpusWriter(folder, number_of_ids(self.tokenizer), with_boundaries=self.arguments.segmenter != "none")

        def texts() -> Iterator[str]:
            for text, digest in self.documents.block(self.arguments.block_bytes):
                combined.update(digest)
                if digest not in self.held_out:
                    yield text

        for encoded in document_encoder(self.tokenizer, self.arguments)(selection.kept(texts())):
            for part in encoded:
                writer.add(part.ids, part.byte_count, False, begins=part.begins)
        first = Corpus.open(self.stream.first_block).description
        writer.close({name: first[name] for name in ("source", "vocab_size", "start_token_id", "end_token_id")})
        return _make_block(start, self.documents.cursor, combined.hexdigest(), np.array(writer.lengths, dtype=np.int64))

    def _note_first_block(self) -> None:
        """Read the first block once more, to note its end and the documents that were held out of it."""
        combined, selection, kept = hashlib.blake2b(digest_size=16), Selection(self.arguments), []
        for text, digest in self.documents.block(self.arguments.block_bytes):
            combined.update(digest)
            if selection.keeps(text):
                kept.append(digest)
        corpus = Corpus.open(self.stream.first_block)
        is_held_out = np.asarray(corpus.is_validation)
        if self.arguments.validation_files:
            is_training_text = ~is_held_out
            held_out = []
            if self.arguments.dedup != "off":
                held_out = [digest_of(text) for text in texts_of(self.arguments, "validation")]
        else:
            is_training_text = np.ones(len(is_held_out), dtype=bool)
            held_out = [digest for digest, flag in zip(kept, is_held_out) if flag]
        if is_training_text.sum() != len(kept):
            raise RecipeError(
                f"{corpus.folder} has other documents than the text has now: remove {corpus.folder}, and run the same "
                "command again."
            )
        with self.stream.held_out.open("wb") as file:
            np.save(file, np.frombuffer(b"".join(held_out), np.uint8).reshape(-1, DIGEST_BYTES))
        lengths = np.diff(corpus.offsets)[~is_held_out]
        self.blocks = [_make_block(Cursor(), self.documents.cursor, combined.hexdigest(), lengths)]
        self.stream.note(self.blocks, self.arguments)


def _make_block(start: Cursor, end: Cursor, digest: str, lengths: np.ndarray) -> Block:
    pairs = int(np.maximum(lengths - 1, 0).sum())
    return Block(start, end, digest, documents=len(lengths), tokens=int(lengths.sum()), pairs=pairs)


@contextlib.contextmanager
def keep_writing(stream: StreamFolder, arguments: BlockArguments, first_place: int) -> Iterator[None]:
    """Prepare blocks in a process of its own while the context lasts; the first process of each machine starts one.

    If several machines share the folder, one of their writers works and the others wait to take its place.

    Args:
        first_place: the block that readers begin with.
    """
    if not is_first_of_machine():
        yield
        return
    stream.clean()
    specification = stream.folder / "writer.json"
    write_json(specification, {"arguments": asdict(arguments), "first_place": first_place})
    process = subprocess.Popen(
        [sys.executable, "-m", __spec__.name, str(specification), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # a signal that tells the run to save and stop must not end its blocks before it has
    )
    is_ending = threading.Event()

    def watch() -> None:
        status = process.wait()
        if not is_ending.is_set() and not stream.failure.is_file():
            stream.fail(
                f"the process that prepares the blocks of {stream.folder} ended with status {status}: run the same "
                "command again to go on."
            )

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_ending.set()
        process.terminate()
        watcher.join()


def main() -> None:
    """Prepare blocks until the parent process ends; argv: a specification and the parent's process id."""
    end_with_parent()
    specification, parent = Path(sys.argv[1]), int(sys.argv[2])
    if os.getppid() != parent:
        return
    stream = StreamFolder(specification.parent.parent)
    os.nice(NICENESS)  # training comes first, and waits for blocks if it has to
    given = read_json(specification)
    try:
        with refusing_unwritable(), only_one_process(stream.folder / ".lock", str(stream.folder), math.inf):
            for leftover in (*stream.folder.glob(".block-*.partial"), *stream.folder.glob(".block-*.removed")):
                shutil.rmtree(leftover, ignore_errors=True)
            writer = BlockWriter(stream, BlockArguments(**given["arguments"]), given["first_place"])
            while os.getppid() == parent:
                if not writer.step():
                    time.sleep(POLL_SECONDS)
    except RecipeError as error:
        print(f"the run will stop where its blocks end: {error}", file=sys.stderr, flush=True)
        stream.fail(str(error))
        sys.exit(2)
    except Exception as error:
        stream.fail(f"the blocks of {stream.folder} cannot be prepared ({type(error).__name__}: {error}).")
        raise


if __name__ == "__main__":
    main()
