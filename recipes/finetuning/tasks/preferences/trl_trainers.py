"""TRL's trainers of preferences within Weft's runs: whole checkpoints, finite losses, an exact evaluation.

They are given rows that are encoded already, so that training and evaluation read the same tokens. These methods of
TRL's trainers, most of them private, are overridden (tried with TRL 1.16):

_prepare_dataset (DPO, KTO)         would tokenise the rows
_precompute_ref_logps (DPO)         the model as it starts has read each row once, packed
create_model_card                   would write a README.md beside the checkpoints
_send_telemetry                     would tell TRL's makers of the run
"""

import importlib
import importlib.metadata
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from weft.losses import IGNORE_INDEX
from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.finetuning.collation import EncodedExample
from weft.recipes.finetuning.dataset import TrainingOrder
from weft.recipes.finetuning.prediction import TaskEvaluator, predict
from weft.recipes.finetuning.tasks.preferences.arguments import LOSSES
from weft.recipes.training.trainer import WeftTrainer

Row = dict[str, Any]
UNEQUAL = 1e-3  # nats of a token between two ways of computing the same


class Rows(Dataset):
    """The rows of a whole run in the order of training, as a collator of TRL takes them."""

    def __init__(self, order: TrainingOrder, row_of: Callable[[TrainingOrder, int], Row]) -> None:
        self.order, self.row_of = order, row_of

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> Row:
        return self.row_of(self.order, place)


class EncodedRows(list):
    """Rows that ORPOTrainer leaves as they are: it would tokenise them by `map`."""

    def map(self, *_: Any, **__: Any) -> "EncodedRows":
        return self


class OfTrl(WeftTrainer):
    """What the trainers of all losses share; a trainer of TRL stands behind it in the order of its classes."""

    kept_beside = 3  # the best weights, the next better ones, and the finished model

    def __init__(self, *args: Any, train_dataset: Rows, **kwargs: Any) -> None:
        import datasets  # which takes long to import

        # a first row is shown to TRL, which looks at its columns and asks for a class of its own
        first = [train_dataset[0]]
        shown = EncodedRows(first) if "chosen_labels" in first[0] else datasets.Dataset.from_list(first)
        super().__init__(*args, train_dataset=shown, **kwargs)
        self.train_dataset = train_dataset

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: the finished folder has Weft's."""

    def _send_telemetry(self) -> None:
        return

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """TRL adds what it has gathered in training to logs of training alone: it goes by the model's mode."""
        was_training = self.model.training
        self.model.train("loss" in logs)
        super().log(logs, *args, **kwargs)
        self.model.train(was_training)

    @torch.no_grad()
    def check_log_probabilities(self, item: EncodedExample) -> None:
        """Refuse a model whose head TRL does not compute as the model does: it multiplies the last hidden states with
        the output matrix itself, and knows some scales and caps by their names in other families (raises RecipeError).
        """
        ids = torch.tensor([item.sequences[0]], device=self.args.device)
        theirs = self.model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs[0]
        own = self.model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
        difference = (theirs - own.gather(-1, ids[0, 1:, None])[:, 0]).abs().max().item()
        if not difference <= UNEQUAL:
            raise RecipeError(
                f"trl {_version()} computes other log-probabilities than the model itself (up to {difference:.3g} "
                "nats a token apart), as where the head is more than a matrix: give --loss orpo, which does not."
            )


def make_trainer(
    *,
    task: Any,
    args: Any,
    train_dataset: TrainingOrder,
    evaluator: TaskEvaluator,
    data_collator: Any,
    layer_decay: float,
    **given: Any,
) -> OfTrl:
    """TRL's trainer of the task's loss, out of what FineTuningTrainer is given.

    TRL's own collators take the place of `data_collator`; `layer_decay` was refused.
    """
    loss, batch = task.files.loss, args.per_device_train_batch_size
    trainer_class, config_class = _classes(loss)
    fields: dict[str, Any] = {} if loss == "orpo" else {"max_length": None}  # the rows are cut already
    if loss == "orpo":
        evaluator.rows = EncodedRows(evaluator.rows)
        row_of = _orpo_row
    else:
        given["ref_model"] = task.reference
        row_of = _dpo_row(task.by_reference) if loss == "dpo" else _kto_row(batch, task.max_length)
    if loss == "dpo":
        fields["precompute_ref_log_probs"] = True
        predict(task, task.reference, train_dataset.items, evaluator.collator, evaluator.batch_size)
    if loss == "kto":
        fields |= {name: getattr(task.files, name) for name in ("desirable_weight", "undesirable_weight")}
    train_dataset.group = batch  # TRL pads
    config = config_class(
        **{**args.to_dict(), "hub_token": args.hub_token}, beta=task.files.beta, disable_dropout=True, **fields
    )
    trainer = trainer_class(args=config, train_dataset=Rows(train_dataset, row_of), evaluator=evaluator, **given)
    if loss != "orpo":
        trainer.check_log_probabilities(train_dataset.items[0])
    return trainer


def _classes(loss: str) -> tuple[type[OfTrl], type]:
    """The trainer and the config of a loss; raises RecipeError where this version of TRL has them elsewhere."""
    name = LOSSES[loss]
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    moved = "give another --loss, or install the version of TRL that was tried: pip install trl==1.16.0."
    with refusing(f"trl {_version()} has no {name} where it was", ImportError, AttributeError, advice=moved):
        home = importlib.import_module("trl.experimental.orpo" if loss == "orpo" else "trl")
        theirs, config = getattr(home, f"{name}Trainer"), getattr(home, f"{name}Config")
    return type(f"{name}OfTrl", (OfTrl, theirs), {}), config


def _version() -> str:
    return importlib.metadata.version("trl")


def _dpo_row(by_reference: dict[int, np.ndarray]) -> Callable[[TrainingOrder, int], Row]:
    def row_of(order: TrainingOrder, place: int) -> Row:
        item = order[place]
        chosen, rejected = item.sequences
        known = by_reference[id(item)].tolist()
        return {
            "prompt_ids": chosen[: item.info],
            "chosen_ids": chosen[item.info :],
            "rejected_ids": rejected[item.info :],
            "ref_chosen_logps": known[0],
            "ref_rejected_logps": known[1],
        }

    return row_of


def _kto_row(batch: int, max_length: int) -> Callable[[TrainingOrder, int], Row]:
    """An answer and, to estimate the divergence from, that of the example before it in its batch."""

    def row_of(order: TrainingOrder, place: int) -> Row:
        item, first = order[place], place // batch * batch
        other = order[place - 1 if place > first else min(first + batch, len(order)) - 1]
        (ids,), (others,) = item.sequences, other.sequences
        return {
            "prompt_ids": ids[: item.info],
            "completion_ids": ids[item.info :],
            "KL_completion_ids": others[other.info :][: max_length - item.info],
            "label": item.target,
        }

    return row_of


def _orpo_row(order: TrainingOrder, place: int) -> Row:
    item, row = order[place], {}
    for name, ids in zip(("chosen", "rejected"), item.sequences):
        row[f"{name}_input_ids"], row[f"{name}_attention_mask"] = ids, [1] * len(ids)
        row[f"{name}_labels"] = [IGNORE_INDEX] * item.info + ids[item.info :]
    prompt = item.sequences[0][: item.info]
    return {**row, "prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
