"""The end of a run of embeddings: the best seed's model in a folder that loads anywhere, and how it did."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from weft.recipes.common.files import read_json, write_json
from weft.recipes.data.language import language_of_script
from weft.recipes.finetuning.best_weights import WEIGHTS, load_weights
from weft.recipes.finetuning.curve import plot_seeds
from weft.recipes.finetuning.embeddings.arguments import BM25, FASTTEXT, EmbeddingFiles
from weft.recipes.finetuning.embeddings.evaluation_sets import EvaluationSet, RetrievalSet, SimilaritySet
from weft.recipes.finetuning.embeddings.scoring import Judged, headline_of, judge
from weft.recipes.finetuning.embeddings.seeds import EmbeddingSeeds
from weft.recipes.finetuning.embeddings.sides import Bm25, Side, WordVectors
from weft.recipes.finetuning.embeddings.trainer import side_of
from weft.recipes.finetuning.embeddings.usage import usage_of
from weft.recipes.finetuning.known_tasks import KnownTask
from weft.recipes.finetuning.model_card import results_section
from weft.recipes.finetuning.plots import plot_scatter, plot_sides
from weft.recipes.finetuning.report import LOCAL_FIELDS, over_seeds, remove_leftovers
from weft.recipes.finetuning.report_files import write_csv
from weft.recipes.finetuning.trainer import SeedResult
from weft.recipes.training.card_fields import languages
from weft.recipes.training.figures import titled
from weft.recipes.training.metric_format import text_of, words_of
from weft.recipes.training.model_card import Card, published_name, versions
from weft.recipes.training.run_folder import METRICS, SETTINGS, finished_folder

THIS, BEFORE = "this model", "before training"
FEWEST = 100  # queries or pairs, from which on a score is known well
LOCAL = (*LOCAL_FIELDS, "evaluation_files")
RANGES = {"spearmanr": (-1.0, 1.0)}


@dataclass
class FinishedEmbeddings:
    """What the seeds have come to.

    Attributes:
        sets: what is scored, by name; the validation set chooses the weights.
        texts: of the training split, from which word vectors are learnt.
        settings: for the card.
    """

    seed_run: EmbeddingSeeds
    sets: dict[str, EvaluationSet]
    files: EmbeddingFiles
    known: KnownTask | None
    texts: list[str]
    settings: dict[str, Any]
    results: list[SeedResult]

    def __post_init__(self) -> None:
        self.start, self.arguments = self.seed_run.start, self.seed_run.arguments
        self.embedding, self.folder = self.seed_run.embedding, Path(str(self.arguments.output_dir))
        self.metric = self.seed_run.best_metric

    def write(self) -> None:
        """Write the finished folder (metrics.json last) with the model of the best seed."""
        best = self.results[0]
        for result in self.results[1:]:
            best = result if self.metric.chooses(result.metrics, best.metrics) else best
        device = "cuda" if torch.cuda.is_available() and not self.settings.get("use_cpu") else "cpu"
        with finished_folder(self.folder) as staging:
            model = self._model_of(best.seed)
            model.to(device).eval()
            model.save_pretrained(str(staging), create_model_card=False)
            judged = self._judge(model, device, best.seed)
            metrics = self._metrics(model, judged, best)
            sections = {name: self._write_set(staging, name, sides) for name, sides in judged.items()}
            self._plot(judged, staging)
            self._card(model, metrics, sections, best).write(staging / "README.md")
            self._reopen()
        write_json(self.folder / METRICS, metrics)
        remove_leftovers(self.folder)
        for note in metrics["notes"]:
            print(f"note: {note}")
        print(self._last_line(judged["validation"], model))

    def _model_of(self, seed: int) -> Any:
        """The model with the best weights of a seed, or that of a finished run to which seeds were added."""
        weights = self.folder / f"seed-{seed}" / WEIGHTS
        if not weights.is_file():
            import sentence_transformers

            name = "CrossEncoder" if self.embedding.reranker else "SentenceTransformer"
            options = {"device": "cpu", "local_files_only": True, "trust_remote_code": self.start.trusted}
            return getattr(sentence_transformers, name)(str(self.folder), **options)
        model = self.start.make(seed)
        load_weights(model, weights)
        return model

    def _reopen(self) -> None:
        """Have a finished run to which seeds were added count as begun, with these, until it is finished again."""
        (self.folder / METRICS).unlink(missing_ok=True)
        noted, seeds = read_json(self.folder / SETTINGS), [result.seed for result in self.results]
        if noted["seeds"] != seeds:
            write_json(self.folder / SETTINGS, {**noted, "seeds": seeds})

    def _judge(self, model: Any, device: str, seed: int) -> dict[str, dict[str, Judged]]:
        """How each side does on each set, the model first."""
        size = self.arguments.per_device_eval_batch_size
        sides: dict[str, Side] = {THIS: side_of(model, size)}
        for numbers in sorted(set(self.embedding.matryoshka), reverse=True):
            sides[f"its first {numbers} numbers"] = side_of(model, size, numbers)
        if self.start.arguments.model_name_or_path is not None and not self.embedding.reranker:
            sides[BEFORE] = side_of(self.start.make(seed).to(device).eval(), size)
        if BM25 in self.files.baselines:
            sides["BM25"] = Bm25()
        if FASTTEXT in self.files.baselines:
            sides["FastText"] = WordVectors(self.texts, self.files.split_seed)
        return {
            name: {title: judge(side, evaluation) for title, side in sides.items()}
            for name, evaluation in self.sets.items()
        }

    def _metrics(self, model: Any, judged: dict[str, dict[str, Judged]], best: SeedResult) -> dict[str, Any]:
        plan, metrics = self.seed_run.plan, {}
        for name, sides in judged.items():
            prefix = "eval_" if name == "validation" else f"{name}_"
            metrics |= {f"{prefix}{metric}": value for metric, value in sides[THIS].metrics.items()}
        return metrics | {
            "seed": best.seed,
            "steps": best.steps,
            "best_step": best.step,
            "epochs": round(best.steps * plan.items_per_step / plan.items, 4),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "train_examples": len(self.seed_run.rows),
            "examples_per_second": best.examples_per_second,
            "seconds": best.seconds,
            "seeds": [{"seed": r.seed, "best_step": r.step, "seconds": r.seconds, **r.metrics} for r in self.results],
            "over_seeds": over_seeds(self.results),
            "baselines": {
                name: [{"answer": title, **side.metrics} for title, side in sides.items() if title != THIS]
                for name, sides in judged.items()
            },
            "intervals": {},
            "notes": self._notes(judged["validation"]),
        }

    def _notes(self, sides: dict[str, Judged]) -> list[str]:
        """What should be known before the scores are relied on."""
        evaluation, name = self.sets["validation"], self.metric.name
        value, notes = sides[THIS].metrics[name], []
        better = {title: side.metrics[name] for title, side in sides.items() if side.metrics[name] >= value}
        better = {title: reached for title, reached in better.items() if title in (BEFORE, "BM25", "FastText")}
        for title, reached in better.items():
            notes.append(
                f"{words_of(name)} {text_of(name, value)} is no better than {text_of(name, reached)} of {title}: train "
                "longer (num_train_epochs), on more examples, with another learning_rate, or from another model"
            )
        number = len(evaluation.queries if isinstance(evaluation, RetrievalSet) else evaluation.scores)
        if number < FEWEST:
            notes.append(f"{evaluation.describe()} are few, so that {words_of(name)} is known roughly only")
        return notes

    def _write_set(self, folder: Path, name: str, sides: dict[str, Judged]) -> str:
        """Write what the model answered on a set; say in Markdown what was asked."""
        evaluation, given = self.sets[name], sides[THIS].given
        place = folder if name == "validation" else folder / name
        place.mkdir(exist_ok=True)
        shown = "" if name == "validation" else f"{name}/"
        if isinstance(evaluation, SimilaritySet):
            rows = zip(evaluation.firsts, evaluation.seconds, evaluation.scores, map(float, given))
            write_csv(place / "predictions.csv", ("text 1", "text 2", "score", "model"), rows)
            plot_scatter(place / "scatter.png", np.array(evaluation.scores), np.asarray(given))
            return f"{evaluation.describe()}; each is in `{shown}predictions.csv`.\n\n![scores]({shown}scatter.png)"
        wrong = [
            (query, evaluation.documents[min(relevant)], evaluation.documents[places[0]], _rank(places, relevant))
            for query, relevant, places in zip(evaluation.queries, evaluation.relevant, given)
            if places[0] not in relevant
        ]
        write_csv(place / "mistakes.csv", ("query", "right text", "text found first", "rank of the right one"), wrong)
        return (
            f"{evaluation.describe()}. Those whose first text does not belong to them ({len(wrong):,}) are in "
            f"`{shown}mistakes.csv`."
        )

    def _plot(self, judged: dict[str, dict[str, Judged]], folder: Path) -> None:
        name, sides = self.metric.name, judged["validation"]
        value = sides[THIS].metrics[name]
        others = [side.metrics[name] for title, side in sides.items() if title in ("BM25", "FastText")]
        with titled(f"{self.folder.resolve().name}, validation: {words_of(name)} {text_of(name, value)}"):
            limits = RANGES.get(name, (0.0, 1.0))
            plot_seeds(self.results, name, folder / "curve.png", limits, max(others, default=None))
        tables = {
            f"{split}, {words_of(headline_of(self.sets[split])[0])}": {
                title: side.metrics[headline_of(self.sets[split])[0]] for title, side in found.items()
            }
            for split, found in judged.items()
        }
        plot_sides(folder / "sides.png", tables)

    def _card(self, model: Any, metrics: dict[str, Any], sections: dict[str, str], best: SeedResult) -> Card:
        name, per_step = self.arguments.push_to_hub or str(self.folder), self.seed_run.plan.items_per_step
        headline = tuple(dict.fromkeys(metric for one in self.sets.values() for metric in headline_of(one)))
        source = self.settings.get("task") or self.settings.get("dataset_name")
        reports = results_section(metrics, headline, self.metric.name, sections) + "\n\n![scores](sides.png)"
        own = Path(self.settings.get("train_file") or "").name or "examples of its own"
        language = languages(self.files.card_language) or (self.known.language if self.known else None)
        others = {Path(file).stem for file in self.files.evaluation_files}
        prefixes = {split: "eval_" if split == "validation" else f"{split}_" for split in sections}
        return Card(
            title=Path(name).name,
            summary="A reranker: it scores how well a text answers a query."
            if self.embedding.reranker
            else "An embedding model: texts of like meaning have vectors in like directions.",
            usage=usage_of(published_name(self.arguments.push_to_hub), self.embedding),
            facts={
                "rows": source or own,
                "learnt from": f"{len(self.seed_run.rows):,} {self.seed_run.kind}",
                "start": self.start.source,
                "vector": " -> ".join(type(module).__name__ for module in model),
                "training": f"{best.steps:,} steps of {per_step} rows; the weights of step {best.step:,} are kept",
                "versions": versions(),
            },
            curve="learning curve",
            sections={"Results": reports},
            settings={name: value for name, value in self.settings.items() if name not in LOCAL},
            pipeline_tag="text-ranking" if self.embedding.reranker else "sentence-similarity",
            scores={
                split: {m: metrics[f"{prefix}{m}"] for m in headline if f"{prefix}{m}" in metrics}
                for split, prefix in prefixes.items()
                if split not in others  # which are of other data sets
            },
            dataset=source or own,
            dataset_id=self.known.hub if self.known else self.settings.get("dataset_name"),
            dataset_config=self.known.hub_config if self.known else self.settings.get("dataset_config_name"),
            base_model=self.start.arguments.model_name_or_path,
            language=language or language_of_script(iter(self.texts)),
            license=self.arguments.license,
            library="sentence-transformers",
        )

    def _last_line(self, sides: dict[str, Judged], model: Any) -> str:
        figures = []
        for name in headline_of(self.sets["validation"]):
            others = [f"{title} {text_of(name, side.metrics[name])}" for title, side in sides.items() if title != THIS]
            beside = f" ({', '.join(others)})" if others and name == self.metric.name else ""
            figures.append(f"{words_of(name)} {text_of(name, sides[THIS].metrics[name])}{beside}")
        return f"finished: {self.folder} loads with {type(model).__name__}(...); {'; '.join(figures)}"


def _rank(places: list[int], relevant: set[int]) -> str:
    """The place of the first right text in a ranking, from 1."""
    found = next((rank for rank, place in enumerate(places, start=1) if place in relevant), math.inf)
    return str(found) if found < math.inf else f"over {len(places)}"
