"""What a user says of conversations: where they are, how they are rendered, and whose words are learnt."""

from dataclasses import dataclass
from pathlib import Path

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import option
from weft.recipes.data.tables import FORMATS
from weft.recipes.data.text_files import check_file
from weft.recipes.finetuning.arguments import FileArguments

BUILTIN = "pydoc_chat"  # questions about Python's own library, which need neither files nor the Hub
OF_FILE = ("messages_column", "prompt_column", "completion_column")


class TemplateArguments(FileArguments):
    """Arguments with a field `chat_template`: the name of a template, or a file that holds one."""

    chat_template: str | None

    def check_files(self) -> None:
        """Refuse contradictions and files that cannot be read; raises RecipeError."""
        if self.template_file is not None:
            check_file(self.template_file, (self.template_file.suffix,), "chat template", "a template")
        super().check_files()

    @property
    def template_file(self) -> Path | None:
        """The file of the template, where chat_template names one."""
        return None if self.chat_template in (None, "chatml", "plain") else Path(self.chat_template)

    def template(self) -> str | None:
        """The name of a template, or its text; None: the tokenizer's own. Raises RecipeError."""
        if self.template_file is None:
            return self.chat_template
        try:
            return self.template_file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RecipeError(f"{self.template_file} is not UTF-8 (byte {error.start + 1}): convert it.") from error

    def local_files(self) -> list[Path]:
        """The files that were given one by one, the template's last."""
        return [*super().local_files(), *([self.template_file] if self.template_file else [])]


@dataclass
class ChatArguments(TemplateArguments):
    """Where the conversations are, and how they are learnt."""

    command = "finetune_chat"

    messages_column: str | None = option(
        None, "column of the messages; by default messages, conversations or conversation", rare=True
    )
    prompt_column: str | None = option(None, "or column of what is asked; by default prompt, question or instruction")
    completion_column: str | None = option(
        None, "and of what is answered; by default completion, response, answer or output"
    )
    broken: str = option(
        "refuse", "a conversation that is broken: refuse it, or skip it and count", choices=("refuse", "skip")
    )
    chat_template: str | None = option(
        None,
        "how messages become text: chatml, plain, or a file with a template in Jinja; by default the tokenizer's own, "
        "or chatml where it has none",
    )
    loss_on: str = option(
        "assistant", "whose tokens are learnt: those of the assistant, or all", choices=("assistant", "all")
    )
    samples: int = option(8, "held-out conversations that the finished model answers in its report", least=0)
    max_new_tokens: int = option(128, "tokens of such an answer at most", least=1)

    def check_files(self) -> None:
        """Refuse contradictions and files that cannot be read; raises RecipeError."""
        columns = [name for name in OF_FILE if getattr(self, name) is not None]
        if columns and self.train_file is None and self.dataset_name is None:
            raise RecipeError(f"{', '.join(columns)} is given without train_file or dataset_name: nothing has columns.")
        if len(columns) > 1 and self.messages_column is not None:
            raise RecipeError(f"{' and '.join(columns)} are given: give messages_column, or the two others.")
        if self.task is None and self.train_file is None and self.dataset_name is None:
            self.task = BUILTIN
        if self.task == BUILTIN and self.data is not None:
            raise RecipeError(f"data is given, but {BUILTIN} needs none: leave it out, or give train_file.")
        super().check_files()

    @property
    def name(self) -> str:
        """What a run on these conversations is called."""
        return "chat" if self.task == BUILTIN else super().name

    @staticmethod
    def formats() -> tuple[str, ...]:
        """Endings of the files that can be read."""
        return tuple(ending for ending in FORMATS if ending != ".txt")


ARGUMENTS = ChatArguments
