"""The Trainer of embeddings: the recipes' own, with whole checkpoints and their console, over sentence-transformers'.

It overrides these private methods (tried with sentence-transformers 6.2): _save and _load_from_checkpoint of the
library's Trainer.
"""

import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from safetensors.torch import load_file, save_file

from weft.recipes.finetuning.adapters import put_weights
from weft.recipes.finetuning.embeddings.evaluation_sets import EvaluationSet
from weft.recipes.finetuning.embeddings.losses import LOSS_FILE, own_weights
from weft.recipes.finetuning.embeddings.scoring import judge
from weft.recipes.finetuning.embeddings.sides import Embedder, Reranker, Side
from weft.recipes.training.evaluator import EvaluatingTrainer
from weft.recipes.training.trainer import WeftTrainer


def side_of(model: Any, batch_size: int, size: int | None = None) -> Side:
    """A model as what is scored: by its vectors, or their first numbers, or by reading two texts at once."""
    is_reranker = type(model).__name__ == "CrossEncoder"
    return Reranker(model, batch_size) if is_reranker else Embedder(model, batch_size, size)


class SetEvaluator:
    """Scores a trainer's model on the set that chooses the weights."""

    def __init__(self, evaluation: EvaluationSet, batch_size: int) -> None:
        self.evaluation, self.batch_size = evaluation, batch_size
        # the library's Trainer asks for rows to evaluate on, and reads none of them here
        self.rows = Dataset.from_dict({"text": [""]})

    def __call__(self, trainer: EvaluatingTrainer) -> dict[str, float]:
        trainer.obey_stop()
        model = trainer.model
        trains = model.training
        model.eval()
        try:
            return judge(side_of(model, self.batch_size), self.evaluation).metrics
        finally:
            model.train(trains)


class ModuleTrainer(WeftTrainer):
    """Trainer of modules, one behind the other, with a loss that may have weights of its own."""

    kept_beside = 3  # the best weights, the next better ones, and the finished model
    loss: Any

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """The recipe writes the card: the library's would ask the Hub."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        self.model.save_pretrained(output_dir or self.args.output_dir, create_model_card=False)

    def save_beside(self, checkpoint: Path) -> None:
        """Write the weights of the loss, where it has any."""
        weights = own_weights(self.loss, self.model)
        if weights:
            tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
            save_file(tensors, checkpoint / LOSS_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        from sentence_transformers.base.trainer import BaseTrainer

        BaseTrainer._load_from_checkpoint(self, resume_from_checkpoint)
        file = Path(resume_from_checkpoint) / LOSS_FILE
        if file.is_file():
            put_weights(self.loss, load_file(file))


def trainer_and_arguments(name: str) -> tuple[type[ModuleTrainer], type]:
    """That Trainer over the one of the library for a class of models, and the library's fields of a training."""
    import sentence_transformers

    base = getattr(sentence_transformers, f"{name}Trainer")
    trainer = types.new_class(f"Weft{name}Trainer", (ModuleTrainer, base))
    return trainer, getattr(sentence_transformers, f"{name}TrainingArguments")


def prompts_of(model: Any, columns: Sequence[str]) -> dict[str, str]:
    """The prompt of each column in training: the query's for the first, the document's for the others."""
    prompts = {name: model.prompts.get("query" if place == 0 else "document") for place, name in enumerate(columns)}
    return {name: prompt for name, prompt in prompts.items() if prompt}
