"""What a model of embeddings, or a reranker, is set up for, and what its card says of it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from weft.recipes.finetuning.best_metric import BestMetric
from weft.recipes.finetuning.embeddings.arguments import EmbeddingFiles
from weft.recipes.finetuning.embeddings.evaluation_sets import EvaluationSet
from weft.recipes.finetuning.embeddings.reading import KNOWN, Row
from weft.recipes.finetuning.embeddings.scoring import headline_of
from weft.recipes.finetuning.task import ModelTask, label_fields
from weft.recipes.training.card_fields import languages


class EmbeddingTask(ModelTask):
    """Texts become vectors."""

    summary = "An embedding model: texts of like meaning have vectors in like directions."
    auto_class = "AutoModel"
    class_name: ClassVar[str] = "SentenceTransformer"  # of the library
    pipeline_tag = "sentence-similarity"
    library = "sentence-transformers"
    program: ClassVar[str] = """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}", trust_remote_code=True)
texts = ["The river rises in spring.", "A loaf of bread costs two coins."]
vectors = model.encode_document(texts)
query = model.encode_query("When is there much water in the river?")
print(model.similarity(query, vectors))"""

    def __init__(self, rows: Sequence[Row], sets: Mapping[str, EvaluationSet], files: EmbeddingFiles) -> None:
        """Args:
        rows: of the training split.
        sets: what is scored, by name; the validation set chooses the weights.
        """
        self._texts = list(dict.fromkeys(text for row in rows for text in row.texts))
        self.known, self.language = KNOWN.get(str(files.task)), languages(files.card_language)
        self.headline = tuple(dict.fromkeys(metric for one in sets.values() for metric in headline_of(one)))
        self.best_metric = BestMetric(headline_of(sets["validation"])[0])

    def texts(self) -> Iterator[str]:
        """Each text once."""
        return iter(self._texts)

    def usage(self, name: str) -> str:
        return self.program.format(name=name)


class RerankerTask(EmbeddingTask):
    """Two texts become one score, by a head with one output."""

    summary = "A reranker: it scores how well a text answers a query."
    auto_class = "AutoModelForSequenceClassification"
    class_name = "CrossEncoder"
    pipeline_tag = "text-ranking"
    program = """from sentence_transformers import CrossEncoder

model = CrossEncoder("{name}", trust_remote_code=True)
texts = ["The river rises in spring.", "A loaf of bread costs two coins."]
for found in model.rank("When is there much water in the river?", texts):
    print(found["score"], texts[found["corpus_id"]])"""

    def align_labels(self, config: PreTrainedConfig) -> bool:
        return (config.architectures or [""])[0].endswith("Classification") and config.num_labels == 1

    def config_fields(self) -> dict[str, Any]:
        return label_fields(["relevance"])
