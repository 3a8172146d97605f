"""What a user says of a text-to-text task: where the pairs are, how long they may be, and how texts are generated."""

from dataclasses import dataclass
from pathlib import Path

from weft.recipes.common.command_line import shape_fields
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import option
from weft.recipes.data.tables import FORMATS
from weft.recipes.data.text_files import check_file, file_format
from weft.recipes.finetuning.arguments import FileArguments

METRICS = ("bleu", "chrf", "rouge1", "rouge2", "rougeL", "loss")
SPLITS = ("train", "validation", "test")


@dataclass
class Seq2SeqArguments(FileArguments):
    """Pairs of a source and a target text: in two files of lines, or in two columns of one file."""

    command = "finetune_seq2seq"
    model_fields = (*(name for name in shape_fields() if not name.startswith("classifier_")), "num_decoder_layers")

    train_source: str | None = option(None, "or two files of your own, one text a line: the texts that are given")
    train_target: str | None = option(None, "and in the same lines those to be written")
    validation_source: str | None = option(
        None, "the same to choose the best weights by; without any, a part of train_source"
    )
    validation_target: str | None = option(None, "its targets")
    test_source: str | None = option(None, "the same that the finished model is scored on")
    test_target: str | None = option(None, "its targets")
    source_column: str | None = option(
        None, 'column of the text that is given ("source"); A.B for a field B of column A'
    )
    target_column: str | None = option(None, 'column of the text to be written ("target")')
    target_lists: str = option(
        "references",
        "what a list in target_column is: references (each a text by itself), or sentences of one",
        choices=("references", "sentences"),
        rare=True,
    )
    source_prefix: str = option("", "put before every source, as T5's tasks want it")
    max_source_length: int | None = option(
        None, "tokens of a source at most; the default is 512, or the model's limit", least=1
    )
    max_target_length: int | None = option(None, "the same of a target to learn from", least=1)
    max_new_tokens: int | None = option(
        None, "tokens to generate at most; the default is the longest training target", least=1
    )
    num_beams: int = option(1, "beams of the search for the likeliest text; 1: greedy", least=1)
    label_smoothing_factor: float = option(0.0, "share of each target that is spread over all tokens", least=0, below=1)
    metric: str | None = option(
        None,
        f"what the best weights are chosen by: {', '.join(METRICS)}; the default is the task's, or chrf",
        choices=METRICS,
    )

    def check_files(self) -> None:
        """Refuse contradictions and files that cannot be read; raises RecipeError."""
        self._check_lines()
        super().check_files()
        columns = [name for name in ("source_column", "target_column") if getattr(self, name) is not None]
        if columns and self.train_file is None and self.dataset_name is None:
            raise RecipeError(f"{', '.join(columns)} is given without train_file or dataset_name: nothing has columns.")

    def _check_lines(self) -> None:
        others = [name for name in ("task", "train_file", "dataset_name") if getattr(self, name) is not None]
        if self.train_source is not None and others:
            raise RecipeError(f"train_source and {' and '.join(others)} are given: give one source of examples.")
        for split in SPLITS:
            source, target = (getattr(self, f"{split}_{side}") for side in ("source", "target"))
            if (source is None) != (target is None):
                given, missing = ("source", "target") if target is None else ("target", "source")
                raise RecipeError(f"{split}_{given} is given without {split}_{missing}: give both files.")
            if source is not None and self.train_source is None:
                raise RecipeError(f"{split}_source is given without train_source: give that too.")
            for path in (source, target):
                if path is not None:
                    check_lines(Path(path))

    @property
    def partners(self) -> dict[Path, Path]:
        """The file of targets of each file of sources."""
        files = [(getattr(self, f"{split}_source"), getattr(self, f"{split}_target")) for split in SPLITS]
        return {Path(source): Path(target) for source, target in files if source is not None}

    def local_files(self) -> list[Path]:
        """The files that were given one by one."""
        return [*super().local_files(), *(path for pair in self.partners.items() for path in pair)]

    @staticmethod
    def formats() -> tuple[str, ...]:
        """Endings of files with columns; a .txt file has lines."""
        return tuple(ending for ending in FORMATS if ending != ".txt")


def check_lines(path: Path) -> None:
    """Refuse what is no file of lines; raises RecipeError."""
    ending = file_format(path)
    if ending in Seq2SeqArguments.formats():
        raise RecipeError(f"{path} is a {ending} file, where plain lines are needed: give it as train_file.")
    check_file(path, (ending,), "text", "lines")  # whatever it ends in: often that is a language


ARGUMENTS = Seq2SeqArguments
