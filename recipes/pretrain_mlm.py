"""Pretrain an encoder: text in, a model that `AutoModelForMaskedLM` loads anywhere out.

    accelerate launch recipes/pretrain_mlm.py [CONFIG.yaml] [--field value ...]

Objectives (--objective):
  masked           some tokens are masked, and predicted from all others
  diffusion        that at every rate of masking: a model that writes text by filling in masks, as MDLM and LLaDA
  next-sentence    that, and whether a segment follows another in the text, as BERT
  sentence-order   that, and whether two segments were swapped, as ALBERT
  replaced-tokens  which tokens of a text a small masked model put there, as ELECTRA and DeBERTa-v3
  hybrid           masked and causal rows together: one model that continues text and fills in masks, as GPT-BERT;
                   with --diffusion_share also those of diffusion

Everything else is as in pretrain_clm.py: without any field it learns from the English text that Python itself carries;
killed or stopped, the same command goes on where the last checkpoint was saved.
On your own text:   accelerate launch recipes/pretrain_mlm.py --train_files text.jsonl --masking word
"""

from collections.abc import Sequence

from weft.recipes.common.errors import run_command
from weft.recipes.pretraining.command import pretrain
from weft.recipes.pretraining.objectives import offered_by


def main(argv: Sequence[str] | None = None) -> None:
    pretrain("masked", "runs/pretrain_mlm", __doc__, argv, offered_by("pretrain_mlm"))


if __name__ == "__main__":
    run_command(main)
