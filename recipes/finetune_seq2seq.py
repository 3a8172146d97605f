"""Fine-tune a model to write a text for a text: translation, summaries, titles (sequence to sequence).

    accelerate launch recipes/finetune_seq2seq.py [CONFIG.yaml] [--field value ...]

Known tasks (--task): multi30k (English to German), scitldr (abstracts to a sentence), csl (Chinese abstracts to
titles); with --data FOLDER from their official files, multi30k also from the Hub:
    accelerate launch recipes/finetune_seq2seq.py --task multi30k --data data/multi30k
On texts of your own, in two files whose lines belong together, or in columns (.jsonl, .json, .csv, .tsv, .parquet):
    accelerate launch recipes/finetune_seq2seq.py --train_source a.en --train_target a.de
    accelerate launch recipes/finetune_seq2seq.py --train_file a.jsonl --source_column text --target_column summary

The model is a new encoder-decoder, or with --model_name_or_path one that AutoModelForSeq2SeqLM loads (Weft, T5, BART
...). Validation texts are generated, and scored by sacreBLEU's BLEU and chrF and by ROUGE; a target column with lists
has several references. --predict_file takes lines or a column to write texts for, also with a finished run.
"""

from functools import partial

from weft.recipes.common.errors import run_command
from weft.recipes.finetuning.command import finetune

main = partial(finetune, "seq2seq", __doc__)


if __name__ == "__main__":
    run_command(main)
