"""Fine-tune a model to answer questions with a part of a given text (extractive question answering).

    accelerate launch recipes/finetune_qa.py [CONFIG.yaml] [--field value ...]

Known tasks (--task): squad, squad_v2, cmrc2018, drcd, from the Hub or, with --data FOLDER, from their official files:
    accelerate launch recipes/finetune_qa.py --task squad_v2 --model_name_or_path runs/pretrain_mlm --max_length 384
On your own questions, in SQuAD's JSON or one in a row (question, context, answers) as .jsonl, .json or .parquet:
    accelerate launch recipes/finetune_qa.py --train_file train.json --validation_file dev.json

Texts that are longer than max_length become several windows that overlap. Where some questions have no answer
(SQuAD 2), that is learnt too, and the threshold that decides on it is chosen on the validation questions. Answers are
scored as the official scripts of SQuAD and, in Chinese, of CMRC 2018 score them.
"""

from functools import partial

from weft.recipes.common.errors import run_command
from weft.recipes.finetuning.command import finetune

main = partial(finetune, "question_answering", __doc__)


if __name__ == "__main__":
    run_command(main)
