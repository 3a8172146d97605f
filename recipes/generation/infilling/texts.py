"""Gaps of texts filled by a causal model with tokens for that, or by an encoder-decoder with sentinels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from weft.recipes.generation.generate_text import write_rows
from weft.tokenizer.denoising_tokens import MODES, ids_of, sentinel_names
from weft.tokenizer.encode_as_text import encode_as_text
from weft.tokenizer.fill_in_the_middle import MiddleTokens, end_ids
from weft.tokenizer.special_tokens import tokens_around

ANCHOR = "\n"  # of what stands behind it no tokenizer takes the first word for that of a text


class Filled(NamedTuple):
    """A text whose gap was filled, in parts, and whether the model came to an end there."""

    before: str
    middle: str
    after: str
    is_finished: bool

    @property
    def text(self) -> str:
        return self.before + self.middle + self.after


class _Prompt(NamedTuple):
    """What a model reads of a text with a gap.

    Attributes:
        ids: up to the middle.
        prefix: of the tokens before the gap, those that the model reads as they are.
        opening: the last one, which it writes itself, or a longer one that begins with it; none at the begin of a text.
    """

    ids: list[int]
    prefix: list[int]
    opening: list[int]


def fill_gaps(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sides: Sequence[tuple[str, str]],
    suffix_first: bool = False,
    **options: Any,
) -> list[Filled]:
    """Write what is missing in texts, all in one batch.

    The last token before a gap may be the begin of a longer one, where a text is cut within a word or behind a blank.
    So the model is not given it: its first token has to begin as that one does.

    Args:
        model: a causal one, in evaluation mode.
        tokenizer: a fast one with tokens for infilling (`MiddleTokens.find`).
        sides: what stands before each gap, and what behind it.
        suffix_first: give it the latter first (SPM).
        options: of `model.generate` (max_new_tokens, do_sample, temperature ...).

    Raises:
        ValueError: the tokenizer has no such tokens.
    """
    prompts = [prompt_of(tokenizer, before, after, suffix_first) for before, after in sides]
    rows = [prompt.ids for prompt in prompts]
    longest, ends = max(map(len, rows)), _ends(model, tokenizer)
    openings = _Openings(tokenizer, [prompt.opening for prompt in prompts], longest)
    options |= {"eos_token_id": ends, "logits_processor": LogitsProcessorList([openings])}
    written = write_rows(model, tokenizer, rows, **options)[:, longest:].tolist()
    result = []
    for (before, after), prompt, row in zip(sides, prompts, written):
        length = next((place for place, token in enumerate(row) if token in ends), len(row))
        middle = _text_behind(tokenizer, prompt.prefix, prompt.opening, row[:length])
        result.append(Filled(before, middle, after, length < len(row)))
    return result


def prompt_of(tokenizer: PreTrainedTokenizerBase, before: str, after: str, suffix_first: bool = False) -> _Prompt:
    """What a model reads to write the middle; raises ValueError where the tokenizer has no tokens for infilling."""
    tokens = MiddleTokens.find(tokenizer)
    if tokens is None:
        raise ValueError("the tokenizer has no tokens for infilling, such as <|fim_prefix|>.")
    ids = encode_as_text(tokenizer, [before])[0].ids
    parts = tokens.before_middle(ids[:-1], ids_inside(tokenizer, after), suffix_first)
    start, _ = tokens_around(tokenizer)
    return _Prompt([*start, *(token for part in parts for token in part)], ids[:-1], ids[-1:])


def ids_inside(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """A text as it is inside of another one, without the blank that some tokenizers put before the first word."""
    (encoding,) = encode_as_text(tokenizer, [ANCHOR + text])
    behind = [token for token, (start, _) in zip(encoding.ids, encoding.offsets) if start >= len(ANCHOR)]
    is_apart = all(end <= len(ANCHOR) for start, end in encoding.offsets if start < len(ANCHOR))
    return behind if is_apart else encode_as_text(tokenizer, [text])[0].ids


@torch.no_grad()
def fill_by_sentinels(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, before: str, after: str, **options: Any
) -> Filled:
    """Write what is missing in a text with an encoder-decoder that fills in spans (T5, UL2).

    Raises:
        ValueError: the tokenizer has no sentinels.
    """
    prompt, prefix = source_of(tokenizer, before, after)
    first, second = ids_of(tokenizer, sentinel_names(2))
    ids = torch.tensor([prompt], device=model.device)
    ends = [*_ends(model, tokenizer), second]
    written = model.generate(ids, attention_mask=torch.ones_like(ids), eos_token_id=ends, **options)[0].tolist()
    written = written[written.index(first) + 1 :] if first in written else written[1:]
    length = next((place for place, token in enumerate(written) if token in ends), len(written))
    middle = _text_behind(tokenizer, prefix, [], [token for token in written[:length] if token != first])
    blanks = len(before) - len(before.rstrip(" "))
    return Filled(before, middle.removeprefix(" " * blanks), after, length < len(written))


def source_of(tokenizer: PreTrainedTokenizerBase, before: str, after: str) -> tuple[list[int], list[int]]:
    """What an encoder reads of a text with a gap, and of that the tokens before the gap.

    A blank before the gap belongs to what is missing, as most tokenizers have it. A mixture is told its usual mode.
    """
    known, (start, end) = tokenizer.get_vocab(), tokens_around(tokenizer)
    mode = [known[MODES["R"]]] if MODES["R"] in known else []
    prefix = encode_as_text(tokenizer, [before.rstrip(" ")])[0].ids
    first = ids_of(tokenizer, sentinel_names(1))
    return [*start, *mode, *prefix, *first, *ids_inside(tokenizer, after), *end], prefix


class _Openings(LogitsProcessor):
    """Lets the first token of each row only be one that begins as its opening does."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, openings: Sequence[Sequence[int]], length: int) -> None:
        """Args:
        openings: an id for each row, or none: the row is free.
        length: of the prompts, padding included.
        """
        self.length, self.openings = length, [*openings]
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        self.pieces = {number: piece for piece, number in tokenizer.get_vocab().items() if number not in special}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[1] != self.length:
            return scores
        is_allowed = torch.ones(len(self.openings), scores.shape[1], dtype=torch.bool)
        for row, opening in zip(is_allowed, self.openings):
            if opening:
                row[:] = False
                row[opening] = True
                start = self.pieces.get(opening[0])
                begins = [] if start is None else [n for n, piece in self.pieces.items() if piece.startswith(start)]
                row[[number for number in begins if number < scores.shape[1]]] = True
        is_allowed = is_allowed.to(scores.device).repeat_interleave(len(scores) // len(is_allowed), dim=0)
        return scores.masked_fill(~is_allowed, -torch.inf)


def _ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids at which a middle is over."""
    of_model = model.generation_config.eos_token_id
    ends = [*(of_model if isinstance(of_model, list) else [of_model]), tokenizer.eos_token_id, *end_ids(tokenizer)]
    return sorted({number for number in ends if number is not None})


def _text_behind(
    tokenizer: PreTrainedTokenizerBase, prefix: Sequence[int], opening: Sequence[int], written: Sequence[int]
) -> str:
    """The text of written ids, which begin as the opening does, as it is behind prefix and opening."""
    head, whole = (
        tokenizer.decode([*prefix, *more], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for more in (opening, written)
    )
    if whole.startswith(head):
        return whole[len(head) :]
    return tokenizer.decode([*written], skip_special_tokens=True, clean_up_tokenization_spaces=False)
