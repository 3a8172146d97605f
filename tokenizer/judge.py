"""Judge a tokenizer on your text: characters per token, unknown tokens and characters cut into bytes, for each script.

    python tokenizer/judge.py --tokenizer_name runs/tokenizer --files held_out.txt

The text is best one that the tokenizer has not learnt from, since it serves text that it knows a little better.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from weft.recipes.common.arguments import parse_arguments
from weft.recipes.common.documents import check_file, read_documents
from weft.recipes.common.errors import RecipeError, run_command
from weft.recipes.common.script_report import ScriptReport
from weft.recipes.common.tokenising import load_tokenizer
from weft.tokenizer.sampling import sample

SAMPLE_CHARACTERS = 2_000_000


@dataclass
class JudgeArguments:
    """What to judge, and on which text."""

    tokenizer_name: str | None = field(default=None, metadata={"help": "folder or Hub id of a tokenizer"})
    files: list[str] = field(
        default_factory=list,
        metadata={"help": "text: .txt, .jsonl, .json, .csv (each also .gz or .zst) or .parquet"},
    )
    text_column: str = field(default="text", metadata={"help": "the field that holds the text (all but .txt)"})
    sample_characters: int = field(
        default=SAMPLE_CHARACTERS,
        metadata={
            "help": "look at so many characters at most, taken evenly over the text; those of scripts without blanks "
            "between words count ten times"
        },
    )


def judge(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], characters: int) -> ScriptReport:
    """What a tokenizer makes of a sample of texts; a special token that is spelt out in them is text."""
    report, backend = ScriptReport(tokenizer), tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    previous, backend.encode_special_tokens = backend.encode_special_tokens, True
    try:
        for text in sample(texts, characters):
            encoding = backend.encode(text, add_special_tokens=False)
            report.add(text, encoding.ids, encoding.offsets)
    finally:
        backend.encode_special_tokens = previous
    return report


def main() -> None:
    arguments = parse_arguments(__doc__, [JudgeArguments]).groups[0]
    if not arguments.tokenizer_name or not arguments.files:
        raise RecipeError("give --tokenizer_name (a folder or a Hub id) and --files (the text to judge it on).")
    if arguments.sample_characters < 1:
        raise RecipeError(f"sample_characters is {arguments.sample_characters}: give at least 1.")
    paths = [Path(path) for path in arguments.files]
    for path in paths:
        check_file(path)
    tokenizer = load_tokenizer(arguments.tokenizer_name)
    texts = itertools.chain.from_iterable(read_documents(path, arguments.text_column, "blank-line") for path in paths)
    print(f"{arguments.tokenizer_name}: {len(tokenizer):,} tokens")
    print("\n".join(judge(tokenizer, texts, arguments.sample_characters).lines()))


if __name__ == "__main__":
    run_command(main)
