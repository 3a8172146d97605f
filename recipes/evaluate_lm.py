"""Score a language model, causal or masked: Weft's, or any with a language-model head.

    python recipes/evaluate_lm.py --model runs/pretrain_clm --task perplexity --files held_out.txt
    python recipes/evaluate_lm.py --model runs/pretrain_clm --task minimal-pairs --files blimp/*.jsonl
    python recipes/evaluate_lm.py --model runs/pretrain_clm --task harness --tasks blimp --output_file results.json

Tasks: perplexity (any text files), minimal-pairs, last-word and multiple-choice (JSON lines), and harness
(lm-evaluation-harness; pip install lm_eval). Nothing is fetched but a model named by its Hub id, and the data of the
harness' own tasks.
"""

import difflib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import transformers

from weft.recipes.common.command_line import Parsed, parse_arguments
from weft.recipes.common.errors import RecipeError, run_command
from weft.recipes.common.files import write_json
from weft.recipes.common.options import option
from weft.recipes.data.segmentation import get_segmenter
from weft.recipes.data.text_files import DOCUMENTS
from weft.recipes.data.text_source import SourceArguments, TextSource
from weft.recipes.evaluation.likelihood import SCORINGS, Scorer
from weft.recipes.evaluation.likelihood_tasks import (
    last_word,
    multiple_choice,
    perplexity,
    read_passages,
    read_questions,
)
from weft.recipes.evaluation.minimal_pairs import read_pairs, score_pairs
from weft.recipes.evaluation.model_loading import DTYPES, load_model

TASKS = ("perplexity", "minimal-pairs", "last-word", "multiple-choice", "harness")


@dataclass
class EvaluateArguments:
    """Which model to score, on what, and how."""

    model: str = option("runs/pretrain_clm", "folder or Hub id of a language model")
    task: str = option("perplexity", f"one of {', '.join(TASKS)}")
    files: list[str] = option(
        [],
        "perplexity: text (.txt, .jsonl, .json, .csv, .tsv, .parquet); the others: JSON lines, with "
        "sentence_good and sentence_bad (minimal-pairs), text (last-word), or query, choices and label "
        "(multiple-choice)",
    )
    scoring: str = option(
        "auto",
        "causal: each token given those before it; masked: given all others (pseudo-log-likelihood); "
        "within-word: given all others but the later ones of its word; auto: as the model was saved",
    )
    text_column: str = option("text", "the field that holds the text (perplexity, last-word)")
    documents: str = option(
        "blank-line", "perplexity: what a document is in .txt files: blank-line (separated by blank lines) or file"
    )
    max_tokens: int | None = option(None, "perplexity: score the first so many tokens of each file only")
    limit: int | None = option(None, "use the first so many examples of each file or task")
    delimiter: str = option(" ", "multiple-choice: what stands between query and choice")
    segmenter: str = option(
        "characters",
        "within-word: what a word is in scripts without blanks: characters, jieba or a function of your "
        "own (module:function)",
    )
    window: int | None = option(None, "longest input, in tokens; the default is what the model is meant for")
    stride: int | None = option(
        None, "tokens of a longer text scored at each place of the window; the default is half a window"
    )
    tasks: list[str] = option([], "harness: names of lm_eval's tasks")
    include_path: str | None = option(None, "harness: a folder with tasks of your own")
    num_fewshot: int | None = option(None, "harness: solved examples before each question")
    output_file: str | None = option(None, "also write the results here, as JSON")
    tokens_per_batch: int = option(4096, "tokens of one forward pass, padding included")
    device: str | None = option(None, "cuda, cpu ...; the default is a GPU if there is one")
    dtype: str = option("auto", f"of the weights: {', '.join(DTYPES)} (auto: as saved)")
    trust_remote_code: bool = option(False, "run the code of a model that is not Weft's")

    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {
        "task": TASKS,
        "scoring": ("auto", *SCORINGS),
        "documents": DOCUMENTS,
        "dtype": tuple(DTYPES),
    }
    ONLY_FOR: ClassVar[dict[str, tuple[str, ...]]] = {
        "max_tokens": ("perplexity",),
        "documents": ("perplexity",),
        "text_column": ("perplexity", "last-word"),
        "delimiter": ("multiple-choice",),
        **dict.fromkeys(("tasks", "include_path", "num_fewshot"), ("harness",)),
        "files": TASKS[:-1],
    }


