"""Prepare text for pretraining: any files in, a memory-mapped corpus out.

    python recipes/prepare_data.py --train_files articles.jsonl.gz books.txt --output_dir data/mine

Then train on it as often as you like: accelerate launch recipes/pretrain_clm.py --data data/mine
"""

from dataclasses import dataclass
from pathlib import Path

from weft.recipes.common.command_line import parse_arguments
from weft.recipes.common.errors import run_command
from weft.recipes.common.options import option
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.prepare import prepare, report


@dataclass
class OutputArguments:
    """Where the result goes."""

    output_dir: str = option("data/corpus", "folder to write; one that is there is reused")


def main() -> None:
    data, output = parse_arguments(__doc__, [DataArguments, OutputArguments]).groups
    corpus = prepare(data, Path(output.output_dir))
    print(report(corpus))
    print(f"prepared corpus in {corpus.folder}")


if __name__ == "__main__":
    run_command(main)
