"""Train a tokenizer on your text and save it as a plain PreTrainedTokenizerFast.

    python tokenizer/train.py --train_files text.txt --tokenizer_type bpe --vocab_size 8192 --output_dir runs/tokenizer

Without train_files it learns from the English text that Python itself carries.

Whatever loads tokenizers loads the result: `AutoTokenizer.from_pretrained("runs/tokenizer")`, without remote code.
At the end it prints how well the tokenizer serves each script of the text; `tokenizer/judge.py` does that for any
tokenizer.
"""

from dataclasses import dataclass
from pathlib import Path

from weft.recipes.common.command_line import parse_arguments
from weft.recipes.common.errors import RecipeError, run_command
from weft.recipes.common.files import new_folder, only_one_process
from weft.recipes.common.options import option
from weft.recipes.data.arguments import TextArguments
from weft.recipes.data.prepare import learn_tokenizer, show_progress
from weft.recipes.data.text_source import texts_of
from weft.recipes.judge_tokenizer import SAMPLE_CHARACTERS
from weft.tokenizer.script_statistics import judge


@dataclass
class TokenizerArguments:
    """How the tokenizer learns, and where it goes."""

    output_dir: str = option("runs/tokenizer", "folder to write; must not be there yet")
    model_max_length: int | None = option(None, "longest input, in tokens, to write into the tokenizer's config")


def main() -> None:
    data, output = parse_arguments(__doc__, [TextArguments, TokenizerArguments]).groups
    data.check()
    folder = Path(output.output_dir)
    with only_one_process(folder.with_name(f".{folder.name}.lock"), str(folder)):
        if folder.exists():
            raise RecipeError(f"{folder} exists: name another --output_dir, or remove it.")
        if not any(map(str.strip, texts_of(data, "train"))):
            raise RecipeError(f"there is no text in {data.describe_source()}: a tokenizer learns from text.")
        texts = show_progress(texts_of(data, "train"), "training the tokenizer", quiet=False)
        tokenizer = learn_tokenizer(texts, data, output.model_max_length)
        with new_folder(folder) as partial:
            tokenizer.save_pretrained(partial)
    print(f"{data.tokenizer_type} tokenizer with {len(tokenizer):,} tokens in {folder}")
    print("\n".join(judge(tokenizer, texts_of(data, "train"), SAMPLE_CHARACTERS).lines()))


if __name__ == "__main__":
    run_command(main)
