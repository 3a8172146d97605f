"""A run of embeddings, from its fields to a published model."""

from pathlib import Path
from typing import Any

from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.hardware import computes_on_gpu, settle_on_processor, share_cores
from weft.recipes.common.processes import is_first_process, world_size
from weft.recipes.common.wording import counted
from weft.recipes.finetuning.arguments import ModelSetupArguments
from weft.recipes.finetuning.embeddings.arguments import TEXT, EmbeddingArguments, EmbeddingFiles, EmbeddingTraining
from weft.recipes.finetuning.embeddings.evaluation_sets import make_set
from weft.recipes.finetuning.embeddings.losses import describe_loss, prepare_rows
from weft.recipes.finetuning.embeddings.reading import KNOWN, Row, read_all
from weft.recipes.finetuning.embeddings.report import FinishedEmbeddings
from weft.recipes.finetuning.embeddings.seeds import EmbeddingSeeds
from weft.recipes.finetuning.embeddings.start import set_up_start
from weft.recipes.finetuning.report import remove_leftovers
from weft.recipes.finetuning.run_folder import fingerprint, has_begun, look_at
from weft.recipes.finetuning.setup import extras_of
from weft.recipes.finetuning.validation_split import describe_equal_inputs
from weft.recipes.training.model_setup import describe_added
from weft.recipes.training.run import carry_out, settings_of
from weft.recipes.training.run_folder import start_run

SAMPLE = 1000  # texts of which the plan counts tokens


def run_embeddings(parsed: Parsed) -> None:
    """Carry the run out: plan, train each seed, choose, score, report, publish."""
    training, files, setup = parsed[EmbeddingTraining], parsed[EmbeddingFiles], parsed[ModelSetupArguments]
    rows = read_all(files)
    folder = Path(training.output_dir or f"runs/embeddings_{files.name}")
    training.output_dir = str(folder)
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"output_dir {folder} is a file: give another.")
    fields = {**extras_of(setup, folder), **parsed.model}
    settings = {**settings_of(parsed), **fields, "files": fingerprint(files)}
    settings["seeds"] = training.seeds_for(len(rows["train"]))
    carry_out(
        folder,
        training,
        look=lambda: look_at(folder, settings),
        prepare=lambda: EmbeddingRun(rows, parsed, fields, folder, settings),
        use_finished=lambda: remove_leftovers(folder),
    )


class EmbeddingRun:
    """One run, from its plan to its report."""

    def __init__(
        self, rows: dict[str, list[Row]], parsed: Parsed, fields: dict[str, Any], folder: Path, settings: dict[str, Any]
    ) -> None:
        """Read, find and check all that is trained with (raises RecipeError: it cannot be)."""
        self.files, self.embedding, self.training = (
            parsed[kind] for kind in (EmbeddingFiles, EmbeddingArguments, EmbeddingTraining)
        )
        self.rows, self.folder, self.settings = rows, folder, settings
        self.on_gpu = computes_on_gpu(parsed.trainer.get("use_cpu", False))
        self.threads = share_cores(self.training.cpu_threads)
        if not self.on_gpu:
            settle_on_processor()
        prepared = prepare_rows(rows["train"], self.files, self.embedding)
        if prepared[0].kind == TEXT and world_size() > 1:
            raise RecipeError("tsdae trains in one process: launch one, or give --unsupervised simcse or title.")
        self.sets = {
            name: make_set(name, given, rows["train"], self.files.distractors, self.files.split_seed)
            for name, given in rows.items()
            if name != "train"
        }
        self.start = set_up_start(
            parsed[ModelSetupArguments], self.embedding, self.training, fields, self._texts(rows["train"])
        )
        self.seeds: list[int] = settings["seeds"]
        evaluation = self.sets["validation"]
        self.seed_run = EmbeddingSeeds(self.start, prepared, evaluation, parsed, self.on_gpu, self.seeds[0])

    def describe(self) -> str:
        """The plan; raises RecipeError where the model cannot be made."""
        model = self.start.make(self.seeds[0])
        return "\n".join(f"  {name:11} {value}" for name, value in self._plan_lines(model))

    def train(self) -> bool:
        """Train every seed and write the finished folder; whether that came to its end."""
        if is_first_process():
            start_run(self.folder, self.settings, has_begun(self.folder))
        results = []
        for seed in self.seeds:
            result = self.seed_run.train(self.folder / f"seed-{seed}", seed)
            if result is None:
                return False
            results.append(result)
        if is_first_process():
            known = KNOWN.get(str(self.files.task))
            texts = self._texts(self.rows["train"])
            FinishedEmbeddings(self.seed_run, self.sets, self.files, known, texts, self.settings, results).write()
        return True

    @staticmethod
    def _texts(rows: list[Row]) -> list[str]:
        """The texts of rows, each once."""
        return list(dict.fromkeys(text for row in rows for text in row.texts))

    def _plan_lines(self, model: Any) -> list[tuple[str, str]]:
        run, rows = self.seed_run, self.rows
        total = sum(parameter.numel() for parameter in model.parameters())
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        longest = {"truncation": True, "max_length": model.max_seq_length}
        lengths = [len(ids) for ids in model.tokenizer(self._texts(rows["train"])[:SAMPLE], **longest)["input_ids"]]
        modules = " -> ".join(
            str(getattr(module, "pooling_mode", None) or type(module).__name__) for module in list(model)[1:]
        )
        part = f", {trained:,} trained" if trained < total else ""
        learnt = "" if len(run.rows) == len(rows["train"]) else f", {counted(len(run.rows), 'row')} learnt from"
        splits = ", ".join(f"{name} {len(given):,} {given[0].kind}" for name, given in rows.items())
        return [
            ("examples", f"{splits}{learnt}"),
            *describe_equal_inputs(
                {name: [row.input for row in given] for name, given in rows.items() if name in ("train", "validation")},
                "text",
            ),
            *((name, evaluation.describe()) for name, evaluation in self.sets.items()),
            ("model", f"{total:,} parameters, {self.start.source}{part}"),
            *describe_added(self.settings),
            ("vector", modules) if modules else ("output", "one score for two texts"),
            ("loss", describe_loss(run.kind, self.embedding)),
            ("input", f"{sum(lengths) / len(lengths):.1f} tokens on average, at most {model.max_seq_length}"),
            *run.describe(self.on_gpu, self.threads, self.seeds),
        ]
