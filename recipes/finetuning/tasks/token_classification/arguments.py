"""The fields of token classification."""

from dataclasses import dataclass
from pathlib import Path

from weft.recipes.common.options import option
from weft.recipes.data.text_files import file_format
from weft.recipes.finetuning.arguments import FileArguments
from weft.recipes.finetuning.tasks.token_classification.known_tasks import KNOWN_TASKS
from weft.recipes.finetuning.tasks.token_classification.reading import FORMATS
from weft.recipes.finetuning.tasks.token_classification.schemes import SCHEMES


@dataclass
class TokenClassificationArguments(FileArguments):
    """Where the examples are, and what stands where in them."""

    command = "finetune_tokens"

    task: str | None = option(
        None, "one of " + ", ".join(f"{name} ({KNOWN_TASKS[name].about})" for name in KNOWN_TASKS)
    )
    format: str | None = option(
        None, f"form of the files: {', '.join(FORMATS)}; the default is what they look like", choices=FORMATS
    )
    word_column: str | None = option(None, "column of the words: a number (0, the default, is the first), or its name")
    tag_column: str | None = option(
        None,
        "column of the tags or entities: a number (-1, the default, is the last), its name, or for CoNLL-U "
        "upos (the default), xpos or a key of FEATS or MISC",
    )
    text_column: str = option("text", "column of the text that entities are given in")
    label_names: list[str] = option([], "names of tags that are numbers, in their order; or a file with one a line")
    scheme: str | None = option(
        None, f"how tags are to be read: {', '.join(SCHEMES)}; the default is as they look", choices=SCHEMES
    )
    joiner: str | None = option(
        None,
        "what stands between two words of a text; the default is a blank, and nothing between Chinese, "
        "Japanese, Thai ... signs",
    )
    stride: int | None = option(
        None,
        "tokens that windows of a longer text share; the default is a quarter of max_length",
        least=0,
        rare=True,
    )
    label_all_pieces: bool = option(
        True,
        'label every piece of a word, as aggregation_strategy="simple" reads them; otherwise the first alone',
        rare=True,
    )

    def formats(self) -> tuple[str, ...]:
        """Those of the files that are given: columns may have any ending."""
        names = (self.train_file, self.validation_file, self.test_file)
        return tuple(file_format(Path(name)) for name in names if name is not None)


ARGUMENTS = TokenClassificationArguments
