"""Every way of generating gives the tokens that the model's own logits say, however the cache is kept."""

import shutil
from typing import Any

import pytest
import torch
import transformers
from helpers.models import FULL, SLIDING, make_model, random_ids, tiny_config
from packaging.version import Version
from transformers import (
    DynamicCache,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    StaticCache,
    set_seed,
)

NEW_TOKENS = 24
ROUNDING = {"rtol": 0.0, "atol": 2e-5}
LAYERS: dict[str, dict[str, Any]] = {
    "full": {},
    "sliding": {"sliding_window": 5},
    "mixed": {"num_hidden_layers": 3, "sliding_window": 5, "layer_types": [SLIDING, FULL, SLIDING]},
}
CACHES: dict[str, dict[str, Any]] = {
    "dynamic": {},
    "static": {"cache_implementation": "static", "disable_compile": True},
    "none": {"use_cache": False},
}


def generating_model(layers: str = "mixed", backend: str = "sdpa", **changes: Any) -> PreTrainedModel:
    """A model that knows a padding token and never ends by itself."""
    return make_model(tiny_config(pad_token_id=0, **{**LAYERS[layers], **changes}), backend)


def as_stock(model: PreTrainedModel) -> Qwen3ForCausalLM:
    """The same weights in the stock class."""
    config = model.config
    names = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
        "tie_word_embeddings",
        "layer_types",
        "sliding_window",
        "pad_token_id",
    )
    stock_config = Qwen3Config(
        **{name: getattr(config, name) for name in names}, use_sliding_window=config.sliding_window is not None
    )
    stock = Qwen3ForCausalLM._from_config(stock_config, attn_implementation="sdpa").eval()
    stock.load_state_dict(model.state_dict())
    return stock


def new_tokens(model: PreTrainedModel, ids: torch.Tensor, **arguments: Any) -> list[list[int]]:
    """The generated tokens of each row, without the prompt."""
    arguments = {"max_new_tokens": NEW_TOKENS, "do_sample": False, **arguments}
    return model.generate(ids, **arguments)[:, ids.shape[1] :].tolist()


def slow_greedy(model: PreTrainedModel, ids: torch.Tensor, count: int = NEW_TOKENS) -> list[list[int]]:
    """The most likely token again and again, the whole row computed anew each time."""
    start = ids.shape[1]
    with torch.no_grad():
        for _ in range(count):
            ids = torch.cat((ids, model(ids, use_cache=False).logits[:, -1:].argmax(-1)), dim=1)
    return ids[:, start:].tolist()


@pytest.mark.parametrize("cache", list(CACHES))
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("layers", list(LAYERS))
def test_greedy_with_every_cache(layers: str, backend: str, cache: str) -> None:
    """Also beyond the window of sliding layers."""
    model = generating_model(layers, backend)
    ids = random_ids(2, 9)
    expected = slow_greedy(model, ids)
    assert len({token for row in expected for token in row}) > 5, "the model repeats itself: this proves little"
    assert new_tokens(model, ids, **CACHES[cache]) == expected


@pytest.mark.parametrize("length", [1, 4, 5, 6, 11])
@pytest.mark.parametrize("cache", list(CACHES))
def test_prompts_shorter_and_longer_than_the_window(cache: str, length: int) -> None:
    model = generating_model("mixed")
    ids = random_ids(1, length)
    assert new_tokens(model, ids, **CACHES[cache]) == slow_greedy(model, ids)


STRATEGIES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sample": {"do_sample": True, "temperature": 1.3, "top_k": 20, "top_p": 0.9},
    "beam": {"num_beams": 3},
    "beam sample": {"num_beams": 2, "do_sample": True},
    "penalty": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
}


@pytest.mark.parametrize("cache", list(CACHES))
@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_every_strategy_generates_as_the_stock_class(strategy: str, cache: str) -> None:
    model = generating_model("mixed")
    stock = as_stock(model)
    ids = random_ids(2, 7)
    set_seed(3)
    expected = new_tokens(stock, ids, **STRATEGIES[strategy], use_cache=False)
    set_seed(3)
    assert new_tokens(model, ids, **STRATEGIES[strategy], **CACHES[cache]) == expected


