"""Validation while training: every held-out row once, on any number of processes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from weft.losses import IGNORE_INDEX
from weft.recipes.common.errors import RecipeError
from weft.recipes.pretraining.datasets.collators import MaskedCollator, collate_causal
from weft.recipes.pretraining.datasets.packed import ValidationRows
from weft.recipes.training.trainer import WeftTrainer

Batch = dict[str, torch.Tensor]


class RowEvaluator(ABC):
    """Adds numbers up over all rows; `metrics` makes the result of the sums."""

    sums: int

    def __init__(self, rows: Dataset, collate: Callable[[list[Any]], Batch]) -> None:
        self.rows, self.collate = rows, collate

    @torch.no_grad()
    def __call__(self, trainer: WeftTrainer) -> dict[str, float]:
        arguments, model = trainer.args, trainer.model
        share = -(-len(self.rows) // arguments.world_size)  # the same number of rows for every process
        first = arguments.process_index * share
        loader = DataLoader(
            Subset(self.rows, range(first, first + share)),
            batch_size=arguments.per_device_eval_batch_size,
            collate_fn=self.collate,
            generator=torch.Generator(),  # leaves the global one as it is
        )
        sums = torch.zeros(self.sums, dtype=torch.float64)  # on the CPU, because not every device has float64
        was_training = model.training
        model.eval()
        for batch in loader:
            sums += self.score(model, {name: tensor.to(arguments.device) for name, tensor in batch.items()})
        model.train(was_training)
        if arguments.world_size > 1:
            sums = trainer.accelerator.reduce(sums.to(arguments.device), "sum")
        return self.metrics(*sums.tolist())

    @abstractmethod
    def score(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """What a batch adds to the sums, in float64 on the CPU."""

    @abstractmethod
    def metrics(self, *sums: float) -> dict[str, float]:
        """The result."""


class CausalEvaluator(RowEvaluator):
    """Scores every token of the held-out text once (but the first of a document without a start token).

    Metrics: loss (nats per target, end tokens included), perplexity (its exponential) and bits_per_byte (the nats of
    the text's own tokens, in bits, over the UTF-8 bytes of the text).
    """

    sums = 3

    def __init__(self, rows: ValidationRows, masked_model: bool = False) -> None:
        """Args:
        masked_model: the model is a `WeftForMaskedLM` whose head predicts the next token.
        """
        super().__init__(rows, collate_causal)
        self.masked_model = masked_model

    def score(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        ids, labels = batch["input_ids"], batch["labels"]
        inputs = {"input_ids": ids, "position_ids": batch["position_ids"], "use_cache": False}
        if self.masked_model:
            inputs |= {"is_causal": True, "predict_from": torch.arange(ids.numel(), device=ids.device)}
        nats = token_nats(model(**inputs).logits.view(*ids.shape, -1), labels)
        is_target = labels != IGNORE_INDEX
        return torch.stack([nats.sum(), nats[batch["is_text"].cpu()].sum(), is_target.sum().cpu()])

    def metrics(self, nats: float, text_nats: float, targets: float) -> dict[str, float]:
        loss = nats / targets
        return {
            "loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),
            "bits_per_byte": text_nats / math.log(2) / self.rows.byte_count,
        }


class MaskedEvaluator(RowEvaluator):
    """Predicts the masked tokens of the held-out text, and the order of its sentence pairs where rows hold pairs.

    Metrics: masked_loss (nats per masked token), masked_accuracy, with pairs next_sentence_loss and
    next_sentence_accuracy, and loss, the sum of the losses.
    """

    sums = 6

    def __init__(self, rows: Dataset) -> None:
        """Raises RecipeError where nothing is masked in any row."""
        super().__init__(rows, MaskedCollator())
        if not any((rows[index]["targets"] != IGNORE_INDEX).any() for index in range(len(rows))):
            raise RecipeError("no token of the held-out text is masked, so short is it: hold more text out.")

    def score(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        outputs, labels = model(**batch), batch["labels"]
        logits = outputs.logits if "logits" in outputs else outputs.prediction_logits
        numbers = [outputs.target_nats.cpu().double().sum(), (logits.argmax(-1) == labels).sum(), len(labels)]
        if "next_sentence_label" in batch:
            label = batch["next_sentence_label"]
            right = (outputs.seq_relationship_logits.argmax(-1) == label).sum()
            numbers += [outputs.next_sentence_nats.cpu().double().sum(), right, (label != IGNORE_INDEX).sum()]
        else:
            numbers += [0, 0, 0]
        return torch.tensor([float(number) for number in numbers], dtype=torch.float64)

    def metrics(self, *sums: float) -> dict[str, float]:
        nats, right, targets, order_nats, order_right, pairs = sums
        result = {"loss": nats / targets, "masked_loss": nats / targets, "masked_accuracy": right / targets}
        if pairs:
            result |= {"next_sentence_loss": order_nats / pairs, "next_sentence_accuracy": order_right / pairs}
            result["loss"] += order_nats / pairs
        return result


class HybridEvaluator:
    """Both evaluations of a model that is causal and masked; loss is their mean, weighted as the rows in training."""

    def __init__(self, causal: CausalEvaluator, masked: MaskedEvaluator, causal_share: float) -> None:
        self.causal, self.masked, self.causal_share = causal, masked, causal_share
        self.rows = masked.rows

    def __call__(self, trainer: WeftTrainer) -> dict[str, float]:
        causal, masked = self.causal(trainer), self.masked(trainer)
        loss = self.causal_share * causal["loss"] + (1 - self.causal_share) * masked["loss"]
        return {**masked, **causal, "causal_loss": causal["loss"], "loss": loss}


def token_nats(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each token [batch, tokens], in float64 on the CPU; 0 where there is no target."""
    flat = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    return flat.view_as(labels).cpu().double()
