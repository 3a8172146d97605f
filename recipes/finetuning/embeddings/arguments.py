"""What a user says of embeddings: the texts, what is learnt from them, and how a model becomes a vector."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import Options, option
from weft.recipes.data.tables import check_table
from weft.recipes.data.text_files import DOCUMENTS
from weft.recipes.finetuning.arguments import LARGEST_SEED, FileArguments, FineTuningArguments

PAIRS, TRIPLETS, SCORED, LABELLED, TEXT = KINDS = ("pairs", "triplets", "scored", "labelled", "text")
ENTAILMENT = "entailment"  # a kind of files: their rows are pairs or triplets
TITLE, SIMCSE, TSDAE = UNSUPERVISED = ("title", "simcse", "tsdae")
BM25, FASTTEXT, NONE = BASELINES = ("bm25", "fasttext", "none")
AUTO, MEAN, LAST_TOKEN = "auto", "mean", "lasttoken"
POOLING = (AUTO, MEAN, LAST_TOKEN, "cls", "max", "weightedmean")
PYDOC = "pydoc"  # the task that Python carries
RERANKER_NEGATIVES = 4
USUAL_LENGTH = 256
LEARNING_RATE, OF_NEW = 1e-4, 1e-3
SPLITS = ("train", "validation", "eval")


@dataclass
class EmbeddingFiles(FileArguments):
    """Where the texts are, and what they are."""

    command: ClassVar[str | None] = "finetune_embeddings"

    kind: str | None = option(
        None,
        "what a row is: pairs (a text and one that belongs to it), triplets (and others that do not), scored (two "
        "texts and how alike they are), labelled (a text and its class), text, or entailment (two texts, of which the "
        "second follows from the first or contradicts it); without it the columns tell",
        choices=(*KINDS, ENTAILMENT),
    )
    columns: list[str] = option(
        [], "the columns in this order: text, text that belongs to it, texts that do not; score or label last"
    )
    documents: str = option(
        "blank-line",
        "what a document is in .txt files: blank-line (separated by blank lines), line (each line) or file",
        choices=DOCUMENTS,
    )
    unsupervised: str = option(
        TITLE,
        "what is learnt from text alone: title (to find a document by its title or first sentence), simcse (a text is "
        "near itself under another dropout) or tsdae (to restore a text from the vector of its ruins)",
        choices=UNSUPERVISED,
    )
    evaluation_files: list[str] = option(
        [], "further files, of any kind, that the model is scored on before and after training"
    )
    hard_negatives: int | None = option(
        None,
        "for each pair so many texts that BM25 finds and that do not belong to it, to learn from; the default is "
        f"{RERANKER_NEGATIVES} for a reranker, and 0 else",
        least=0,
    )
    distractors: int = option(
        1000, "texts of the training split that are searched too when the other splits are scored", least=0
    )
    baselines: list[str] = option(
        [BM25, FASTTEXT],
        "what is scored beside the model: bm25, fasttext (averaged word vectors) or none",
        choices=BASELINES,
    )

    def check_files(self) -> None:
        """Refuse sources that contradict each other and files that cannot be read; raises RecipeError."""
        super().check_files()
        if NONE in self.baselines and len(self.baselines) > 1:
            raise RecipeError("baselines has none beside others: give none alone, or leave it out.")
        for name in self.evaluation_files:
            check_table(Path(name), self.formats())
        names = [Path(name).stem for name in self.evaluation_files]
        taken = (*SPLITS, *(["test"] if self.test_file else []))
        repeated = [name for name in names if names.count(name) > 1 or name in taken]
        if repeated:
            raise RecipeError(
                f"evaluation_files has a file called {repeated[0]!r}, which is the name of another: their scores go by "
                "these names, so give each file its own."
            )

    def local_files(self) -> list[Path]:
        """The files that were given one by one."""
        return [*super().local_files(), *map(Path, self.evaluation_files)]


@dataclass
class EmbeddingTraining(FineTuningArguments):
    """Length, batch and schedule of the training, and what is done with the result."""

    per_device_train_batch_size: int = option(
        64, "rows of one forward pass of a process; each text is told from the others of the batch", least=2
    )
    learning_rate: float | None = option(
        None, f"the highest learning rate; the default is {LEARNING_RATE:g}, and {OF_NEW:g} for a new model", above=0
    )
    max_length: int | None = option(
        None,
        f"tokens of a text at most; the default is {USUAL_LENGTH}, the model's limit where that is less, and an "
        "embedding model's own",
        least=1,
    )
    seeds: list[int] = option([], "train once with each of these; the default is one seed", least=0, most=LARGEST_SEED)

    def seeds_for(self, examples: int) -> list[int]:
        """The seeds to train with."""
        return self.seeds or [1]


@dataclass
class EmbeddingArguments(Options):
    """How a text becomes a vector, and what is asked of it."""

    reranker: bool = option(False, "train a model that reads two texts at once and scores them (a cross-encoder)")
    pooling: str = option(
        AUTO,
        "what of a text's tokens makes its vector: mean, lasttoken, cls, max or weightedmean; auto is mean, and "
        "lasttoken for a model that looks at earlier tokens only",
        choices=POOLING,
    )
    normalize: bool = option(True, "give vectors the length 1")
    matryoshka: list[int] = option(
        [], "smaller sizes, of which the first numbers of a vector are good too, e.g. 256 128 64", least=1
    )
    temperature: float = option(
        0.05, "by which cosines are divided in the loss of pairs and of scores", above=0, rare=True
    )
    mini_batch_size: int | None = option(
        None,
        "texts of one forward pass, where the batch is larger than memory: the gradients of the vectors are kept, and "
        "the texts read twice (GradCache; pairs and triplets)",
        least=1,
    )
    query_prompt: str | None = option(None, "what is put before the first text of a pair", rare=True)
    document_prompt: str | None = option(None, "what is put before the texts that are searched", rare=True)

    def check_with(self, files: EmbeddingFiles) -> None:
        """Refuse what contradicts each other; raises RecipeError."""
        self.check()
        for name in ("matryoshka", "mini_batch_size", "query_prompt", "document_prompt"):
            if self.reranker and getattr(self, name):
                raise RecipeError(f"{name} is given, which a reranker has no use for: leave it or reranker out.")
        if self.reranker and self.pooling != AUTO:
            raise RecipeError("pooling is given, and a reranker reads its head instead: leave it or reranker out.")
        if self.reranker and files.unsupervised != TITLE:
            raise RecipeError(f"unsupervised is {files.unsupervised}, and a reranker learns from pairs: give title.")
