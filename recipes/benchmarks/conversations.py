"""Time of the same training steps on conversations: finetune_chat.py's, packed, and those of TRL's SFTTrainer."""

import copy
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft import WeftForCausalLM
from weft.recipes.benchmarks.stock_models import WARM_UP, allowed_difference
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.tokenization import load_tokenizer
from weft.recipes.finetuning.arguments import FineTuningArguments
from weft.recipes.finetuning.collation import EncodedExample
from weft.recipes.finetuning.dataset import TrainingOrder
from weft.recipes.finetuning.tasks.chat.arguments import BUILTIN, ChatArguments
from weft.recipes.finetuning.tasks.chat.task import ChatTask
from weft.recipes.finetuning.tasks.preferences.arguments import check_trl
from weft.recipes.training.model_setup import ModelArguments, make_config
from weft.recipes.training.throughput import seconds_of

LONGEST, BATCHES = 512, 40
Batch = Sequence[EncodedExample]
Loss = Callable[[PreTrainedModel, int], torch.Tensor]


def conversation_sides(
    files: Sequence[str], tokenizer_name: str, preset: str, batch_size: int, steps: int, folder: Path
) -> dict[str, Callable[[], float]]:
    """Ways of training on batches of the same conversations, each a function that takes `steps` steps and returns the
    seconds they took.

    All train the same weights with the same AdamW on the same tokens, of which the same are learnt. "weft" packs a
    batch as the recipe does. "SFTTrainer, padded" is TRL's default; "SFTTrainer, packed" has its best-fit packing,
    which is done before the time is taken, as TRL does it when it prepares its data.

    Raises:
        RecipeError: TRL is missing, there are too few conversations, or the sides do not start with the same loss.
    """
    check_trl("subject chat")
    files_of_task = ChatArguments(train_file=files[0]) if files else ChatArguments(task=BUILTIN)
    task = ChatTask.read(files_of_task, FineTuningArguments())
    tokenizer = task.prepare_tokenizer(load_tokenizer(tokenizer_name))
    items = task.encode("train", tokenizer, LONGEST)
    if len(items) < batch_size:
        raise RecipeError(f"there are {len(items)} conversations: the benchmark needs a batch of {batch_size} or more.")
    order = TrainingOrder(items, seed=0, number=BATCHES * batch_size)
    batches = [[order[number * batch_size + place] for place in range(batch_size)] for number in range(BATCHES)]
    arguments = ModelArguments(preset=preset)
    arguments.check({})
    torch.manual_seed(0)
    model = WeftForCausalLM(make_config(arguments, {}, tokenizer, LONGEST, {"is_causal": True})).train()
    collator = task.make_collator(tokenizer, packed=True)

    def packed_loss(model: PreTrainedModel, number: int) -> torch.Tensor:
        batch, layout = collator.lay_out(batches[number])
        given = {**batch, **task.targets(layout)}
        targets = {name: given.pop(name) for name in task.target_names}
        return task.loss(task.forward(model, given), targets, None)

    sides: dict[str, tuple[PreTrainedModel, Loss]] = {"weft": (copy.deepcopy(model), packed_loss)}
    for name, packed in (("SFTTrainer, padded", False), ("SFTTrainer, packed", True)):
        theirs = copy.deepcopy(model)
        sides[name] = theirs, _loss_of_trl(theirs, tokenizer, batches, packed, folder)
    _compare(sides)
    return {name: _training(*side, steps) for name, side in sides.items()}


def _loss_of_trl(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batches: Sequence[Batch],
    packed: bool,
    folder: Path,
) -> Loss:
    """What SFTTrainer computes for each batch: its collator's tensors, its loss and its metrics."""
    from trl import SFTConfig, SFTTrainer, pack_dataset  # which is optional

    columns = [
        Dataset.from_list([{"input_ids": item.sequences[0], "labels": item.target} for item in batch])
        for batch in batches
    ]
    on_gpu = torch.cuda.is_available()
    config = SFTConfig(
        str(folder / "trl"),
        packing=packed,
        max_length=LONGEST,
        max_steps=1,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
    )
    trainer = _silent(SFTTrainer)(model, args=config, train_dataset=columns[0], processing_class=tokenizer)
    if packed:
        columns = [pack_dataset(of_batch, LONGEST, "bfd") for of_batch in columns]
    rows = [of_batch.to_list() for of_batch in columns]

    def loss(model: PreTrainedModel, number: int) -> torch.Tensor:
        return trainer.compute_loss(model, trainer._prepare_inputs(trainer.data_collator(rows[number])))

    return loss


def _silent(trainer_class: Any) -> Any:
    """A trainer of TRL that does not tell its makers of the run."""
    return type(trainer_class.__name__, (trainer_class,), {"_send_telemetry": lambda _: None})


def _compare(sides: dict[str, tuple[PreTrainedModel, Loss]]) -> None:
    """Refuse sides that do not compute the same loss of the first batch; raises RecipeError."""
    with torch.no_grad():
        losses = {name: loss(model, 0).item() for name, (model, loss) in sides.items()}
    for name, loss in losses.items():
        if not abs(losses["weft"] - loss) <= allowed_difference(next(iter(sides["weft"][0].parameters())).device.type):
            raise RecipeError(f"weft starts with a loss of {losses['weft']:.6f}, {name} with {loss:.6f}: they differ.")


def _training(model: PreTrainedModel, loss: Loss, steps: int) -> Callable[[], float]:
    """A model in training, as a function that trains it `steps` steps further and returns the seconds."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    numbers = itertools.cycle(range(BATCHES))

    def step() -> None:
        loss(model, next(numbers)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    seconds_of(WARM_UP, step)
    return lambda: seconds_of(steps, step)
