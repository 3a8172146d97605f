"""Fine-tune a model to answer in conversations (chat, instruction tuning, SFT).

    accelerate launch recipes/finetune_chat.py --model_name_or_path runs/pretrain_clm [CONFIG.yaml] [--field value ...]

Without data of your own it learns from questions about Python's standard library (--task pydoc_chat). With:
    accelerate launch recipes/finetune_chat.py --model_name_or_path MODEL --train_file talks.jsonl

A row is a conversation: messages (OpenAI's form), conversations (ShareGPT's), instruction, input and output (Alpaca's),
or prompt and completion; --dataset_name takes a data set of the Hub. The assistant's tokens are learnt (--loss_on all:
all). The tokenizer's chat template is kept; one that has none gets --chat_template chatml (the default), plain, or a
file. --plan shows the first conversation as it is read, and what of it is learnt. The result is talked with by
`recipes/generate.py --chat --model FOLDER`; --predict_file takes conversations to answer, also with a finished run.
"""

from functools import partial

from weft.recipes.common.errors import run_command
from weft.recipes.finetuning.command import finetune

main = partial(finetune, "chat", __doc__)


if __name__ == "__main__":
    run_command(main)
