"""Judge a tokenizer on your text: characters per token, unknown tokens and characters cut into bytes, for each script.

    python tokenizer/judge.py --tokenizer_name runs/tokenizer --files held_out.txt

The text is best one that the tokenizer has not learnt from, since it serves text that it knows a little better.
"""

from dataclasses import dataclass

from weft.recipes.common.command_line import parse_arguments
from weft.recipes.common.errors import RecipeError, run_command
from weft.recipes.common.options import Options, option
from weft.recipes.data.text_source import ENCODING_HELP, TEXT_COLUMN_HELP, SourceArguments, expand_names, texts_of
from weft.recipes.data.tokenization import load_tokenizer
from weft.tokenizer.script_statistics import judge

SAMPLE_CHARACTERS = 2_000_000


@dataclass
class JudgeArguments(Options):
    """What to judge, and on which text."""

    tokenizer_name: str | None = option(None, "folder or Hub id of a tokenizer", folder_or_id=True)
    files: list[str] = option([], "text, as the --train_files of a training")
    text_column: str = option("text", TEXT_COLUMN_HELP)
    encoding: str | None = option(None, ENCODING_HELP)
    sample_characters: int = option(
        SAMPLE_CHARACTERS,
        "look at so many characters at most, taken evenly over the text; those of scripts without blanks "
        "between words count ten times",
        least=1,
    )

    def __post_init__(self) -> None:
        self.files = expand_names("files", self.files)


def main() -> None:
    arguments = parse_arguments(__doc__, [JudgeArguments])[JudgeArguments]
    arguments.check()
    if not arguments.tokenizer_name or not arguments.files:
        raise RecipeError("give --tokenizer_name (a folder or a Hub id) and --files (the text to judge it on).")
    text = SourceArguments(arguments.files, text_column=arguments.text_column, encoding=arguments.encoding)
    text.check()
    for source in text.sources():
        source.check()
    tokenizer = load_tokenizer(arguments.tokenizer_name)
    print(f"{arguments.tokenizer_name}: {len(tokenizer):,} tokens")
    print("\n".join(judge(tokenizer, texts_of(text, "train"), arguments.sample_characters).lines()))


if __name__ == "__main__":
    run_command(main)
