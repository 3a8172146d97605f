"""Convert a checkpoint of a known family into a Weft checkpoint, or a Weft checkpoint into one of a known family.

    python recipes/convert.py import google-bert/bert-base-uncased runs/bert
    python recipes/convert.py export runs/pretrain_clm qwen3 runs/as_qwen3

Config, weights, tokenizer and, where there is one, the task's head are converted, and both models are run on the same
input: if they differ by more than rounding, nothing is written. An embedding model of sentence-transformers keeps its
pooling and what comes behind it.
"""

import argparse
from pathlib import Path

from weft.interop import family_names
from weft.recipes.common.errors import RecipeError, run_command
from weft.recipes.common.files import refuse_unwritable
from weft.recipes.common.options import refuse_missing_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    known = ", ".join(family_names())
    into = commands.add_parser("import", help="from another family", description=f"Families: {known}")
    into.add_argument("checkpoint", help=f"folder or Hub id of a model of one of: {known}")
    out_of = commands.add_parser("export", help="to another family", description=f"Families: {known}")
    out_of.add_argument("checkpoint", help="folder or Hub id of a Weft model")
    out_of.add_argument("family", help=f"transformers' model_type: {known}")
    for command in (into, out_of):
        command.add_argument("output", type=Path, help="the folder to write, which must not exist")
    arguments = parser.parse_args()
    if arguments.output.exists():
        raise RecipeError(f"{arguments.output} exists: give a folder that does not, nothing is overwritten.")
    refuse_unwritable(arguments.output.parent)
    refuse_missing_folder("checkpoint", arguments.checkpoint)
    from weft.recipes.conversion.run import convert  # with torch, which no refusal waits for

    convert(arguments.command, arguments.checkpoint, arguments.output, getattr(arguments, "family", None))


if __name__ == "__main__":
    run_command(main)
