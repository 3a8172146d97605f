"""Fine-tune a tagger: names (NER), chunks, parts of speech, or any other label for each word or span of a text.

    accelerate launch recipes/finetune_tokens.py [CONFIG.yaml] [--field value ...]

A known task:     --task conll2000 --data FOLDER (with its official files)
Your own files:   --train_file train.txt --validation_file dev.txt
The Hub:          --dataset_name OWNER/NAME

Files are columns (CoNLL: a word a line with its tag, blank lines between sentences), CoNLL-U, JSON lines or Parquet
with tokens and tags, or with a text and entities by characters ({"text": ..., "entities": [{"start": 0, "end": 5,
"label": "PER"}]}, or CLUENER's form). Tags are IOB1, IOB2, BIOES, BMES, BILOU or plain, found out from the tags.

The result works on raw text: pipeline("token-classification", model=FOLDER, aggregation_strategy="simple",
trust_remote_code=True). On an existing model: --model_name_or_path FOLDER_OR_HUB_ID
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from weft.recipes.common.documents import file_format
from weft.recipes.common.errors import RecipeError, run_command
from weft.recipes.common.finetuning.arguments import FileArguments, FineTuningArguments
from weft.recipes.common.finetuning.run import finetune
from weft.recipes.common.finetuning.tagging.data import TaggedData
from weft.recipes.common.finetuning.tagging.kind import Tagging
from weft.recipes.common.finetuning.tagging.readers import FORMATS, Reader, label_names
from weft.recipes.common.finetuning.tagging.schemes import SCHEMES
from weft.recipes.common.finetuning.tagging.tasks import TASKS


@dataclass
class TokenArguments(FileArguments):
    """Where the examples are, and what stands where in them."""

    task: str | None = field(
        default=None, metadata={"help": "one of " + ", ".join(f"{name} ({TASKS[name].about})" for name in TASKS)}
    )
    format: str | None = field(
        default=None, metadata={"help": f"form of the files: {', '.join(FORMATS)}; the default is what they look like"}
    )
    word_column: str | None = field(
        default=None, metadata={"help": "column of the words: a number (0, the default, is the first), or its name"}
    )
    tag_column: str | None = field(
        default=None,
        metadata={
            "help": "column of the tags or entities: a number (-1, the default, is the last), its name, or for CoNLL-U "
            "upos (the default), xpos or a key of FEATS or MISC"
        },
    )
    text_column: str = field(default="text", metadata={"help": "column of the text that entities are given in"})
    label_names: list[str] = field(
        default_factory=list,
        metadata={"help": "names of tags that are numbers, in their order; or a file with one a line"},
    )
    scheme: str | None = field(
        default=None, metadata={"help": f"how tags are to be read: {', '.join(SCHEMES)}; the default is as they look"}
    )
    joiner: str | None = field(
        default=None,
        metadata={
            "help": "what stands between two words of a text; the default is a blank, and nothing between Chinese, "
            "Japanese, Thai ... signs"
        },
    )
    stride: int | None = field(
        default=None,
        metadata={"help": "tokens that windows of a longer text share; the default is a quarter of max_length"},
    )
    label_all_pieces: bool = field(
        default=True,
        metadata={
            "help": 'label every piece of a word, as aggregation_strategy="simple" reads them; otherwise the first '
            "alone"
        },
    )

    def formats(self) -> tuple[str, ...]:
        """Those of the files that are given: columns may have any ending."""
        names = (self.train_file, self.validation_file, self.test_file)
        return tuple(file_format(Path(name)) for name in names if name is not None)


def make_kind(files: TokenArguments, run: FineTuningArguments) -> Tagging:
    """Read and check the examples; raises RecipeError."""
    if files.format is not None and files.format not in FORMATS:
        raise RecipeError(f"format is {files.format!r}: choose one of {', '.join(FORMATS)}.")
    task = TASKS.get(files.task or "")
    reader = Reader(
        files.format or (task.format if task else None),
        files.word_column,
        files.tag_column or (task.tag_column if task else None),
        files.text_column,
        label_names(files.label_names),
    )
    data = TaggedData(files, TASKS, reader, files.scheme, files.joiner)
    return Tagging(data, files.stride, files.label_all_pieces)


def main(argv: Sequence[str] | None = None) -> None:
    finetune(make_kind, TokenArguments, __doc__, argv)


if __name__ == "__main__":
    run_command(main)