def test_a_seed_fixes_the_sample() -> None:
    model = generating_model()
    ids = random_ids(2, 7)
    samples = []
    for seed in (1, 1, 2):
        set_seed(seed)
        samples.append(new_tokens(model, ids, do_sample=True))
    assert samples[0] == samples[1] != samples[2]


def test_beams_find_a_likelier_continuation_than_greedy() -> None:
    model = generating_model()
    ids = random_ids(1, 6)

    def log_probability(tokens: list[list[int]]) -> float:
        row = torch.cat((ids, torch.tensor(tokens)), dim=1)
        with torch.no_grad():
            scores = model(row).logits.log_softmax(-1)[:, ids.shape[1] - 1 : -1]
        return scores.gather(-1, torch.tensor(tokens)[..., None]).sum().item()

    greedy, beams = new_tokens(model, ids), new_tokens(model, ids, num_beams=8)
    assert log_probability(beams) > log_probability(greedy)


@pytest.mark.parametrize("layers", list(LAYERS))
def test_assisted_and_prompt_lookup_equal_greedy(layers: str) -> None:
    """Speculative tokens, accepted or thrown away, leave no trace in the cache."""
    if layers == "sliding" and Version(transformers.__version__) < Version("5.23"):
        pytest.skip("transformers 5.17 cuts sliding caches to the wrong length, for stock Qwen3 too")
    model = generating_model(layers)
    ids = random_ids(1, 12)
    ids[:, 6:] = ids[:, :6]
    expected = slow_greedy(model, ids)
    smaller = make_model(tiny_config(pad_token_id=0, num_hidden_layers=1, hidden_size=16), seed=1)
    assert new_tokens(model, ids, assistant_model=smaller) == expected
    assert new_tokens(model, ids, assistant_model=generating_model(layers)) == expected
    assert new_tokens(model, ids, prompt_lookup_num_tokens=3) == expected


@pytest.mark.parametrize("cache", list(CACHES))
@pytest.mark.parametrize("layers", list(LAYERS))
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_a_left_padded_batch_equals_its_rows_one_by_one(backend: str, layers: str, cache: str) -> None:
    model = generating_model(layers, backend)
    prompts = [random_ids(1, length, seed=length) for length in (11, 4, 1)]
    ids, mask = torch.zeros(3, 11, dtype=torch.long), torch.zeros(3, 11, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, 11 - prompt.shape[1] :] = prompt[0]
        mask[row, 11 - prompt.shape[1] :] = 1
    together = new_tokens(model, ids, attention_mask=mask, **CACHES[cache])
    assert together == [slow_greedy(model, prompt)[0] for prompt in prompts]


@pytest.mark.parametrize("cache", list(CACHES))
@pytest.mark.parametrize("layers", ["full", "mixed"])
def test_a_bidirectional_checkpoint_still_generates_causally(layers: str, cache: str) -> None:
    """`is_causal=False` in the config is the direction of the base model, not of this head."""
    model = generating_model(layers, is_causal=False)
    causal = generating_model(layers)
    ids, mask = random_ids(2, 9), torch.ones(2, 9, dtype=torch.long)
    mask[1, :4] = 0
    expected = new_tokens(causal, ids, attention_mask=mask)
    assert expected[0] == slow_greedy(model, ids[:1])[0]
    assert new_tokens(model, ids, attention_mask=mask, **CACHES[cache]) == expected
    assert model.config.is_causal is False


@pytest.mark.parametrize("chunk", [1, 3, 4, 16])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_prefill_in_chunks_changes_nothing(cache: str, chunk: int) -> None:
    model = generating_model("mixed")
    ids = random_ids(2, 13)
    assert new_tokens(model, ids, prefill_chunk_size=chunk, **CACHES[cache]) == slow_greedy(model, ids)


