"""The rows of a run that is trained on the blocks of a stream, one after another."""

import time
from bisect import bisect_right
from typing import Any

from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.corpus import Corpus
from weft.recipes.data.streaming.blocks import POLL_SECONDS, StreamFolder
from weft.recipes.pretraining.datasets.packed import TrainingRows
from weft.recipes.pretraining.objectives.base import Objective
from weft.recipes.pretraining.plan import Plan


class StreamRows(Dataset):
    """The rows of a run, block after block; the ledger tells the block of each row.

    Within a block they are the objective's rows of one epoch, with the block's number for that of the epoch. Only the
    last row of a block is left out, because it would not be full.
    """

    def __init__(
        self,
        stream: StreamFolder,
        objective: Objective,
        packed: TrainingRows,
        plan: Plan,
        seed: int,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.stream, self.objective, self.plan, self.seed, self.tokenizer = stream, objective, plan, seed, tokenizer
        self.overlap, self.added_places = packed.overlap, packed.added_places
        self._ends = [packed.rows_per_epoch]  # row of the run at which each known block ends
        self._number: int | None = None
        self._rows: Dataset | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Data-loader workers open the blocks themselves."""
        return {**self.__dict__, "_number": None, "_rows": None}

    def __len__(self) -> int:
        return self.plan.num_rows

    def __getitem__(self, index: int) -> Any:
        """Row `index` of the run; waits for its block (raises RecipeError: the block cannot be prepared)."""
        number = bisect_right(self._ends, int(index))
        while number == len(self._ends):
            self._learn_more()
            number = bisect_right(self._ends, int(index))
        if number != self._number:
            self._open(number)
        return self._rows[int(index)]

    def block_of(self, index: int) -> int:
        """The block of a row of the run, or the next one to prepare where the ledger does not reach that far."""
        self._read_ledger()
        return bisect_right(self._ends, index)

    def pass_of(self, index: int) -> int:
        """The pass over the stream, counted from 1, in which the block of a row of the run began."""
        number, blocks = self.block_of(index), self.stream.blocks()
        return blocks[min(number, len(blocks) - 1)].start.number + 1 if blocks else 1

    def _learn_more(self) -> None:
        """Wait until the ledger has another block."""
        known = len(self._ends)
        self.stream.announce(known)
        while not self._read_ledger() > known:
            self._wait()
        self._check_progress()

    def _read_ledger(self) -> int:
        """Take over the blocks that the ledger knows by now; returns their number."""
        for block in self.stream.blocks()[len(self._ends) :]:
            added = self.added_places(block.documents)
            self._ends.append(self._ends[-1] + block.rows(self.plan.sequence_length, self.overlap, added))
        return len(self._ends)

    def _check_progress(self) -> None:
        """Raises RecipeError where a whole pass has not given one row, because no other will."""
        barren = [index for index, end in enumerate(self._ends) if end == self._ends[-1]][1:]
        if not barren:
            return
        blocks = self.stream.blocks()
        if blocks[barren[-1]].end.number - blocks[barren[0]].start.number > 1:
            raise RecipeError(
                f"a whole pass over the stream gives no row of {self.plan.sequence_length} tokens: give a larger "
                "block_size, less strict filters or a smaller sequence_length."
            )

    def _open(self, number: int) -> None:
        self.stream.announce(number)
        folder = self.stream.block(number)
        while True:
            if folder.is_dir():
                try:
                    rows = self._rows_of(number, Corpus.open(folder))
                    break
                except (OSError, RecipeError):
                    if folder.is_dir():  # else the writer removed it, not knowing yet that it is needed
                        raise
            self._wait()
        self._number, self._rows = number, rows

    def _rows_of(self, number: int, corpus: Corpus) -> Dataset:
        packed = self.objective.pack(corpus, self.plan.sequence_length, self.seed, self.tokenizer)
        for name in ("tokens", "offsets", "byte_counts"):  # an open file may be removed
            getattr(corpus, name)
        if corpus.has_boundaries:
            corpus.begins("words", 0, 0)
        first = self._ends[number - 1] if number else 0
        if packed.rows_per_epoch != self._ends[number] - first:
            raise RecipeError(f"{corpus.folder} is not the block that the ledger of {self.stream.folder} knows.")
        packed.first_row, packed.first_epoch = first, number
        return self.objective.make_rows(packed, self.plan)

    def _wait(self) -> None:
        self.stream.check()
        time.sleep(POLL_SECONDS)
