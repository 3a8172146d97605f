"""What `generate.py --infill` does once its fields are read: load a model, and write what is missing in a text."""

import sys

from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from weft.recipes.common.checkpoint_files import load_tokenizer
from weft.recipes.common.checkpoints import check_files, load_config, load_whole
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.hardware import move_to
from weft.recipes.generation.arguments import GenerateArguments
from weft.recipes.generation.infilling.arguments import InfillArguments
from weft.recipes.generation.infilling.texts import Filled, fill_by_sentinels, fill_gaps, prompt_of, source_of
from weft.recipes.generation.int8 import quantize_int8
from weft.recipes.generation.prompts import check_length, check_reading
from weft.recipes.generation.run import generation_options, refuse_masked
from weft.tokenizer.denoising_tokens import sentinel_names
from weft.tokenizer.fill_in_the_middle import NAMES, MiddleTokens

BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


def write_middle(arguments: GenerateArguments, infilling: InfillArguments) -> None:
    """Print the text with its gap filled, on a terminal in bold letters.

    Raises:
        RecipeError: the model cannot be loaded, or not be used for that.
    """
    check_files(arguments.model)
    tokenizer = load_tokenizer(arguments.model, arguments.trust_remote_code)
    two_stacks = getattr(load_config(arguments.model, arguments.trust_remote_code), "is_encoder_decoder", False)
    _check_tokens(tokenizer, two_stacks, arguments.model)
    auto_class = AutoModelForSeq2SeqLM if two_stacks else AutoModelForCausalLM
    model, _ = load_whole(auto_class, arguments.model, trust_remote_code=arguments.trust_remote_code)
    refuse_masked(model, arguments.model)
    _check_lengths(model, tokenizer, infilling, arguments.max_new_tokens)
    model = move_to(model, arguments.device).eval()
    if arguments.int8:
        quantize_int8(model)
    set_seed(arguments.seed)
    options = generation_options(arguments)
    if two_stacks:
        filled = fill_by_sentinels(model, tokenizer, *infilling.sides, **options)
    else:
        (filled,) = fill_gaps(model, tokenizer, [infilling.sides], infilling.suffix_first, **options)
    _show(filled)


def _show(filled: Filled) -> None:
    middle = f"{BOLD}{filled.middle}{PLAIN}" if sys.stdout.isatty() else filled.middle
    print(filled.before + middle + filled.after, flush=True)
    if not filled.is_finished:
        print("note: max_new_tokens ended what is written in the gap: give more", file=sys.stderr, flush=True)


def _check_tokens(tokenizer: PreTrainedTokenizerBase, two_stacks: bool, name: str) -> None:
    """Raises RecipeError where a tokenizer has nothing that marks a gap."""
    if not tokenizer.is_fast:
        raise RecipeError(f"the tokenizer of {name} has no fast version (tokenizer.json): infill needs one.")
    known = tokenizer.get_vocab()
    if two_stacks and not all(sentinel in known for sentinel in sentinel_names(2)):
        raise RecipeError(
            f"the tokenizer of {name} has no sentinels ({', '.join(sentinel_names(2))}): give an encoder-decoder that "
            "fills in spans, as T5 and those of pretrain_seq2seq.py --objective span do, or a causal model."
        )
    if not two_stacks and MiddleTokens.find(tokenizer) is None:
        raise RecipeError(
            f"the tokenizer of {name} has no tokens for infilling ({', '.join(NAMES[0])}, or other models' names): "
            "train with pretrain_clm.py --infill_rate 0.5, or fill masks in with a masked model and --mode diffusion."
        )


def _check_lengths(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, infilling: InfillArguments, max_new_tokens: int
) -> None:
    """Raises RecipeError where the model has no rows for the tokens, or no positions for the text."""
    before, after = infilling.sides
    check_reading(model, tokenizer, [side for side in infilling.sides if side])
    if model.config.is_encoder_decoder:
        check_length(model, [len(source_of(tokenizer, before, after)[0])], 1)
        return
    ids, rows = prompt_of(tokenizer, before, after).ids, model.get_input_embeddings().weight.shape[0]
    if max(ids) >= rows:
        raise RecipeError(
            f"the tokenizer has tokens for infilling with ids up to {max(ids)}, but the model only {rows} rows: give a "
            "model that was trained with them."
        )
    check_length(model, [len(ids)], max_new_tokens)
