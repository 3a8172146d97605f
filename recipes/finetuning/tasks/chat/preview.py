"""A conversation as a model reads it, with what is learnt of it set apart, by colour on a terminal."""

import itertools
import os
import sys
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from weft.losses import IGNORE_INDEX
from weft.recipes.common.wording import printable

MOST_TOKENS = 300
_LEARNT, _READ, _RESET = "\033[32m", "\033[2m", "\033[0m"
_OPENS, _CLOSES = "{+", "+}"  # as in a word diff


def shows_colour() -> bool:
    """Whether what is printed is shown on a terminal, in colour (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def preview_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], labels: Sequence[int], colour: bool) -> str:
    """The text of a conversation's tokens, indented, under a line that says how learnt tokens are shown."""
    tokens = list(zip(ids, labels, strict=True))[:MOST_TOKENS]
    parts = []
    for is_learnt, run in itertools.groupby(tokens, lambda token: token[1] != IGNORE_INDEX):
        text = printable(tokenizer.decode([number for number, _ in run], skip_special_tokens=False))
        if colour:
            parts.append(f"{_LEARNT if is_learnt else _READ}{text}{_RESET}")
        else:
            parts.append(f"{_OPENS}{text}{_CLOSES}" if is_learnt else text)
    text = "".join(parts) + (" ..." if len(ids) > MOST_TOKENS else "")
    shown = f"{_LEARNT}green{_RESET}" if colour else f"between {_OPENS} and {_CLOSES}"
    return "\n".join(
        f"    {line}"
        for line in [f"the first conversation as it is read; what is learnt is {shown}:", *text.split("\n")]
    )
