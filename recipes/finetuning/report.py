"""The end of a fine-tuning run: the best seed's model in a folder that loads anywhere, with all that is known of it."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from transformers import PreTrainedModel

from weft.recipes.common.checkpoints import load_config
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import read_json, remove_folder, write_json
from weft.recipes.common.hardware import share_cores
from weft.recipes.common.processes import is_first_process
from weft.recipes.data.language import language_of_script
from weft.recipes.data.tokenization import load_tokenizer
from weft.recipes.finetuning.adapters import merge_adapters
from weft.recipes.finetuning.arguments import FineTuningArguments, ModelSetupArguments
from weft.recipes.finetuning.best_weights import WEIGHTS, load_weights
from weft.recipes.finetuning.collation import PackingCollator
from weft.recipes.finetuning.curve import plot_seeds
from weft.recipes.finetuning.judgement import Judge, SplitJudgement, best_baseline, closing_figures, notes_of
from weft.recipes.finetuning.model_card import prefix_of, results_section, scores_of
from weft.recipes.finetuning.model_setup import default_length, is_weft_model
from weft.recipes.finetuning.prediction import predict
from weft.recipes.finetuning.seed_training import SeedRun, SeedTraining
from weft.recipes.finetuning.task import Items, ScoredTask
from weft.recipes.finetuning.trainer import SeedResult
from weft.recipes.training.checkpoint_folders import checkpoints_of
from weft.recipes.training.checkpoints import remove_unfinished
from weft.recipes.training.figures import titled
from weft.recipes.training.metric_format import text_of, words_of
from weft.recipes.training.model_card import Card, published_name, versions
from weft.recipes.training.run_folder import METRICS, SETTINGS, finished_folder

LOCAL_FIELDS = (
    *("output_dir", "data", "train_file", "validation_file", "test_file", "plan", "files", "predict_file"),
    *("chat_template", "evaluation_files"),
    *(f"{split}_{side}" for split in ("train", "validation", "test") for side in ("source", "target")),
)


@dataclass
class FinishedRun:
    """What the seeds have come to, under any Trainer.

    A class derived from it has `_published`, the model of a run that was finished before; `_report`, which saves the
    model with its card and all that shows how it does, and returns its metrics; and `_last_line`: what loads it, and
    its scores.

    Attributes:
        settings: for the card.
    """

    seed_run: SeedTraining
    settings: dict[str, Any]
    folder: Path
    results: list[SeedResult]

    unit: ClassVar[str] = "inputs"  # what a step takes

    def __post_init__(self) -> None:
        self.task, self.arguments = self.seed_run.task, self.seed_run.arguments

    def write(self) -> None:
        """Write the finished folder (metrics.json last) with the model of the best seed."""
        if not is_first_process():
            return
        best = self._best()
        with finished_folder(self.folder) as staging:
            model = self._model_of(best.seed, staging)
            model.to(_device(self.settings)).eval()
            metrics = self._report(model, staging, best)
            self._reopen()
        self._use(model)
        write_json(self.folder / METRICS, metrics)
        remove_leftovers(self.folder)
        for note in metrics["notes"]:
            print(f"note: {note}")
        print(f"finished: {self.folder} loads with {self._last_line(metrics)}")

    def _best(self) -> SeedResult:
        """The seed with the best validation scores, the first of equals."""
        best = self.results[0]
        for result in self.results[1:]:
            if self.task.best_metric.chooses(result.metrics, best.metrics):
                best = result
        return best

    def _model_of(self, seed: int, staging: Path) -> Any:
        """The model with the best weights of a seed, or that of a finished run to which seeds were added."""
        weights = self.folder / f"seed-{seed}" / WEIGHTS
        if not weights.is_file():
            return self._published()
        model = self.seed_run.make_model(seed)
        load_weights(model, weights)
        return model

    def _use(self, model: Any) -> None:
        """Do what else is asked for of the model."""

    def _reopen(self) -> None:
        """Have a finished run to which seeds were added count as begun, with these, until it is finished again."""
        (self.folder / METRICS).unlink(missing_ok=True)
        noted, seeds = read_json(self.folder / SETTINGS), [result.seed for result in self.results]
        if noted["seeds"] != seeds:
            write_json(self.folder / SETTINGS, {**noted, "seeds": seeds})

    def _training_metrics(self, model: Any, best: SeedResult, examples: int) -> dict[str, Any]:
        """What metrics.json says of the model and its training."""
        plan = self.seed_run.plan
        return {
            "seed": best.seed,
            "steps": best.steps,
            "best_step": best.step,
            "epochs": round(best.steps * plan.items_per_step / plan.items, 4),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "train_examples": examples,
            "examples_per_second": best.examples_per_second,
            "seconds": best.seconds,
            "seeds": [{"seed": r.seed, "best_step": r.step, "seconds": r.seconds, **r.metrics} for r in self.results],
            "over_seeds": over_seeds(self.results),
        }

    def _title(self, split: str, scores: Mapping[str, Any]) -> str:
        """What a figure says above what it shows: the run, and its score."""
        name = self.task.best_metric.name
        return f"{self.folder.resolve().name}, {split}: {words_of(name)} {text_of(name, scores.get(name))}"

    def _plot(
        self, staging: Path, scores: Mapping[str, Any], limits: tuple[float, float] | None, baseline: float | None
    ) -> None:
        """Draw the learning curves, see `plot_seeds`."""
        with titled(self._title("validation", scores)):
            plot_seeds(self.results, self.task.best_metric.name, staging / "curve.png", limits, baseline)

    def _data(self, *files: str) -> str:
        """What the data are called: by the name of a data set, or that of the first file given among some fields."""
        named = self.settings.get("task") or self.settings.get("dataset_name")
        own = next((Path(self.settings[name]).name for name in files if self.settings.get(name)), None)
        return named or own or "examples of its own"

    def _card(
        self, metrics: dict[str, Any], sections: Mapping[str, str], best: SeedResult, facts: Mapping[str, Any]
    ) -> Card:
        """The card of the model.

        Args:
            sections: what is reported of each split, in Markdown.
            facts: of the data and the start.
        """
        task, settings, known = self.task, self.settings, self.task.known
        scores = {split: scores_of(metrics, split, task.headline) for split in sections}
        step = f"{self.seed_run.plan.items_per_step} {self.unit}; the weights of step {best.step:,} are kept"
        return Card(
            title=Path(self.arguments.push_to_hub or self.folder).name,
            summary=task.summary,
            usage=task.usage(published_name(self.arguments.push_to_hub)),
            facts={**facts, "training": f"{best.steps:,} steps of {step}", "versions": versions()},
            curve="learning curve",
            sections={"Results": results_section(metrics, task.headline, task.best_metric.name, sections)},
            settings={name: value for name, value in settings.items() if name not in LOCAL_FIELDS},
            pipeline_tag=task.pipeline_tag,
            scores={split: {name: of[name] for name in task.headline if name in of} for split, of in scores.items()},
            dataset=self._data("train_file", "train_source"),
            dataset_id=known.hub if known else settings.get("dataset_name"),
            dataset_config=known.hub_config if known else settings.get("dataset_config_name"),
            base_model=settings["model_name_or_path"],
            # as the user says it, as that of a known data set, or as the script of the texts says it
            language=task.language or (known.language if known else None) or language_of_script(task.texts()),
            license=self.arguments.license,
            library=task.library,
        )


@dataclass
class FinishedSeeds(FinishedRun):
    """What the seeds of a task have come to.

    Attributes:
        items: of every labelled split.
        unlabelled: items of those to predict for.
    """

    seed_run: SeedRun
    items: dict[str, Items]
    unlabelled: dict[str, Items]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.setup = self.seed_run.setup
        self.judged: dict[str, SplitJudgement] = {}
        self.remarks: list[str] = []

    def _model_of(self, seed: int, staging: Path) -> PreTrainedModel:
        """That of a seed; adapters are saved by themselves too, and merged."""
        model = super()._model_of(seed, staging)
        return model if isinstance(model, PreTrainedModel) else merge_adapters(model, staging / "adapter")

    def _published(self) -> PreTrainedModel:
        return _published(self.task, self.folder, self.setup.arguments)

    def _report(self, model: PreTrainedModel, staging: Path, best: SeedResult) -> dict[str, Any]:
        model.save_pretrained(staging)
        self.setup.tokenizer.save_pretrained(staging)
        metrics, sections = self._score(model, staging)
        metrics |= self._training_metrics(model, best, self.task.splits["train"])
        self._judge(metrics, best)
        name, baseline = self.task.best_metric.name, best_baseline(self.task, self.judged["validation"])
        scores = scores_of(metrics, "validation", self.task.headline)
        self._plot(staging, scores, self.task.range_of(name), baseline and baseline[name])
        facts = {
            "task": self._data(),
            "examples": ", ".join(f"{split} {number:,}" for split, number in self.task.splits.items()),
            **dict(self.task.describe()),
            "start": self.setup.source,
        }
        self._card(metrics, sections, best, facts).write(staging / "README.md")
        return metrics

    def _score(self, model: PreTrainedModel, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
        """Metrics of the model on each labelled split but the training one, and what the task reports of them."""
        metrics: dict[str, Any] = {}
        sections: dict[str, str] = {}
        judge = Judge(self.task, self.seed_run.trainable)
        # validation first: it tunes the thresholds that the other splits are scored with
        for split in sorted(self.items.keys() - {"train"}, key=lambda split: (split != "validation", split)):
            batch_size = self.arguments.per_device_eval_batch_size
            results = predict(self.task, model, self.items[split], self.seed_run.collator, batch_size)
            self.task.sample(model, split, self.items[split])
            scores = self.task.score(split, self.items[split], results)
            metrics |= {f"{prefix_of(split)}{name}": value for name, value in scores.items()}
            self.judged[split] = judge.of_split(split, self.items[split], results, scores)
            if split == "validation":
                self.remarks = self.task.remarks(split, self.items[split], results)
            reports = folder if split == "validation" else folder / split
            reports.mkdir(exist_ok=True)
            with titled(self._title(split, scores)):
                sections[split] = self.task.write_report(reports, split, self.items[split], results)
        return metrics, sections

    def _judge(self, metrics: dict[str, Any], best: SeedResult) -> None:
        """Add what the scores are to be held against, and what should be known before they are relied on."""
        metric, judged = self.task.best_metric.name, self.judged
        scores = scores_of(metrics, "validation", self.task.headline)
        metrics["baselines"] = {split: one.baselines for split, one in judged.items()}
        metrics["intervals"] = {split: {metric: one.interval} for split, one in judged.items() if one.interval}
        metrics["notes"] = notes_of(self.task, self.remarks, scores, judged["validation"], self.settings, best)

    def _use(self, model: PreTrainedModel) -> None:
        """Predict for what has no labels."""
        _predict_unlabelled(self.task, self.arguments, model, self.seed_run.collator, self.folder, self.unlabelled)

    def _last_line(self, metrics: dict[str, Any]) -> str:
        scores = scores_of(metrics, "validation", self.task.headline)
        figures = closing_figures(self.task, scores, self.judged["validation"])
        spread = metrics["over_seeds"].get(self.task.best_metric.name)
        if spread and len(self.results) > 1:
            figures += (
                f"; {len(self.results)} seeds: {words_of(self.task.best_metric.name)} {spread['mean']:.4f} "
                f"(standard deviation {spread['deviation']:.4f})"
            )
        return f"{self.task.auto_class}.from_pretrained; {figures}"


def over_seeds(results: list[SeedResult]) -> dict[str, dict[str, float]]:
    """Mean and (sample) standard deviation of each metric that is a number in every seed."""
    table = {}
    for name in results[0].metrics:
        values = [result.metrics.get(name) for result in results]
        if all(isinstance(value, int | float) for value in values):
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            table[name] = {"mean": statistics.fmean(values), "deviation": deviation}
    return table


def remove_leftovers(folder: Path) -> None:
    """Remove from a finished run's folder what only its training needed."""
    for entry in read_json(folder / METRICS)["seeds"]:
        seed = folder / f"seed-{entry['seed']}"
        (seed / WEIGHTS).unlink(missing_ok=True)
        for checkpoint in checkpoints_of(seed):
            remove_folder(checkpoint)
        remove_unfinished(seed)


