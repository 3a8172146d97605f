"""The end of a run of embeddings: the best seed's model in a folder that loads anywhere, and how it did."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from weft.recipes.finetuning.embeddings.arguments import BM25, FASTTEXT, EmbeddingFiles
from weft.recipes.finetuning.embeddings.evaluation_sets import EvaluationSet, RetrievalSet, SimilaritySet
from weft.recipes.finetuning.embeddings.scoring import Judged, headline_of, judge
from weft.recipes.finetuning.embeddings.seeds import EmbeddingSeeds
from weft.recipes.finetuning.embeddings.sides import Bm25, Side, WordVectors
from weft.recipes.finetuning.embeddings.trainer import side_of
from weft.recipes.finetuning.model_card import prefix_of
from weft.recipes.finetuning.plots import plot_scatter, plot_sides
from weft.recipes.finetuning.report import FinishedRun
from weft.recipes.finetuning.report_files import write_csv
from weft.recipes.finetuning.trainer import SeedResult
from weft.recipes.training.metric_format import range_of, text_of, words_of

THIS, BEFORE = "this model", "before training"
FEWEST = 100  # queries or pairs, from which on a score is known well


@dataclass
class FinishedEmbeddings(FinishedRun):
    """What the seeds have come to.

    Attributes:
        sets: what is scored, by name; the validation set chooses the weights.
    """

    seed_run: EmbeddingSeeds
    sets: dict[str, EvaluationSet]
    files: EmbeddingFiles

    unit: ClassVar[str] = "rows"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.start, self.embedding = self.seed_run.start, self.seed_run.embedding

    def _published(self) -> Any:
        import sentence_transformers

        options = {"device": "cpu", "local_files_only": True, "trust_remote_code": self.start.trusted}
        return getattr(sentence_transformers, self.task.class_name)(str(self.folder), **options)

    def _report(self, model: Any, staging: Path, best: SeedResult) -> dict[str, Any]:
        model.save_pretrained(str(staging), create_model_card=False)
        self.judged = self._judge(model, best.seed)
        metrics = {
            f"{prefix_of(name)}{metric}": value
            for name, sides in self.judged.items()
            for metric, value in sides[THIS].metrics.items()
        }
        metrics |= self._training_metrics(model, best, len(self.seed_run.rows))
        metrics["baselines"] = {
            name: [{"answer": title, **side.metrics} for title, side in sides.items() if title != THIS]
            for name, sides in self.judged.items()
        }
        metrics |= {"intervals": {}, "notes": self._notes(self.judged["validation"])}
        sections = {name: self._write_set(staging, name, sides) for name, sides in self.judged.items()}
        self._plot_sides(staging)
        sections[[*sections][-1]] += "\n\n![scores](sides.png)"
        facts = {
            "rows": self._data("train_file"),
            "learnt from": f"{len(self.seed_run.rows):,} {self.seed_run.kind}",
            "start": self.start.source,
            "vector": " -> ".join(type(module).__name__ for module in model),
        }
        card = self._card(metrics, sections, best, facts)
        others = {Path(file).stem for file in self.files.evaluation_files}  # which are of other data sets
        card = replace(card, scores={split: of for split, of in card.scores.items() if split not in others})
        card.write(staging / "README.md")
        return metrics

    def _judge(self, model: Any, seed: int) -> dict[str, dict[str, Judged]]:
        """How each side does on each set, the model first."""
        size = self.arguments.per_device_eval_batch_size
        sides: dict[str, Side] = {THIS: side_of(model, size)}
        for numbers in sorted(set(self.embedding.matryoshka), reverse=True):
            sides[f"its first {numbers} numbers"] = side_of(model, size, numbers)
        if self.start.arguments.model_name_or_path is not None and not self.embedding.reranker:
            sides[BEFORE] = side_of(self.start.make(seed).to(model.device).eval(), size)
        if BM25 in self.files.baselines:
            sides["BM25"] = Bm25()
        if FASTTEXT in self.files.baselines:
            sides["FastText"] = WordVectors([*self.task.texts()], self.files.split_seed)
        return {
            name: {title: judge(side, evaluation) for title, side in sides.items()}
            for name, evaluation in self.sets.items()
        }

    def _notes(self, sides: dict[str, Judged]) -> list[str]:
        """What should be known before the scores are relied on."""
        evaluation, name = self.sets["validation"], self.task.best_metric.name
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

    def _plot_sides(self, folder: Path) -> None:
        """The learning curves, and each side's first metric on each set as bars."""
        name, sides = self.task.best_metric.name, self.judged["validation"]
        others = [side.metrics[name] for title, side in sides.items() if title in ("BM25", "FastText")]
        limits = range_of(name) or (0.0, 1.0)
        self._plot(folder, sides[THIS].metrics, limits, max(others, default=None))
        tables = {
            f"{split}, {words_of(name)}": {title: side.metrics[name] for title, side in found.items()}
            for split, found in self.judged.items()
            for name in headline_of(self.sets[split])[:1]
        }
        plot_sides(folder / "sides.png", tables)

    def _last_line(self, metrics: dict[str, Any]) -> str:
        figures, sides = [], self.judged["validation"]
        for name in headline_of(self.sets["validation"]):
            others = [f"{title} {text_of(name, side.metrics[name])}" for title, side in sides.items() if title != THIS]
            beside = f" ({', '.join(others)})" if others and name == self.task.best_metric.name else ""
            figures.append(f"{words_of(name)} {text_of(name, sides[THIS].metrics[name])}{beside}")
        return f"{self.task.class_name}(...); {'; '.join(figures)}"


def _rank(places: list[int], relevant: set[int]) -> str:
    """The place of the first right text in a ranking, from 1."""
    found = (str(rank) for rank, place in enumerate(places, start=1) if place in relevant)
    return next(found, f"over {len(places)}")
