"""Which rows of the hybrid objective are causal."""

import math
from dataclasses import dataclass, field

from weft.recipes.common.errors import RecipeError


@dataclass
class HybridArguments:
    """Which rows are causal, in the hybrid objective."""

    causal_share: float = field(default=0.5, metadata={"help": "hybrid: share of the rows that are causal"})
    causal_steps: float = field(
        default=0.0,
        metadata={"help": "hybrid: steps at the beginning in which all rows are; below 1: a share of all steps"},
    )

    def check(self) -> None:
        """Raises RecipeError for a share outside [0, 1] or a negative number of steps."""
        if not 0 <= self.causal_share <= 1:
            raise RecipeError(f"causal_share is {self.causal_share}: give a share between 0 and 1.")
        if not 0 <= self.causal_steps < math.inf:
            raise RecipeError(f"causal_steps is {self.causal_steps}: give a number of steps, or a share below 1.")
