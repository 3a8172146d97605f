"""Whether a model can be the teacher of a run: its kind, its tokens, and how much it reads at once."""

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto import modeling_auto

from weft import WeftConfig
from weft.recipes.common.checkpoint_files import load_tokenizer
from weft.recipes.common.checkpoints import check_files, load_config
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.positions import position_limit
from weft.recipes.pretraining.objectives.base import Objective
from weft.tokenizer.vocabulary import number_of_ids

# What teachers of each Auto class are called, and the families that transformers knows of them.
KINDS = {
    "AutoModelForCausalLM": ("a causal model", modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    "AutoModelForMaskedLM": ("a masked model", modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
    "AutoModelForSeq2SeqLM": ("an encoder-decoder", modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
}


def check_kind(name: str, objective: Objective) -> None:
    """Refuse a teacher whose files are broken or whose config is of another kind, before work is done for it.

    Raises:
        RecipeError: says what it is, and what is needed.
    """
    check_files(name)
    config, auto_class = load_config(name), objective.teacher_class
    kind, families = KINDS[auto_class]
    if config.model_type != WeftConfig.model_type:
        shifts, fits = False, config.model_type in families
        found = f"a {config.model_type} ({next(iter(config.architectures or []), 'no architecture named')})"
    else:
        shifts, fits, found = config.masked_next_token, _kind_of(config) == kind, _kind_of(config)
        fits = fits or (shifts and not config.is_encoder_decoder and auto_class != "AutoModelForSeq2SeqLM")
    if auto_class == "AutoModelForMaskedLM" and objective.role()["masked_next_token"] != shifts:
        kind, fits = "a hybrid model of Weft" if not shifts else "a masked model that is no hybrid", False
    if not fits:
        raise RecipeError(
            f"teacher {name!r} is {found}, and {kind} is needed here: give another, or train with the recipe and "
            "objective that it was trained with."
        )


def _kind_of(config: PreTrainedConfig) -> str:
    """What a Weft model is."""
    if config.is_encoder_decoder:
        return "an encoder-decoder"
    if config.masked_next_token:
        return "a hybrid model"
    return "a causal model" if config.is_causal else "a masked model"


def check_tokens(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises RecipeError where a token of the run has another id in the teacher's tokenizer, or none; special tokens
    that only the teacher knows do no harm."""
    theirs, own = load_tokenizer(name), tokenizer.get_vocab()
    known = theirs.get_vocab()
    special = {str(token) for token in theirs.added_tokens_decoder.values() if token.special}
    if any(known.get(token) != number for token, number in own.items()) or not known.keys() - own.keys() <= special:
        raise RecipeError(
            f"teacher {name!r} and the text have different tokenizers ({len(known):,} and {len(own):,} tokens, or the "
            f"same number with other ids): prepare the text with the teacher's own (--tokenizer_name {name})."
        )


def check_size(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, length: int) -> None:
    """Refuse a teacher with too few rows of embeddings, or too few positions.

    Args:
        length: the most tokens that are read at once.

    Raises:
        RecipeError: says what there is, and what is needed.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if rows < number_of_ids(tokenizer):
        raise RecipeError(
            f"teacher {name!r} has {rows:,} rows of embeddings and its tokenizer {number_of_ids(tokenizer):,} ids: "
            "they do not belong together, so give another."
        )
    limits = (position_limit(model), getattr(model.config, "max_position_embeddings", None))
    limit = min((each for each in limits if each is not None), default=None)
    if limit is not None and limit < length:
        raise RecipeError(
            f"teacher {name!r} reads {limit:,} tokens at most, and rows here have up to {length:,}: give a smaller "
            "sequence_length, or another teacher."
        )
