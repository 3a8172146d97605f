"""Input that hypothesis makes, the same in every run, and what may become of it: read whole, or refused by name."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from weft.recipes.common.errors import RecipeError

T = TypeVar("T")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ODD = st.sampled_from(
    [
        *(
            None,
            True,
            -1,
            2**70,
            10**400,
            0.5,
            math.nan,
            math.inf,
            "",
            " ",
            "\n",
            "\ud83d",
            "\0",
            "1",
            "\u00b2",
            "9" * 5000,
        ),
        *([], {}, [[]], [None], ["\ud83d"], [10**400], {"a": None}, {"text": "t"}),
    ]
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT, ODD)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "a", "start"]) | TEXT, inner),
    max_leaves=6,
)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["put", "insert", "drop", "end"]), st.integers(0, 5000), st.binary(min_size=1, max_size=4)
    ),
    min_size=1,
    max_size=3,
)


def fuzzed(examples: int) -> settings:
    """Settings of a test of so many inputs, which are the same in every run."""
    return settings(
        derandomize=True, database=None, deadline=None, max_examples=examples, suppress_health_check=list(HealthCheck)
    )


def edited(content: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    """Content with some bytes overwritten, put in, left out, or cut off."""
    for kind, place, new in edits:
        place %= len(content) + 1
        if kind == "end":
            content = content[: max(place, 1)]
        elif kind == "insert":
            content = content[:place] + new + content[place:]
        else:
            content = content[:place] + (new if kind == "put" else b"") + content[place + len(new) :]
    return content or b" "


def dumped(value: Any) -> str:
    """JSON of any value, half surrogate pairs escaped."""
    return json.dumps(value)


def _encode(value: Any) -> None:
    """Write every text within a value as UTF-8, as whatever is made of it will be."""
    if isinstance(value, str):
        value.encode()
    elif dataclasses.is_dataclass(value):
        _encode(list(vars(value).values()))
    elif isinstance(value, dict):
        _encode([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for each in value:
            _encode(each)


def read_or_refused(read: Callable[[], T], path: Path) -> T | None:
    """What `read` returns; None where it refuses in one sentence that names the file. Anything else is raised."""
    try:
        found = read()
        _encode(found)
        return found
    except RecipeError as error:
        sentence = str(error)
        assert str(path) in sentence, sentence
        assert "\n" not in sentence, sentence
        assert "Traceback" not in sentence, sentence
        return None
