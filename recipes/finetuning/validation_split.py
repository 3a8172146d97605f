"""Hold a part of the examples out, those of equal input together, and tell what splits have in common."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.wording import counted
from weft.recipes.finetuning.arguments import FileArguments


def squeezed(text: str) -> str:
    """A text with one blank for any: texts that differ in blanks alone are equal."""
    return " ".join(text.split())


def hold_out(
    inputs: Sequence[Hashable], files: FileArguments, labels: Sequence[Hashable] | None = None
) -> tuple[list[int], list[int]]:
    """Choose which examples to hold out, so that none of them has the input of one that is learnt from.

    Args:
        inputs: of each example what equal ones have in common. Of the different ones about `validation_fraction` are
            held out.
        labels: as in `split_off`; of equal inputs the first one's counts.

    Returns:
        Indices of the examples to learn from and of those held out, each in order.

    Raises:
        RecipeError: there are fewer than two different inputs.
    """
    number_of: dict[Hashable, int] = {}
    firsts = []
    for index, one in enumerate(inputs):
        if one not in number_of:
            number_of[one] = len(number_of)
            firsts.append(index)
    if len(firsts) == 1 < len(inputs):
        raise RecipeError(
            f"all {len(inputs):,} training examples have the same input, so none can be held out: give a "
            "validation_file, or look at what is read as the input."
        )
    strata = None if labels is None else [labels[index] for index in firsts]
    _, chosen = split_off(len(firsts), files.validation_fraction, files.split_seed, strata)
    held_out = set(chosen)
    sides: tuple[list[int], list[int]] = ([], [])
    for index, one in enumerate(inputs):
        sides[number_of[one] in held_out].append(index)
    return sides


def describe_equal_inputs(inputs: Mapping[str, Sequence[Hashable]], name: str) -> list[tuple[str, str]]:
    """Lines of a plan about examples of equal input.

    Args:
        inputs: of each example of each split; "train" among them.
        name: what an input is, such as "text".

    Returns:
        For each split of which some inputs are trained on a warning; and, of each split, how many examples have the
        input of another one of it.
    """
    trained = set(inputs["train"])
    lines = []
    for split, given in inputs.items():
        known = 0 if split == "train" else sum(one in trained for one in given)
        if known:
            lines.append(
                (
                    "warning",
                    f"{known:,} of {counted(len(given), f'{split} example')} with the {name} of a training example, "
                    "which flatters the scores: leave them out of one of the two",
                )
            )
    shared = []
    for split, given in inputs.items():
        times = Counter(given)
        if number := sum(times[one] > 1 for one in given):
            shared.append(f"{number:,} of {len(given):,} {split}")
    if shared:
        together = "" if lines else "; none is both trained on and scored on"
        lines.append((f"equal {name}s", f"{', '.join(shared)} examples with the {name} of another one{together}"))
    return lines


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
        raise RecipeError(
            f"{counted(number, 'training example')} cannot be divided into those to learn from and those to hold out: "
            "give more, or a validation_file."
        )
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
