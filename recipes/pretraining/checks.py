"""Refuse contradictions between the fields of a pretraining run, before any work is done."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.processes import launcher_uses
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.streaming.documents import StreamArguments
from weft.recipes.pretraining.arguments import RunArguments
from weft.recipes.pretraining.distillation.arguments import TeacherArguments
from weft.recipes.pretraining.objectives.base import Objective
from weft.recipes.training.hub import check_name
from weft.recipes.training.model_arguments import ModelArguments
from weft.recipes.training.sharding import ELEMENTWISE, shards_weights


def check_fields(parsed: Parsed) -> None:
    """Raises RecipeError where fields contradict each other, or one makes another pointless."""
    run, data, model = parsed[RunArguments], parsed[DataArguments], parsed[ModelArguments]
    if run.push_to_hub is not None:
        check_name(run.push_to_hub)
    _refuse_without_effect(parsed)
    limit = parsed.trainer.get("save_total_limit")
    if limit is not None and limit < 1:
        raise RecipeError(f"save_total_limit is {limit}: give at least 1, or leave it out.")
    if Path(run.output_dir).exists() and not Path(run.output_dir).is_dir():
        raise RecipeError(f"output_dir {run.output_dir} is a file: give another.")
    model.check(parsed.model)
    model.check_length(parsed.model, run.sequence_length)
    taught = parsed[TeacherArguments]
    taught.check()
    if taught.teacher is not None and shards_weights():
        raise RecipeError(
            "teacher is for whole weights, and the launcher shards them: leave it out, or launch with ddp.yaml."
        )
    if not run.data:
        if data.tokenizer_name is None:
            data.tokenizer_name = model.model_name_or_path or taught.teacher
        data.check()
    stream = parsed[StreamArguments]
    if run.source_temperature is not None and not (run.data or data.source_weights):
        raise RecipeError(
            "source_temperature is given, but the text is one source: name several with source_weights, as en=1 zh=1."
        )
    if stream.stream:
        lengths = (run.tokens, run.max_steps, run.budget)
        stream.check(data, has_length=any(length is not None for length in lengths))
    run.check()
    if run.optimizer == "muon" and "optim" in parsed.trainer:
        raise RecipeError(f"both optimizer muon and optim {parsed.trainer['optim']} are given: choose one.")
    if shards_weights():
        check_sharding(run, parsed.trainer)


def check_objective(objective: Objective, parsed: Parsed) -> None:
    """Raises RecipeError where a field is given that has no effect on the objective, or its fields make no sense."""
    for name, needed in objective.idle_fields.items():
        if name in parsed.given:
            raise RecipeError(f"{name} has no effect without {needed}: give that too, or leave {name} out.")
    objective.check(parsed)
    if parsed[TeacherArguments].teacher is not None and objective.teacher_class is None:
        raise RecipeError("this objective has no teacher: leave teacher out, or choose another objective.")


def _refuse_without_effect(parsed: Parsed) -> None:
    """Refuse fields that another one makes pointless."""
    data_fields = [field.name for field in dataclasses.fields(DataArguments) if field.name != "source_weights"]
    parsed.refuse_together([*data_fields, "stream"], "data", "the folder is prepared already")
    parsed.refuse_without(("block_size",), "stream")
    training = ("tokenizer_type", "vocab_size", "sample_characters", "add_prefix_space", "special_tokens")
    training += ("pre_tokenizer",)
    parsed.refuse_together(training, "tokenizer_name", "that tokenizer is trained already")
    parsed.refuse_together(training, "teacher", "its tokenizer is taken")
    parsed.refuse_together(
        ("validation_fraction", "validation_split"), "validation_files", "they are the held-out text"
    )
    parsed.refuse_together(("preset",), "config_name", "it gives the shape")
    parsed.refuse_together(("preset",), "model_name_or_path", "it has its shape")
    parsed.refuse_without(("dataset_config_name", "dataset_split"), "dataset_name")
    parsed.refuse_without(("hub_revisions", "hub_private_repo"), "push_to_hub")
    parsed.refuse_without(("batch_ramp_steps",), "initial_tokens_per_step")
    parsed.refuse_without(("teacher_weight", "teacher_temperature"), "teacher")
    run = parsed[RunArguments]
    for name in ("decay_steps", "decay_type"):
        if name in parsed.given and run.lr_scheduler_type != "warmup_stable_decay":
            raise RecipeError(f"{name} has no effect on the schedule {run.lr_scheduler_type}: leave it out.")


def check_sharding(run: RunArguments, trainer_fields: dict[str, Any]) -> None:
    """Refuse what sharded weights cannot be trained with here.

    Args:
        run: the recipe's own fields.
        trainer_fields: those of TrainingArguments that were given.

    Raises:
        RecipeError: an optimizer that needs whole matrices, or ways of sharding that have not been tried.
    """
    optim = trainer_fields.get("optim", ELEMENTWISE[0])
    if run.optimizer == "muon" or optim not in ELEMENTWISE:
        named = "muon" if run.optimizer == "muon" else optim
        raise RecipeError(
            f"{named} needs whole matrices, and the launcher shards them over the "
            "processes: give optimizer adamw (without optim), or launch with ddp.yaml."
        )
    for name in ("cautious_weight_decay", "average_decay"):
        if getattr(run, name):
            raise RecipeError(
                f"{name} is for whole weights, and the launcher shards them: leave it out, or launch with ddp.yaml."
            )
    if launcher_uses("DEEPSPEED"):
        check_zero(run, trainer_fields)
        return
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise RecipeError("the launcher asks for the first version of FSDP: set fsdp_version to 2, as fsdp2.yaml does.")
    instead = {
        "OFFLOAD_PARAMS": "leave the weights on the GPUs",
        "ACTIVATION_CHECKPOINTING": "give --gradient_checkpointing true to the recipe instead",
    }
    for name, advice in instead.items():
        if os.environ.get(f"FSDP_{name}", "false").lower() == "true":
            raise RecipeError(f"the launcher asks for fsdp_{name.lower()}: set it to false and {advice}.")


# The launcher's defaults, and the values that zero3.yaml gives.
ASKED = {
    "DEEPSPEED_CONFIG_FILE": ("none", "none"),
    "DEEPSPEED_ZERO_STAGE": ("none", "3"),
    "DEEPSPEED_OFFLOAD_PARAM_DEVICE": ("none", "none"),
    "DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": ("none", "none"),
    "GRADIENT_ACCUMULATION_STEPS": ("auto", "auto"),
    "GRADIENT_CLIPPING": ("auto", "auto"),
    "DYNAMO_BACKEND": ("no", "no"),
}


def check_zero(run: RunArguments, trainer_fields: dict[str, Any]) -> None:
    """Refuse ways of using DeepSpeed that zero3.yaml does not have, and fields that do not work with it.

    Raises:
        RecipeError: says what the launcher asks for, and what to do.
    """
    asked = {name: os.environ.get(f"ACCELERATE_{name}", usual).lower() for name, (usual, _) in ASKED.items()}
    for name, (_, wanted) in ASKED.items():
        if asked[name] != wanted:
            field = name.lower().removeprefix("deepspeed_")
            raise RecipeError(f"the launcher asks for {field} {asked[name]}: set it to {wanted}, as zero3.yaml does.")
    # DeepSpeed never gives back the memory of a model that only measured, nor makes a step of no rows
    given = {**trainer_fields, "budget": run.budget, "initial_tokens_per_step": run.initial_tokens_per_step}
    for name in ("budget", "initial_tokens_per_step", "torch_compile", "torch_compile_backend", "torch_compile_mode"):
        if given.get(name):
            raise RecipeError(f"{name} does not work with ZeRO-3: leave it out, or launch with fsdp2.yaml.")
    if os.environ.get("ACCELERATE_MIXED_PRECISION") == "bf16" and given.get("bf16") is False:
        raise RecipeError("the launcher asks for mixed_precision bf16, and bf16 is false: leave one of them out.")
