"""One training with one seed: the order of examples, the Trainer, evaluation, and the best weights."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from weft.recipes.common.files import flush_to_disk, write_json
from weft.recipes.common.finetuning.adaptation import parameter_groups, put_weights, trained_weights
from weft.recipes.common.finetuning.batches import Batcher, Item
from weft.recipes.common.finetuning.kind import Goal, Kind
from weft.recipes.common.trainer import WeftTrainer

GROUPED_BATCHES = 50  # so many batches are sorted by length together: they hardly differ from random ones
WEIGHTS, RESULT = "best.safetensors", "result.json"
STEP = "step"  # what a file of weights says of itself


class TrainingItems(Dataset):
    """The items of a whole run in the order in which they are trained on: a function of seed, pass and place."""

    def __init__(self, items: Sequence[Item], seed: int, number: int, group: int = 0) -> None:
        """Args:
        number: items of the whole run.
        group: size of the batches in which items of like length are to come together; 0: in any order.
        """
        self.items, self.seed, self.number, self.group = items, seed, number, group
        self.epoch, self.order = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Item:
        epoch, place = divmod(index, len(self.items))
        if epoch != self.epoch:
            self.epoch, self.order = epoch, self._order(np.random.default_rng((self.seed, epoch)))
        return self.items[self.order[place]]

    def _order(self, draw: np.random.Generator) -> np.ndarray:
        order = draw.permutation(len(self.items))
        if not self.group:
            return order
        lengths = np.array([item.tokens for item in self.items])
        chunk = self.group * GROUPED_BATCHES
        chunks = [order[first : first + chunk] for first in range(0, len(order), chunk)]
        grouped = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in chunks])
        whole = len(grouped) // self.group * self.group
        batches = grouped[:whole].reshape(-1, self.group)
        return np.concatenate([draw.permutation(batches).reshape(-1), grouped[whole:]])


class ItemRows(Dataset):
    """Items of a split as they stand."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        return self.items[index]


class KindEvaluator:
    """Scores a labelled split; results are the same for any number of processes."""

    def __init__(self, kind: Kind, split: str, items: Sequence[Item], batcher: Batcher, batch_size: int) -> None:
        self.kind, self.split, self.items, self.batcher, self.batch_size = kind, split, items, batcher, batch_size
        self.rows = ItemRows(items)

    def __call__(self, trainer: WeftTrainer) -> dict[str, float]:
        arguments = trainer.args
        results = predict(
            *(self.kind, trainer.model, self.items, self.batcher, self.batch_size),
            *(arguments.process_index, arguments.world_size),
        )
        return self.kind.score(self.split, self.items, results)


@torch.no_grad()
def predict(
    kind: Kind,
    model: nn.Module,
    items: Sequence[Item],
    batcher: Batcher,
    batch_size: int,
    process: int = 0,
    processes: int = 1,
) -> list[Any]:
    """What a model says of items, in their order; each process does its share and gets the results of all.

    Args:
        batch_size: items of a forward pass; those of like length go together.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(items)), key=lambda index: -items[index].tokens)
    batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    was_training = model.training
    model.eval()
    found: dict[int, Any] = {}
    for batch in batches[process::processes]:
        number_of = {id(items[index]): index for index in batch}
        inputs, layout = batcher.lay_out([items[index] for index in batch])
        answers = kind.answer(model, {name: tensor.to(device) for name, tensor in inputs.items()}, layout)
        for item, result in zip(layout.items, answers, strict=True):
            found[number_of[id(item)]] = result
    model.train(was_training)
    if processes > 1:
        shares: list[Any] = [None] * processes
        torch.distributed.all_gather_object(shares, found)
        found = {index: result for share in shares for index, result in share.items()}
    return [found[index] for index in range(len(items))]


class ExampleRate:
    """Examples per second between two logs, without the time spent on evaluating and saving."""

    def __init__(self, items_per_step: int, examples_per_item: float) -> None:
        self.per_step = items_per_step * examples_per_item
        self.last: tuple[int, float] | None = None

    def start(self) -> None:
        """Forget what was before."""
        self.last = None

    def rates(self, step: int, idle_seconds: float) -> dict[str, float]:
        """examples_seen so far, and examples_per_second since the last call."""
        now = time.perf_counter() - idle_seconds
        rates: dict[str, float] = {"examples_seen": round(step * self.per_step)}
        if self.last is not None and step > self.last[0]:
            rates["examples_per_second"] = round((step - self.last[0]) * self.per_step / (now - self.last[1]), 1)
        self.last = (step, now)
        return rates


class FineTuningTrainer(WeftTrainer):
    """Computes the loss from logits, as the kind of fine-tuning defines it, for models of every family alike, so that
    it does not depend on how a step is cut into forward passes and processes."""

    def __init__(self, *args: Any, kind: Kind, layer_decay: float, **kwargs: Any) -> None:
        # a loss function is given so that the Trainer does not divide the loss by the accumulation steps
        super().__init__(*args, compute_loss_func=kind.loss, **kwargs)
        self.kind, self.layer_decay = kind, layer_decay

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The sum over this batch's targets, divided by those of the step; processes average their gradients, so each
        one's loss is multiplied by their number."""
        targets = {name: inputs[name] for name in self.kind.target_names}
        given = {name: value for name, value in inputs.items() if name not in targets}
        outputs = self.kind.forward(model, given)
        loss = self.kind.loss(outputs, targets, num_items_in_batch)
        if num_items_in_batch is not None:
            loss = loss * self.args.world_size
        return (loss, outputs) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | None:
        if not batch_samples:
            return None
        count = sum(
            self.kind.count({name: batch[name] for name in self.kind.target_names}).to(device).float()
            for batch in batch_samples
        )
        if self.args.world_size > 1:
            count = self.accelerator.reduce(count, "sum")
        return torch.where(count == 0, 1, count)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's optimizer, or one in which each layer has its own learning rate."""
        if self.optimizer is not None or self.layer_decay == 1:
            return super().create_optimizer()
        optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        decayed = set(self.get_decay_parameter_names(self.model))
        rate, decay = self.args.learning_rate, self.args.weight_decay
        groups = parameter_groups(self.model, decayed, rate, decay, self.layer_decay)
        self.optimizer = optimizer_class(groups, **options)
        return self.optimizer