def main(argv: Sequence[str] | None = None) -> None:
    transformers.logging.disable_progress_bar()
    parsed = parse_arguments(__doc__, [EvaluateArguments], argv=argv)
    arguments = parsed[EvaluateArguments]
    _check(arguments, parsed)
    segment = get_segmenter(arguments.segmenter)
    examples = _read(arguments)
    model, tokenizer, scoring = load_model(
        arguments.model, arguments.scoring, arguments.device, arguments.dtype, arguments.trust_remote_code
    )
    scorer = Scorer(
        model, tokenizer, scoring, arguments.window, arguments.stride, arguments.tokens_per_batch, segment=segment
    )
    results = {
        "model": arguments.model,
        "task": arguments.task,
        "scoring": scorer.name,
        "window": scorer.window,
        "stride": scorer.stride,
        "files": arguments.files,
        "results": _run(arguments, scorer, examples),
    }
    print(f"{arguments.task} of {arguments.model}, {scorer.name} scoring")
    print("\n".join(_table(results["results"])))
    if arguments.output_file is not None:
        write_json(Path(arguments.output_file), results)


def _check(arguments: EvaluateArguments, parsed: Parsed) -> None:
    for name, allowed in arguments.CHOICES.items():
        value = getattr(arguments, name)
        if value not in allowed:
            near = difflib.get_close_matches(value, allowed, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise RecipeError(f"{name} is {value!r}{hint}: choose one of {', '.join(allowed)}.")
    for name, tasks in arguments.ONLY_FOR.items():
        if name in parsed.given and arguments.task not in tasks:
            raise RecipeError(f"{name} has no effect on {arguments.task}: it is for {' and '.join(tasks)}.")
    if "segmenter" in parsed.given and arguments.scoring != "within-word":
        raise RecipeError("segmenter has no effect without scoring within-word: give that too, or leave it out.")
    for name in ("max_tokens", "limit", "window", "stride", "tokens_per_batch"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise RecipeError(f"{name} is {value}: give at least 1.")
    needed = "tasks" if arguments.task == "harness" else "files"
    if not getattr(arguments, needed):
        raise RecipeError(f"no {needed} are given: {arguments.task} needs --{needed}.")
    if arguments.task == "perplexity":
        for source in _sources(arguments):
            source.check()
    if arguments.include_path is not None and not Path(arguments.include_path).is_dir():
        raise RecipeError(f"include_path {arguments.include_path} is no folder: give one with the YAML files of tasks.")
    if arguments.output_file is not None and Path(arguments.output_file).exists():
        raise RecipeError(f"{arguments.output_file} exists: name another output_file, or remove it.")
    if arguments.output_file is not None:
        _make_folder(Path(arguments.output_file).parent)


def _make_folder(folder: Path) -> None:
    """Make a folder now, rather than when there are results to lose."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"output_file cannot be written into {folder}: {error.strerror}.") from error


def _sources(arguments: EvaluateArguments) -> list[TextSource]:
    text = SourceArguments(arguments.files, text_column=arguments.text_column, documents=arguments.documents)
    return text.sources()


def _read(arguments: EvaluateArguments) -> Any:
    """Read the examples of the task, so that broken ones are found before the model is loaded; texts are read later."""
    paths = [Path(path) for path in arguments.files]
    if arguments.task == "minimal-pairs":
        return read_pairs(paths, arguments.limit)
    if arguments.task == "last-word":
        return read_passages(paths, arguments.text_column, arguments.limit)
    if arguments.task == "multiple-choice":
        return read_questions(paths, arguments.limit)
    if arguments.task == "harness":
        return _import_harness()
    return _sources(arguments)


def _import_harness() -> Any:
    try:
        from weft.recipes.evaluation import harness
    except ImportError as error:
        raise RecipeError(f"harness needs a package that is missing ({error}): pip install lm_eval.") from error
    return harness


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


def _table(values: dict[str, Any], indent: str = "") -> list[str]:
    """Write results as aligned lines: plain values first, then each group of values under its name."""
    lines = []
    groups = {name: value for name, value in values.items() if isinstance(value, dict)}
    plain = {name: value for name, value in values.items() if not isinstance(value, dict)}
    width = max((len(name) for name in plain), default=0) + 2
    for name, value in plain.items():
        lines.append(f"{indent}{name:{width}}{_number(value):>14}")
    is_listing = bool(groups) and all("accuracy" in group and "pairs" in group for group in groups.values())
    width = max((len(name) for name in groups), default=0) + 2
    for name, group in groups.items():
        if is_listing:
            lines.append(f"{indent}{name:{width}}{_number(group['accuracy']):>14}{group['pairs']:>10,}")
        elif group:
            lines += [f"{indent}{name}", *_table(group, indent + "  ")]
    return lines


def _number(value: Any) -> str:
    return f"{value:,.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    run_command(main)
