"""Fine-tune a model to choose among several texts (multiple choice).

    accelerate launch recipes/finetune_choice.py [CONFIG.yaml] [--field value ...]

Known tasks (--task): swag, hellaswag, piqa, winogrande (with less training data: winogrande_xs, _s, _m, _l),
arc_easy, arc_challenge, from the Hub or, with --data FOLDER, from their official files:
    accelerate launch recipes/finetune_choice.py --task swag --model_name_or_path runs/pretrain_mlm --max_length 128
On your own examples, a row each with question or context (or both), choices (two or more; their number may differ) and
label (a number from 0, a letter or the choice's text), or in the form of any of these tasks:
    accelerate launch recipes/finetune_choice.py --train_file train.jsonl --validation_file dev.jsonl
"""

from functools import partial

from weft.recipes.common.errors import run_command
from weft.recipes.finetuning.command import finetune

main = partial(finetune, "multiple_choice", __doc__)


if __name__ == "__main__":
    run_command(main)
