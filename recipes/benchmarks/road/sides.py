"""All sides by name."""

from weft.recipes.benchmarks.road.nanochat import Nanochat
from weft.recipes.benchmarks.road.nanogpt import NanoGPT
from weft.recipes.benchmarks.road.run_clm import RunClm
from weft.recipes.benchmarks.road.side import Side
from weft.recipes.benchmarks.road.weft import Weft

ALL: dict[str, Side] = {side.NAME: side for side in (Weft(), NanoGPT(), Nanochat(), RunClm())}
