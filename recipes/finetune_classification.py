"""Fine-tune a classifier of texts or pairs of texts: one label, several, or a number.

    accelerate launch recipes/finetune_classification.py [CONFIG.yaml] [--field value ...]

Without any field it learns which part of Python's standard library a docstring comes from, which needs no network.
A known task:   accelerate launch recipes/finetune_classification.py --task sst2 --model_name_or_path runs/pretrain_mlm
                --task sst2 --data glue_data/SST-2     the same from a folder with its official files
Your own data:  --train_file a.csv --validation_file b.jsonl --text_columns text --label_column label
                (csv, tsv, jsonl, json, parquet; two text_columns A,B for pairs; several labels as lists in JSON, with
                --label_separator, or as columns of 0 and 1; numbers with a fractional part make a regression)
A data set of the Hub:  --dataset_name OWNER/NAME

Tasks: pydoc (the default); cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli (GLUE; --glue_submission true writes the
files to submit); imdb, ag_news, trec, go_emotions; in Chinese chnsenticorp, tnews, lcqmc, ocnli, waimai.
"""

from functools import partial

from weft.recipes.common.errors import run_command
from weft.recipes.finetuning.command import finetune

main = partial(finetune, "text_classification", __doc__)


if __name__ == "__main__":
    run_command(main)
