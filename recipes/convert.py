"""Convert a checkpoint of a known family into a Weft checkpoint, or a Weft checkpoint into one of a known family, into
ONNX graphs, or into a GGUF file for llama.cpp.

    python recipes/convert.py import google-bert/bert-base-uncased runs/bert
    python recipes/convert.py export runs/pretrain_clm qwen3 runs/as_qwen3
    python recipes/convert.py export runs/pretrain_clm onnx runs/as_onnx --int8
    python recipes/convert.py export runs/plain gguf runs/plain.gguf

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

FORMATS = ("onnx", "gguf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    known = ", ".join(family_names())
    into = commands.add_parser("import", help="from another family", description=f"Families: {known}")
    into.add_argument("checkpoint", help=f"folder or Hub id of a model of one of: {known}")
    out_of = commands.add_parser("export", help="to another family or format", description=f"Families: {known}")
    out_of.add_argument("checkpoint", help="folder or Hub id of a Weft model")
    out_of.add_argument("family", help=f"transformers' model_type: {known}; or a format: {', '.join(FORMATS)}")
    into.add_argument("output", type=Path, help="the folder to write, which must not exist")
    out_of.add_argument("output", type=Path, help="the folder to write, or the file for gguf, which must not exist")
    out_of.add_argument("--int8", action="store_true", help="onnx, gguf: with weights of 8 bits; onnx writes both")
    out_of.add_argument("--text", type=Path, help="onnx: texts, one a line, that the loss of --int8 is measured on")
    arguments = parser.parse_args()
    if arguments.output.exists():
        raise RecipeError(f"{arguments.output} exists: give a name that does not, nothing is overwritten.")
    refuse_unwritable(arguments.output.parent)
    refuse_missing_folder("checkpoint", arguments.checkpoint)
    family, options = getattr(arguments, "family", None), {}
    if arguments.command == "export":
        options = {name: value for name in ("int8", "text") if (value := getattr(arguments, name))}
        refuse_without_effect(family, options)
    from weft.recipes.conversion.run import convert  # with torch, which no refusal waits for

    convert(arguments.command, arguments.checkpoint, arguments.output, family, **options)


def refuse_without_effect(family: str, options: dict[str, object]) -> None:
    """Raise RecipeError for options that say nothing to a family or format."""
    if "int8" in options and family not in FORMATS:
        raise RecipeError(f"int8 has no effect on {family}: it is for {' and '.join(FORMATS)}; leave it out.")
    if "text" in options and (family != "onnx" or "int8" not in options):
        raise RecipeError("text has no effect without int8 and onnx: give these too, or leave text out.")


if __name__ == "__main__":
    run_command(main)
