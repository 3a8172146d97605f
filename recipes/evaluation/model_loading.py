"""The checkpoint to score: any Hugging Face model with a language-model head, loaded for the direction asked for."""

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from weft.recipes.common.checkpoint_files import load_tokenizer
from weft.recipes.common.checkpoints import load_config, load_whole
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.hardware import move_to
from weft.recipes.evaluation.arguments import SCORINGS
from weft.tokenizer.special_tokens import for_role

CAUSAL_ENDINGS = ("ForCausalLM", "LMHeadModel")
MASKED_ENDINGS = ("ForMaskedLM", "ForPreTraining")
PAIR_ENDINGS = ("ForConditionalGeneration", "MTModel")
AUTO_CLASSES = {"causal": AutoModelForCausalLM, "continuation": AutoModelForSeq2SeqLM}


def load_model(
    name: str, scoring: str, device: str | None = None, dtype: str = "auto", trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, str]:
    """Load a model and its tokenizer.

    Args:
        name: folder or Hub id.
        scoring: one of SCORINGS, or "auto": as the checkpoint's head is.
        device: None: a GPU if there is one.
        dtype: one of DTYPES; "auto": that of the checkpoint.

    Returns:
        The model in evaluation mode, the tokenizer, and the scoring (one of SCORINGS).

    Raises:
        RecipeError: the checkpoint cannot be loaded, has no weights for the head, or a causal score is asked of a
            model that sees what comes after a token.
    """
    config = load_config(name, trust_remote_code)
    chosen = _choose(config, name) if scoring == "auto" else scoring
    tokenizer = load_tokenizer(name, trust_remote_code)
    auto_class = AUTO_CLASSES.get(chosen, AutoModelForMaskedLM)
    advice = f"give another --scoring (auto, {', '.join(SCORINGS)}), or another checkpoint"
    model, _ = load_whole(auto_class, name, advice=advice, dtype=dtype, trust_remote_code=trust_remote_code)
    model = move_to(model, device).eval()
    if chosen == "causal" and not _is_causal(model):
        raise RecipeError(
            f"model {name!r} ({type(model).__name__}) sees what comes after a token, so it has no causal score: give "
            "--scoring masked."
        )
    if config.model_type == "weft" and (chosen != "causal" or config.masked_next_token):
        tokenizer = _as_trained(tokenizer, "decoder" if chosen == "causal" else "encoder")
    return model, tokenizer, chosen


def _as_trained(tokenizer: PreTrainedTokenizerFast, role: str) -> PreTrainedTokenizerFast:
    """Put around texts what stood around documents: both start and end token where a model looks in both directions,
    and no end token where one of both roles, whose tokenizer closes texts, is scored causally."""
    if tokenizer.bos_token is None or tokenizer.eos_token is None:
        return tokenizer
    return for_role(tokenizer, role, token_types="token_type_ids" in tokenizer.model_input_names)


def _choose(config: PreTrainedConfig, name: str) -> str:
    architecture = next(iter(config.architectures or []), "")
    if architecture.endswith(CAUSAL_ENDINGS):
        return "causal"
    if architecture.endswith(MASKED_ENDINGS):
        return "masked"
    if architecture.endswith(PAIR_ENDINGS):
        return "continuation"
    raise RecipeError(
        f"model {name!r} ({architecture or 'no architecture named'}) was saved with neither a causal nor a masked "
        f"language-model head, nor as an encoder-decoder: give --scoring ({', '.join(SCORINGS)})."
    )


@torch.no_grad()
def _is_causal(model: PreTrainedModel) -> bool:
    """Tell whether the logits of two inputs agree as far as the inputs do.

    Some families (BERT among them) load their bidirectional weights as a causal model without a warning.
    """
    size = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(2 * 8, device=model.device).view(2, 8) % size
    ids[1, :4] = ids[0, :4]
    one, other = model(input_ids=ids, use_cache=False).logits[:, :4].float()
    scale = one.std().clamp(min=1e-6)
    return bool((one - other).abs().max() < 1e-3 * scale)
