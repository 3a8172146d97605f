"""The special tokens of filling in the middle, under the names that models have them, and the order of what they mark.

    prefix first (PSM)   <|fim_prefix|> prefix <|fim_suffix|> suffix <|fim_middle|> middle
    suffix first (SPM)   <|fim_prefix|> <|fim_suffix|> suffix <|fim_middle|> prefix middle

The paper (https://huggingface.co/papers/2207.14255) trains both together in these forms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from transformers import PreTrainedTokenizerBase

from weft.tokenizer.denoising_tokens import give_tokens

# Prefix, suffix and middle, as families of models call them; the first are those that a tokenizer without any is given.
NAMES = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen2.5-Coder, CodeGemma
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite, StableCode
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    ("<\uff5cfim▁begin\uff5c>", "<\uff5cfim▁hole\uff5c>", "<\uff5cfim▁end\uff5c>"),  # DeepSeek-Coder
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),  # CodeLlama
    ("<PRE>", "<SUF>", "<MID>"),
)
# What ends a middle in models whose end token does not.
ENDS = ("▁<EOT>", "<EOT>", "<|endoftext|>", "<|file_sep|>", "<|file_separator|>", "<file_sep>")


@dataclass(frozen=True)
class MiddleTokens:
    """The ids of the three tokens, each of which stands before the part that it is named after."""

    prefix: int
    suffix: int
    middle: int

    @classmethod
    def find(cls, tokenizer: PreTrainedTokenizerBase) -> Self | None:
        """Those of a tokenizer, whatever it calls them; None where it has none."""
        known = tokenizer.get_vocab()
        names = next((names for names in NAMES if all(name in known for name in names)), None)
        return None if names is None else cls(*(known[name] for name in names))

    @classmethod
    def give(cls, tokenizer: PreTrainedTokenizerBase) -> Self:
        """Those of a tokenizer, which is given them in place where it has none (see `give_tokens`)."""
        found = cls.find(tokenizer)
        if found is not None:
            return found
        give_tokens(tokenizer, NAMES[0])
        return cls(*tokenizer.convert_tokens_to_ids(list(NAMES[0])))

    @property
    def ids(self) -> list[int]:
        return [self.prefix, self.suffix, self.middle]

    def before_middle(
        self, prefix: Sequence[int], suffix: Sequence[int], suffix_first: bool = False
    ) -> list[Sequence[int]]:
        """What stands before the middle, in parts: prefix and suffix as they are given, and the tokens around them."""
        if suffix_first:
            return [[self.prefix, self.suffix], suffix, [self.middle], prefix]
        return [[self.prefix], prefix, [self.suffix], suffix, [self.middle]]


def end_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids, beside those that end any text, at which a middle is over."""
    known, tokens = tokenizer.get_vocab(), MiddleTokens.find(tokenizer)
    return [*(known[name] for name in ENDS if name in known), *([] if tokens is None else tokens.ids)]
