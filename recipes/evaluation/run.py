"""What evaluate_lm.py does once its examples are read: load a model, score them, and report."""

import itertools
import math
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import write_json
from weft.recipes.data.segmentation import Segmenter
from weft.recipes.evaluation.arguments import EvaluateArguments
from weft.recipes.evaluation.baselines import SHOWN, load_baseline, refuse_token_model
from weft.recipes.evaluation.continuations import ContinuationScorer
from weft.recipes.evaluation.diffusion import make_scorer
from weft.recipes.evaluation.likelihood import Scorer
from weft.recipes.evaluation.likelihood_tasks import last_word, multiple_choice, perplexity
from weft.recipes.evaluation.minimal_pairs import score_pairs
from weft.recipes.evaluation.model_loading import load_model

MOST_WRITTEN_OUT = 1e9  # from here on a figure is given with its power of ten
UNDEFINED = "undefined"  # of results: the reason of each figure that is None


def evaluate(arguments: EvaluateArguments, segment: Segmenter | None, examples: Any) -> None:
    """Score the examples of the task, print the results, and write them to output_file.

    Raises:
        RecipeError: the model cannot be loaded, or not be used as asked for.
    """
    transformers.logging.disable_progress_bar()
    refuse_token_model(arguments.model)
    model, tokenizer, scoring = load_model(
        arguments.model, arguments.scoring, arguments.device, arguments.dtype, arguments.trust_remote_code
    )
    scorer = _make_scorer(arguments, model, tokenizer, scoring, segment)
    baseline = None if arguments.baseline is None else load_baseline(arguments, scorer)
    results = {
        "model": arguments.model,
        "task": arguments.task,
        "scoring": scorer.name,
        "window": scorer.window,
        "stride": scorer.stride,
        "files": arguments.files,
        "results": _defined(_run(arguments, scorer, examples)),
    }
    print(f"{arguments.task} of {arguments.model}, {scorer.name} scoring")
    print("\n".join(_table(results["results"])))
    if baseline is not None:
        beside = {source.name: baseline.compare(results["results"][source.name], source) for source in examples}
        results["baseline"] = {"folder": arguments.baseline, "title": baseline.title, "results": _defined(beside)}
        print(f"beside {arguments.baseline} ({baseline.title})")
        shown = {name: {each: found[each] for each in SHOWN} for name, found in beside.items()}
        print("\n".join(_table(_defined(shown))))
    if arguments.output_file is not None:
        write_json(Path(arguments.output_file), results)


def _make_scorer(
    arguments: EvaluateArguments,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    scoring: str,
    segment: Segmenter | None,
) -> Scorer:
    fields = (arguments.window, arguments.stride, arguments.tokens_per_batch)
    if scoring == "continuation":
        return ContinuationScorer(model, tokenizer, scoring, *fields, source_prefix=arguments.source_prefix)
    if arguments.source_prefix:
        raise RecipeError(f"source_prefix has no effect on {scoring} scoring, which knows no source: leave it out.")
    return make_scorer(model, tokenizer, scoring, *fields, segment=segment, rates=arguments.rates)


def _run(arguments: EvaluateArguments, scorer: Scorer, examples: Any) -> dict[str, Any]:
    if arguments.task == "minimal-pairs":
        return score_pairs(scorer, examples)
    if arguments.task == "last-word":
        return last_word(scorer, examples)
    if arguments.task == "multiple-choice":
        return multiple_choice(scorer, examples, arguments.delimiter)
    if arguments.task == "harness":
        folder = None if arguments.include_path is None else Path(arguments.include_path)
        return examples.run_harness(scorer, arguments.tasks, folder, arguments.num_fewshot, arguments.limit)
    texts = {source.name: itertools.islice(source.read(), arguments.limit) for source in examples}
    return {name: perplexity(scorer, each, arguments.max_tokens) for name, each in texts.items()}


def _defined(values: dict[str, Any]) -> dict[str, Any]:
    """Put None for figures that are no numbers, which JSON cannot tell, and the reasons into a group `undefined`."""
    reasons = {
        name: "it is not a number" if math.isnan(value) else "the model gives some token next to no probability"
        for name, value in values.items()
        if isinstance(value, float) and not math.isfinite(value)
    }
    found = {name: _defined(value) if isinstance(value, dict) else value for name, value in values.items()}
    found |= dict.fromkeys(reasons)
    return found if not reasons else {**found, UNDEFINED: {**values.get(UNDEFINED, {}), **reasons}}


def _table(values: dict[str, Any], indent: str = "") -> list[str]:
    """Write results as aligned lines: plain values first, then each group of values under its name."""
    lines, reasons = [], values.get(UNDEFINED, {})
    groups = {name: value for name, value in values.items() if isinstance(value, dict) and name != UNDEFINED}
    plain = {name: value for name, value in values.items() if not isinstance(value, dict)}
    width = max((len(name) for name in plain), default=0) + 2
    for name, value in plain.items():
        why = f": {reasons[name]}" if name in reasons else ""
        lines.append(f"{indent}{name:{width}}{_number(value):>14}{why}")
    is_listing = bool(groups) and all("accuracy" in group and "pairs" in group for group in groups.values())
    width = max((len(name) for name in groups), default=0) + 2
    for name, group in groups.items():
        if is_listing:
            lines.append(f"{indent}{name:{width}}{_number(group['accuracy']):>14}{group['pairs']:>10,}")
        elif group:
            lines += [f"{indent}{name}", *_table(group, indent + "  ")]
    return lines


def _number(value: Any) -> str:
    if value is None:
        return UNDEFINED
    if isinstance(value, float) and abs(value) >= MOST_WRITTEN_OUT:
        return f"{value:.4e}"
    return f"{value:,.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
