"""The end of a run: the folder that loads anywhere, with its metrics, curve and model card."""

import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft.recipes.common.files import flush_to_disk, write_json
from weft.recipes.common.processes import is_first_process
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.arguments import RunArguments
from weft.recipes.pretraining.curve import plot_curve
from weft.recipes.pretraining.objectives.base import Objective
from weft.recipes.pretraining.plan import Plan
from weft.recipes.pretraining.trainer import PretrainingTrainer
from weft.recipes.training.metric_format import in_order, text_of, words_of
from weft.recipes.training.model_card import Card, metrics_table, versions
from weft.recipes.training.run_folder import METRICS

# Fields of this machine, which are not for the card.
LOCAL_FIELDS = ("output_dir", "data", "train_files", "validation_files", "plan")


@dataclass(frozen=True)
class FinishedRun:
    """What a run has come to."""

    objective: Objective
    arguments: RunArguments
    settings: dict[str, Any]
    corpus: Corpus
    tokenizer: PreTrainedTokenizerBase
    plan: Plan
    parameters: int
    folder: Path

    def write(self, trainer: PretrainingTrainer) -> None:
        """Evaluate, and write the finished folder (metrics.json last)."""
        history = trainer.state.log_history
        evaluated = [entry for entry in history if "eval_loss" in entry and entry["step"] == self.plan.max_steps]
        metrics = evaluated[-1] if evaluated else trainer.evaluate()
        with trainer.published_weights():
            self._write(trainer, metrics, history)

    def _write(self, trainer: PretrainingTrainer, metrics: dict[str, float], history: list[dict[str, Any]]) -> None:
        model = trainer.whole_model()
        if not is_first_process():
            return
        metrics = {name: value for name, value in metrics.items() if name.startswith("eval_")}
        metrics = self._metrics(metrics, history, trainer.throughput.peak_flops)
        staging = self.folder / ".finished.partial"
        shutil.rmtree(staging, ignore_errors=True)
        model.eval()
        model.save_pretrained(staging)
        self.tokenizer.save_pretrained(staging)
        plot_curve(history, self.plan.tokens_before, staging / "curve.png")
        self._card(model, metrics).write(staging / "README.md")
        trainer.state.save_to_json(str(staging / "trainer_state.json"))
        flush_to_disk(staging)
        for path in staging.iterdir():
            path.replace(self.folder / path.name)
        staging.rmdir()
        write_json(self.folder / METRICS, metrics)
        found = [(name, metrics.get(f"eval_{name}")) for name in self.objective.headline]
        figures = "; ".join(f"{words_of(name)} {text_of(name, value)}" for name, value in found if value is not None)
        print(f"finished: {self.folder} loads with {self.objective.auto_class}.from_pretrained; {figures}")

    def _metrics(self, metrics: dict[str, float], history: list[dict[str, Any]], peak_flops: float) -> dict[str, Any]:
        speeds = sorted(entry["tokens_per_second"] for entry in history if "tokens_per_second" in entry)
        shares = sorted(entry["mfu"] for entry in history if "mfu" in entry)
        return {
            **metrics,
            "train_loss": next((entry["loss"] for entry in reversed(history) if "loss" in entry), None),
            "steps": self.plan.max_steps,
            "tokens": self.plan.total_tokens,
            "epochs": None if self.plan.epochs is None else round(self.plan.epochs, 4),
            "parameters": self.parameters,
            "tokens_per_second": speeds[len(speeds) // 2] if speeds else None,
            "mfu": shares[len(shares) // 2] if shares else None,
            "matmul_gflops": round(peak_flops / 1e9, 1),
        }

    def _card(self, model: PreTrainedModel, metrics: dict[str, Any]) -> Card:
        name = self.arguments.push_to_hub or str(self.folder)
        made_from, objective = self.corpus.description["made_from"]["settings"], self.objective
        samples = objective.make_samples(model, self.tokenizer, self.arguments.sample_prompt, self.corpus)
        of_run = {name: value for name, value in metrics.items() if not name.startswith("eval_")}
        return Card(
            title=Path(name).name,
            summary=objective.summary,
            usage_heading="How to load it",
            usage=_usage(objective, name),
            facts=self._facts(),
            curve="loss over tokens",
            sections={
                "Metrics on the held-out text": metrics_table(in_order(metrics, "eval_")),
                "The run": metrics_table(in_order(of_run)),
                "Samples": "\n\n".join("```text\n" + text.replace("```", "'''").strip() + "\n```" for text in samples),
            },
            settings=self._settings(),
            pipeline_tag=objective.pipeline_tag,
            scores={"validation": {name: metrics.get(f"eval_{name}") for name in objective.headline}},
            dataset=self.corpus.description["source"],
            dataset_id=made_from.get("dataset_name"),
            dataset_config=made_from.get("dataset_config_name"),
            base_model=self.settings.get("model_name_or_path"),
        )

    def _facts(self) -> dict[str, str]:
        """What the model was trained on, and how long."""
        training = self.corpus.description["splits"]["train"]
        text = f"{training['documents']:,} documents, {training['bytes']:,} bytes, {training['tokens']:,} tokens"
        epochs = "" if self.plan.epochs is None else f" ({self.plan.epochs:.2f} epochs)"
        up_to = "" if self.plan.initial_rows is None else "up to "
        return {
            "data": self.corpus.description["source"],
            "training text": text if self.plan.epochs is not None else f"a stream; its first block has {text}",
            "seen in training": f"{self.plan.total_tokens:,} tokens{epochs} in "
            f"{self.plan.max_steps:,} steps of {up_to}{self.plan.tokens_per_step:,}",
            "parameters": f"{self.parameters:,}",
            "versions": versions(),
        }

    def _settings(self) -> dict[str, Any]:
        """The fields for the card: those that had an effect, and of the text those that it was prepared with."""
        left_out = {*LOCAL_FIELDS, *self.objective.idle_fields, *(field.name for field in fields(DataArguments))}
        left_out |= {"stream", "block_size"}  # of which the prepared text tells, where there is a stream
        if self.settings.get("config_name") or self.settings.get("model_name_or_path"):
            left_out.add("preset")
        chosen = {name: value for name, value in self.settings.items() if name not in left_out}
        made_from = self.corpus.description["made_from"]["settings"]
        return chosen | {name: value for name, value in made_from.items() if name not in LOCAL_FIELDS}


def _usage(objective: Objective, name: str) -> str:
    """Python that loads the tokenizer and the model in each of its roles."""
    classes = (objective.auto_class, *objective.other_auto_classes)
    loads = [f'{auto_class}.from_pretrained("{name}", trust_remote_code=True)' for auto_class in classes]
    lines = [
        f"from transformers import {', '.join(sorted(('AutoTokenizer', *classes)))}",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{name}", trust_remote_code=True)',
        f"model = {loads[0]}",
        *(f"# or, with the same weights: model = {load}" for load in loads[1:]),
    ]
    return "\n".join(lines)
