"""Hold a part of the examples out."""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from weft.recipes.common.errors import RecipeError


def split_off(
    number: int, fraction: float, seed: int, labels: Sequence[Hashable] | None = None
) -> tuple[list[int], list[int]]:
    """Choose which of `number` examples to hold out.

    Args:
        fraction: the share to hold out; at least one example, and at least one stays.
        seed: which ones.
        labels: of each example; each label's share is then the same on both sides, as far as its number allows.
            A label with a single example stays in training.

    Returns:
        Indices of the examples to learn from and of those held out, each in order.

    Raises:
        RecipeError: there are fewer than two examples.
    """
    from sklearn.model_selection import train_test_split  # it takes long to import, and only runs that split need it

    if number < 2:
        raise RecipeError(f"there are {number} examples, of which none can be held out: give a validation_file.")
    held_out = min(max(round(number * fraction), 1), number - 1)
    if labels is None:
        train, rest = train_test_split(np.arange(number), test_size=held_out, random_state=seed)
        return sorted(train.tolist()), sorted(rest.tolist())
    counts = Counter(labels)
    single = [index for index in range(number) if counts[labels[index]] == 1]
    shared = [index for index in range(number) if counts[labels[index]] > 1]
    classes = len(counts) - len(single)
    # at least one of each label on both sides, where so many are held out at all
    if not shared or held_out < classes or len(shared) - held_out < classes:
        return split_off(number, fraction, seed)
    train, rest = train_test_split(
        shared, test_size=held_out, random_state=seed, stratify=[labels[index] for index in shared]
    )
    return sorted([*train, *single]), sorted(rest)
