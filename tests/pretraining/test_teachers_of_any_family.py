"""A teacher of any family gives its own logits for some tokens at a time, and reads a document as if it were alone."""

from typing import Any

import pytest
import torch
import transformers
from helpers.families import CASES, SHAPE
from helpers.memory import LargestTensor
from helpers.models import random_ids, shake
from transformers import PreTrainedModel

from weft.recipes.common.errors import RecipeError
from weft.recipes.pretraining.distillation import isolation
from weft.recipes.pretraining.distillation.head import find_head
from weft.recipes.pretraining.distillation.isolation import (
    batch_of,
    check_direction,
    choose_reader,
    draw_documents,
    readers_of,
)
from weft.recipes.pretraining.distillation.reading import gather, logits_at, packed_rows

# What the stock classes do with states or logits beside a product: nothing, a scale, a cap, a bias of its own.
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "cohere": ("cohere", {**SHAPE, "logit_scale": 0.13, "pad_token_id": 0}),
    "mobilebert": ("mobilebert", {**SHAPE, "embedding_size": 16, "intra_bottleneck_size": 18}),
}
KNOWN = CASES | OTHERS
CAUSAL = ["bloom", "cohere", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "granite", "llama", "mistral", "mpt", "olmo2"]
CAUSAL += ["olmo_hybrid", "opt", "opt-post", "qwen3", "qwen3_5_text", "smollm3"]
MASKED = ["bert", "bert-untied", "deberta-v2", "mobilebert", "modernbert", "roberta"]
PAIRS = ["bart", "marian", "t5", "t5-1.1"]
# Rows of several documents go as they are to classes that read of positions where one begins, in all their layers.
PACKED = {*CAUSAL} - {"bloom", "mpt", "opt", "opt-post", "olmo_hybrid", "qwen3_5_text"}


def make(name: str) -> PreTrainedModel:
    """A small stock model whose weights, biases of logits included, all matter."""
    model_type, fields = KNOWN[name]
    kinds = {"CausalLM": CAUSAL, "MaskedLM": MASKED, "Seq2SeqLM": PAIRS}
    auto_class = next(f"AutoModelFor{kind}" for kind, names in kinds.items() if name in names)
    config = transformers.CONFIG_MAPPING[model_type](**{"decoder_start_token_id": 0, **fields})
    model = shake(getattr(transformers, auto_class).from_config(config))
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_()
    if name == "mobilebert":  # a token's embedding holds its neighbours', and padding has none
        model.get_input_embeddings().weight.data[0] = 0
    model.config.use_cache = False
    return model.eval()


def answer_of(model: PreTrainedModel) -> isolation.Answer:
    """A function of a model's inputs that gives its logits."""
    return torch.no_grad()(lambda **inputs: model(**inputs).logits)


@torch.no_grad()
def alone(model: PreTrainedModel, document: torch.Tensor) -> torch.Tensor:
    """Logits [tokens, classes] of a document, in the plainest call of the class."""
    if not model.config.is_encoder_decoder:
        return model(input_ids=document[None]).logits[0]
    decoder_input_ids = model.prepare_decoder_input_ids_from_labels(labels=document[None])
    return model(input_ids=document[None], decoder_input_ids=decoder_input_ids).logits[0]


@pytest.mark.parametrize("name", [*CAUSAL, *MASKED, *PAIRS])
def test_logits_of_some_tokens_are_the_models_own(name: str) -> None:
    model = make(name)
    inputs = next(readers_of(model)[-1](batch_of(draw_documents(range(3, 97))[:2]), 64)).inputs
    head = find_head(model, **inputs)
    assert (head is None) == (name == "mobilebert")  # whose output matrix is put together out of two
    assert "forward" not in vars(model.get_output_embeddings())
    if head is None:
        return
    others = {key: value.roll(1, -1) if key.endswith("ids") else value for key, value in inputs.items()}
    states, expected = head.reach(**others), answer_of(model)(**others)
    torch.testing.assert_close(head(states[:, 2:5]), expected[:, 2:5], rtol=0, atol=2e-6 * expected.abs().max().item())


