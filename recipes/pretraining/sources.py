"""The mixture of sources that a run takes, where it is another than its corpus was prepared with."""

from collections.abc import Sequence

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.wording import some_of
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.data.source_mixture import SourceMixture, with_weights
from weft.recipes.pretraining.arguments import RunArguments


def mixture_of_run(corpus: Corpus, data: DataArguments, run: RunArguments) -> SourceMixture | None:
    """What a run makes of the sources of its corpus; None: what the corpus says, the same at every step.

    Raises:
        RecipeError: the corpus has no such source, or only one where several are needed.
    """
    sources, is_new = corpus.sources, bool(run.data and data.source_weights)
    if is_new:
        sources = with_weights(sources, data.source_weights, corpus.folder)
    if run.source_temperature is not None and len(sources) == 1:
        raise RecipeError(
            f"source_temperature is given, but {corpus.folder} has one source: prepare it again with source_weights, "
            "such as en=1 zh=1."
        )
    mixture = SourceMixture.of(sources, 1.0 if run.source_temperature is None else run.source_temperature)
    return mixture if is_new or run.source_temperature is not None or not mixture.is_constant else None


def check_stages(mixture: SourceMixture, steps: int) -> None:
    """Refuse a run that is too short for the stages of its mixture (raises RecipeError)."""
    for schedule in mixture.weights:
        schedule.check_length("source_weights", steps)
    mixture.temperature.check_length("source_temperature", steps)


def describe_mixture(mixture: SourceMixture, names: Sequence[str], sizes: Sequence[int], steps: int) -> str:
    """The share of the text that each source gives, in each stage of a run."""
    starts, said = mixture.starts(steps), []
    for start, end in zip(starts, [*starts[1:], steps]):
        parts = [size * times for size, times in zip(sizes, mixture.passes(sizes, start, steps))]
        shares = sorted(((part / sum(parts), name) for part, name in zip(parts, names)), reverse=True)
        until = f" until step {end:,}" if end < steps else ""
        said.append(some_of([f"{name} {share:.1%}" for share, name in shares if share]) + until)
    return ", then ".join(said)
