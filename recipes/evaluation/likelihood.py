"""The log-probabilities that a causal or masked language model gives to the tokens of texts.

causal       each token given those before it. The text begins with the start token, as documents did in training. If
             the tokenizer has none, nothing predicts the first token, and it is not scored.
masked       each token given all others, itself replaced by the mask: the pseudo-log-likelihood of Salazar et al., 2020
             (https://huggingface.co/papers/1910.14659). The text has the special tokens that `tokenizer(text)` adds.
within-word  as masked, but the later tokens of the same word are masked too, so that a rare word is not given away by
             its own pieces: Kauf and Ivanova, 2023 (https://huggingface.co/papers/2305.10588).
diffusion    a bound on the probability of the text, from many tokens masked at once: `diffusion.py`.

Only the text is scored, no special token, not even the end token of a document. A special token that is spelt out in a
text is text, as it is in training.
"""

import inspect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.common.positions import position_limit
from weft.recipes.data.segmentation import Segmenter, word_starts
from weft.tokenizer.encode_as_text import encode_as_text
from weft.tokenizer.special_tokens import tokens_around
from weft.tokenizer.vocabulary import check_rows

DEFAULT_WINDOW = 1024  # for models without a limit of their own
UNLIMITED = 10**9  # tokenizers without a limit say 1e30
ROWS_SORTED_AT_ONCE = 1 << 15
LOGITS_READ_AT_ONCE = 1024  # rows of logits whose probabilities are there at the same time


@dataclass(frozen=True)
class ScoredText:
    """A text as tokens, without special ones, and the special tokens around it.

    Attributes:
        text: as it was given.
        ids: [tokens].
        offsets: first character and the one after the last of each token [tokens, 2].
        before, after: ids of the special tokens.
        words: number of the word of each token [tokens], for within-word scoring.
    """

    text: str
    ids: np.ndarray
    offsets: np.ndarray
    before: np.ndarray
    after: np.ndarray
    words: np.ndarray | None = None

    def token_at(self, character: int) -> int:
        """Return the index of the first token that holds this character or a later one."""
        behind = np.flatnonzero(self.offsets[:, 1] > character)
        return int(behind[0]) if len(behind) else len(self.ids)


@dataclass(frozen=True)
class TokenSpan:
    """Tokens [first, last) of a text, to be scored given the rest of it.

    Attributes:
        left_to_right: hide from a masked model the span behind the token that it predicts; the text breaks off after
            the span, without an end token.
    """

    text: ScoredText
    first: int
    last: int
    left_to_right: bool = False


@dataclass(frozen=True)
class TokenScores:
    """The log-probabilities of the scored tokens of a span in nats, and whether each was the most likely one.

    Shorter than the span by one if that holds a first token that nothing predicts. `variance` is that of the total,
    where it is an estimate by random masks.
    """

    log_probs: np.ndarray
    is_top: np.ndarray
    variance: float | None = None

    @property
    def total(self) -> float:
        return float(self.log_probs.sum())


class ScoringRow(NamedTuple):
    """One input: tokens [first, last) are scored, and [first, hidden) are masked for a masked model; or both are those
    `chosen` between first and last."""

    ids: np.ndarray
    first: int
    last: int
    hidden: int
    chosen: np.ndarray | None = None

    @property
    def scored(self) -> np.ndarray:
        """Indices of the tokens that are scored."""
        return np.arange(self.first, self.last) if self.chosen is None else self.chosen

    @property
    def masked(self) -> np.ndarray:
        """Indices of the tokens that are masked for a masked model."""
        return np.arange(self.first, self.hidden) if self.chosen is None else self.chosen


