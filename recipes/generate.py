"""Continue text with a trained model, as it is written.

    python recipes/generate.py --prompt "The iterator protocol" [--model runs/pretrain_clm] [--temperature 0.8 ...]

With --prompt_file, each line is a prompt, and they are continued in batches. With --chat the model of finetune_chat.py
(runs/chat, or --model) answers, line by line or --prompt alone:

    python recipes/generate.py --chat [--model runs/chat] [--prompt 'What does `textwrap.dedent` do?'] [--system TEXT]

With --mode diffusion a masked language model (runs/pretrain_diffusion, or --model) fills in masks, in any order:

    python recipes/generate.py --mode diffusion --prompt "Return the" [--steps 32] [--order random]
    python recipes/generate.py --mode diffusion --prompt "Return the <mask><mask> of the list."

With --infill a model of pretrain_clm.py --infill_rate 0.5 writes what is missing in a text, however long:

    python recipes/generate.py --infill "Return the <fill> of the list." [--model runs/infill]
"""

from weft.recipes.common.command_line import parse_arguments
from weft.recipes.common.errors import run_command
from weft.recipes.generation.arguments import GenerateArguments
from weft.recipes.generation.diffusion.arguments import UnmaskingArguments
from weft.recipes.generation.infilling.arguments import InfillArguments


def main() -> None:
    parsed = parse_arguments(__doc__, [GenerateArguments, UnmaskingArguments, InfillArguments])
    arguments, unmasking, infilling = parsed.groups
    infilling.check_beside(parsed)
    unmasking.check_beside(parsed)
    if (arguments.chat or unmasking.is_diffusion) and "model" not in parsed.given:
        arguments.model = "runs/chat" if arguments.chat else "runs/pretrain_diffusion"
    arguments.check()
    prompts = arguments.read_prompts()
    if infilling.infill is not None:
        from weft.recipes.generation.infilling.run import write_middle  # with torch, which no refusal waits for

        write_middle(arguments, infilling)
        return
    if unmasking.is_diffusion:
        from weft.recipes.generation.diffusion.run import fill  # with torch, which no refusal waits for

        fill(arguments, unmasking, prompts)
        return
    from weft.recipes.generation.run import generate  # with torch, which no refusal waits for

    generate(arguments, prompts)


if __name__ == "__main__":
    run_command(main)
