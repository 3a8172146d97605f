"""How the rows of a run fall into epochs, and what each epoch takes of the endless passes over each source.

Epochs of one stage of the mixture take equally much of a source, each what comes behind the one before. The last epoch
before another stage has as many rows as are left, and takes so much less of all sources. So the next stage goes on
where this one ended: nothing is left out, and nothing comes again before all else has come.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from weft.recipes.data.source_mixture import SourceMixture
from weft.recipes.training.batch_schedule import Steps


@dataclass(frozen=True)
class EpochParts:
    """What an epoch is made of.

    Attributes:
        rows: how many it has.
        parts: of each source, which units [start, stop) of the sequence of passes over it.
    """

    rows: int
    parts: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Stage:
    """Epochs that take equally much: the first row and epoch of the run, the rows of an epoch, what it takes of each
    source, and where the first one begins in each."""

    first_row: int
    first_epoch: int
    rows: int
    shares: tuple[int, ...]
    starts: tuple[int, ...]


class Epochs:
    """The epochs of a run; its last stage has no end."""

    def __init__(self, shares: Sequence[Sequence[int]], first_rows: Sequence[int], row_length: int) -> None:
        """Args:
        shares: units (tokens, say) that an epoch takes of each source [stages, sources].
        first_rows: the row of the run with which each stage begins, the first 0.
        row_length: units of a row; an epoch has fewer than so many more than its rows.
        """
        self.row_length = row_length
        self.stages = [_Stage(0, 0, sum(shares[0]) // row_length, tuple(shares[0]), (0,) * len(shares[0]))]
        for following, row in zip(shares[1:], first_rows[1:]):
            last = self.stages[-1]
            whole, rest = divmod(row - last.first_row, max(1, last.rows))
            left = self._left(last, rest)
            starts = tuple(start + whole * share + some for start, share, some in zip(last.starts, last.shares, left))
            epoch, rows = last.first_epoch + whole + bool(rest), sum(following) // row_length
            self.stages.append(_Stage(row, epoch, rows, tuple(following), starts))

    @classmethod
    def of(
        cls,
        mixture: SourceMixture,
        sizes: Sequence[int],
        row_length: int,
        steps: Steps | None = None,
        whole: Callable[[float], int] = int,
    ) -> Self:
        """Those of a mixture of sources.

        Args:
            sizes: units that a pass over each source has.
            steps: of the run, in which the mixture may change; None: as in its first stage.
            whole: makes whole units of what an epoch takes of a source.
        """
        starts = [None] if steps is None else mixture.starts(steps.number)
        passes = [mixture.passes(sizes, start, 1 if steps is None else steps.number) for start in starts]
        shares = [[whole(size * times) for size, times in zip(sizes, of_stage)] for of_stage in passes]
        return cls(shares, [steps.before(start) if start else 0 for start in starts], row_length)

    @property
    def fewest_units(self) -> int:
        """The least that an epoch takes in any stage."""
        return min(sum(stage.shares) for stage in self.stages)

    def find(self, row: int) -> tuple[int, int]:
        """The epoch of a row of the run, and which of its rows it is."""
        stage = self.stages[bisect_right(self.stages, row, key=lambda stage: stage.first_row) - 1]
        epoch, place = divmod(row - stage.first_row, stage.rows)
        return stage.first_epoch + epoch, place

    def epoch(self, number: int) -> EpochParts:
        """What an epoch is made of."""
        index = bisect_right(self.stages, number, key=lambda stage: stage.first_epoch) - 1
        stage = self.stages[index]
        before, rows, shares = number - stage.first_epoch, stage.rows, stage.shares
        if index + 1 < len(self.stages):
            rows = min(rows, self.stages[index + 1].first_row - stage.first_row - before * stage.rows)
            shares = self._left(stage, rows)
        starts = [start + before * share for start, share in zip(stage.starts, stage.shares)]
        return EpochParts(rows, tuple((start, start + share) for start, share in zip(starts, shares)))

    def _left(self, stage: _Stage, rows: int) -> tuple[int, ...]:
        """What so many rows take of each source: all of a whole epoch, else as many units as they have, shared so that
        each source gives its part but for less than one."""
        total, units = sum(stage.shares), rows * self.row_length
        if rows == stage.rows:
            return stage.shares
        below, given = 0, []
        for share in stage.shares:
            given.append((below + share) * units // total - below * units // total)
            below += share
        return tuple(given)
