"""The training of each seed of an embedding model under the Trainer of sentence-transformers."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import set_seed

from weft.recipes.common.command_line import Parsed
from weft.recipes.common.hardware import choose_bf16
from weft.recipes.common.processes import world_size
from weft.recipes.finetuning.best_weights import BestWeights
from weft.recipes.finetuning.embeddings.arguments import (
    LABELLED,
    PAIRS,
    TRIPLETS,
    EmbeddingArguments,
    EmbeddingTraining,
)
from weft.recipes.finetuning.embeddings.evaluation_sets import EvaluationSet
from weft.recipes.finetuning.embeddings.losses import columns_of, make_loss, passes_of
from weft.recipes.finetuning.embeddings.reading import Row
from weft.recipes.finetuning.embeddings.start import Start
from weft.recipes.finetuning.embeddings.trainer import ModuleTrainer, SetEvaluator, prompts_of, trainer_and_arguments
from weft.recipes.finetuning.plan import make_plan
from weft.recipes.finetuning.seed_training import SeedTraining


class EmbeddingSeeds(SeedTraining):
    """The training of each seed under the Trainer of sentence-transformers."""

    def __init__(self, start: Start, rows: list[Row], evaluation: EvaluationSet, parsed: Parsed, on_gpu: bool) -> None:
        """Args:
        rows: as they are learnt from.
        evaluation: what chooses the weights.
        """
        self.task, self.start, self.rows, self.evaluation = start.task, start, rows, evaluation
        self.arguments, self.embedding = parsed[EmbeddingTraining], parsed[EmbeddingArguments]
        self.trainer_fields = parsed.trainer
        self.bf16 = choose_bf16(parsed.trainer.get("bf16"), on_gpu)
        number = len(next(iter(self._columns(1, seed=0).values())))
        self.plan = make_plan(self.arguments, number, world_size())
        self.passes = passes_of(self.plan.max_steps, self.plan.items_per_step, number)

    @property
    def kind(self) -> str:
        """Of the rows as they are learnt from."""
        return self.rows[0].kind

    def _columns(self, passes: int, seed: int) -> dict[str, list[Any]]:
        return columns_of(self.rows, self.embedding.reranker, passes, seed)

    def make_model(self, seed: int) -> Any:
        return self.start.make(seed)

    def _make_trainer(self, folder: Path, seed: int, best: BestWeights) -> ModuleTrainer:
        columns, model = self._columns(self.passes, seed), self.make_model(seed)
        has_prompts = self.kind in (PAIRS, TRIPLETS) and not self.embedding.reranker
        trainer_class, arguments_class = trainer_and_arguments(self.task.class_name)
        arguments = arguments_class(
            **self._trainer_fields(folder, seed, ddp_find_unused_parameters=True),
            # the order is a function of seed and pass, and no text is another's negative and its own
            batch_sampler="group_by_label" if self.kind == LABELLED else "no_duplicates",
            prompts=(has_prompts and prompts_of(model, list(columns))) or None,
        )
        shared = self._shared_parts(arguments, best, self.plan.items_per_step)
        set_seed(seed)
        return trainer_class(
            model=model,
            train_dataset=Dataset.from_dict(columns),
            loss=make_loss(model, self.kind, self.embedding),
            evaluator=SetEvaluator(self.evaluation, self.arguments.per_device_eval_batch_size),
            **shared,
        )
