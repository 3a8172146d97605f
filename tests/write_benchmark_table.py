"""Write the table of what was measured, results/benchmark.json, into docs/performance.md.

make benchmark && cp runs/benchmark/benchmark.json results && python tests/write_benchmark_table.py
"""

from pathlib import Path

from helpers.marked import write_marked

from weft.recipes.benchmarks.table import markdown
from weft.recipes.common.files import read_json

ROOT = Path(__file__).parents[1]

if __name__ == "__main__":
    write_marked(
        ROOT / "docs" / "performance.md", "benchmark", markdown(read_json(ROOT / "results" / "benchmark.json"))
    )