def encode_unlabelled(task: ScoredTask, folder: Path, tokenizer: Any, max_length: int) -> dict[str, Items]:
    """Items of every set of examples without labels that was asked for; raises RecipeError."""
    return {split: task.encode(split, tokenizer, max_length) for split in task.unlabelled(folder)}


def _predict_unlabelled(
    task: ScoredTask,
    arguments: FineTuningArguments,
    model: PreTrainedModel,
    collator: PackingCollator,
    folder: Path,
    unlabelled: dict[str, Items],
) -> None:
    for split, file in task.unlabelled(folder).items():
        results = predict(task, model, unlabelled[split], collator, arguments.per_device_eval_batch_size)
        task.write_predictions(file, split, unlabelled[split], results)
        print(f"predictions in {file}")


def _device(settings: dict[str, Any]) -> str:
    """Where one process predicts, by the run's fields."""
    return "cuda" if torch.cuda.is_available() and not settings.get("use_cpu") else "cpu"


def _published(task: ScoredTask, folder: Path, setup: ModelSetupArguments) -> PreTrainedModel:
    auto_class = getattr(transformers, task.auto_class)
    model = auto_class.from_pretrained(folder, dtype=torch.float32, trust_remote_code=setup.trust_remote_code)
    return model.eval()


def use_finished(
    task: ScoredTask, arguments: FineTuningArguments, setup: ModelSetupArguments, settings: dict[str, Any], folder: Path
) -> None:
    """Tidy a finished folder, and predict with its model, where that is asked for.

    Raises:
        RecipeError: the model's labels are not those of the data, or it comes with code that is not trusted.
    """
    remove_leftovers(folder)
    if not task.unlabelled(folder):
        return
    if not task.align_labels(load_config(str(folder), setup.trust_remote_code)):
        raise RecipeError(f"the labels of {folder} are not those of the data: give the data it was trained on.")
    share_cores(arguments.cpu_threads)
    tokenizer = task.prepare_tokenizer(load_tokenizer(str(folder), setup.trust_remote_code))
    model = _published(task, folder, setup).to(_device(settings))
    packed = is_weft_model(model) and arguments.batching in ("auto", "packed")
    collator = task.make_collator(tokenizer, packed)
    max_length = arguments.max_length or default_length(model.config, tokenizer)
    unlabelled = encode_unlabelled(task, folder, tokenizer, max_length)
    _predict_unlabelled(task, arguments, model, collator, folder, unlabelled)
