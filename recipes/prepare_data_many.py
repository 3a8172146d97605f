"""Prepare a corpus that is too large for one process: many tasks, on one machine or on a Slurm cluster.

    python recipes/prepare_data_many.py --train_files shards/*.jsonl.gz --tokenizer_name my/tokenizer \\
        --output_dir data/big --tasks 64 --workers 8
    python recipes/prepare_data_many.py --train_files shards/*.jsonl.gz --tokenizer_name my/tokenizer \\
        --output_dir data/big --executor slurm --partition cpu --time 04:00:00

The corpus is, to the byte, what recipes/prepare_data.py makes of the same files and settings; only the table of scripts
is of other sampled documents where there is much text. Interrupted, the same command goes on: files that are done stay
done. The package datatrove is needed.
"""

from dataclasses import dataclass
from pathlib import Path

from weft.recipes.common.command_line import parse_arguments
from weft.recipes.common.errors import run_command
from weft.recipes.common.options import option
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.cluster_arguments import ClusterArguments
from weft.recipes.data.prepare import report


@dataclass
class OutputArguments:
    """Where the result goes."""

    output_dir: str = option("data/corpus", "folder to write; one that is there is reused")
    plan: bool = option(False, "print what would be run, and stop")


def main() -> None:
    parsed = parse_arguments(__doc__, [DataArguments, ClusterArguments, OutputArguments])
    data, cluster, output = parsed.groups
    cluster.refuse_without_slurm(parsed.given)
    from weft.recipes.data.cluster import prepare_many  # raises RecipeError where datatrove is missing

    corpus = prepare_many(data, cluster, Path(output.output_dir), plan_only=output.plan)
    if corpus is not None:
        print(report(corpus))
        print(f"prepared corpus in {corpus.folder}")


if __name__ == "__main__":
    run_command(main)
