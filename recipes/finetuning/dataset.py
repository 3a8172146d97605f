"""The order in which examples are trained on: a function of seed, pass and place."""

from collections.abc import Sequence

import numpy as np
from torch.utils.data import Dataset

from weft.recipes.finetuning.collation import EncodedExample

GROUPED_BATCHES = 50  # so many batches are sorted by length together: they hardly differ from random ones


class TrainingOrder(Dataset):
    """The items of a whole run in the order in which they are trained on: a function of seed, pass and place."""

    def __init__(self, items: Sequence[EncodedExample], seed: int, number: int, group: int = 0) -> None:
        """Args:
        number: items of the whole run.
        group: size of the batches in which items of like length are to come together; 0: in any order.
        """
        self.items, self.seed, self.number, self.group = items, seed, number, group
        self.epoch, self.order = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> EncodedExample:
        epoch, place = divmod(index, len(self.items))
        if epoch != self.epoch:
            self.epoch, self.order = epoch, self._order(np.random.default_rng((self.seed, epoch)))
        return self.items[self.order[place]]

    def _order(self, draw: np.random.Generator) -> np.ndarray:
        order = draw.permutation(len(self.items))
        if not self.group:
            return order
        lengths = np.array([item.tokens for item in self.items])
        chunk = self.group * GROUPED_BATCHES
        chunks = [order[first : first + chunk] for first in range(0, len(order), chunk)]
        grouped = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in chunks])
        whole = len(grouped) // self.group * self.group
        batches = grouped[:whole].reshape(-1, self.group)
        return np.concatenate([draw.permutation(batches).reshape(-1), grouped[whole:]])
