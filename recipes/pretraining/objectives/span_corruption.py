"""Span corruption: spans of a text are replaced by sentinels, and written behind these."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase as Tokenizer

from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError
from weft.recipes.pretraining.arguments import RunArguments
from weft.recipes.pretraining.datasets.denoising.pieces import Denoiser
from weft.recipes.pretraining.datasets.denoising.spans import (
    SentinelArguments,
    SpanArguments,
    SpanDenoiser,
    count_spans,
)
from weft.recipes.pretraining.objectives.text_to_text import TextToTextObjective
from weft.tokenizer.denoising_tokens import sentinel_names


class SpanObjective(TextToTextObjective):
    """Spans are replaced by sentinels (T5, https://huggingface.co/papers/1910.10683)."""

    summary = (
        "A text-to-text model that fills in spans of a text, to be fine-tuned. Trained with Weft; the code it needs is "
        "in this folder."
    )
    arguments = (SpanArguments, SentinelArguments)

    def __init__(self, spans: SpanArguments, marks: SentinelArguments) -> None:
        super().__init__()
        self.spans, self.marks = spans, marks

    def check(self, parsed: Parsed) -> None:
        self.spans.check()
        super().check(parsed)
        check_sentinels(self.marks, parsed, [(self.spans.noise_rate, self.spans.mean_span_length)])

    def special_tokens(self) -> Sequence[str]:
        return sentinel_names(self.marks.sentinels)

    def make_denoiser(self, tokenizer: Tokenizer) -> Denoiser:
        spans = self.spans
        return SpanDenoiser.of(tokenizer, spans.noise_rate, spans.mean_span_length, self.marks.sentinels)

    def describe(self) -> str:
        rate, length = self.spans.noise_rate, self.spans.mean_span_length
        return f"sentinels for {rate:.0%} of the tokens, in spans of {length:g} on average"


def check_sentinels(marks: SentinelArguments, parsed: Parsed, spans: Sequence[tuple[float, float]]) -> None:
    """Refuse too few sentinels for the spans of a text as long as a row, of each noise rate and mean length of a span;
    raises RecipeError."""
    marks.check()
    length = parsed[RunArguments].sequence_length
    needed = max((count_spans(length, *each) for each in spans), default=0)
    if needed > marks.sentinels:
        raise RecipeError(
            f"sentinels is {marks.sentinels}, but a text of {length} tokens (sequence_length) has {needed} spans: give "
            f"{needed} or more, longer spans, or a smaller sequence_length."
        )


OBJECTIVES = {"span": SpanObjective}
