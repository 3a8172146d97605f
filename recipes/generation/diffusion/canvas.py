"""A text on the terminal while its masks are filled in: shown anew after each step, where it stood before."""

import shutil
import unicodedata
from typing import TextIO

import torch
from transformers import PreTrainedTokenizerBase

GAP = "░"
UP, CLEAR_BELOW = "\x1b[{}A", "\r\x1b[J"


class Canvas:
    """Shows one text, as far as it fits the screen; what is longer is shown from where it fits."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, out: TextIO) -> None:
        self.tokenizer, self.out, self.lines = tokenizer, out, 0

    def __call__(self, ids: torch.Tensor) -> None:
        """Show the first of texts [texts, tokens]."""
        size = shutil.get_terminal_size()
        lines = wrapped(self.text_of(ids[0].tolist()), size.columns)[-max(1, size.lines - 1) :]
        self._replace("\n".join(lines))
        self.lines = len(lines)

    def finish(self, text: str) -> None:
        """Put the whole text there."""
        self._replace(f"{text}\n")

    def text_of(self, ids: list[int]) -> str:
        """The text with a sign in place of each mask, without other special tokens."""
        hidden = {*self.tokenizer.all_special_ids} - {self.tokenizer.mask_token_id}
        text = self.tokenizer.decode([token for token in ids if token not in hidden])
        return text.replace(self.tokenizer.mask_token, GAP)

    def _replace(self, text: str) -> None:
        up = UP.format(self.lines - 1) if self.lines > 1 else ""
        self.out.write(f"{up}{CLEAR_BELOW if self.lines else ''}{text}")
        self.out.flush()


def wrapped(text: str, columns: int) -> list[str]:
    """A text as the lines that it takes on a screen, cut after any character."""
    lines = []
    for line in text.split("\n"):
        part, used = "", 0
        for character in line.expandtabs():
            width = _width(character)
            if used + width > columns:
                lines.append(part)
                part, used = "", 0
            part, used = part + character, used + width
        lines.append(part)
    return lines


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
