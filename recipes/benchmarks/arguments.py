"""The fields of recipes/benchmark.py, and what is refused."""

from dataclasses import dataclass
from pathlib import Path

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import Options, option

# family -> the head that is trained
HEADS = {"llama": "causal", "gpt2": "causal", "mistral": "causal", "bert": "masked", "modernbert": "masked"}
FAMILIES = tuple(HEADS)
WRITERS = tuple(family for family, head in HEADS.items() if head == "causal")
WINDOWED = ("mistral", "modernbert")  # whose layers, or some of them, see a window
GROUPED = ("llama", "mistral")  # whose queries can share keys and values
CLASSIFICATION = "classification"

WHOLE_MODEL = ("step", "forward")
STOCK_SUBJECTS = (*WHOLE_MODEL, "score", "head", "generate", "trainer")
TEXT_SUBJECTS = ("prepare_data", "finetune", "pairs", "chat")
FRESH_SUBJECTS = ("allocator", "busy")
SUBJECTS = (*TEXT_SUBJECTS, *STOCK_SUBJECTS, *FRESH_SUBJECTS, "start", "road")
MEASURING_MEMORY = (*WHOLE_MODEL, "trainer")

# field -> the subjects that take it; a field that is not here is taken by all, or does nothing for some
TAKEN_BY = {
    "train_files": (*TEXT_SUBJECTS, "road"),
    "tokenizer_name": TEXT_SUBJECTS,
    "text_column": ("finetune",),
    "megabytes": ("prepare_data",),
    "preset": ("finetune", "pairs", "chat", "road"),
    **dict.fromkeys(("family", "device", "window", "num_key_value_heads"), STOCK_SUBJECTS),
    "head": WHOLE_MODEL,
    "document_tokens": (*WHOLE_MODEL, "score"),
    "prompt_length": ("generate",),
    **dict.fromkeys(("attention", "documents", "torch_compile"), ("trainer",)),
    "busy_programs": ("busy",),
}


