"""Batch size, learning rate and weight decay that follow from a model's size and the length of its training.

The laws were fitted to causal models trained with AdamW; masked ones, and Muon with updates as large as AdamW's, take
the same values here.
"""

# Measured with AdamW on models of 4 x 128 and a million tokens, on a CPU: far below what any of the laws was fitted to.
SMALL_TOKENS_PER_STEP, SMALL_LEARNING_RATE, USUAL_WEIGHT_DECAY = 2048, 3e-3, 0.1
SMALL_BODY = 2_000_000  # parameters outside of embedding and head up to which these are taken as they are

# The step law (https://huggingface.co/papers/2503.04715), fitted to models of 60M to 1B parameters.
STEP_LAW = "step law, https://huggingface.co/papers/2503.04715"
BATCH_FACTOR, BATCH_POWER = 0.58, 0.571
RATE_FACTOR, RATE_POWER_OF_SIZE, RATE_POWER_OF_TOKENS = 1.79, -0.713, 0.307

# The timescale of AdamW (https://huggingface.co/papers/2505.13738), fitted to models of 111M to 3.3B parameters.
TIMESCALE = "AdamW's timescale, https://huggingface.co/papers/2505.13738"
TIMESCALE_FACTOR, TIMESCALE_POWER = 1.084, -0.527
TIMESCALE_PARAMETERS, TIMESCALE_TOKENS_PER_PARAMETER = 100_000_000, 20
LEAST_WEIGHT_DECAY, MOST_WEIGHT_DECAY = 0.03, 0.3

MEASURED, USUAL = "measured with small models on a CPU", "the usual one"


def best_tokens_per_step(body: int, tokens: float) -> float:
    """Tokens of an optimizer step: 0.58 D^0.571, the step law (https://huggingface.co/papers/2503.04715), at least
    2,048; for a body of at most 2 million parameters 2,048, as measured.

    Args:
        body: parameters outside of embedding and head.
        tokens: of the whole training, D.
    """
    if body <= SMALL_BODY:
        return SMALL_TOKENS_PER_STEP
    return max(SMALL_TOKENS_PER_STEP, BATCH_FACTOR * tokens**BATCH_POWER)


def best_tokens_per_step_of_steps(body: int, steps: int) -> float:
    """`best_tokens_per_step` of a run whose steps are given instead of its tokens: B that solves B = law(steps x B)."""
    solution = (BATCH_FACTOR * steps**BATCH_POWER) ** (1 / (1 - BATCH_POWER))
    return best_tokens_per_step(body, steps * solution)


def best_learning_rate(body: int, tokens: float) -> float:
    """The highest learning rate: 1.79 N^-0.713 D^0.307, the step law (https://huggingface.co/papers/2503.04715), at
    most 3e-3. That is what it says of the smallest models it was fitted to (60M parameters, a billion tokens), what
    was measured as good for a body of a million parameters, and what bodies of at most 2 million always get.

    Args:
        body: parameters outside of embedding and head, N.
        tokens: of the whole training, D.
    """
    if body <= SMALL_BODY:
        return SMALL_LEARNING_RATE
    return min(SMALL_LEARNING_RATE, RATE_FACTOR * body**RATE_POWER_OF_SIZE * tokens**RATE_POWER_OF_TOKENS)


def best_weight_decay(parameters: int, tokens: float, tokens_per_step: int, learning_rate: float) -> float:
    """Decay with which AdamW averages over the best share of the training: B / (rate x share x D), where the share is
    1.084 (D/N)^-0.527 (https://huggingface.co/papers/2505.13738; that such a timescale matters:
    https://huggingface.co/papers/2405.13698).

    It stays between 0.03 and 0.3, a factor of three around the 0.1 that the step law's learning rates were fitted
    with, and is 0.1 outside of the law's range: below 100 million parameters, or 20 tokens for each.

    Args:
        parameters: all of the model's, N.
        tokens: of the whole training, D.
        tokens_per_step: of an optimizer step, B.
        learning_rate: the highest.
    """
    if not has_timescale(parameters, tokens):
        return USUAL_WEIGHT_DECAY
    share = TIMESCALE_FACTOR * (tokens / parameters) ** TIMESCALE_POWER
    return min(MOST_WEIGHT_DECAY, max(LEAST_WEIGHT_DECAY, tokens_per_step / (learning_rate * share * tokens)))


def has_timescale(parameters: int, tokens: float) -> bool:
    """Whether a training is within the range of the law of the weight decay."""
    return parameters >= TIMESCALE_PARAMETERS and tokens >= TIMESCALE_TOKENS_PER_PARAMETER * parameters
