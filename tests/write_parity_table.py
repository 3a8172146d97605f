"""Write the table of differences between Weft and transformers' own classes into RESULTS.md.

python tests/write_parity_table.py
"""

import itertools
from pathlib import Path

import torch
import transformers
from helpers.families import CASES, all_cases, differences
from helpers.marked import write_marked

from weft.interop import HEADS

RESULTS = Path(__file__).parents[1] / "RESULTS.md"


def table() -> str:
    """A line for each case: the largest difference over its heads, of outputs and gradients, in float32 and float64."""
    lines = [
        f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, on a CPU.",
        "",
        "| case | family | heads | float32 outputs | float32 gradients | float64 outputs | float64 gradients |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case, entries in itertools.groupby(all_cases(), key=lambda entry: entry[0]):
        heads = [head for _, head in entries]
        cells = []
        for dtype in (torch.float32, torch.float64):
            found = [differences(case, head, dtype) for head in heads]
            cells += [f"{max(values):.0e}" for values in zip(*found, strict=True)]
        names = ", ".join(HEADS[head][0].removeprefix("WeftFor") for head in heads)
        lines.append(f"| {case} | {CASES[case][0]} | {names} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_marked(RESULTS, "parity", table())
