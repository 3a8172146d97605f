"""The training of each seed of an embedding model under the Trainer of sentence-transformers."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import set_seed

from weft.recipes.common.command_line import Parsed
from weft.recipes.common.hardware import choose_bf16
from weft.recipes.common.processes import check_processes, world_size
from weft.recipes.finetuning.best_metric import BestMetric
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
from weft.recipes.finetuning.embeddings.scoring import Highest, headline_of
from weft.recipes.finetuning.embeddings.start import Start
from weft.recipes.finetuning.embeddings.trainer import (
    ModuleTrainer,
    SetEvaluator,
    arguments_class,
    prompts_of,
    trainer_class,
)
from weft.recipes.finetuning.plan import make_plan
from weft.recipes.finetuning.seed_training import SeedTraining
from weft.recipes.training.console import Console
from weft.recipes.training.stop_signal import StopSignal
from weft.recipes.training.throughput import Throughput


class EmbeddingSeeds(SeedTraining):
    """The training of each seed under the Trainer of sentence-transformers."""

    def __init__(
        self, start: Start, rows: list[Row], evaluation: EvaluationSet, parsed: Parsed, on_gpu: bool, first: int
    ) -> None:
        """Args:
        rows: as they are learnt from.
        evaluation: what chooses the weights.
        first: a seed, with which columns are counted.
        """
        self.start, self.rows, self.evaluation = start, rows, evaluation
        self.arguments, self.embedding = parsed[EmbeddingTraining], parsed[EmbeddingArguments]
        self.trainer_fields = parsed.trainer
        self.bf16 = choose_bf16(parsed.trainer.get("bf16"), on_gpu)
        number = len(next(iter(self._columns(1, first).values())))
        self.plan = make_plan(self.arguments, number, world_size())
        self.passes = passes_of(self.plan.max_steps, self.plan.items_per_step, number)

    @property
    def best_metric(self) -> BestMetric:
        """The first metric of the validation set."""
        return Highest(headline_of(self.evaluation)[0])

    @property
    def kind(self) -> str:
        """Of the rows as they are learnt from."""
        return self.rows[0].kind

    def _columns(self, passes: int, seed: int) -> dict[str, list[Any]]:
        return columns_of(self.rows, self.embedding.reranker, passes, seed)

    def _make_trainer(self, folder: Path, seed: int, best: BestWeights) -> ModuleTrainer:
        plan, reranker = self.plan, self.embedding.reranker
        columns, model = self._columns(self.passes, seed), self.start.make(seed)
        prompts = prompts_of(model, list(columns)) if self.kind in (PAIRS, TRIPLETS) and not reranker else {}
        arguments = arguments_class(reranker)(
            **self._trainer_fields(folder, seed, ddp_find_unused_parameters=True),
            # the order is a function of seed and pass, and no text is another's negative and its own
            batch_sampler="group_by_label" if self.kind == LABELLED else "no_duplicates",
            prompts=prompts or None,
        )
        check_processes(arguments, plan.processes)
        set_seed(seed)
        return trainer_class(reranker)(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict(columns),
            loss=make_loss(model, self.kind, self.embedding),
            evaluator=SetEvaluator(self.evaluation, self.arguments.per_device_eval_batch_size),
            throughput=Throughput(lambda step: step * plan.items_per_step, unit="examples"),
            epochs_before=lambda step: step * plan.items_per_step / plan.items,
            callbacks=[
                Console(arguments.disable_tqdm, headline=headline_of(self.evaluation)),
                StopSignal(),
                best,
            ],
        )
