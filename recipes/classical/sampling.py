"""Text written by a model of tokens, drawn from its probabilities."""

import numpy as np
from transformers import PreTrainedTokenizerBase

from weft.recipes.classical.token_model import TokenModel
from weft.tokenizer.encode_as_text import encode_as_text


def write_text(
    model: TokenModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str = "",
    max_new_tokens: int = 120,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> str:
    """Continue a prompt until the end token comes; the prompt and what was written.

    Args:
        temperature: logarithms of probabilities are divided by it.
        top_p: draw from the fewest tokens that have so much probability together.
        seed: the same one gives the same text.
    """
    draw, state = np.random.default_rng(seed), model.begin()
    ids = list(next(iter(encode_as_text(tokenizer, [prompt]))).ids)
    for token in [*([] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]), *ids]:
        state = model.advance(state, token)
    for _ in range(max_new_tokens):
        token = draw_token(model.next_probabilities(state), draw, temperature, top_p)
        if token == tokenizer.eos_token_id:
            break
        ids.append(token)
        state = model.advance(state, token)
    return tokenizer.decode(ids, skip_special_tokens=True)


def draw_token(probabilities: np.ndarray, draw: np.random.Generator, temperature: float, top_p: float) -> int:
    """Draw a token from probabilities [vocabulary]; of `temperature` and `top_p` see `write_text`."""
    sharpened = probabilities ** (1 / temperature)
    sharpened /= sharpened.sum()
    order = np.argsort(-sharpened, kind="stable")
    ends = np.cumsum(sharpened[order])
    kept = 1 + int(np.searchsorted(ends[:-1], top_p))  # the first that reaches top_p is the last
    return int(order[np.searchsorted(ends[:kept], draw.random() * ends[kept - 1], side="right")])
