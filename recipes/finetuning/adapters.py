"""Which weights are trained, and how fast: freezing, learning rates by depth, and low-rank adapters."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from weft.recipes.common.errors import RecipeError, one_line, optional_package, refusing
from weft.recipes.common.wording import counted
from weft.recipes.finetuning.arguments import ModelSetupArguments
from weft.recipes.finetuning.model_setup import head_modules

# Where families keep their layers: layers.3 (Weft, Llama), layer.3 (BERT), h.3 (GPT-2), blocks.3, block.3 (T5).
_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")


def depths(model: PreTrainedModel) -> dict[str, int]:
    """For each parameter how deep it is: 0 for embeddings, 1 for the first layer, ..., and one more than the last layer
    for what comes after it (final norm, head)."""
    embeddings = {
        f"{name}.{parameter}"
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
        for parameter, _ in module.named_parameters(recurse=False)
    }
    layers = {name: _LAYER.search(name) for name, _ in model.named_parameters()}
    top = max((int(match.group(1)) for match in layers.values() if match), default=-1) + 2
    prefix = f"{model.base_model_prefix}.embed"
    found = {}
    for name, match in layers.items():
        if match is not None:
            found[name] = int(match.group(1)) + 1
        else:
            found[name] = 0 if name in embeddings or name.startswith(prefix) else top
    return found


def freeze(model: PreTrainedModel, arguments: ModelSetupArguments, new_tokens: Sequence[int] = ()) -> None:
    """Leave the embeddings, or with them the first layers, as they are.

    Raises:
        RecipeError: the model has not so many layers, or new tokens, whose embeddings have to be learnt.
    """
    if not arguments.freeze_embeddings and not arguments.freeze_layers:
        return
    if new_tokens:
        raise RecipeError(
            f"{counted(len(new_tokens), 'new token')} of the chat template would stay without a meaning where the "
            "embeddings are frozen: leave freeze_embeddings and freeze_layers out, or give --chat_template plain."
        )
    found = depths(model)
    layers = max(found.values()) - 1
    if arguments.freeze_layers > layers:
        raise RecipeError(
            f"freeze_layers is {arguments.freeze_layers}, but the model has {counted(layers, 'layer')}: give fewer."
        )
    for name, parameter in model.named_parameters():
        if found[name] <= arguments.freeze_layers:
            parameter.requires_grad_(False)


def parameter_groups(
    model: PreTrainedModel, decayed: set[str], learning_rate: float, weight_decay: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Groups of an optimizer: the head learns with `learning_rate`, and each layer with `layer_decay` times the rate of
    the one above it (ULMFiT's discriminative fine-tuning, https://huggingface.co/papers/1801.06146)."""
    found = depths(model)
    top = max(found.values())
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((found[name], name in decayed), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate * layer_decay ** (top - depth),
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (depth, decays), parameters in sorted(groups.items(), key=lambda item: item[0], reverse=True)
    ]


def add_adapters(
    model: PreTrainedModel,
    arguments: ModelSetupArguments,
    new_weights: Sequence[str],
    with_head: bool = True,
    new_tokens: Sequence[int] = (),
) -> nn.Module:
    """Low-rank adapters on the model's linear maps (LoRA, https://huggingface.co/papers/2106.09685); the head, and what
    else the checkpoint had no weights for (BERT's pooler, for one), is trained whole, and everything else is frozen.

    Args:
        new_weights: names of parameters that start from random numbers.
        with_head: whether the head is the task's own; one that came with the model is frozen like the rest.
        new_tokens: ids of which the rows of the embedding, and of the head's matrix, are trained.

    Raises:
        RecipeError: peft is not installed, or finds nothing to adapt.
    """
    peft = optional_package("peft", "lora_rank")
    declared = getattr(model, "lora_target_modules", None)
    known = peft.utils.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    heads = [name for name, _ in head_modules(model)]
    new = {name.rpartition(".")[0] for name in new_weights if name.partition(".")[0] not in heads}
    config = peft.LoraConfig(
        r=arguments.lora_rank,
        lora_alpha=2 * arguments.lora_rank if arguments.lora_alpha is None else arguments.lora_alpha,
        lora_dropout=arguments.lora_dropout,
        target_modules=list(declared) if declared else known.get(model.config.model_type, "all-linear"),
        modules_to_save=[*(heads if with_head else []), *sorted(new)] or None,
        trainable_token_indices=_rows_of(model, new_tokens),
    )
    with refusing("adapters cannot be added", ValueError, say=one_line), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks for what newer transformers call otherwise
        return peft.get_peft_model(model, config)


def _rows_of(model: PreTrainedModel, tokens: Sequence[int]) -> dict[str, list[int]] | None:
    """Of which modules the rows of some tokens are to be trained: those of the head too where it has its own."""
    if not tokens:
        return None
    tables = [model.get_input_embeddings()]
    head = model.get_output_embeddings()
    if head is not None and head.weight is not tables[0].weight:
        tables.append(head)
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(table)]: [*tokens] for table in tables}


def merge_adapters(model: nn.Module, folder: Path) -> PreTrainedModel:
    """Save the adapter alone in `folder`, and give the model with the adapters added to its weights."""
    model.save_pretrained(folder)
    return model.merge_and_unload()


def trained_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that training changes, by name, each once, on the CPU."""
    return {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@torch.no_grad()
def put_weights(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """The opposite of `trained_weights`."""
    parameters = dict(model.named_parameters())
    for name, value in weights.items():
        parameters[name].copy_(value)
