"""Training by contrast: pairs of texts teach the body which share a label, and a linear head is fitted behind it.

SetFit (https://huggingface.co/papers/2209.11055). What is trained is the classifier itself: its vectors are what its
head reads, so that it pools in training as it does afterwards. The loss is one of sentence-transformers.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from weft.recipes.finetuning.collation import BatchLayout, EncodedExample
from weft.recipes.finetuning.dataset import TrainingOrder
from weft.recipes.finetuning.embeddings.arguments import SCORED, EmbeddingArguments
from weft.recipes.finetuning.embeddings.losses import make_loss
from weft.recipes.finetuning.prediction import TaskEvaluator, predict
from weft.recipes.finetuning.task import Batch, Divisor
from weft.recipes.finetuning.trainer import FineTuningTrainer

PairLoss = Callable[[list[torch.Tensor], torch.Tensor], torch.Tensor]


class PairOrder(Dataset):
    """The pairs of a whole run: each text in its turn, beside another of its label or of any other label.

    Every other pair is of one label. A label with a single example has no pair of its own. All of it is a function of
    seed, pass and place.
    """

    def __init__(self, order: TrainingOrder) -> None:
        self.order = order
        labels = np.array([item.target for item in order.items])
        self.alike = {label: np.flatnonzero(labels == label) for label in set(labels.tolist())}
        self.other = {label: np.flatnonzero(labels != label) for label in self.alike}

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> EncodedExample:
        """A pair as an item with two sequences, whose target is 1 for one label and 0 for two."""
        first, items = self.order[place], self.order.items
        epoch, position = divmod(place, len(items))
        draw = np.random.default_rng((self.order.seed, epoch, 1 + position))
        is_alike = (epoch + position) % 2 == 0 and len(self.alike[first.target]) > 1
        among, second = (self.alike if is_alike else self.other)[first.target], first
        while second is first:
            second = items[draw.choice(among)]
        types = None if first.token_types is None else [*first.token_types, *second.token_types]
        return EncodedExample([*first.sequences, *second.sequences], first.example, int(is_alike), types)


class Contrast:
    """What a Trainer of fine-tuning and `predict` ask a task for: here vectors, and a loss that compares them."""

    target_names = ("labels",)

    def __init__(self, compare: PairLoss | None = None) -> None:
        self.compare = compare

    def forward(self, model: nn.Module, inputs: Batch) -> torch.Tensor:
        """What the head reads of each document, [documents, hidden_size], by the model's own way there."""
        read: list[torch.Tensor] = []
        hook = model.score.register_forward_pre_hook(lambda _, given: read.append(given[0]))
        try:
            model(**inputs)
        finally:
            hook.remove()
        return read[0]

    def predict(self, model: nn.Module, inputs: Batch, layout: BatchLayout) -> list[np.ndarray]:
        """The vector of each item, [hidden_size]."""
        return list(self.forward(model, inputs).float().cpu().numpy())

    def loss(self, vectors: torch.Tensor, targets: Batch, num_items_in_batch: Divisor) -> torch.Tensor:
        """The loss of a batch of pairs, which compares each with all others and is no sum over them."""
        return self.compare([vectors[0::2].float(), vectors[1::2].float()], targets["labels"])

    def count(self, targets: Batch) -> torch.Tensor:
        """The number of pairs."""
        return torch.tensor(len(targets["labels"]))


class ContrastTrainer(FineTuningTrainer):
    """Trains the body on pairs, and fits the head to it before each evaluation."""

    def __init__(self, *args: Any, fit: Callable[[nn.Module], None], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fit = fit

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score the model with the head that fits the body as it is now."""
        self.fit(self.model)
        return super().evaluate(*args, **kwargs)


def pair_loss() -> PairLoss:
    """CoSENT by sentence-transformers: the cosine of each pair of one label is to exceed those of two in its batch."""
    return make_loss(None, SCORED, EmbeddingArguments()).compute_loss_from_embeddings


def make_trainer(*, task: Any, train_dataset: TrainingOrder, evaluator: TaskEvaluator, **given: Any) -> ContrastTrainer:
    """The Trainer of `task`, out of what FineTuningTrainer is given (see `Task.make_trainer`)."""
    items = train_dataset.items
    labels = np.array([item.target for item in items])

    def fit(model: nn.Module) -> None:
        vectors = predict(Contrast(), model, items, evaluator.collator, evaluator.batch_size)
        fit_head(model.score, np.stack(vectors), labels, task.class_weights)

    contrast = Contrast(pair_loss())
    return ContrastTrainer(task=contrast, train_dataset=PairOrder(train_dataset), evaluator=evaluator, fit=fit, **given)


@torch.no_grad()
def fit_head(head: nn.Linear, vectors: np.ndarray, labels: np.ndarray, weights: torch.Tensor | None = None) -> None:
    """Give the head the logistic regression of labels on vectors, whose lengths are taken in units of their own, so
    that the strength of its L2 penalty does not depend on how long a model's vectors are.

    Args:
        vectors: [examples, hidden_size].
        labels: class numbers [examples], of which each is there.
        weights: what an example of each class counts, [classes]; None: all the same.
    """
    from sklearn.linear_model import LogisticRegression  # it takes long to import

    scale = np.sqrt((vectors.astype(np.float64) ** 2).sum(1).mean())
    counts = None if weights is None else dict(enumerate(weights.tolist()))
    fitted = LogisticRegression(class_weight=counts, max_iter=1000, tol=1e-6).fit(vectors / scale, labels)
    matrix, bias = fitted.coef_ / scale, fitted.intercept_
    if len(matrix) == 1:  # the log-odds of the second of two classes
        matrix, bias = (np.concatenate([-each, each]) / 2 for each in (matrix, bias))
    head.weight.copy_(torch.from_numpy(matrix))
    head.bias.copy_(torch.from_numpy(bias))