@pytest.mark.parametrize("make_cache", ["returned", "dynamic", "static"])
@pytest.mark.parametrize("layers", list(LAYERS))
def test_forward_in_chunks_equals_one_forward(layers: str, make_cache: str) -> None:
    """A cache is returned by default and continues where it ended, with and without a mask of left padding."""
    model = generating_model(layers)
    ids = random_ids(2, 20)
    for padded in (False, True):
        mask = torch.ones_like(ids)
        if padded:
            mask[1, :3] = 0
        with torch.no_grad():
            whole = model(ids, attention_mask=mask if padded else None)
            cache = {
                "returned": None,
                "dynamic": DynamicCache(config=model.config),
                "static": StaticCache(config=model.config, max_cache_len=22),
            }[make_cache]
            parts = []
            for start, end in ((0, 8), (8, 9), (9, 13), (13, 20)):
                output = model(
                    ids[:, start:end], attention_mask=mask[:, :end] if padded else None, past_key_values=cache
                )
                cache = output.past_key_values
                parts.append(output.logits)
        assert cache.get_seq_length() == 20
        real = mask.bool()
        torch.testing.assert_close(torch.cat(parts, dim=1)[real], whole.logits[real], **ROUNDING)


def test_the_cache_is_returned_as_asked() -> None:
    model = generating_model("mixed")
    ids = random_ids(1, 5)
    assert model(ids).past_key_values.get_seq_length() == 5
    assert model(ids, use_cache=True).past_key_values.get_seq_length() == 5
    assert model(ids, use_cache=False).past_key_values is None
    assert model(ids, use_cache=False, past_key_values=DynamicCache()).past_key_values is None
    cache = model(random_ids(1, 20)).past_key_values
    assert [layer.keys.shape[-2] for layer in cache.layers] == [4, 20, 4], "sliding layers keep no more than they see"
    model.config.use_cache = False
    assert model(ids).past_key_values is None
    assert model(ids, use_cache=True).past_key_values.get_seq_length() == 5
    expected = slow_greedy(model, ids)
    assert new_tokens(model, ids) == expected


def test_logits_to_keep() -> None:
    model = generating_model()
    ids = random_ids(2, 9)
    with torch.no_grad():
        every = model(ids).logits
        assert every.shape == (2, 9, 61)
        assert torch.equal(model(ids, logits_to_keep=0).logits, every)
        for kept in (1, 4, 9):
            torch.testing.assert_close(model(ids, logits_to_keep=kept).logits, every[:, -kept:], **ROUNDING)
        chosen = torch.tensor([0, 3, 7])
        torch.testing.assert_close(model(ids, logits_to_keep=chosen).logits, every[:, chosen], **ROUNDING)


def test_inputs_embeds_stand_in_for_tokens() -> None:
    model = generating_model()
    ids = random_ids(2, 9)
    embeddings = model.get_input_embeddings()(ids)
    with torch.no_grad():
        assert torch.equal(model(inputs_embeds=embeddings).logits, model(ids).logits)
    assert model.generate(inputs_embeds=embeddings, max_new_tokens=NEW_TOKENS, do_sample=False).tolist() == (
        slow_greedy(model, ids)
    )
    for arguments in ({}, {"input_ids": ids, "inputs_embeds": embeddings}):
        with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
            model(**arguments)


def test_generation_stops_at_the_end_token() -> None:
    model = generating_model()
    ids = random_ids(1, 9)
    expected = slow_greedy(model, ids)[0]
    end = expected[7]
    first = expected.index(end)
    assert new_tokens(model, ids, eos_token_id=end)[0] == expected[: first + 1]


def test_scores_of_generation_are_the_logits_of_the_finished_row() -> None:
    model = generating_model()
    ids = random_ids(2, 9)
    output = model.generate(
        ids, max_new_tokens=NEW_TOKENS, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    with torch.no_grad():
        logits = model(output.sequences).logits[:, 8:-1]
    torch.testing.assert_close(torch.stack(output.logits, dim=1), logits, **ROUNDING)


@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")),
    reason="flex_attention on a CPU is compiled with a C++ compiler",
)
def test_flex_attention_generates_as_sdpa() -> None:
    """Full attention and a growing cache: what it can compute on a CPU."""
    ids = random_ids(2, 16)
    expected = new_tokens(generating_model("full"), ids, max_new_tokens=2)
    assert new_tokens(generating_model("full", "flex_attention"), ids, max_new_tokens=2) == expected
