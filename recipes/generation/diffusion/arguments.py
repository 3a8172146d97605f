"""The fields of generate.py that say how masks are filled in, and what they may be."""

from dataclasses import dataclass

from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import Options, option
from weft.recipes.common.wording import some_of

MODES = ("causal", "diffusion")
ORDERS = ("confidence", "random")
# Fields that are for writing from left to right.
CAUSAL_ONLY = ("chat", "system", "prefix", "repetition_penalty", "num_beams", "draft", "compile")


@dataclass
class UnmaskingArguments(Options):
    """From left to right, or by filling in masks."""

    mode: str = option(
        "causal",
        "causal: token after token; diffusion: fill in the masks of a prompt, or max_new_tokens of them behind it, "
        "with a masked language model",
        choices=MODES,
    )
    steps: int | None = option(
        None, "diffusion: steps, among which the masks are divided evenly; without it one mask a step", least=1
    )
    block_length: int | None = option(
        None, "diffusion: fill so many masks, from the left, before the next; without it all are open at once", least=1
    )
    order: str = option(
        "confidence", "diffusion: which masks come first: confidence (the most certain ones) or random", choices=ORDERS
    )

    @property
    def is_diffusion(self) -> bool:
        return self.mode == "diffusion"

    def check_beside(self, parsed: Parsed) -> None:
        """Raises RecipeError where a field is out of range, or one of the other mode is given."""
        self.check()
        if not self.is_diffusion:
            for name in ("steps", "block_length", "order"):
                if name in parsed.given:
                    raise RecipeError(f"{name} has no effect without --mode diffusion: give that too, or leave it out.")
            return
        given = [name for name in CAUSAL_ONLY if name in parsed.given]
        if given:
            raise RecipeError(f"mode diffusion fills in masks in any order: leave {some_of(given)} out.")
