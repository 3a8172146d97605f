"""A run of embeddings, from its fields to a published model."""

import itertools
from pathlib import Path
from typing import Any

from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.processes import world_size
from weft.recipes.common.wording import counted
from weft.recipes.finetuning.arguments import ModelSetupArguments
from weft.recipes.finetuning.embeddings.arguments import TEXT, EmbeddingArguments, EmbeddingFiles, EmbeddingTraining
from weft.recipes.finetuning.embeddings.evaluation_sets import make_set
from weft.recipes.finetuning.embeddings.losses import describe_loss, prepare_rows
from weft.recipes.finetuning.embeddings.reading import Row, read_all
from weft.recipes.finetuning.embeddings.report import FinishedEmbeddings
from weft.recipes.finetuning.embeddings.seeds import EmbeddingSeeds
from weft.recipes.finetuning.embeddings.start import Start
from weft.recipes.finetuning.embeddings.task import EmbeddingTask, RerankerTask
from weft.recipes.finetuning.report import remove_leftovers
from weft.recipes.finetuning.run_folder import look_at
from weft.recipes.finetuning.setup import SeededRun, folder_and_settings
from weft.recipes.finetuning.trainer import SeedResult
from weft.recipes.finetuning.validation_split import describe_equal_inputs
from weft.recipes.training.run import carry_out, defaults_of

SAMPLE = 1000  # texts of which the plan counts tokens


def run_embeddings(parsed: Parsed) -> None:
    """Carry the run out: plan, train each seed, choose, score, report, publish."""
    files, is_reranker = parsed[EmbeddingFiles], parsed[EmbeddingArguments].reranker
    rows, name = read_all(files), f"{'reranker' if is_reranker else 'embeddings'}_{files.name}"
    folder, fields, settings = folder_and_settings(parsed, name, len(rows["train"]))
    carry_out(
        folder,
        parsed[EmbeddingTraining],
        look=lambda: look_at(folder, settings, defaults_of(parsed)),
        prepare=lambda: EmbeddingRun(rows, parsed, fields, folder, settings),
        use_finished=lambda: remove_leftovers(folder),
    )


class EmbeddingRun(SeededRun):
    """A run of embeddings, from its plan to its report."""

    def __init__(
        self, rows: dict[str, list[Row]], parsed: Parsed, fields: dict[str, Any], folder: Path, settings: dict[str, Any]
    ) -> None:
        """Find and check all that is trained with (raises RecipeError: it cannot be)."""
        super().__init__(parsed, folder, settings)
        self.rows, self.files, self.embedding = rows, parsed[EmbeddingFiles], parsed[EmbeddingArguments]
        prepared = prepare_rows(rows["train"], self.files, self.embedding)
        if prepared[0].kind == TEXT and world_size() > 1:
            raise RecipeError("tsdae trains in one process: launch one, or give --unsupervised simcse or title.")
        self.sets = {
            name: make_set(name, given, rows["train"], self.files.distractors, self.files.split_seed)
            for name, given in rows.items()
            if name != "train"
        }
        task_class = RerankerTask if self.embedding.reranker else EmbeddingTask
        task = task_class(rows["train"], self.sets, self.files)
        self.start = Start(task, parsed[ModelSetupArguments], self.embedding, self.arguments.max_length, fields)
        self.seed_run = EmbeddingSeeds(self.start, prepared, self.sets["validation"], parsed, self.on_gpu)

    def _finished(self, results: list[SeedResult]) -> FinishedEmbeddings:
        return FinishedEmbeddings(self.seed_run, self.settings, self.folder, results, self.sets, self.files)

    def _plan_lines(self, model: Any) -> list[tuple[str, str]]:
        run, rows = self.seed_run, self.rows
        longest = {"truncation": True, "max_length": model.max_seq_length}
        texts = [*itertools.islice(self.start.task.texts(), SAMPLE)]
        lengths = [len(ids) for ids in model.tokenizer(texts, **longest)["input_ids"]]
        modules = " -> ".join(
            str(getattr(module, "pooling_mode", None) or type(module).__name__) for module in list(model)[1:]
        )
        learnt = "" if len(run.rows) == len(rows["train"]) else f", {counted(len(run.rows), 'row')} learnt from"
        splits = ", ".join(f"{name} {len(given):,} {given[0].kind}" for name, given in rows.items())
        return [
            ("examples", f"{splits}{learnt}"),
            *describe_equal_inputs(
                {name: [row.input for row in given] for name, given in rows.items() if name in ("train", "validation")},
                "text",
            ),
            *((name, evaluation.describe()) for name, evaluation in self.sets.items()),
            *self._model_lines(model, self.start.source),
            ("vector", modules) if modules else ("output", "one score for two texts"),
            ("loss", describe_loss(run.kind, self.embedding)),
            ("input", f"{sum(lengths) / len(lengths):.1f} tokens on average, at most {model.max_seq_length}"),
        ]
