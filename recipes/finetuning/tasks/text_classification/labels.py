"""Names of labels: from the values in a file to class numbers, and to the config of a model and back."""

import difflib
import math
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from weft.recipes.common.errors import RecipeError

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_TRUTH = {"true": True, "false": False}
_DEFAULT_NAME = re.compile(r"LABEL_(\d+)")  # what transformers calls a label without a name


def name_of(value: Any) -> str:
    """The name of a label as the user wrote it: text without blanks around it, numbers and truth values as in JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.strip() if isinstance(value, str) else str(value)


def is_missing(value: Any) -> bool:
    """Whether there is no label: null, not a number, or no text."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


def number_in(value: Any) -> float | None:
    """The number that a value is, or that a text writes out; None for anything else, truth values included."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return math.inf if value > 0 else -math.inf
    if isinstance(value, int | float):
        return float(value)
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value.strip()) else None


@dataclass(frozen=True)
class LabelNames:
    """The labels of a task in the order of the model's outputs.

    Attributes:
        whose: who says that these are all of them, in words.
    """

    names: tuple[str, ...]
    whose: str = field(default="the training examples'", compare=False)
    _numbers: dict[Any, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        numbers: dict[Any, int] = {}
        equal: dict[Any, list[int]] = {}
        for number, name in enumerate(self.names):
            numbers[name] = number
            equal.setdefault(_meaning(name), []).append(number)
        # 1, 1.0 and "1" are one label, however a file writes it, unless two labels are written like that
        numbers |= {meaning: found[0] for meaning, found in equal.items() if len(found) == 1}
        object.__setattr__(self, "_numbers", numbers)

    def __len__(self) -> int:
        return len(self.names)

    def find(self, value: Any) -> int | None:
        """The number of a label; None where there is no such one."""
        name = name_of(value)
        return self._numbers.get(name, self._numbers.get(_meaning(name)))

    def check(self, value: Any, where: str, split: str) -> str:
        """The name of a label that was read; raises RecipeError, with the most similar name, where it is unknown."""
        number = self.find(value)
        if number is not None:
            return self.names[number]
        name = name_of(value)
        near = difflib.get_close_matches(name, self.names, n=1) or [n for n in self.names if n.lower() == name.lower()]
        known = ", ".join(map(repr, self.names[:20])) + (" ..." if len(self.names) > 20 else "")
        raise RecipeError(
            f"{where}: the {split} label {name!r} is none of {self.whose} ({known})"
            + (f": did you mean {near[0]!r}?" if near else ": mend it, or drop the row.")
        )

    def in_order_of(self, id2label: Mapping[int, str] | None) -> "LabelNames | None":
        """The same labels in the order of an existing model; None where the model has others.

        A model whose labels never got names (LABEL_0, LABEL_1 ...) has the same ones where they are 0, 1 ...
        """
        if not id2label or len(id2label) != len(self.names):
            return None
        theirs = [str(id2label[number]) for number in sorted(id2label, key=int)]
        numbers = [self.find(_DEFAULT_NAME.sub(r"\1", name)) for name in theirs]
        if None in numbers or len(set(numbers)) != len(numbers):
            return None
        return LabelNames(tuple(self.names[number] for number in numbers), self.whose)


def collect_names(values: Iterable[tuple[Any, str]]) -> LabelNames:
    """The different labels among values, each given with its place: numbers in their order, text by the alphabet.

    Raises:
        RecipeError: a label is missing, or is written in another way than the others (1 and "a").
    """
    names: dict[Any, str] = {}
    first: tuple[str, Any, str] | None = None
    for value, where in values:
        check_value(value, where)
        kind = _type(value)
        if first is None:
            first = (kind, value, where)
        elif kind != first[0]:
            raise RecipeError(
                f"{where}: the label {value!r} is a {kind}, where {first[1]!r} in {first[2]} is a {first[0]}: write "
                "all labels in the same way."
            )
        names.setdefault(value.strip() if isinstance(value, str) else value, name_of(value))
    return LabelNames(tuple(sorted(names.values(), key=_order_of(names.values()))))


def check_value(value: Any, where: str) -> None:
    """Refuse what cannot be a label; raises RecipeError."""
    if is_missing(value):
        raise RecipeError(f"{where}: the label is missing ({value!r}): give one, or drop the row.")
    if not isinstance(value, str | int | float | bool):
        raise RecipeError(
            f"{where}: the label is a {type(value).__name__}, where text, a number or a truth value is needed: name "
            "another --label_column."
        )


def _meaning(name: str) -> Any:
    """What spellings of the same label have in common; a text stands for itself."""
    number = number_in(name)
    if number is not None:
        return ("number", number)
    return ("truth", _TRUTH[name.lower()]) if name.lower() in _TRUTH else name


def _type(value: Any) -> str:
    return "truth value" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def _order_of(names: Iterable[str]) -> Any:
    if all(number_in(name) is not None for name in names):
        return lambda name: (number_in(name), name)
    # numbers inside of text by their size: "class 2" comes before "class 10"
    return lambda name: ([_size_of(p) if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", name)], name)


def _size_of(digits: str) -> tuple[int, int, str]:
    """What sorts numbers of any length by their size."""
    digits = "".join(str(unicodedata.decimal(digit)) for digit in digits).lstrip("0")
    return 0, len(digits), digits