@dataclass
class BenchmarkArguments(Options):
    """What to measure."""

    subject: str = option("prepare_data", "what to measure, as told above", choices=SUBJECTS)
    train_files: list[str] = option(
        [],
        "a .txt file; for finetune a table of examples, for chat of conversations; for pairs two .txt files; none: "
        "text that Python carries",
    )
    text_column: str = option("sentence", "finetune: the column with the text")
    megabytes: list[int] = option(
        [], "prepare_data: see how time and memory grow instead, with text of these sizes made of train_files"
    )
    preset: str = option("tiny", "finetune, pairs, chat, road: shape of the model")
    batch_size: int | None = option(
        None, "examples of a step; 32 for finetune, pairs and chat, 1 prompt for generate, else 8", least=1
    )
    steps: int | None = option(
        None,
        "training steps of a round; 50 for finetune, 8 for pairs, chat and trainer (after 3 more), 5 for allocator, "
        "else 1",
        least=1,
    )
    cpu_threads: int | None = option(None, "threads to compute with", least=1)
    device: str | None = option(
        None, "beside a stock class: cpu or cuda; without it a GPU where there is one", choices=("cpu", "cuda")
    )
    family: str = option("llama", "the stock class", choices=FAMILIES)
    head: str = option(
        "language_model",
        "step, forward: language_model, or classification with two classes",
        choices=("language_model", CLASSIFICATION),
    )
    num_layers: int = option(6, "beside a stock class: layers of both models", least=1)
    width: int = option(384, "beside a stock class: hidden_size of both, a multiple of 64")
    num_key_value_heads: int | None = option(
        None, "llama, mistral: heads of keys and values; without it as many as of queries", least=1
    )
    vocab_size: int = option(32_000, "beside a stock class: size of the vocabulary", least=1)
    length: int = option(256, "beside a stock class: tokens of an example", least=1)
    window: int | None = option(
        None, "mistral: tokens that one sees; modernbert: those around it, in two layers of three [4096, 128]", least=2
    )
    document_tokens: list[int] = option(
        [],
        "step, forward, score: rows hold documents, or are texts, of so many tokens, from the first to the second",
    )
    prompt_length: int = option(
        8, "generate: tokens of the prompt, with the time that these take by themselves", least=1
    )
    measure_memory: bool = option(True, "step, forward, trainer: also measure the peak of memory")
    attention: list[str] = option(["sdpa"], "trainer: attention backends, each with sides of its own")
    documents: int = option(1, "trainer with llama: documents packed into a row", least=1)
    torch_compile: bool = option(False, "trainer: compile both models")
    busy_programs: int = option(2, "busy: programs that keep the machine busy meanwhile", least=0)
    tokenizer_name: str | None = option(
        None,
        "folder or Hub id of the tokenizer; without it one is trained on text that Python carries",
        folder_or_id=True,
    )
    rounds: int = option(5, "times that each side is measured", least=1)
    output_file: str | None = option(None, "write all measurements as JSON here")

    def check(self) -> None:
        """Refuse values that make no sense; raises RecipeError."""
        super().check()
        for name, default in vars(BenchmarkArguments()).items():
            if not takes(self.subject, name) and getattr(self, name) != default:
                raise RecipeError(f"{name} is for --subject {_either(TAKEN_BY[name])}: leave it out.")
        if self.subject in STOCK_SUBJECTS:
            self._check_stock()
        if self.subject in (*STOCK_SUBJECTS, *FRESH_SUBJECTS) and (self.width % 64 or self.width < 64):
            raise RecipeError(f"width is {self.width}: give a multiple of 64, the width of a head.")
        measures_memory = (self.subject in MEASURING_MEMORY and self.measure_memory) or self.megabytes
        if measures_memory and not Path("/proc/self/status").is_file():
            raise RecipeError("memory is measured on Linux only: give --measure_memory false, and no megabytes.")
        if self.megabytes and (min(self.megabytes) < 1 or len({*self.megabytes}) < len(self.megabytes)):
            raise RecipeError(f"megabytes are {' '.join(map(str, self.megabytes))}: give each once, 1 or more.")
        if takes(self.subject, "train_files"):
            self._check_files()
        self._check_packed()
        if self.output_file is not None and not Path(self.output_file).parent.is_dir():
            raise RecipeError(f"output_file {self.output_file!r} is in no folder that there is: make that first.")

    def _check_stock(self) -> None:
        """Refuse a shape that the family has not."""
        if self.subject in ("generate", "score") and self.family not in WRITERS:
            does = {"generate": "writes no text", "score": "scores a token at a time"}[self.subject]
            raise RecipeError(f"{self.family} {does}: give --family {_either(WRITERS)}.")
        if self.window is not None and self.family not in WINDOWED:
            raise RecipeError(f"{self.family} has no window: give --family {_either(WINDOWED)}, or leave window out.")
        if self.window is not None and self.family == "modernbert" and self.window % 2:
            raise RecipeError(f"window is {self.window}: give an even number, half of it to each side.")
        groups = self.num_key_value_heads
        if groups is not None and self.family not in GROUPED:
            raise RecipeError(f"{self.family} shares no keys: give --family {_either(GROUPED)}, or leave it out.")
        if groups is not None and self.width // 64 % groups:
            raise RecipeError(
                f"num_key_value_heads is {groups}: give a divisor of the {self.width // 64} heads that width makes."
            )

    def _check_files(self) -> None:
        """Refuse files that are not there, or not as many as the subject reads."""
        number = 2 if self.subject == "pairs" else 1
        if self.train_files and len(self.train_files) != number and self.subject != "road":
            raise RecipeError(f"subject {self.subject} needs {number} --train_files, or none for text of its own.")
        for name in self.train_files:
            if not Path(name).is_file():
                raise RecipeError(f"train_files {name!r} is no file: give the path of one.")

    def _check_packed(self) -> None:
        """Refuse lengths that rows cannot hold, and documents that the two sides would not pack alike."""
        bounds = self.document_tokens
        if bounds and (len(bounds) != 2 or not 2 <= bounds[0] <= bounds[1] <= self.length):
            raise RecipeError(
                f"document_tokens are {' '.join(map(str, bounds))}: give two numbers, the fewest tokens (2 or "
                f"more) and the most, up to the length {self.length}."
            )
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


@dataclass
class EntriesArguments(Options):
    """Many measurements in one go."""

    entries: str | None = option(
        None, "a YAML file of named measurements with their fields; all are made, each in a process of its own"
    )
    only: list[str] = option([], "entries: the names of those to make; * stands for anything")
    output_dir: str = option("runs/benchmark", "entries: a folder for the JSON and log of each, and a table of all")


def takes(subject: str, name: str) -> bool:
    """Whether a field says anything to a subject."""
    return subject in TAKEN_BY.get(name, SUBJECTS)


def _either(names: tuple[str, ...]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
