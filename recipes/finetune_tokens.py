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

from functools import partial

from weft.recipes.common.errors import run_command
from weft.recipes.finetuning.command import finetune

main = partial(finetune, "token_classification", __doc__)


if __name__ == "__main__":
    run_command(main)
