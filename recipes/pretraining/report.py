"""The end of a run: the folder that loads anywhere, with its metrics, curve and model card."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from weft.recipes.common.files import write_json
from weft.recipes.common.processes import is_first_process
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.language import language_of_script
from weft.recipes.pretraining.curve import plot_curve
from weft.recipes.pretraining.judgement import notes_of
from weft.recipes.pretraining.objectives.base import Objective
from weft.recipes.pretraining.setup import PretrainingRun
from weft.recipes.pretraining.stream_dataset import StreamRows
from weft.recipes.pretraining.trainer import PretrainingTrainer
from weft.recipes.pretraining.validation import RowEvaluator
from weft.recipes.pretraining.validation_files import losses_on_files, whole_of
from weft.recipes.training.card_fields import languages
from weft.recipes.training.figures import titled
from weft.recipes.training.metric_format import in_order, median_of, text_of, words_of
from weft.recipes.training.model_card import Card, metrics_table, notes_section, published_name, versions
from weft.recipes.training.run_folder import METRICS, finished_folder

SAMPLE_TEXTS, SAMPLE_TOKENS = 100, 500  # held-out documents, and tokens of each, that tell the language
# Fields of this machine, which are not for the card.
LOCAL_FIELDS = ("output_dir", "data", "train_files", "validation_files", "plan")


def write_report(run: PretrainingRun, trainer: PretrainingTrainer) -> None:
    """Evaluate, and write the finished folder (metrics.json last)."""
    history = trainer.state.log_history
    evaluated = [entry for entry in history if "eval_loss" in entry and entry["step"] == run.plan.max_steps]
    found = evaluated[-1] if evaluated else trainer.evaluate()
    with trainer.published_weights():
        model = trainer.whole_model()
        if not is_first_process():
            return
        metrics = {name: value for name, value in found.items() if name.startswith("eval_")}
        metrics |= _metrics_of_training(run, history)
        with finished_folder(run.folder) as staging:
            model.eval()
            model.save_pretrained(staging)
            run.tokenizer.save_pretrained(staging)
            run.objective.write_beside(staging)
            notes = _notes(run, trainer, metrics)
            files = losses_on_files(run.evaluator)
            with titled(f"{run.folder.resolve().name}: {_figures(run.objective, metrics)}"):
                plot_curve(history, run.objective.parts, run.plan.tokens_before, staging / "curve.png", files)
            _card(run, model, metrics, notes).write(staging / "README.md")
            trainer.state.save_to_json(str(staging / "trainer_state.json"))
        write_json(run.folder / METRICS, {**metrics, "notes": notes})
    for note in notes:
        print(f"note: {note}")
    loads = f"{run.folder} loads with {run.objective.auto_class}.from_pretrained"
    print(f"finished: {loads}; {_figures(run.objective, metrics)}")


def _figures(objective: Objective, metrics: dict[str, Any]) -> str:
    named = [(name, metrics.get(f"eval_{name}")) for name in objective.headline]
    return "; ".join(
        f"{words_of(name)} {text_of(name, value, objective.formats)}" for name, value in named if value is not None
    )


def _notes(run: PretrainingRun, trainer: PretrainingTrainer, metrics: dict[str, Any]) -> list[str]:
    evaluator = whole_of(trainer.evaluator)
    error = evaluator.loss_error(trainer.args.world_size) if isinstance(evaluator, RowEvaluator) else None
    held_out = run.corpus.description["splits"]["validation"]
    return notes_of(trainer.state.log_history, held_out, metrics["eval_loss"], error, run.settings)


def _metrics_of_training(run: PretrainingRun, history: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "train_loss": next((entry["loss"] for entry in reversed(history) if "loss" in entry), None),
        "steps": run.plan.max_steps,
        "tokens": run.plan.total_tokens,
        "epochs": None if run.plan.epochs is None else round(run.plan.epochs, 4),
        "parameters": run.parameters.total,
        "tokens_per_second": median_of(history, "tokens_per_second"),
        "mfu": median_of(history, "mfu"),
        "matmul_gflops": round(run.peak_flops / 1e9, 1),
    }


def _card(run: PretrainingRun, model: PreTrainedModel, metrics: dict[str, Any], notes: list[str]) -> Card:
    objective, formats, description = run.objective, run.objective.formats, run.corpus.description
    name, made_from = run.arguments.push_to_hub or str(run.folder), description["made_from"]["settings"]
    samples = objective.make_samples(model, run.tokenizer, run.arguments.sample_prompt, run.corpus)
    of_run = {name: value for name, value in metrics.items() if not name.startswith("eval_")}
    return Card(
        title=Path(name).name,
        summary=objective.summary,
        usage_heading="How to load it",
        usage=_usage(objective, published_name(run.arguments.push_to_hub)),
        facts=_facts(run),
        curve="loss over tokens",
        sections={
            "Metrics on the held-out text": metrics_table(in_order(metrics, "eval_", formats), formats)
            + notes_section(notes),
            "The run": metrics_table(in_order(of_run, "", formats), formats),
            **({"Samples": "\n\n".join(map(_quoted, samples))} if samples else {}),
        },
        settings=_settings(run),
        pipeline_tag=objective.pipeline_tag,
        scores={"validation": {name: metrics.get(f"eval_{name}") for name in objective.headline}},
        dataset=description["source"],
        dataset_id=made_from.get("dataset_name"),
        dataset_config=made_from.get("dataset_config_name"),
        base_model=run.settings.get("model_name_or_path"),
        language=languages(run.arguments.language) or _language_of(run),
        license=run.arguments.license,
    )


def _language_of(run: PretrainingRun) -> str | None:
    """The language of the text: English where it is Python's own, else as the script of held-out text says it."""
    made_from = run.corpus.description["made_from"]["settings"]
    if not made_from.get("train_files") and not made_from.get("dataset_name"):
        return "en"
    corpus = run.corpus
    spans = [
        (int(corpus.offsets[n]), int(corpus.offsets[n + 1])) for n in corpus.documents("validation")[:SAMPLE_TEXTS]
    ]
    ids = (corpus.tokens[first : min(last, first + SAMPLE_TOKENS)].tolist() for first, last in spans)
    return language_of_script(run.tokenizer.decode(row, skip_special_tokens=True) for row in ids)


