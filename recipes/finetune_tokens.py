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

from weft.recipes.common.errors import RecipeError, run_command
from weft.recipes.finetuning.arguments import FineTuningArguments
from weft.recipes.finetuning.run import finetune
from weft.recipes.finetuning.tasks.token_classification.arguments import TokenArguments
from weft.recipes.finetuning.tasks.token_classification.dataset import TaggedData
from weft.recipes.finetuning.tasks.token_classification.known_tasks import TASKS
from weft.recipes.finetuning.tasks.token_classification.reading import FORMATS, Reader, label_names
from weft.recipes.finetuning.tasks.token_classification.task import Tagging


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
