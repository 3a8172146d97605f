"""From logits of first and last tokens to spans of characters: the best ones of a window, then of all windows."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch


class ContextWindow(NamedTuple):
    """Which part of a context an item shows.

    Attributes:
        first: place of the first token of the context in the item's sequence.
        offsets: [tokens, 2], first character and end in the context of each token of it.
    """

    first: int
    offsets: np.ndarray


class WindowSpans(NamedTuple):
    """What a model says of a window.

    Attributes:
        starts, ends: first and last token of its best spans, counted from the context's first, the best span first.
        scores: their log-odds against "no answer here".
        loss: nats; NaN where the answer is not known.
    """

    starts: np.ndarray
    ends: np.ndarray
    scores: np.ndarray
    loss: float


class AnswerSpan(NamedTuple):
    """A text of the context, its first character, and its log-odds against "no answer"."""

    text: str
    start: int
    score: float


def best_spans(
    start_logits: torch.Tensor,
    end_logits: torch.Tensor,
    first: torch.Tensor,
    last: torch.Tensor,
    max_tokens: int,
    number: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The spans with the largest sums of a first and a last token's logit, out of all within a window.

    Args:
        start_logits, end_logits: [windows, tokens].
        first, last: [windows], first and last token of the context.
        max_tokens: of a span at most.
        number: how many spans.

    Returns:
        First tokens, last tokens and sums, each [windows, at most `number`], the largest sum first; the sum is -inf
        where a window has no more spans.
    """
    tokens = start_logits.shape[1]
    place = torch.arange(tokens, device=start_logits.device)
    outside = (place < first[:, None]) | (place > last[:, None])
    start_logits = start_logits.masked_fill(outside, float("-inf"))
    end_logits = end_logits.masked_fill(outside, float("-inf"))
    longest = min(max_tokens, tokens)
    # for each first token the logits of itself and of the next ones as last tokens
    ends = torch.nn.functional.pad(end_logits, (0, longest - 1), value=float("-inf")).unfold(1, longest, 1)
    sums = (start_logits[:, :, None] + ends).flatten(1)
    scores, index = sums.topk(min(number, sums.shape[1]))
    starts = index // longest
    return starts, starts + index % longest, scores


def target_of(start: int, end: int, offsets: np.ndarray, begins: bool, finishes: bool) -> tuple[int, int] | None:
    """First and last token of the characters from `start` up to `end`, counted from the context's first.

    Args:
        offsets: [tokens, 2] of a window.
        begins, finishes: whether the window holds the context's first token, and its last.

    Returns:
        None where the window does not hold all of them.
    """
    is_whole = (begins or offsets[0, 0] <= start) and (finishes or offsets[-1, 1] >= end)
    # a token may begin with the blank before the answer, so its end says whether it holds the first character
    reaching, beginning = np.flatnonzero(offsets[:, 1] > start), np.flatnonzero(offsets[:, 0] < end)
    if not is_whole or not len(reaching) or not len(beginning) or reaching[0] > beginning[-1]:
        return None
    return int(reaching[0]), int(beginning[-1])


def merge(
    context: str, windows: Sequence[ContextWindow], found: Sequence[WindowSpans], number: int
) -> list[AnswerSpan]:
    """The best spans of all windows of a context, each once and without blanks around it, the best first.

    Logits are known up to a constant that differs from window to window; log-odds against the "no answer" of the same
    window are not, so they are what is compared.
    """
    best: dict[tuple[int, int], float] = {}
    for window, spans in zip(windows, found, strict=True):
        starts, ends = window.offsets[spans.starts, 0].tolist(), window.offsets[spans.ends, 1].tolist()
        for start, end, score in zip(starts, ends, spans.scores.tolist()):
            text = context[start:end]
            start += len(text) - len(text.lstrip())
            key = (start, start + len(text.strip()))
            if key[0] < key[1] and score > best.get(key, float("-inf")):
                best[key] = score
    ranked = sorted(best.items(), key=lambda entry: (-entry[1], entry[0]))[:number]
    return [AnswerSpan(context[start:end], start, score) for (start, end), score in ranked]


def probabilities(spans: Sequence[AnswerSpan], with_none: bool) -> list[float]:
    """Probabilities of spans among themselves and, if asked, "no answer", whose log-odds are 0; that comes last."""
    scores = np.array([*(span.score for span in spans), *([0.0] if with_none else [])])
    if not len(scores):
        return []
    weights = np.exp(scores - scores.max())
    return (weights / weights.sum()).tolist()


def no_answer_probability(spans: Sequence[AnswerSpan]) -> float:
    """Probability of "no answer" against the best span alone: between 0 and 1, 1 where there is no span."""
    if not spans:
        return 1.0
    return float(np.exp(-np.logaddexp(0.0, spans[0].score)))


def as_arrays(
    starts: torch.Tensor, ends: torch.Tensor, scores: torch.Tensor, losses: torch.Tensor
) -> list[WindowSpans]:
    """One entry for each window [windows, spans], without spans that do not exist."""
    columns: list[Any] = [tensor.detach().cpu().numpy() for tensor in (starts, ends, scores, losses)]
    result = []
    for start, end, score, loss in zip(*columns):
        exists = np.isfinite(score)
        result.append(
            WindowSpans(
                start[exists].astype(np.int32),
                end[exists].astype(np.int32),
                score[exists].astype(np.float32),
                float(loss),
            )
        )
    return result