@pytest.mark.parametrize("name", [*CAUSAL, *MASKED, *PAIRS])
def test_a_document_is_read_as_if_it_were_alone(name: str) -> None:
    model, documents = make(name), draw_documents(range(3, 97))
    answer, readers = answer_of(model), readers_of(model)
    reader = choose_reader(readers, answer, documents, "a teacher")
    assert (reader is packed_rows) == (name in PACKED)
    lengths = [[9, 1, 6], [4, 12]]
    rows = [[random_ids(length, vocab_size=97, seed=length) for length in of_row] for of_row in lengths]
    batch = {key: torch.cat(parts) for key, *parts in zip(batch_of(rows[0]), *(batch_of(row).values() for row in rows))}
    expected = torch.cat([alone(model, document) for row in rows for document in row])
    for most in (8, 1000):  # in several pieces, and in one
        found = gather(answer, reader(batch, most), 32)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
        places = torch.tensor([31, 0, 9, 9, 20])
        some = logits_at(answer, list(reader(batch, most)), places, 32)
        torch.testing.assert_close(some, expected[places], rtol=0, atol=1e-5 * expected.abs().max().item())


def test_padding_behind_the_documents_of_pairs_is_left_out() -> None:
    """Rows of pairs differ in length on both sides; one has no pair at all."""
    model = make("t5")
    sides = [([5, 3], [2, 6]), ([4], [9]), ([], [])]
    batch = {}
    for side, (ids, positions, mask) in enumerate(
        [("input_ids", "position_ids", "attention_mask"), ("labels", "decoder_position_ids", "decoder_attention_mask")]
    ):
        longest = max(sum(row[side]) for row in sides)
        values = random_ids(3, longest, vocab_size=97, seed=side)
        is_token = torch.tensor([[place < sum(row[side]) for place in range(longest)] for row in sides])
        batch[ids] = values.where(is_token, -100 if ids == "labels" else 0)
        counted = [[step for length in row[side] for step in range(length)] for row in sides]
        batch[positions] = torch.tensor([each + [0] * (longest - len(each)) for each in counted])
        batch[mask] = is_token.long()
    found = gather(answer_of(model), readers_of(model)[-1](batch, 1000), batch["labels"].numel()).view(3, 9, -1)
    for row, (source, target) in enumerate(sides):
        first = [0, 0]
        for lengths in zip(source, target):
            ids, labels = (
                batch[name][row, start : start + length][None]
                for name, start, length in zip(("input_ids", "labels"), first, lengths)
            )
            decoder_input_ids = model.prepare_decoder_input_ids_from_labels(labels=labels)
            expected = answer_of(model)(input_ids=ids, decoder_input_ids=decoder_input_ids)[0]
            here = found[row, first[1] : first[1] + lengths[1]]
            torch.testing.assert_close(here, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
            first = [start + length for start, length in zip(first, lengths)]
        assert not found[row, first[1] :].any()


def test_reaching_the_head_makes_no_logits() -> None:
    model = make("gpt2")
    ids = random_ids(3, 40, vocab_size=97)
    head = find_head(model, input_ids=ids[:, :4])
    with LargestTensor() as whole:
        answer_of(model)(input_ids=ids)
    model.transformer.h = model.transformer.h[:0]  # of which states are wider than logits
    with LargestTensor() as reached:
        head.reach(input_ids=ids)
    assert whole.numel >= 120 * 97 and reached.numel == 120 * 48


class Leaky(torch.nn.Module):
    """A model whose positions restart, and whose documents see what stands before them all the same."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, input_ids: torch.Tensor, position_ids: Any = None, attention_mask: Any = None) -> Any:
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return self.model(input_ids=input_ids, position_ids=position_ids, attention_mask=attention_mask)


def test_a_model_that_leaks_is_given_each_document_by_itself() -> None:
    model = Leaky(make("gpt2"))
    readers = readers_of(model)
    reader = choose_reader(readers, answer_of(model), draw_documents(range(3, 97)), "a teacher")
    assert readers[0] is packed_rows and reader is readers[-1]


def test_a_model_that_sees_in_the_wrong_direction_is_refused() -> None:
    document = draw_documents(range(3, 97))[0]
    causal, masked = make("llama"), make("bert")
    check_direction(readers_of(causal)[-1], answer_of(causal), document, True, "a teacher")
    check_direction(readers_of(masked)[-1], answer_of(masked), document, False, "a teacher")
    with pytest.raises(RecipeError, match="a teacher sees what comes after a token, which it is to predict"):
        check_direction(readers_of(masked)[-1], answer_of(masked), document, True, "a teacher")
    with pytest.raises(RecipeError, match="a teacher does not see what comes after a masked token"):
        check_direction(readers_of(causal)[-1], answer_of(causal), document, False, "a teacher")


def test_a_model_whose_numbers_are_not_finite_is_refused() -> None:
    model = make("gpt2")
    model.transformer.ln_f.bias.data[3] = float("nan")
    with pytest.raises(RecipeError, match="a teacher makes numbers that are not finite: give another"):
        choose_reader(readers_of(model), answer_of(model), draw_documents(range(3, 97)), "a teacher")