class Scorer:
    """A model, its tokenizer and a way of scoring."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        scoring: str,
        window: int | None = None,
        stride: int | None = None,
        tokens_per_batch: int = 4096,
        segment: Segmenter | None = None,
        quiet: bool = False,
    ) -> None:
        """Args:
            model: in evaluation mode; its logits at i predict token i + 1 for causal scoring, token i for the others.
            scoring: one of SCORINGS.
            window: longest input, special tokens included; None: the limit of model and tokenizer.
            stride: number of tokens of a longer text to score at each place of the window; None: half a window.
            tokens_per_batch: of one forward pass, padding included (at least one input, however long).
            segment: cuts unspaced scripts into words, for within-word scoring.
            quiet: show no progress bar, as if the output were no terminal.

        Raises:
            RecipeError: an impossible window or stride, or a tokenizer that has no mask or does not fit the model.
        """
        self.model, self.tokenizer, self.scoring = model, tokenizer, scoring
        self.segment, self.quiet, self.tokens_per_batch = segment, quiet, tokens_per_batch
        self.is_causal = scoring == "causal"
        self.needs_mask = scoring in ("masked", "within-word", "diffusion")
        self.predicts_next = self.is_causal or bool(getattr(model.config, "masked_next_token", False))
        # A masked Weft model computes logits only at the places asked for, here one in a whole input.
        self.takes_places = self.needs_mask and "predict_from" in inspect.signature(model.forward).parameters
        self._check_tokenizer()
        self.window = _longest_input(model, tokenizer) if window is None else window
        self.stride = max(1, self.window // 2) if stride is None else stride
        specials = 0 if self.is_causal else sum(map(len, self._special_tokens()))
        if self.window < specials + 2:
            raise RecipeError(f"window is {self.window}: give at least {specials + 2} tokens.")
        limit = position_limit(model)
        if limit is not None and self.window > limit:
            raise RecipeError(
                f"window is {self.window}, but the model has only {limit} positions (max_position_embeddings): give "
                f"{limit} at most."
            )
        if not 1 <= self.stride <= self.window:
            raise RecipeError(f"stride is {self.stride}: give from 1 token to a whole window ({self.window}).")

    @property
    def name(self) -> str:
        """Way of scoring, as results name it."""
        if self.is_causal or not self.predicts_next:
            return self.scoring
        return f"{self.scoring}-next-token"

    def encode(self, texts: Sequence[str]) -> list[ScoredText]:
        """Tokenise as training did."""
        before, after = self._special_tokens()
        return [
            ScoredText(
                text=text,
                ids=np.array(encoding.ids, dtype=np.int32),
                offsets=np.array(encoding.offsets, dtype=np.int32).reshape(-1, 2),
                before=before,
                after=after,
                words=np.cumsum(word_starts(text, encoding.offsets, self.segment))
                if self.scoring == "within-word"
                else None,
            )
            for text, encoding in zip(texts, encode_as_text(self.tokenizer, texts))
        ]

    def score(self, spans: Sequence[TokenSpan]) -> list[TokenScores]:
        """Score spans in batches of inputs of like length.

        Raises:
            RecipeError: an input is longer than the model has positions for, or its logits are not numbers.
        """
        rows = (row for span in spans for row in self._rows(span))
        counts = [span.last - max(span.first, self._first_predictable(span.text)) for span in spans]
        counts = [max(0, count) for count in counts]
        log_probs, is_top = np.empty(sum(counts)), np.empty(sum(counts), dtype=bool)
        place = 0
        for scores in self.score_rows(rows, sum(counts)):
            here = slice(place, place := place + len(scores.log_probs))
            log_probs[here], is_top[here] = scores.log_probs, scores.is_top
        ends = np.cumsum([0, *counts])
        return [TokenScores(log_probs[a:b], is_top[a:b]) for a, b in itertools.pairwise(ends)]

    def score_rows(self, rows: Iterator[ScoringRow], total: int) -> Iterator[TokenScores]:
        """Yield the scores of rows in their order, computed in batches of like length.

        Args:
            total: tokens that are scored in all of them, for the progress bar.
        """
        with tqdm(total=total, unit="token", unit_scale=True, leave=False, disable=self.quiet or None) as bar:
            while chunk := list(itertools.islice(rows, ROWS_SORTED_AT_ONCE)):
                found: dict[int, TokenScores] = {}
                for numbers in self._batches(chunk):
                    for number, scores in zip(numbers, self._score_batch([chunk[number] for number in numbers])):
                        found[number] = TokenScores(*scores)
                        bar.update(len(found[number].log_probs))
                yield from (found[number] for number in range(len(chunk)))

    def score_texts(self, texts: Sequence[str]) -> list[TokenScores]:
        """Score every token of each text."""
        return self.score([TokenSpan(text, 0, len(text.ids)) for text in self.encode(texts)])

    def score_continuations(self, pairs: Iterable[tuple[str, str]], left_to_right: bool = False) -> list[TokenScores]:
        """Score continuations given their contexts.

        Context and continuation are tokenised as one text. Tokens with a visible character of the continuation are
        scored (for a continuation of blanks: with any character).

        Args:
            pairs: of context and continuation; the blank between them is part of either.
            left_to_right: as in `TokenSpan`.
        """
        pairs, spans = list(pairs), []
        texts = self.encode([context + continuation for context, continuation in pairs])
        for (context, continuation), text in zip(pairs, texts):
            blanks = len(continuation) - len(continuation.lstrip()) if continuation.strip() else 0
            spans.append(TokenSpan(text, text.token_at(len(context) + blanks), len(text.ids), left_to_right))
        return self.score(spans)

    def _check_tokenizer(self) -> None:
        if not self.tokenizer.is_fast:
            raise RecipeError("the tokenizer has no fast version (tokenizer.json): convert it.")
        if self.needs_mask and self.tokenizer.mask_token_id is None:
            raise RecipeError(
                f"the tokenizer has no mask token, which {self.scoring} scoring needs: score it causally."
            )
        with refusing(None, ValueError, say=str):
            check_rows(self.tokenizer, self.model.get_input_embeddings().weight.shape[0])

    def _special_tokens(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids before and after a text."""
        if self.is_causal:
            start = self.tokenizer.bos_token_id
            return np.array([] if start is None else [start], dtype=np.int32), np.array([], dtype=np.int32)
        before, after = tokens_around(self.tokenizer)
        return np.array(before, dtype=np.int32), np.array(after, dtype=np.int32)

    def _first_predictable(self, text: ScoredText) -> int:
        return 1 if self.predicts_next and not len(text.before) else 0

    def _rows(self, span: TokenSpan) -> Iterator[ScoringRow]:
        first = max(span.first, self._first_predictable(span.text))
        if self.is_causal:
            yield from self._causal_rows(span.text, first, span.last)
        else:
            yield from self._masked_rows(span, first)

    def _causal_rows(self, text: ScoredText, first: int, last: int) -> Iterator[ScoringRow]:
        """Yield windows that end with the tokens they score. The model never sees an input's last token."""
        ids = np.concatenate([text.before, text.ids])
        first, last = first + len(text.before), last + len(text.before)
        while first < last:
            end = min(last, max(first + self.stride, self.window + 1))
            begin = max(0, end - 1 - self.window)
            yield ScoringRow(ids[begin:end], first - begin, end - begin, end - begin)
            first = end

    def _masked_rows(self, span: TokenSpan, first: int) -> Iterator[ScoringRow]:
        """Yield for each token an input with that token masked, in a window with text on both sides."""
        text = span.text
        after = text.after[:0] if span.left_to_right else text.after
        ids = text.ids[: span.last] if span.left_to_right else text.ids
        needed = self._first_predictable(text)  # tokens to the left of any that is scored
        room = self.window - len(text.before) - len(after)
        stride = len(ids) if len(ids) <= room else min(self.stride, room - needed)
        while first < span.last:
            end = min(span.last, first + stride)
            begin = min(max(0, first - max((room - (end - first)) // 2, needed)), max(0, len(ids) - room))
            window = np.concatenate([text.before, ids[begin : begin + room], after])
            shift = len(text.before) - begin
            for token in range(first, end):
                hidden = min(self._hidden_until(span, token), begin + room)
                yield ScoringRow(window, token + shift, token + shift + 1, hidden + shift)
            first = end

    def _hidden_until(self, span: TokenSpan, token: int) -> int:
        if span.left_to_right:
            return span.last
        if span.text.words is None:
            return token + 1
        return int(np.searchsorted(span.text.words, span.text.words[token], side="right"))

    def _batches(self, rows: Sequence[ScoringRow]) -> Iterator[list[int]]:
        """Yield indices of rows of like length, the longest first, so that memory runs out at once or never."""
        batch: list[int] = []
        for number in sorted(range(len(rows)), key=lambda number: -len(rows[number].ids)):
            longest = len(rows[batch[0]].ids) if batch else 0
            if batch and (len(batch) + 1) * longest > self.tokens_per_batch:
                yield batch
                batch = []
            batch.append(number)
        yield batch

    @torch.no_grad()
    def _score_batch(self, rows: Sequence[ScoringRow]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Score rows padded on the right, so that positions count from 0 in models that ignore the mask too."""
        cut = 1 if self.is_causal else 0
        ids, mask = self._padded([row.ids[: len(row.ids) - cut] for row in rows])
        if self.needs_mask:
            for number, row in enumerate(rows):
                ids[number, row.masked] = self.tokenizer.mask_token_id
        counts = [len(row.scored) for row in rows]
        numbers = np.repeat(np.arange(len(rows)), counts)
        places = np.concatenate([row.scored for row in rows]) - cut
        targets = np.concatenate([row.ids[row.scored] for row in rows])
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self.takes_places:
            inputs["predict_from"] = numbers * ids.shape[1] + places - self.predicts_next
        log_probs, is_top = self._forward(inputs, numbers, places, targets, ids.shape[1])
        ends = np.cumsum(counts)[:-1]
        return list(zip(np.split(log_probs, ends), np.split(is_top, ends)))

    def _padded(self, rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Rows padded on the right [rows, longest], and which of these are tokens."""
        pad = next(i for i in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0) if i is not None)
        ids = np.full((len(rows), max(map(len, rows))), pad)
        mask = np.zeros(ids.shape, dtype=np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)], mask[number, : len(row)] = row, 1
        return ids, mask

    def _forward(
        self, inputs: dict[str, np.ndarray], numbers: np.ndarray, places: np.ndarray, targets: np.ndarray, width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities of targets [n] at these places of these rows, of logits [rows, width, vocabulary], and
        whether each is the most likely token."""
        inputs = {name: torch.from_numpy(value).to(self.model.device) for name, value in inputs.items()}
        try:
            logits = self.model(**inputs, **({} if self.needs_mask else {"use_cache": False})).logits
        except IndexError as error:
            raise RecipeError(f"the model has no positions for {width} tokens: give a smaller window.") from error
        index = np.arange(len(targets)) if self.takes_places else numbers * width + places
        wanted, index = (torch.from_numpy(each.astype(np.int64)).to(logits.device) for each in (targets, index))
        scores = [
            _score_logits(logits.flatten(0, -2)[some], of_some)
            for some, of_some in zip(index.split(LOGITS_READ_AT_ONCE), wanted.split(LOGITS_READ_AT_ONCE))
        ]
        log_probs, is_top = (torch.cat(each).cpu() for each in zip(*scores))
        log_probs = log_probs.double().numpy()
        if np.isnan(log_probs).any():
            raise RecipeError(
                "the model's logits are not numbers (NaN): its weights are broken, or --dtype is too narrow."
            )
        return log_probs, is_top.numpy()


def _score_logits(logits: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each wanted token [n] by logits [n, vocabulary], and whether it is the most probable one."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    log_probs = logits.log_softmax(-1).gather(-1, wanted[:, None])[:, 0]
    return log_probs, logits.argmax(-1) == wanted


def _longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the shorter limit of tokenizer and model; the tokenizer's leaves out positions that padding takes."""
    own = (getattr(model.config, "max_position_embeddings", None), position_limit(model))
    limits = [tokenizer.model_max_length, *own]
    known = [limit for limit in limits if limit is not None and 0 < limit < UNLIMITED]
    return int(min(known, default=DEFAULT_WINDOW))
