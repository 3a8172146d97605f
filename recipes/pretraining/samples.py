"""Sample texts of a pretrained model for its card: continuations, masks filled in, and targets written."""

from collections.abc import Sequence

import torch
import transformers
from transformers import PreTrainedTokenizerBase

import weft
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.positions import position_limit, position_limit_of
from weft.recipes.data.corpus import Corpus

SAMPLES = 3
SAMPLE_LENGTH = 40  # tokens of a sample with masks
MASK_EVERY = 6
SAMPLE_WRITTEN = 64  # tokens at most that are written for a source


def sample_texts(model: "transformers.PreTrainedModel", tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[str]:
    """Some continuations of a prompt, always the same, for a model card."""
    from weft.recipes.generation.generate_text import generate_texts, start_ids  # with transformers' caches

    transformers.set_seed(0)
    length = max(1, min(120, tokenizer.model_max_length - len(start_ids(tokenizer, prompt))))
    options = {"max_new_tokens": length, "do_sample": True, "temperature": 0.8, "top_k": 0, "top_p": 0.95}
    return generate_texts(model, tokenizer, [prompt] * SAMPLES, **options)


def check_sample_prompt(config: "weft.WeftConfig", tokenizer: PreTrainedTokenizerBase, prompt: str) -> None:
    """Refuse, before the run begins, a sample_prompt that its model has no positions for; raises RecipeError."""
    tokens, limit = len(tokenizer(prompt).input_ids), position_limit_of(config)
    if limit is not None and tokens > limit:
        raise RecipeError(
            f"sample_prompt has {tokens} tokens, but the model has only {limit} positions (max_position_embeddings): "
            "give a shorter one."
        )


@torch.no_grad()
def sample_fills(
    model: "transformers.PreTrainedModel", tokenizer: PreTrainedTokenizerBase, prompt: str, corpus: Corpus
) -> list[str]:
    """Texts, the same with masked tokens, and with what a masked language model puts in their places, for a model card.

    Args:
        prompt: a text with mask tokens; where it has none, the beginnings of held-out documents are masked.
    """
    if tokenizer.mask_token in prompt:
        rows = [(None, tokenizer(prompt).input_ids)]
    else:
        rows, longest = [], min(SAMPLE_LENGTH, position_limit(model) or SAMPLE_LENGTH)
        for document in corpus.documents("validation")[:SAMPLES]:
            first, last = int(corpus.offsets[document]), int(corpus.offsets[document + 1])
            text = corpus.tokens[first : min(last, first + longest)].tolist()
            row = list(text)
            for place in range(MASK_EVERY // 2, len(row) - 1, MASK_EVERY):
                row[place] = tokenizer.mask_token_id
            rows.append((text, row))
    samples = []
    for text, row in rows:
        ids = torch.tensor([row], device=model.device)
        outputs = model(input_ids=ids)
        logits = outputs.logits if "logits" in outputs else outputs.prediction_logits
        filled = torch.where(ids == tokenizer.mask_token_id, logits.argmax(-1), ids)[0].tolist()
        shown = {"text": text, "masked": row, "filled": filled}
        samples.append(_lines(tokenizer, shown))
    return samples


@torch.no_grad()
def sample_written(
    model: "transformers.PreTrainedModel",
    tokenizer: PreTrainedTokenizerBase,
    sides: Sequence[tuple[list[int], list[int] | None]],
) -> list[str]:
    """Sources, their targets and what a text-to-text model writes for them, for a model card.

    Args:
        sides: token ids of each source and of its target, if there is one.
    """
    longest = min(SAMPLE_WRITTEN, position_limit(model) or SAMPLE_WRITTEN)
    samples = []
    for source, target in sides:
        ids = torch.tensor([source], device=model.device)
        written = model.generate(ids, max_new_tokens=longest - 1, do_sample=False)[0].tolist()
        samples.append(_lines(tokenizer, {"source": source, "target": target, "written": written}))
    return samples


def _lines(tokenizer: PreTrainedTokenizerBase, shown: dict[str, list[int] | None]) -> str:
    """Texts with their names, without special tokens other than masks and those that only the tokenizer knows."""
    kept = {tokenizer.mask_token_id, *tokenizer.convert_tokens_to_ids(tokenizer.extra_special_tokens)}
    hidden = set(tokenizer.all_special_ids) - kept
    return "\n".join(
        f"{name}: {tokenizer.decode([token for token in ids if token not in hidden])}"
        for name, ids in shown.items()
        if ids
    )
