"""Pretrain an encoder: text in, a model that `AutoModelForMaskedLM` loads anywhere out.

    accelerate launch recipes/pretrain_mlm.py [CONFIG.yaml] [--field value ...]

Objectives (--objective):
  masked           some tokens are masked, and predicted from all others
  next-sentence    that, and whether a segment follows another in the text, as BERT
  sentence-order   that, and whether two segments were swapped, as ALBERT
  hybrid           masked and causal rows together: one model that continues text and fills in masks, as GPT-BERT

Everything else is as in pretrain_clm.py: without any field it learns from the English text that Python itself carries;
killed or stopped, the same command goes on where the last checkpoint was saved.
On your own text:   accelerate launch recipes/pretrain_mlm.py --train_files text.jsonl --masking word
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError, run_command
from weft.recipes.pretraining.arguments import RunArguments
from weft.recipes.pretraining.datasets.hybrid import HybridArguments
from weft.recipes.pretraining.datasets.masking import MaskingArguments
from weft.recipes.pretraining.objectives.base import Objective
from weft.recipes.pretraining.objectives.hybrid import HybridObjective
from weft.recipes.pretraining.objectives.masked import MaskedObjective
from weft.recipes.pretraining.objectives.sentence_pairs import SentencePairObjective
from weft.recipes.pretraining.run import pretrain

OBJECTIVES = ("masked", "next-sentence", "sentence-order", "hybrid")


@dataclass
class MaskedRunArguments(RunArguments):
    """Length, batch and schedule of the run."""

    output_dir: str = field(
        default="runs/pretrain_mlm", metadata={"help": "the run's folder; a run that is there is resumed"}
    )
    sample_prompt: str = field(
        default="",
        metadata={
            "help": "a text with mask tokens for the model card to show filled in, or, hybrid, what its sample texts "
            "begin with; without masks held-out text is masked"
        },
    )
    objective: str = field(default="masked", metadata={"help": f"one of {', '.join(OBJECTIVES)}"})
    target_share: float | None = field(
        default=None,
        metadata={
            "help": "compute head and loss at this share of the places of every batch, whatever the number of masked "
            "tokens (too few are filled up, too many thinned out), so that shapes never change, as compilers like it; "
            "without it at the masked ones"
        },
    )


def make_objective(parsed: Parsed) -> Objective:
    """The objective that the fields ask for; raises RecipeError for an unknown one."""
    run, masking, hybrid = parsed[MaskedRunArguments], parsed[MaskingArguments], parsed[HybridArguments]
    if run.objective not in OBJECTIVES:
        raise RecipeError(f"objective is {run.objective!r}: choose one of {', '.join(OBJECTIVES)}.")
    if run.target_share is not None and not 0 < run.target_share <= 1:
        raise RecipeError(f"target_share is {run.target_share}: give a share above 0 and at most 1, or leave it out.")
    if run.objective == "hybrid":
        objective: Objective = HybridObjective(masking, run.target_share, hybrid)
    elif run.objective == "masked":
        objective = MaskedObjective(masking, run.target_share)
    else:
        objective = SentencePairObjective(masking, run.target_share, swap=run.objective == "sentence-order")
    if run.objective != "hybrid":
        objective.idle_fields |= dict.fromkeys(("causal_share", "causal_steps"), "--objective hybrid")
    if masking.masking != "span":
        objective.idle_fields |= dict.fromkeys(("span_success", "max_span"), "--masking span")
    if masking.masking != "ngram":
        objective.idle_fields["max_ngram"] = "--masking ngram"
    return objective


def main(argv: Sequence[str] | None = None) -> None:
    pretrain(make_objective, [MaskedRunArguments, MaskingArguments, HybridArguments], __doc__, argv)


if __name__ == "__main__":
    run_command(main)
