"""Continue text with a trained model, as it is written.

    python recipes/generate.py --prompt "The iterator protocol" [--model runs/pretrain_clm] [--temperature 0.8 ...]

With --prompt_file, each line is a prompt, and they are continued in batches. With --chat the model of finetune_chat.py
(runs/chat, or --model) answers, line by line or --prompt alone:

    python recipes/generate.py --chat [--model runs/chat] [--prompt 'What does `textwrap.dedent` do?'] [--system TEXT]
"""

from weft.recipes.common.command_line import parse_arguments
from weft.recipes.common.errors import run_command
from weft.recipes.generation.arguments import GenerateArguments


def main() -> None:
    parsed = parse_arguments(__doc__, [GenerateArguments])
    arguments = parsed[GenerateArguments]
    if arguments.chat and "model" not in parsed.given:
        arguments.model = "runs/chat"
    arguments.check()
    prompts = arguments.read_prompts()
    from weft.recipes.generation.run import generate  # with torch, which no refusal waits for

    generate(arguments, prompts)


if __name__ == "__main__":
    run_command(main)
