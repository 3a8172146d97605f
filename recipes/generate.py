"""Continue text with a trained model, as it is written.

    python recipes/generate.py --prompt "The iterator protocol" [--model runs/pretrain_clm] [--temperature 0.8 ...]

With --prompt_file, each line is a prompt, and they are continued in batches.
"""

from weft.recipes.common.command_line import parse_arguments
from weft.recipes.common.errors import run_command
from weft.recipes.generation.arguments import GenerateArguments


def main() -> None:
    arguments = parse_arguments(__doc__, [GenerateArguments])[GenerateArguments]
    arguments.check()
    prompts = arguments.read_prompts()
    from weft.recipes.generation.run import generate  # with torch, which no refusal waits for

    generate(arguments, prompts)


if __name__ == "__main__":
    run_command(main)
