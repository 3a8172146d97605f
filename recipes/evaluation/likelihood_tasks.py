"""Evaluation by likelihood: perplexity of texts, the last word of passages, and questions with several choices."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.language import language_of_script
from weft.recipes.data.segmentation import is_unspaced
from weft.recipes.evaluation.likelihood import ScoredText, Scorer, TokenScores, TokenSpan
from weft.recipes.evaluation.records import ChoiceQuestion

TEXTS_TOKENISED_AT_ONCE = 256
# Characters; what is longer between blanks in Thai and its like, and in Chinese and Japanese, is no word but a clause.
LONGEST_MEAN_WORD, LONGEST_MEAN_HAN_WORD = 8, 4
LARGEST_EXPONENT = 700.0  # of which e to its power is a number


def perplexity(scorer: Scorer, texts: Iterable[str], max_tokens: int | None = None) -> dict[str, Any]:
    """Measure how well documents are predicted, each by itself.

    Longer ones pass through a sliding window, so that every token is scored once. A causal model sees at least
    window - stride tokens before it (or all of them), a masked one half as many on each side. A document without a
    token that can be predicted is left out.

    Args:
        max_tokens: cut the documents off after about so many tokens.

    Returns:
        perplexity (per token; a pseudo-perplexity for masked scoring, as are the others, and at most so much for
        diffusion scoring), word_perplexity (per word between blanks), bits_per_character and bits_per_byte (of the
        text's UTF-8; a first token that nothing predicts costs nothing; of diffusion scoring also bits_per_byte_error,
        the standard error that random masks leave), nats, and the numbers of documents, tokens, unknown_tokens, words,
        characters and bytes. word_perplexity is None for text without blanks between words; `undefined` has the reason
        then.

    Raises:
        RecipeError: there is nothing to score.
    """
    documents = list(_encode_documents(scorer, texts, max_tokens))
    scores = scorer.score([TokenSpan(document, 0, len(document.ids)) for document in documents])
    scored = [(document, score) for document, score in zip(documents, scores) if len(score.log_probs)]
    if not scored:
        raise RecipeError("the text has no token that the model can predict: give more text.")
    nats = -math.fsum(score.total for _, score in scored)
    unknown = scorer.tokenizer.unk_token_id
    counts = {
        "documents": len(scored),
        "tokens": sum(len(score.log_probs) for _, score in scored),
        "unknown_tokens": 0 if unknown is None else sum(int((document.ids == unknown).sum()) for document, _ in scored),
        "words": sum(len(document.text.split()) for document, _ in scored),
        "characters": sum(len(document.text) for document, _ in scored),
        "bytes": sum(len(document.text.encode()) for document, _ in scored),
    }
    reason = _no_words(documents, counts, nats)
    return {
        "perplexity": _exp(nats / counts["tokens"]),
        "word_perplexity": _exp(nats / counts["words"]) if reason is None else None,
        "bits_per_character": nats / math.log(2) / counts["characters"],
        "bits_per_byte": nats / math.log(2) / counts["bytes"],
        **_error(scored, counts["bytes"]),
        "nats": nats,
        **counts,
        **({} if reason is None else {"undefined": {"word_perplexity": reason}}),
    }


def _error(scored: Sequence[tuple[ScoredText, TokenScores]], byte_count: int) -> dict[str, float]:
    """The standard error of bits per byte, where the scores are estimates by random masks."""
    variances = [score.variance for _, score in scored if score.variance is not None]
    return {"bits_per_byte_error": math.sqrt(math.fsum(variances)) / math.log(2) / byte_count} if variances else {}


def _no_words(documents: Sequence[ScoredText], counts: dict[str, int], nats: float) -> str | None:
    """Say why what stands between blanks is no words of which a perplexity could be told; None if it is."""
    if is_unspaced(each.text for each in documents):
        is_han = language_of_script(each.text for each in documents) in ("zh", "ja")
        longest = LONGEST_MEAN_HAN_WORD if is_han else LONGEST_MEAN_WORD
        if counts["characters"] > longest * counts["words"]:
            return "the text has no blanks between its words"
    if LARGEST_EXPONENT * counts["words"] < nats < math.inf:
        return "the text has too few blanks to tell words by"
    return None


def _encode_documents(scorer: Scorer, texts: Iterable[str], max_tokens: int | None) -> Iterator[ScoredText]:
    texts, tokens = (text for text in texts if text.strip()), 0
    while batch := list(itertools.islice(texts, TEXTS_TOKENISED_AT_ONCE if max_tokens is None else 1)):
        for encoded in scorer.encode(batch):
            if max_tokens is not None and tokens + len(encoded.ids) > max_tokens:
                end = int(encoded.offsets[max_tokens - tokens, 0])
                yield from scorer.encode([encoded.text[:end]] if end else [])
                return
            tokens += len(encoded.ids)
            yield encoded


def last_word(scorer: Scorer, passages: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Measure how often greedy decoding writes the last word of a passage.

    A word is right if each of its tokens is the most likely one given everything before it. A masked model predicts
    them from left to right too, each with the later ones masked. The passage breaks off there, without an end token,
    which would ask for a full stop instead. The masks tell the model how many tokens the word has, which a causal model
    does not know: compare it with masked models only.

    Returns:
        accuracy, perplexity (of the word: the exponential of the mean of its nats), and the number of examples.
    """
    scores = scorer.score_continuations(passages, left_to_right=True)
    nats = -math.fsum(score.total for score in scores) / len(scores)
    accuracy = sum(bool(len(score.is_top) and score.is_top.all()) for score in scores) / len(scores)
    return {"accuracy": accuracy, "perplexity": _exp(nats), "examples": len(scores)}


def multiple_choice(scorer: Scorer, questions: Sequence[ChoiceQuestion], delimiter: str = " ") -> dict[str, float]:
    """Measure how often the right choice is the most probable one after the query. A tie is wrong.

    Args:
        delimiter: put between query and choice, unless the query ends or the choice begins with a blank.

    Returns:
        accuracy (by the log-probability of the choice), accuracy_normalised (by that for each of its UTF-8 bytes), and
        the number of examples.

    Raises:
        RecipeError: a choice has no token that can be scored.
    """
    pairs = []
    for question in questions:
        for choice in question.choices:
            joined = not question.query or question.query[-1].isspace() or choice[0].isspace()
            pairs.append((question.query, choice if joined else delimiter + choice))
    scores = iter(scorer.score_continuations(pairs))
    right = right_normalised = 0
    for question in questions:
        own = [next(scores) for _ in question.choices]
        if not all(len(score.log_probs) for score in own):
            raise RecipeError(f"{question.where}: a choice has no token that the model predicts.")
        totals = np.array([score.total for score in own])
        right += _is_best(totals, question.label)
        byte_counts = np.array([len(choice.strip().encode()) for choice in question.choices])
        right_normalised += _is_best(totals / byte_counts, question.label)
    count = len(questions)
    return {"accuracy": right / count, "accuracy_normalised": right_normalised / count, "examples": count}


def _is_best(values: np.ndarray, label: int) -> bool:
    return bool((values[label] > np.delete(values, label)).all())


def _exp(nats: float) -> float:
    """Return the exponential; infinity where it is too large for a number."""
    return math.exp(nats) if nats < LARGEST_EXPONENT else math.inf
