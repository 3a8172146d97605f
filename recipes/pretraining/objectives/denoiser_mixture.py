"""A mixture of denoisers: spans of several lengths and rates, and prefixes, each named by a token before the source."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase as Tokenizer

from weft.recipes.common.command_line import Parsed
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.datasets.denoising.mixture import (
    SEQUENTIAL,
    MixtureArguments,
    MixtureDenoiser,
    parse_denoiser,
)
from weft.recipes.pretraining.datasets.denoising.pieces import Denoiser
from weft.recipes.pretraining.datasets.denoising.spans import SentinelArguments
from weft.recipes.pretraining.objectives.causal import JoinedEvaluator
from weft.recipes.pretraining.objectives.prefix_continuation import PrefixObjective
from weft.recipes.pretraining.objectives.span_corruption import check_sentinels
from weft.recipes.pretraining.objectives.text_to_text import TextToTextObjective
from weft.recipes.training.evaluator import Evaluator
from weft.tokenizer.denoising_tokens import MODES, ids_of, sentinel_names


class MixtureObjective(PrefixObjective):
    """Spans and prefixes, told apart by mode tokens (UL2, https://huggingface.co/papers/2205.05131)."""

    summary = (
        "A text-to-text model that fills in spans of a text and goes on with one, to be fine-tuned. Trained with Weft; "
        "the code it needs is in this folder."
    )
    arguments = (MixtureArguments, SentinelArguments)
    metrics = {
        **TextToTextObjective.metrics,
        **dict.fromkeys(("regular_loss", "sequential_loss", "extreme_loss"), ".4f"),
        "bits_per_byte": ".4f",
    }
    headline = ("denoising_loss", "target_accuracy", "bits_per_byte")
    parts = dict.fromkeys(("regular", "sequential", "extreme"), "nats per token")  # in the order of MODES

    def __init__(self, mixture: MixtureArguments, marks: SentinelArguments) -> None:
        super().__init__()
        self.mixture, self.marks = mixture, marks

    def check(self, parsed: Parsed) -> None:
        self.mixture.check()
        super().check(parsed)
        chosen = [each for each in map(parse_denoiser, self.mixture.denoisers) if each.mode != SEQUENTIAL]
        check_sentinels(self.marks, parsed, [(each.noise_rate, each.mean_length) for each in chosen])

    def special_tokens(self) -> Sequence[str]:
        return [*sentinel_names(self.marks.sentinels), *MODES.values()]

    def make_denoiser(self, tokenizer: Tokenizer) -> Denoiser:
        return MixtureDenoiser.of(tokenizer, self.mixture.denoisers, self.marks.sentinels)

    def make_evaluator(self, corpus: Corpus, row_length: int, tokenizer: Tokenizer) -> Evaluator:
        denoising = TextToTextObjective.make_evaluator(self, corpus, row_length, tokenizer)
        if not any(each.mode == SEQUENTIAL and each.weight for each in map(parse_denoiser, self.mixture.denoisers)):
            return denoising
        mode = ids_of(tokenizer, [MODES[SEQUENTIAL]])
        return MixtureEvaluator(self.make_continuation(corpus, row_length, mode), denoising)

    def describe(self) -> str:
        return f"a mixture of {', '.join(self.mixture.denoisers)}"


class MixtureEvaluator(JoinedEvaluator):
    """The losses of all denoisers, and the bits per byte of the mode that goes on with a text."""

    def join(self, causal: dict[str, float], other: dict[str, float]) -> dict[str, float]:
        return {**other, "bits_per_byte": causal["bits_per_byte"]}


OBJECTIVES = {"mixture": MixtureObjective}
