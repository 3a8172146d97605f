"""The fields of generate.py that say where something is missing in a text, and what they may be."""

from dataclasses import dataclass

from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import Options, option
from weft.recipes.common.wording import some_of
from weft.recipes.generation.arguments import GenerateArguments
from weft.recipes.generation.diffusion.arguments import UnmaskingArguments

FILL = "<fill>"
# Fields that are for writing behind a prompt.
PROMPT_ONLY = ("prompt", "prompt_file", "output_file", "batch_size", "chat", "system", "prefix", "draft", "compile")


@dataclass
class InfillArguments(Options):
    """A text with a gap."""

    infill: str | None = option(
        None,
        f"a text with {FILL} where something is missing, which is written: by a model of pretrain_clm.py "
        "--infill_rate, by another with such tokens, or by an encoder-decoder with sentinels",
    )
    suffix_first: bool = option(
        False,
        "infill: give the model what stands behind the gap first (SPM), as in training with infill_spm_share 1",
        rare=True,
    )

    def check_beside(self, parsed: Parsed) -> None:
        """Raises RecipeError where the text has not one gap, or a field of writing behind prompts is given too."""
        if self.infill is None:
            parsed.refuse_without(("suffix_first",), "infill")
            return
        if self.infill.count(FILL) != 1:
            raise RecipeError(
                f"infill has {FILL} {self.infill.count(FILL)} times: give a text with it once, where something is "
                f"missing, such as 'The cat {FILL} the dog.'"
            )
        if parsed[UnmaskingArguments].is_diffusion:
            raise RecipeError(
                "mode diffusion fills in the mask tokens of a prompt: write <mask> in --prompt where a token is "
                "missing, or leave mode out."
            )
        arguments = parsed[GenerateArguments]  # make gives an empty prompt
        given = [name for name in PROMPT_ONLY if name in parsed.given and getattr(arguments, name)]
        if given:
            raise RecipeError(f"infill is the whole text, of which one gap is written: leave {some_of(given)} out.")

    @property
    def sides(self) -> tuple[str, str]:
        """What stands before the gap, and what behind it."""
        before, _, after = (self.infill or "").partition(FILL)
        return before, after
