"""Sample texts of a pretrained model for its card: continued, masked and filled in, judged, and targets written."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
import transformers
from transformers import PreTrainedTokenizerBase

import weft
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.positions import position_limit, position_limit_of
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.datasets.counter_rng import make_key, uniform
from weft.recipes.pretraining.datasets.masking import DRAWN_TOKEN

if TYPE_CHECKING:
    from weft.recipes.pretraining.replaced_tokens import ReplacedTokenModel

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


def sample_middles(
    model: "transformers.PreTrainedModel", tokenizer: PreTrainedTokenizerBase, corpus: Corpus, suffix_first: bool
) -> list[str]:
    """Beginnings of held-out documents, the same with a gap, and with what an infilling model writes there, for a model
    card; `suffix_first` as in `fill_gaps`."""
    from weft.recipes.generation.infilling.arguments import FILL
    from weft.recipes.generation.infilling.texts import fill_gaps

    longest = min(SAMPLE_LENGTH, tokenizer.model_max_length // 2)
    texts = []
    for document in corpus.documents("validation")[:SAMPLES]:
        first, last = int(corpus.offsets[document]), int(corpus.offsets[document + 1])
        ids = corpus.tokens[first : min(last, first + longest)]
        third = len(ids) // 3
        parts = (ids[:third], ids[third : 2 * third], ids[2 * third :])
        texts.append([tokenizer.decode(part, skip_special_tokens=True) for part in parts])
    sides = [(before, after) for before, _, after in texts]
    transformers.set_seed(0)
    options = {"max_new_tokens": longest, "do_sample": True, "temperature": 0.8, "top_k": 0, "top_p": 0.95}
    filled = fill_gaps(model, tokenizer, sides, suffix_first, **options)
    return [
        f"text: {''.join(text)}\nwith a gap: {FILL.join(side)}\nfilled: {found.text}"
        for text, side, found in zip(texts, sides, filled)
    ]


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
    has_masks = tokenizer.mask_token in prompt
    rows = [(None, tokenizer(prompt).input_ids)] if has_masks else masked_documents(model, tokenizer, corpus)
    samples = []
    for text, row in rows:
        ids = torch.tensor([row], device=model.device)
        outputs = model(input_ids=ids)
        logits = outputs.logits if "logits" in outputs else outputs.prediction_logits
        filled = torch.where(ids == tokenizer.mask_token_id, logits.argmax(-1), ids)[0].tolist()
        shown = {"text": text, "masked": row, "filled": filled}
        samples.append(_lines(tokenizer, shown))
    return samples


def masked_documents(
    model: "transformers.PreTrainedModel", tokenizer: PreTrainedTokenizerBase, corpus: Corpus
) -> Iterator[tuple[list[int], list[int]]]:
    """The token ids of the beginnings of some held-out documents, and the same with masks."""
    longest = min(SAMPLE_LENGTH, position_limit(model) or SAMPLE_LENGTH)
    for document in corpus.documents("validation")[:SAMPLES]:
        first, last = int(corpus.offsets[document]), int(corpus.offsets[document + 1])
        text = corpus.tokens[first : min(last, first + longest)].tolist()
        row = list(text)
        for place in range(MASK_EVERY // 2, len(row) - 1, MASK_EVERY):
            row[place] = tokenizer.mask_token_id
        yield text, row


@torch.no_grad()
def sample_replaced(
    model: "ReplacedTokenModel", tokenizer: PreTrainedTokenizerBase, prompt: str, corpus: Corpus
) -> list[str]:
    """Texts, the same with tokens that a generator drew, and with those marked that are called replaced, for a model
    card.

    Args:
        prompt: a text that is judged as it is; where there is none, held-out documents get tokens of the generator.
    """
    own = tokenizer(prompt).input_ids
    samples = []
    for text, masked in [(own, own)] if prompt else masked_documents(model, tokenizer, corpus):
        ids, original = (torch.tensor([row], device=model.device) for row in (masked, text))
        places = (ids != original)[0].nonzero()[:, 0]
        draws = torch.from_numpy(uniform(make_key(0), np.arange(len(places)), DRAWN_TOKEN)).to(ids.device)
        inputs = {"predict_from": places, "labels": original[0, places], "draws": draws.float()}
        inputs |= {"position_ids": torch.arange(len(text), device=ids.device)[None], "original_ids": original}
        outputs = model(input_ids=ids, is_text=torch.ones_like(ids, dtype=torch.bool), **inputs)
        read, called = outputs.read_ids[0].tolist(), outputs.logits[0].argmax(-1).tolist()
        lines = [("text", text, [0] * len(text)), ("called replaced", read, called)]
        if not prompt:
            lines.insert(1, ("replaced", read, outputs.is_replaced[0].tolist()))
        shown = [place for place, token in enumerate(text) if token not in tokenizer.all_special_ids]
        marked = ((name, [ids[p] for p in shown], [marks[p] for p in shown]) for name, ids, marks in lines)
        samples.append("\n".join(f"{name}: {_marked(tokenizer, ids, marks)}" for name, ids, marks in marked))
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


def _marked(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], marks: Sequence[int]) -> str:
    """A text with brackets around each stretch of tokens that have a mark."""
    text, borders = "", [place for place in range(1, len(ids)) if marks[place] != marks[place - 1]]
    for first, last in pairwise([0, *borders, len(ids)]):
        piece = tokenizer.decode(ids[:last])[len(tokenizer.decode(ids[:first])) :]
        bare = piece.strip()
        text += piece.replace(bare, f"[[{bare}]]") if bare and marks[first] else piece
    return text


def _lines(tokenizer: PreTrainedTokenizerBase, shown: dict[str, list[int] | None]) -> str:
    """Texts with their names, without special tokens other than masks and those that only the tokenizer knows."""
    kept = {tokenizer.mask_token_id, *tokenizer.convert_tokens_to_ids(tokenizer.extra_special_tokens)}
    hidden = set(tokenizer.all_special_ids) - kept
    return "\n".join(
        f"{name}: {tokenizer.decode([token for token in ids if token not in hidden])}"
        for name, ids in shown.items()
        if ids
    )
