"""Fine-tune a model that writes on preferences: DPO, KTO or ORPO, trained by TRL (pip install 'trl>=1.16').

    accelerate launch recipes/finetune_preferences.py --train_file pairs.jsonl --model_name_or_path runs/chat
    accelerate launch recipes/finetune_preferences.py --loss kto --train_file rated.jsonl --model_name_or_path runs/chat

A row holds a prompt with a chosen and a rejected answer (prompt, chosen, rejected; messages, chosen, rejected; or two
conversations that begin alike), or for KTO a prompt with one answer and whether it is wanted (prompt, completion,
label). Prompts and answers are texts, which stand as they are, or messages, which the tokenizer's chat template writes.
Files are .jsonl, .json, .csv, .tsv or .parquet; --dataset_name takes a folder or an id of the Hub.

The weights that most often prefer the chosen held-out answer are kept. The report has accuracy, margin, and the lengths
of chosen, rejected and written answers.
"""

from functools import partial

from weft.recipes.common.errors import run_command
from weft.recipes.finetuning.command import finetune

main = partial(finetune, "preferences", __doc__)


if __name__ == "__main__":
    run_command(main)
