"""The fields of evaluate_lm.py, and what they may be."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import refuse_unwritable
from weft.recipes.common.options import Options, option
from weft.recipes.data.text_files import DOCUMENTS, check_encoding
from weft.recipes.data.text_source import (
    ENCODING_HELP,
    FORMATS,
    TEXT_COLUMN_HELP,
    SourceArguments,
    TextSource,
    expand_names,
)
from weft.recipes.evaluation.records import RECORD_FORMATS

TASKS = ("perplexity", "minimal-pairs", "last-word", "multiple-choice", "harness")
SCORINGS = ("causal", "masked", "within-word", "diffusion", "continuation")
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass
class EvaluateArguments(Options):
    """Which model to score, on what, and how."""

    model: str = option("runs/pretrain_clm", "folder or Hub id of a language model", folder_or_id=True)
    baseline: str | None = option(
        None,
        "perplexity: a folder of recipes/baselines.py, or of another causal model, that is scored on the same text",
        folder_or_id=True,
    )
    task: str = option("perplexity", f"one of {', '.join(TASKS)}", choices=TASKS)
    files: list[str] = option(
        [],
        "perplexity: text (.txt, .jsonl, .json, .csv, .tsv, .parquet); the others: JSON lines, with "
        "sentence_good and sentence_bad (minimal-pairs), text (last-word), or query, choices and label "
        "(multiple-choice)",
    )
    scoring: str = option(
        "auto",
        "causal: each token given those before it; masked: given all others (pseudo-log-likelihood); "
        "within-word: given all others but the later ones of its word; diffusion: a bound on the probability of the "
        "text, from many tokens masked at once; continuation: given those before it, which an encoder reads, and a "
        "decoder goes on with; auto: as the model was saved, but never diffusion",
        choices=("auto", *SCORINGS),
    )
    text_column: str = option("text", f"perplexity, last-word: {TEXT_COLUMN_HELP}")
    documents: str = option(
        "blank-line",
        "perplexity: what a document is in .txt files: blank-line (separated by blank lines), line (each line) or file",
        choices=DOCUMENTS,
    )
    encoding: str | None = option(None, f"perplexity: {ENCODING_HELP}")
    max_tokens: int | None = option(None, "perplexity: score the first so many tokens of each file only", least=1)
    limit: int | None = option(None, "use the first so many examples of each file or task", least=1)
    delimiter: str = option(" ", "multiple-choice: what stands between query and choice")
    source_prefix: str = option("", "continuation: put before every source, such as the mode '<mode_S>'")
    segmenter: str = option(
        "characters",
        "within-word: what a word is in scripts without blanks: characters, jieba or a function of your "
        "own (module:function)",
    )
    rates: int = option(32, "diffusion: at how many rates each text is masked, an even number", least=2)
    window: int | None = option(None, "longest input, in tokens; the default is what the model is meant for", least=1)
    stride: int | None = option(
        None, "tokens of a longer text scored at each place of the window; the default is half a window", least=1
    )
    tasks: list[str] = option([], "harness: names of lm_eval's tasks")
    include_path: str | None = option(None, "harness: a folder with tasks of your own")
    num_fewshot: int | None = option(None, "harness: solved examples before each question")
    output_file: str | None = option(None, "also write the results here, as JSON")
    tokens_per_batch: int = option(4096, "tokens of one forward pass, padding included", least=1)
    device: str | None = option(None, "cuda, cpu ...; the default is a GPU if there is one")
    dtype: str = option("auto", f"of the weights: {', '.join(DTYPES)} (auto: as saved)", choices=DTYPES)
    trust_remote_code: bool = option(False, "run the code of a model that is not Weft's")

    ONLY_FOR: ClassVar[dict[str, tuple[str, ...]]] = {
        **dict.fromkeys(("max_tokens", "baseline"), ("perplexity",)),
        **dict.fromkeys(("documents", "encoding"), ("perplexity",)),
        "text_column": ("perplexity", "last-word"),
        "delimiter": ("multiple-choice",),
        **dict.fromkeys(("tasks", "include_path", "num_fewshot"), ("harness",)),
        "files": TASKS[:-1],
    }

    def __post_init__(self) -> None:
        self.files = expand_names("files", self.files, FORMATS if self.task == "perplexity" else RECORD_FORMATS)

    def check(self, parsed: Parsed) -> None:
        """Raises RecipeError where a field is out of range, has no effect, or names what is not there."""
        super().check()
        for name, tasks in self.ONLY_FOR.items():
            if name in parsed.given and self.task not in tasks:
                raise RecipeError(f"{name} has no effect on {self.task}: it is for {' and '.join(tasks)}.")
        if "segmenter" in parsed.given and self.scoring != "within-word":
            raise RecipeError("segmenter has no effect without scoring within-word: give that too, or leave it out.")
        self._check_diffusion(parsed)
        parsed.refuse_together(
            ("max_tokens",), "baseline", "each model would cut the text at another place; give limit"
        )
        if self.baseline is not None and self.scoring not in ("auto", "causal"):
            raise RecipeError(f"baseline is scored causally, and the model {self.scoring}: leave one of them out.")
        needed = "tasks" if self.task == "harness" else "files"
        if not getattr(self, needed):
            raise RecipeError(f"no {needed} are given: {self.task} needs --{needed}.")
        check_encoding(self.encoding)
        if self.task == "perplexity":
            for source in self.sources():
                source.check()
        if self.include_path is not None and not Path(self.include_path).is_dir():
            raise RecipeError(f"include_path {self.include_path} is no folder: give one with the YAML files of tasks.")
        if self.output_file is not None and Path(self.output_file).exists():
            raise RecipeError(f"{self.output_file} exists: name another output_file, or remove it.")
        if self.output_file is not None:
            refuse_unwritable(Path(self.output_file).parent)  # now, rather than when there are results to lose
            Path(self.output_file).parent.mkdir(parents=True, exist_ok=True)

    def _check_diffusion(self, parsed: Parsed) -> None:
        if self.scoring != "diffusion":
            if "rates" in parsed.given:
                raise RecipeError("rates has no effect without scoring diffusion: give that too, or leave it out.")
            return
        if self.rates % 2:
            raise RecipeError(f"rates is {self.rates}: give an even number, for pairs tell how sure the bound is.")
        if self.task == "last-word":
            raise RecipeError(
                "last-word asks for the most likely token, of which diffusion says nothing: give --scoring masked."
            )

    def sources(self) -> list[TextSource]:
        """The texts of perplexity."""
        text = SourceArguments(
            self.files, text_column=self.text_column, documents=self.documents, encoding=self.encoding
        )
        return text.sources()