class BestWeights(TrainerCallback):
    """Keeps the weights of the best evaluation on disk, and stops a run that has not improved for long.

    What was best so far is read off the Trainer's log, so that a resumed run knows it too.
    """

    def __init__(self, goal: Goal, file: Path, patience: int | None) -> None:
        self.goal, self.file, self.patience = goal, file, patience
        self.stopped_early = False

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        """Write the weights down if they are the best."""
        best = best_of(evaluations_of(state.log_history), self.goal)
        if best is None:
            return
        if state.is_world_process_zero and best.step == state.global_step:
            save_weights(model, self.file, best.step)
        if self.was_stopped(state):
            control.should_training_stop = True

    def was_stopped(self, state: TrainerState) -> bool:
        """Whether a run whose log is `state`'s stops early where it stands."""
        evaluations = evaluations_of(state.log_history)
        best = best_of(evaluations, self.goal)
        if best is not None and self.patience is not None and state.global_step < state.max_steps:
            # a lower loss at the same score chooses among weights, but is no progress
            highest = best.scores[self.goal.metric]
            reached = next(one.step for one in evaluations if one.scores[self.goal.metric] == highest)
            self.stopped_early = sum(reached < one.step <= state.global_step for one in evaluations) >= self.patience
        return self.stopped_early


def save_weights(model: nn.Module, file: Path, step: int) -> None:
    """Write the trained weights, and the step that they are of, in one move."""
    temporary = file.with_name(f".{file.name}.partial")
    save_file(trained_weights(model), temporary, metadata={STEP: str(step)})
    flush_to_disk(temporary)
    temporary.replace(file)


def load_weights(model: nn.Module, file: Path) -> None:
    """Put the weights of a file into the model that they were saved from."""
    put_weights(model, load_file(file))


def step_of_weights(file: Path) -> int:
    """The step that the weights of a file are of."""
    with safe_open(file, "pt") as handle:
        return int(handle.metadata()[STEP])


class Evaluation(NamedTuple):
    """What the validation examples said of the weights of a step."""

    step: int
    scores: dict[str, float]


def evaluations_of(history: list[dict[str, Any]]) -> list[Evaluation]:
    """The evaluations that a log tells of, each step once."""
    found = {}
    for entry in history:
        scores = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
        if scores:
            found[entry["step"]] = Evaluation(entry["step"], scores)
    return list(found.values())


def best_of(evaluations: list[Evaluation], goal: Goal) -> Evaluation | None:
    """The best evaluation, see `Goal.chooses`; None where no score is a number."""
    best: Evaluation | None = None
    for evaluation in evaluations:
        if goal.chooses(evaluation.scores, None if best is None else best.scores):
            best = evaluation
    return best


@dataclass
class SeedResult:
    """What one seed came to.

    Attributes:
        metrics: validation scores of the kept weights.
        step: at which they were reached; `steps` were trained.
        seconds: of training and evaluation, of the last uninterrupted part.
        examples_per_second: median over the logs.
    """

    seed: int
    metrics: dict[str, float]
    step: int
    steps: int
    seconds: float
    examples_per_second: float | None
    history: list[dict[str, Any]] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Note the result; its presence means that the seed is done."""
        write_json(folder / RESULT, asdict(self))
