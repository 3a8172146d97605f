"""The fields of subject road, and what is refused."""

from dataclasses import dataclass
from pathlib import Path

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import refuse_unwritable
from weft.recipes.common.options import Options, option

SIDES = ("weft", "nanogpt", "nanochat", "run_clm")


@dataclass
class RoadArguments(Options):
    """How far subject road goes, and beside whom."""

    minutes: list[float] = option(
        [5, 10, 20], "from the text to the weights; each is a run of its own, whose schedule ends there", above=0
    )
    seeds: list[int] = option([1, 2, 3], "of the order of the text, and of the weights where a side takes one")
    sides: list[str] = option(list(SIDES), f"who trains: {', '.join(SIDES)}", choices=SIDES)
    peer_folder: str | None = option(None, "the folder into which you cloned nanoGPT, nanochat and transformers")
    road_dir: str = option("runs/road", "folder of the results; the same command goes on there")

    def check(self, subject: str = "road") -> None:
        """Raise RecipeError where a field is not what it may be, or is given to another subject."""
        super().check()
        if subject != "road":
            given = [name for name, value in vars(RoadArguments()).items() if getattr(self, name) != value]
            if given:
                raise RecipeError(f"{given[0]} is for --subject road: leave it out.")
            return
        for name in ("minutes", "seeds", "sides"):
            if not getattr(self, name):
                raise RecipeError(f"{name} names none: give one or more, or leave it out.")
        if self.peer_folder is not None and not Path(self.peer_folder).is_dir():
            raise RecipeError(
                f"peer_folder {self.peer_folder!r} is no folder: clone the others into one, or leave it out."
            )
        refuse_unwritable(Path(self.road_dir))
