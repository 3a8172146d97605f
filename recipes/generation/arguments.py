"""The fields of generate.py, and what they may be."""

from dataclasses import dataclass
from pathlib import Path

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import refuse_unwritable
from weft.recipes.common.options import Options, option


@dataclass
class GenerateArguments(Options):
    """What to continue, with which model, and how to choose each token."""

    model: str = option("runs/pretrain_clm", "folder or Hub id of a causal language model", folder_or_id=True)
    prompt: str = option("", "text to continue; empty: a new document")
    prompt_file: str | None = option(None, "a text file with one prompt on each line")
    chat: bool = option(False, "talk with the model in the terminal, or have it answer prompt")
    system: str | None = option(None, "with chat: a message before all others, of what the model is to be like")
    output_file: str | None = option(None, "with prompt_file: write JSON lines (prompt, text) here instead of printing")
    batch_size: int = option(16, "prompts continued at once", least=1)
    max_new_tokens: int = option(200, "length of the continuation, in tokens", least=1)
    do_sample: bool = option(True, "draw tokens by their probability; false: the most likely")
    temperature: float = option(0.8, "below 1: likely tokens become more likely")
    top_k: int = option(0, "draw among the k most likely tokens; 0: among all", least=0)
    top_p: float = option(0.95, "draw among the most likely tokens that sum to this", above=0, most=1)
    repetition_penalty: float = option(1.0, "above 1: tokens that were there become rarer", above=0)
    num_beams: int = option(1, "beams of a beam search (with do_sample false)", least=1)
    seed: int = option(0, "of the draws", least=0, below=2**32)
    device: str | None = option(None, "cuda, cpu ...; the default is a GPU if there is one")
    prefix: bool = option(
        False, "see the prompt in both directions, as models of pretrain_clm.py --prefix_share learn it", rare=True
    )
    draft: str | None = option(
        None, "folder or Hub id of a smaller model with the same tokenizer, which guesses tokens", folder_or_id=True
    )
    compile: bool = option(False, "compile the model first, which takes a minute")
    int8: bool = option(False, "weights of linear maps in 8 bits: less memory")
    trust_remote_code: bool = option(False, "run the code of a model that is not Weft's")

    def check(self) -> None:
        """Raises RecipeError where a field is out of range, or two contradict each other."""
        super().check()
        self._check_chat()
        if self.compile and self.num_beams > 1:
            raise RecipeError(f"num_beams is {self.num_beams}, but compile is for one beam: leave one of them out.")
        if self.draft is not None and (self.compile or self.num_beams > 1):
            name = "compile" if self.compile else f"num_beams {self.num_beams}"
            raise RecipeError(
                f"draft is for one beam that is not compiled, but {name} is given: leave one of them out."
            )
        others = {"chat": self.chat, "draft": self.draft is not None, "compile": self.compile}
        given = [name for name, value in others.items() if value]
        if self.prefix and given:
            raise RecipeError(f"prefix is for prompts that are read at once: leave {' and '.join(given)} out.")
        if self.output_file is not None and Path(self.output_file).exists():
            raise RecipeError(f"{self.output_file} exists: name another output_file, or remove it.")
        if self.output_file is not None:
            refuse_unwritable(Path(self.output_file).parent)
        if self.do_sample and self.temperature <= 0:
            raise RecipeError(
                f"temperature is {self.temperature}: give a number above 0, or --do_sample false for the most likely "
                "tokens."
            )

    def _check_chat(self) -> None:
        if not self.chat and self.system is not None:
            raise RecipeError("system is given without chat: give that too, or leave it out.")
        others = {"prompt_file": self.prompt_file, "compile": self.compile, "num_beams": self.num_beams > 1}
        given = [name for name, value in others.items() if value]
        if self.chat and given:
            raise RecipeError(f"chat writes one answer after another as it comes: leave {' and '.join(given)} out.")

    def read_prompts(self) -> list[str] | None:
        """Read the prompts of prompt_file; None where there is the one of `prompt`. Raises RecipeError."""
        if self.prompt_file is None:
            if self.output_file is not None:
                raise RecipeError("output_file is given without a prompt_file: redirect the output instead.")
            return None
        if self.prompt:
            raise RecipeError("both prompt and prompt_file are given: choose one.")
        path = Path(self.prompt_file)
        if not path.is_file():
            raise RecipeError(f"{path} is missing: prompt_file is a text file with one prompt on each line.")
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise RecipeError(f"{path} is not UTF-8 (byte {error.start + 1}): convert it to UTF-8.") from error
        prompts = [line for line in lines if line.strip()]
        if not prompts:
            raise RecipeError(f"{path} holds no prompt: write one on each line.")
        return prompts
