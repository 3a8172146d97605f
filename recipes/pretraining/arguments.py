"""The fields of a pretraining run's length, batch and schedule, and what they may be."""

import argparse
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, make_dataclass

from transformers.hf_argparser import string_to_bool

from weft.recipes.common.command_line import parse_duration
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import Options, option
from weft.recipes.common.schedule import read_schedule
from weft.recipes.training.card_fields import LANGUAGE_HELP, LICENSE_HELP, REVISIONS, check_card_fields

DEFAULT_EPOCHS = 2
DEFAULT_RAMP = 0.3  # of the steps
LENGTHS = ("tokens", "num_train_epochs", "max_steps", "budget")
OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("warmup_stable_decay", "cosine", "linear", "constant")
DECAYS = ("linear", "cosine", "1-sqrt")


@dataclass
class RunArguments(Options):
    """Length, batch and schedule of a pretraining run."""

    output_dir: str = option("runs/pretrain", "the run's folder; a run there is resumed")
    data: str | None = option(None, "a folder made by prepare_data.py, instead of raw text")
    source_temperature: float | str | None = option(
        None,
        "take of each source as much as its tokens to this power, so that below 1 small sources count for more; in "
        "stages as 0.7@0.75,0.5@0.2,0.3",
        least=0,
        most=1,
        rare=True,
        staged=True,
    )
    sequence_length: int = option(256, "tokens of a row; longer documents are cut", least=2)
    tokens_per_step: str | None = option(
        None,
        "tokens of one optimizer step over all processes, e.g. 65536 or 0.5M; without it they follow from "
        "the model's size and the length of the run (2,048 for the smallest)",
    )
    initial_tokens_per_step: str | None = option(
        None,
        "tokens of the first steps, doubled at equal distances until they are tokens_per_step",
        rare=True,
    )
    batch_ramp_steps: float | None = option(
        None,
        f"steps until then; below 1: a share of all steps; left out: {DEFAULT_RAMP}",
        least=0,
        rare=True,
    )
    tokens: str | None = option(None, "length of the run in tokens, e.g. 20M")
    num_train_epochs: float | None = option(
        None, f"or in passes over the text; with no length given: {DEFAULT_EPOCHS}", above=0
    )
    max_steps: int | None = option(None, "or in optimizer steps", least=1)
    budget: str | None = option(
        None,
        "or in time, from the prepared text to the finished model, e.g. 30m or 1h30m: a few steps are "
        "measured, then steps that fit are chosen, and the preset too, if none is given; the steps follow a "
        "machine that becomes slower or faster",
    )
    per_device_train_batch_size: int | None = option(
        None, "rows of one forward pass of one process; the default suits the hardware", least=1
    )
    learning_rate: float | None = option(
        None, "the highest learning rate; without it it follows from size and length (at most 3e-3)", above=0
    )
    lr_scheduler_type: str = option("warmup_stable_decay", f"one of {', '.join(SCHEDULES)}", choices=SCHEDULES)
    warmup_steps: float = option(0.02, "steps in which the learning rate rises; below 1: a share of all steps", least=0)
    decay_steps: float = option(
        0.3, "warmup_stable_decay: steps in which it falls; below 1: a share of all steps", least=0
    )
    decay_type: str = option("linear", "warmup_stable_decay: falls linear, cosine or 1-sqrt", choices=DECAYS, rare=True)
    min_lr_ratio: float = option(0.0, "the last learning rate over the highest", least=0, most=1, rare=True)
    weight_decay: float | None = option(
        None,
        "decay of matrices (norms, biases and embeddings never decay); without it it follows from size, "
        "length, batch and learning rate (about 0.1)",
        least=0,
    )
    adam_beta2: float = option(0.95, "second beta of AdamW", least=0, below=1, rare=True)
    optimizer: str | None = option(
        None,
        "muon (Muon for the layers' matrices, AdamW for the rest; the default), or adamw (where optim is "
        "given or weights are sharded)",
        choices=OPTIMIZERS,
    )
    cautious_weight_decay: bool = option(False, "decay a weight only where its step goes towards zero", rare=True)
    average_decay: float | None = option(
        None,
        "evaluate and publish an exponential moving average of the weights, e.g. 0.999",
        least=0,
        below=1,
        rare=True,
    )
    z_loss: float = option(
        0.0, "weight of the squared logarithm of the softmax's denominator, e.g. 1e-4", least=0, rare=True
    )
    cpu_threads: int | None = option(
        None, "threads of each process on a CPU; the default shares the cores evenly", least=1
    )
    seed: int = option(42, "of the initial weights, the order of the text and dropout", least=0, below=2**32)
    push_to_hub: str | None = option(None, "publish the result under this name, e.g. me/model")
    hub_revisions: str = option(
        "false",
        "true: also publish each checkpoint, as revision step-N; words: also checkpoints by the words seen, as chck_1M "
        "... chck_10M, 20M ... 100M, 200M ...",
        choices=REVISIONS,
        alone="true",
    )
    license: str | None = option(None, LICENSE_HELP, rare=True)
    language: str | None = option(None, LANGUAGE_HELP, rare=True)
    hub_private_repo: bool = option(False, "make the repository private", rare=True)
    plan: bool = option(False, "print the plan and stop")
    sample_prompt: str = option(
        "",
        "what the sample texts of the model card begin with; for a masked model a text with mask tokens to "
        "fill in (without masks held-out text is masked)",
        rare=True,
    )

    def __post_init__(self) -> None:
        with contextlib.suppress(argparse.ArgumentTypeError):  # yes, 1, True ..., as fields that are true or false
            self.hub_revisions = str(string_to_bool(self.hub_revisions)).lower()

    def check(self) -> None:
        """Raises RecipeError where a field is out of range, or several give the length."""
        super().check()
        check_card_fields(self.license, self.language)
        if self.source_temperature is not None and read_schedule(self.source_temperature).has_lines:
            raise RecipeError(f"source_temperature is {self.source_temperature!r}: give stages without straight lines.")
        lengths = [name for name in LENGTHS if getattr(self, name) is not None]
        if len(lengths) > 1:
            raise RecipeError(f"the length is given by {' and '.join(lengths)}: choose one.")
        if self.budget is not None:
            parse_duration(self.budget)
            if self.initial_tokens_per_step is not None:
                raise RecipeError(
                    "a budget plans with steps of one size: leave initial_tokens_per_step out, or give tokens."
                )
        if self.min_lr_ratio and self.lr_scheduler_type in ("linear", "constant"):
            raise RecipeError(
                f"min_lr_ratio has no effect on lr_scheduler_type {self.lr_scheduler_type}: leave it out, or choose "
                "cosine or warmup_stable_decay."
            )


def run_arguments(output_dir: str, objective: str, offered: Sequence[str]) -> type[RunArguments]:
    """`RunArguments` with a recipe's defaults, and with a field `objective` where it offers several.

    Args:
        offered: names of objectives to choose from; of one there is no choice.
    """
    folder = "the run's folder; a run that is there is resumed"
    fields = [("output_dir", str, option(output_dir, folder))]
    if len(offered) > 1:
        fields.append(("objective", str, option(objective, f"one of {', '.join(offered)}", choices=offered)))
    return make_dataclass("RecipeArguments", fields, bases=(RunArguments,))
