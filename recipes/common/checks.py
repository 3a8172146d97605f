"""Contradictions between the fields of a pretraining run, refused before any work is done."""

import dataclasses
from pathlib import Path

from weft.recipes.common.arguments import Parsed
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.hub import check_name
from weft.recipes.common.objective import Objective
from weft.recipes.common.preparation import DataArguments
from weft.recipes.common.run_arguments import check_run
from weft.recipes.common.sharding import check_sharding, shards_weights


def check_fields(parsed: Parsed) -> None:
    """Raises RecipeError where fields contradict each other, or one makes another pointless."""
    run, data, model = parsed.groups[:3]
    if run.push_to_hub is not None:
        check_name(run.push_to_hub)
    _refuse_without_effect(parsed)
    limit = parsed.trainer.get("save_total_limit")
    if limit is not None and limit < 1:
        raise RecipeError(f"save_total_limit is {limit}: give at least 1, or leave it out.")
    if Path(run.output_dir).exists() and not Path(run.output_dir).is_dir():
        raise RecipeError(f"output_dir {run.output_dir} is a file: give another.")
    if not run.data:
        if data.tokenizer_name is None and model.model_name_or_path is not None:
            data.tokenizer_name = model.model_name_or_path
        data.check()
    stream = parsed.groups[-1]
    if stream.stream:
        lengths = (run.tokens, run.max_steps, run.budget)
        stream.check(data, has_length=any(length is not None for length in lengths))
    if run.sequence_length < 2:
        raise RecipeError(f"sequence_length is {run.sequence_length}: give at least 2.")
    check_run(run)
    if run.optimizer == "muon" and "optim" in parsed.trainer:
        raise RecipeError(f"both optimizer muon and optim {parsed.trainer['optim']} are given: choose one.")
    model.check(parsed.model)
    if shards_weights():
        check_sharding(run, parsed.trainer)


def check_objective(objective: Objective, parsed: Parsed) -> None:
    """Raises RecipeError where the objective's fields make no sense, or one is given that has no effect on it."""
    for name, needed in objective.idle_fields.items():
        if name in parsed.given:
            raise RecipeError(f"{name} has no effect without {needed}: give that too, or leave {name} out.")
    objective.check()
    backend = parsed.groups[2].attn_implementation or ""
    if objective.both_directions and "flash" in backend:
        raise RecipeError(
            f"attn_implementation {backend} attends in one direction per batch, and hybrid rows in both: choose sdpa "
            "or flex_attention."
        )
    if objective.needs_boundaries and parsed.groups[1].segmenter == "none" and "segmenter" in parsed.given:
        raise RecipeError(
            "segmenter none keeps no boundaries, which sentence pairs and masking by words need: give characters, "
            "jieba or module:function, or leave it out."
        )
    if parsed.groups[-1].stream and not objective.can_stream:
        raise RecipeError(
            "stream cannot be given with an objective of sentence pairs, which draws them from the whole text: choose "
            "masked or hybrid, or leave stream out."
        )


def _refuse_without_effect(parsed: Parsed) -> None:
    """Refuse fields that another one makes pointless."""
    data_fields = [field.name for field in dataclasses.fields(DataArguments)]
    parsed.refuse_together([*data_fields, "stream"], "data", "the folder is prepared already")
    parsed.refuse_without(("block_size",), "stream")
    training = ("tokenizer_type", "vocab_size", "sample_characters", "add_prefix_space")
    parsed.refuse_together(training, "tokenizer_name", "that tokenizer is trained already")
    parsed.refuse_together(
        ("validation_fraction", "validation_split"), "validation_files", "they are the held-out text"
    )
    parsed.refuse_together(("preset",), "config_name", "it gives the shape")
    parsed.refuse_together(("preset",), "model_name_or_path", "it has its shape")
    parsed.refuse_without(("dataset_config_name", "dataset_split"), "dataset_name")
    parsed.refuse_without(("hub_revisions", "hub_private_repo"), "push_to_hub")
    parsed.refuse_without(("batch_ramp_steps",), "initial_tokens_per_step")
    run = parsed.groups[0]
    for name in ("decay_steps", "decay_type"):
        if name in parsed.given and run.lr_scheduler_type != "warmup_stable_decay":
            raise RecipeError(f"{name} has no effect on the schedule {run.lr_scheduler_type}: leave it out.")
