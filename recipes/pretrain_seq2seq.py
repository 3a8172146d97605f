"""Pretrain an encoder-decoder: text in, a model that `AutoModelForSeq2SeqLM` loads anywhere out.

    accelerate launch recipes/pretrain_seq2seq.py [CONFIG.yaml] [--field value ...]

Objectives (--objective):
  span      spans are replaced by sentinels, and written behind these, as T5
  infill    masks stand for spans and sentences change places; the whole text is written, as BART
  prefix    the end of a text is written from its beginning
  mixture   spans of several lengths and rates, and prefixes, told apart by a token before the source, as UL2

Everything else is as in pretrain_clm.py: without any field it learns from the English text that Python itself carries;
killed or stopped, the same command goes on where the last checkpoint was saved. The result goes into
finetune_seq2seq.py (--model_name_or_path runs/pretrain_seq2seq).
On your own text:   accelerate launch recipes/pretrain_seq2seq.py --train_files text.jsonl --objective mixture
"""

from collections.abc import Sequence

from weft.recipes.common.errors import run_command
from weft.recipes.pretraining.command import pretrain
from weft.recipes.pretraining.objectives import offered_by


def main(argv: Sequence[str] | None = None) -> None:
    pretrain("span", "runs/pretrain_seq2seq", __doc__, argv, offered_by("pretrain_seq2seq"))


if __name__ == "__main__":
    run_command(main)
