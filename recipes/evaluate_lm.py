"""Score a language model, causal, masked or an encoder-decoder: Weft's, or any with a language-model head.

    python recipes/evaluate_lm.py --model runs/pretrain_clm --task perplexity --files held_out.txt
    python recipes/evaluate_lm.py --model runs/pretrain_clm --task minimal-pairs --files blimp/*.jsonl
    python recipes/evaluate_lm.py --model runs/pretrain_clm --task harness --tasks blimp --output_file results.json

Tasks: perplexity (any text files), minimal-pairs, last-word and multiple-choice (JSON lines), and harness
(lm-evaluation-harness; pip install lm_eval). Nothing is fetched but a model named by its Hub id, and the data of the
harness' own tasks.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weft.recipes.common.command_line import parse_arguments
from weft.recipes.common.errors import refusing, run_command
from weft.recipes.data.segmentation import get_segmenter
from weft.recipes.evaluation.arguments import EvaluateArguments
from weft.recipes.evaluation.records import read_pairs, read_passages, read_questions


def main(argv: Sequence[str] | None = None) -> None:
    parsed = parse_arguments(__doc__, [EvaluateArguments], argv=argv)
    arguments = parsed[EvaluateArguments]
    arguments.check(parsed)
    segment, examples = get_segmenter(arguments.segmenter), _read(arguments)
    from weft.recipes.evaluation.run import evaluate  # with torch, which no refusal waits for

    evaluate(arguments, segment, examples)


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
        with refusing("harness needs a package that is missing", ImportError, advice="pip install lm_eval."):
            from weft.recipes.evaluation import harness
        return harness
    return arguments.sources()


if __name__ == "__main__":
    run_command(main)
