"""The fields of recipes/benchmark.py, and what is refused."""

from dataclasses import dataclass
from pathlib import Path

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import Options, option

# family -> the head that is trained
HEADS = {"llama": "causal", "gpt2": "causal", "bert": "masked", "modernbert": "masked"}
FAMILIES = tuple(HEADS)
WRITERS = tuple(family for family, head in HEADS.items() if head == "causal")
STOCK_SUBJECTS = ("step", "head", "generate", "trainer")
SUBJECTS = ("prepare_data", "finetune", "pairs", *STOCK_SUBJECTS)


@dataclass
class BenchmarkArguments(Options):
    """What to measure."""

    subject: str = option(
        "prepare_data", "prepare_data, finetune, pairs, step, head, generate or trainer", choices=SUBJECTS
    )
    train_files: list[str] = option([], "a .txt file; for finetune a table of examples; for pairs two .txt files")
    text_column: str = option("sentence", "finetune: the column with the text")
    preset: str = option("tiny", "finetune, pairs: shape of the model")
    batch_size: int | None = option(None, "examples of a training step; 32 for finetune and pairs, else 8", least=1)
    steps: int | None = option(
        None, "training steps of a round; 50 for finetune, 8 for pairs and trainer (after 3 more), else 1", least=1
    )
    cpu_threads: int | None = option(None, "threads to compute with", least=1)
    family: str = option("llama", "the stock class: llama, gpt2, bert or modernbert", choices=FAMILIES)
    num_layers: int = option(6, "beside a stock class: layers of both models", least=1)
    width: int = option(384, "beside a stock class: hidden_size of both, a multiple of 64")
    vocab_size: int = option(32_000, "beside a stock class: size of the vocabulary", least=1)
    length: int = option(256, "beside a stock class: tokens of an example", least=1)
    measure_memory: bool = option(True, "step, trainer: also measure the peak of memory")
    attention: list[str] = option(["sdpa"], "trainer: attention backends, each with sides of its own")
    documents: int = option(1, "trainer with llama: documents packed into a row", least=1)
    torch_compile: bool = option(False, "trainer: compile both models")
    tokenizer_name: str | None = option(None, "folder or Hub id of the tokenizer", folder_or_id=True)
    rounds: int = option(5, "times that each side is measured", least=1)
    output_file: str | None = option(None, "write all measurements as JSON here")

    def check(self) -> None:
        """Refuse values that make no sense; raises RecipeError."""
        super().check()
        if self.subject in STOCK_SUBJECTS:
            if self.subject == "generate" and self.family not in WRITERS:
                raise RecipeError(f"{self.family} writes no text: give --family llama or gpt2.")
            if self.width % 64 or self.width < 64:
                raise RecipeError(f"width is {self.width}: give a multiple of 64, the width of a head.")
            measures_memory = self.subject in ("step", "trainer") and self.measure_memory
            if measures_memory and not Path("/proc/self/status").is_file():
                raise RecipeError("memory is measured on Linux only: give --measure_memory false.")
        else:
            number = 2 if self.subject == "pairs" else 1
            if len(self.train_files) != number or self.tokenizer_name is None:
                raise RecipeError(f"subject {self.subject} needs {number} --train_files and a --tokenizer_name.")
            for name in self.train_files:
                if not Path(name).is_file():
                    raise RecipeError(f"train_files {name!r} is no file: give the path of one.")
        self._check_trainer()
        if self.output_file is not None and not Path(self.output_file).parent.is_dir():
            raise RecipeError(f"output_file {self.output_file!r} is in no folder that there is: make that first.")

    def _check_trainer(self) -> None:
        """Refuse its fields elsewhere, and documents that the two sides would not pack alike."""
        if self.subject != "trainer":
            for name in ("attention", "documents", "torch_compile"):
                if getattr(self, name) != getattr(BenchmarkArguments(), name):
                    raise RecipeError(f"{name} is for --subject trainer: leave it out.")
        if self.documents == 1:
            return
        if self.family != "llama" or self.length % self.documents or self.documents == self.length:
            raise RecipeError(
                "documents of equal length, of two tokens or more, are packed beside --family llama: give a divisor of "
                f"the length {self.length}, not {self.documents}, or leave it out."
            )
        if self.batch_size != 1 and any("flash" in attention for attention in self.attention):
            raise RecipeError(
                "stock classes isolate documents under flash attention in a batch of one row only: give --batch_size 1."
            )
