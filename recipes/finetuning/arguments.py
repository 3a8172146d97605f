"""What a user says of a fine-tuning run: the model, how it is trained, and where the examples are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import Options, option
from weft.recipes.data.tables import FORMATS, check_table
from weft.recipes.training.card_fields import LANGUAGE_HELP, LICENSE_HELP, check_card_fields
from weft.tokenizer.train import TOKENIZER_TYPES

FEW_EXAMPLES, SEEDS_OF_FEW = 10_000, 5
LARGEST_SEED = 2**32 - 1  # that NumPy takes
# Those that come out the same every time, in every process and when a run is resumed; unigram does not.
NEW_TOKENIZERS = tuple(kind for kind in TOKENIZER_TYPES if kind != "unigram")
SCHEDULES = ("linear", "cosine", "constant")


@dataclass
class FileArguments(Options):
    """Where the examples are."""

    # The recipe of this task alone, of which --help shows the docstring; and the fields of WeftConfig that a new model
    # may be given (None: those of one stack).
    command: ClassVar[str | None] = None
    model_fields: ClassVar[Sequence[str] | None] = None

    task: str | None = option(None, "a task by its name")
    data: str | None = option(None, "a folder with the task's files; without it the task comes from the Hub")
    train_file: str | None = option(None, "or examples of your own to learn from")
    validation_file: str | None = option(
        None, "examples to choose the best weights by; without any, a part of train_file"
    )
    test_file: str | None = option(None, "labelled examples that the finished model is scored on, once")
    dataset_name: str | None = option(None, "or a data set of the Hub, or a folder of one")
    dataset_config_name: str | None = option(None, "its configuration", rare=True)
    validation_fraction: float = option(
        0.1, "share of the training examples to hold out where there are no others", above=0, below=1
    )
    split_seed: int = option(0, "which examples are held out", least=0, most=LARGEST_SEED, rare=True)
    max_train_examples: int | None = option(None, "learn from the first so many only", least=1)
    language: str | None = option(None, LANGUAGE_HELP, rare=True)

    def check_files(self) -> None:
        """Refuse, before anything is read, sources that contradict each other and files that cannot be read.

        Raises:
            RecipeError: names what was given and what is allowed.
        """
        self.check()
        check_card_fields(None, self.card_language)
        given = [name for name in ("task", "train_file", "dataset_name") if getattr(self, name) is not None]
        if len(given) > 1:
            raise RecipeError(f"{' and '.join(given)} are given: give one source of examples.")
        if self.data is not None and self.task is None:
            raise RecipeError("data is given without task: name the task whose files it holds, or give train_file.")
        if self.data is not None and not Path(self.data).is_dir():
            raise RecipeError(f"data {self.data!r} is no folder: give the folder with the task's files.")
        if self.train_file is None and (self.validation_file or self.test_file):
            raise RecipeError("validation_file or test_file is given without train_file: give that too.")
        if self.dataset_config_name is not None and self.dataset_name is None:
            raise RecipeError("dataset_config_name is given without dataset_name: give that too.")
        for name in ("train_file", "validation_file", "test_file"):
            if getattr(self, name) is not None:
                check_table(Path(getattr(self, name)), self.formats())

    @property
    def name(self) -> str:
        """What a run on these examples is called."""
        own = next(iter(self.local_files()), None)
        return self.task or Path(own or self.dataset_name or "task").stem

    @property
    def card_language(self) -> str | None:
        """Language of the texts as the user says it, for the model card."""
        return self.language

    def local_files(self) -> list[Path]:
        """The files that were given one by one."""
        names = (self.train_file, self.validation_file, self.test_file)
        return [Path(name) for name in names if name is not None]

    @staticmethod
    def formats() -> tuple[str, ...]:
        """Endings of the files that can be read."""
        return FORMATS


@dataclass
class FineTuningArguments(Options):
    """Length, batch and schedule of the training, and what is done with the result."""

    output_dir: str | None = option(None, "the run's folder, runs/TASK by default; a run that is there is resumed")
    num_train_epochs: float = option(3.0, "passes over the training examples", above=0)
    max_steps: int | None = option(None, "or the length in optimizer steps", least=1)
    per_device_train_batch_size: int = option(32, "examples of one forward pass of a process", least=1)
    gradient_accumulation_steps: int = option(1, "forward passes of one optimizer step", least=1)
    per_device_eval_batch_size: int = option(64, "examples of one forward pass in evaluation", least=1)
    max_length: int | None = option(
        None, "tokens of a sequence at most; the default is 512, or the model's limit", least=1
    )
    batching: str = option(
        "auto",
        "packed: examples share rows and nothing is padded (Weft models only; their default); grouped: "
        "padded to the longest of a batch, whose examples are of like length (the default of others); padded: the "
        "same with examples as they come",
        choices=("auto", "packed", "grouped", "padded"),
    )
    learning_rate: float = option(5e-4, "the highest learning rate", above=0)
    lr_scheduler_type: str = option("linear", f"one of {', '.join(SCHEDULES)}", choices=SCHEDULES)
    warmup_steps: float = option(0.1, "steps in which the learning rate rises; below 1: a share of all steps", least=0)
    weight_decay: float = option(0.01, "decay of matrices; norms, biases and embeddings never decay", least=0)
    evaluations: int = option(10, "how often a run is evaluated, evenly, if eval_steps is not given", least=1)
    patience: int | None = option(
        None, "stop after so many evaluations without a better score (early stopping)", least=1
    )
    seeds: list[int] = option(
        [],
        f"train once with each of these; by default {SEEDS_OF_FEW} seeds below {FEW_EXAMPLES:,} training "
        "examples, and one from there on",
        least=0,
        most=LARGEST_SEED,
    )
    predict_file: str | None = option(None, "examples without labels to label in the end")
    cpu_threads: int | None = option(
        None, "threads of each process on a CPU; the default shares the cores evenly", least=1
    )
    plan: bool = option(False, "print the plan and stop")
    push_to_hub: str | None = option(None, "publish the result under this name, e.g. me/model")
    license: str | None = option(None, LICENSE_HELP, rare=True)
    hub_private_repo: bool = option(False, "make the repository private", rare=True)

    def check(self) -> None:
        """Refuse values that make no sense; raises RecipeError."""
        super().check()
        check_card_fields(self.license, None)
        repeated = [seed for seed in self.seeds if self.seeds.count(seed) > 1]
        if repeated:
            raise RecipeError(f"seeds names {repeated[0]} more than once: a seed gives the same result every time.")

    def seeds_for(self, examples: int) -> list[int]:
        """The seeds to train with."""
        return self.seeds or list(range(1, 1 + (SEEDS_OF_FEW if examples < FEW_EXAMPLES else 1)))


@dataclass
class ModelSetupArguments(Options):
    """What the training starts from, and what of it may change."""

    model_name_or_path: str | None = option(
        None,
        "folder or Hub id of a pretrained model, Weft's or any other that the task's Auto class loads; "
        "without it a new one starts from random weights",
        folder_or_id=True,
    )
    config_name: str | None = option(
        None,
        "or a folder whose shape and tokenizer (and not its weights) a new model gets",
        folder_or_id=True,
        rare=True,
    )
    tokenizer_name: str | None = option(
        None, "tokenizer of a new model; without it one is trained on the training text", folder_or_id=True
    )
    preset: str = option("tiny", "shape of a new model: tiny, mini, small, base, medium, large or xl")
    tokenizer_type: str | None = option(
        None,
        f"its kind: {', '.join(NEW_TOKENIZERS)}; the default is bpe, or wordpiece (each Han character a "
        "token) where parts of a Chinese text are to be found",
        choices=NEW_TOKENIZERS,
        otherwise="train one first with tokenizer/train.py and give it with tokenizer_name",
    )
    vocab_size: int = option(8192, "tokens of a new tokenizer, at most")
    special_tokens: list[str] | None = option(
        None, "special tokens of your own for a new tokenizer, such as '<user>' '<bot>'", rare=True
    )
    causal: bool = option(False, "a new model looks at earlier tokens only")
    attn_implementation: str | None = option(
        None, "attention backend: sdpa (the default), eager, flash_attention_2", rare=True
    )
    trust_remote_code: bool = option(False, "run the code that comes with a model of an unknown family")
    lora_rank: int | None = option(
        None, "train adapters of this rank instead of all weights (LoRA, needs peft)", least=1
    )
    lora_alpha: float | None = option(None, "their scale; the default is twice lora_rank")
    lora_dropout: float = option(0.0, "share of their input that is dropped in training", rare=True)
    freeze_embeddings: bool = option(False, "leave the embeddings as they are", rare=True)
    freeze_layers: int = option(
        0, "leave the embeddings and so many of the first layers as they are", least=0, rare=True
    )
    layer_decay: float = option(
        1.0,
        "learning rate of a layer over that of the layer above it; the embeddings are the lowest layer",
        above=0,
        most=1,
        rare=True,
    )

    def check(self) -> None:
        """Refuse values that make no sense; raises RecipeError."""
        super().check()
        if self.lora_rank is not None and (self.freeze_layers or self.freeze_embeddings or self.layer_decay != 1):
            raise RecipeError(
                "lora_rank trains adapters only: leave freeze_embeddings, freeze_layers and layer_decay out."
            )
        if self.lora_rank is not None and self.model_name_or_path is None:
            raise RecipeError("lora_rank adapts a trained model: give model_name_or_path, or leave lora_rank out.")