def _read_to(run: PretrainingRun) -> str:
    """The pass over a stream in which the run ended."""
    return f", read to pass {run.rows.pass_of(run.plan.num_rows - 1)}" if isinstance(run.rows, StreamRows) else ""


def _facts(run: PretrainingRun) -> dict[str, str]:
    """What the model was trained on, and how long."""
    plan, training = run.plan, run.corpus.description["splits"]["train"]
    text = f"{training['documents']:,} documents, {training['bytes']:,} bytes, {training['tokens']:,} tokens"
    epochs = "" if plan.epochs is None else f" ({plan.epochs:.2f} epochs)"
    up_to = "" if plan.initial_rows is None else "up to "
    return {
        "data": run.corpus.description["source"],
        "training text": text if plan.epochs is not None else f"a stream{_read_to(run)}; its first block has {text}",
        "seen in training": f"{plan.total_tokens:,} tokens{epochs} in {plan.max_steps:,} steps of {up_to}"
        f"{plan.tokens_per_step:,}",
        "parameters": f"{run.parameters.total:,}",
        **({} if run.teacher is None else {"teacher": run.teacher.describe()}),
        "versions": versions(),
    }


def _settings(run: PretrainingRun) -> dict[str, Any]:
    """The fields for the card: those that had an effect, and those that the text was prepared with."""
    settings = run.settings | run.extras | run.hyperparameters()
    left_out = {*LOCAL_FIELDS, *run.objective.idle_fields, *(field.name for field in fields(DataArguments))}
    left_out |= {"stream", "block_size"}  # of which the prepared text tells, where there is a stream
    if settings.get("config_name") or settings.get("model_name_or_path"):
        left_out.add("preset")
    chosen = {name: value for name, value in settings.items() if name not in left_out}
    of_text = run.corpus.description["made_from"]["settings"]
    chosen |= {name: value for name, value in of_text.items() if name not in LOCAL_FIELDS}
    return chosen | ({"source_weights": settings["source_weights"]} if settings.get("source_weights") else {})


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


def _quoted(text: str) -> str:
    return "```text\n" + text.replace("```", "'''").strip() + "\n```"
