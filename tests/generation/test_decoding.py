"""The decoding loop writes exactly the tokens of `generate`, compiles once, and weights in 8 bits stay close."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.models import FULL, SLIDING, make_model, random_ids, tiny_config
from helpers.streamed import StreamedIds
from torch._dynamo.utils import counters
from transformers import (
    DynamicCache,
    PreTrainedModel,
    StoppingCriteria,
    Trainer,
    TrainingArguments,
    set_seed,
)

from weft.recipes.common.errors import RecipeError
from weft.recipes.generation.decoding import decode, store_by_column
from weft.recipes.generation.generate_text import compile_options, write_ids
from weft.recipes.generation.int8 import Int8Linear, quantize_int8

MIXED = {"num_hidden_layers": 3, "sliding_window": 5, "layer_types": [SLIDING, FULL, SLIDING]}
MODELS: dict[str, dict[str, Any]] = {
    **{kind: {"position_embedding_type": kind} for kind in ("rope", "learned", "alibi", "t5", "none")},
    "sliding": {"sliding_window": 5},
    "mixed": MIXED,
    "states": {"num_hidden_layers": 3, "layer_types": ["linear_attention", FULL, "recurrent"]},
    "no keys": {"layer_types": ["recurrent", "linear_attention"]},
    "every head its own keys": {"num_key_value_heads": 4},
}
CHOICES: dict[str, dict[str, Any]] = {
    "sample": {"do_sample": True, "temperature": 1.3, "top_k": 20, "top_p": 0.9},
    "penalty": {"do_sample": False, "repetition_penalty": 1.3},
}
STATIC = {"cache_implementation": "static", "disable_compile": True}


def writer(**changes: Any) -> PreTrainedModel:
    return make_model(tiny_config(pad_token_id=0, **changes))


def padded_batch() -> dict[str, torch.Tensor]:
    """Prompts of 9, 5 and 9 tokens."""
    ids = random_ids(3, 9)
    mask = torch.ones_like(ids)
    ids[1, :4] = mask[1, :4] = 0
    return {"input_ids": ids, "attention_mask": mask}


def seeded(model: PreTrainedModel, **options: Any) -> torch.Tensor:
    set_seed(3)
    return model.generate(**options)


@pytest.mark.parametrize("cache", [{}, STATIC], ids=["growing", "static"])
@pytest.mark.parametrize("kind", list(MODELS))
def test_the_tokens_are_those_of_generate(kind: str, cache: dict[str, Any]) -> None:
    """Of a padded batch, one row of which ends before the others."""
    model, options = writer(**MODELS[kind]), {**padded_batch(), "max_new_tokens": 12, "do_sample": False}
    new = model.generate(**options)[:, 9:]
    assert len(set(new.flatten().tolist())) > 5, "the model repeats itself: this proves little"
    options["eos_token_id"] = int(new[0, 4])
    expected = model.generate(**options)
    assert (expected[0, -2:] == 0).all(), "the first row has not ended"
    assert torch.equal(model.generate(**options, **cache, custom_generate=decode), expected)


@pytest.mark.parametrize("cache", [{}, STATIC], ids=["growing", "static"])
@pytest.mark.parametrize("choice", list(CHOICES))
def test_a_seed_draws_what_it_draws_in_generate(choice: str, cache: dict[str, Any]) -> None:
    model = writer(**MIXED)
    for batch in (padded_batch(), {"input_ids": random_ids(1, 7)}):
        options = {**batch, **CHOICES[choice], "max_new_tokens": 10}
        assert torch.equal(seeded(model, **options, **cache, custom_generate=decode), seeded(model, **options))


@pytest.mark.parametrize("choice", ["greedy", *CHOICES])
@pytest.mark.parametrize("kind", ["rope", "learned", "alibi", "sliding", "mixed"])
def test_rows_that_have_ended_are_computed_no_more(kind: str, choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others write and draw what they would beside them; without a padding token too."""
    model, batch = writer(**MODELS[kind]), {"input_ids": random_ids(6, 9)}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    batch["attention_mask"][1, :4] = batch["input_ids"][1, :4] = 0
    options = {**batch, "do_sample": False, **CHOICES.get(choice, {}), "max_new_tokens": 24}
    new = seeded(model, **options)[:, 9:]
    ends = [int(new[0, 2]), int(new[1, 4]), int(new[2, 5]), int(new[3, 9])]
    expected = seeded(model, **options, eos_token_id=ends)
    computed, forward = [], model.model.forward
    monkeypatch.setattr(
        model.model,
        "forward",
        lambda *given, **named: (computed.append(len(named["input_ids"])), forward(*given, **named))[1],
    )
    assert torch.equal(seeded(model, **options, eos_token_id=ends, custom_generate=decode), expected)
    assert computed[0] == 6 and computed[-1] <= 3 and computed == sorted(computed, reverse=True)
    options["pad_token_id"] = model.generation_config.pad_token_id = model.config.pad_token_id = None
    expected = seeded(model, **options, eos_token_id=ends)
    assert torch.equal(seeded(model, **options, eos_token_id=ends, custom_generate=decode), expected)


def test_a_cache_that_was_given_is_a_beginning_to_go_on_from() -> None:
    model, ids = writer(), random_ids(4, 5)
    options = {"max_new_tokens": 12, "do_sample": False}
    new = model.generate(ids, **options)[:, 5:]
    ends, cache = [int(new[0, 1]), int(new[1, 2]), int(new[2, 3])], DynamicCache(config=model.config)
    written = model.generate(ids, **options, eos_token_id=ends, past_key_values=cache, custom_generate=decode)
    more = torch.cat((written, random_ids(4, 2)), dim=1)
    expected = model.generate(more, **options)
    assert torch.equal(model.generate(more, **options, past_key_values=cache), expected)


@pytest.mark.parametrize("stops", [{"stop": 1}, {"stop": 2}])
def test_criteria_of_ones_own_end_rows_as_in_generate(stops: dict[str, int]) -> None:
    """Without an end token a row that has ended is not padded, as in `generate`."""

    class AfterTokens(StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            return torch.tensor([input_ids.shape[1] >= 11 + row % stops["stop"] for row in range(len(input_ids))])

    options = {**padded_batch(), "max_new_tokens": 9, "do_sample": False, "stopping_criteria": [AfterTokens()]}
    model = writer()
    assert torch.equal(model.generate(**options, custom_generate=decode), model.generate(**options))


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="only MKL gains by it")
@pytest.mark.parametrize("tied", [True, False])
def test_weights_stored_by_column_write_the_same(tied: bool) -> None:
    model = writer(tie_word_embeddings=tied, attention_bias=True)
    stored = store_by_column(copy.deepcopy(model))
    assert all(torch.equal(stored.state_dict()[name], value) for name, value in model.state_dict().items())
    assert (stored.lm_head.weight is stored.model.embed_tokens.weight) == tied
    for name, module in stored.named_modules():
        if isinstance(module, torch.nn.Linear):
            rows, columns = module.weight.shape
            assert module.weight.stride() == ((1, rows) if rows > columns else (columns, 1)), name
    for batch in ({"input_ids": random_ids(1, 7)}, padded_batch()):
        options = {**batch, "max_new_tokens": 12, "do_sample": False}
        assert torch.equal(stored.generate(**options, custom_generate=decode), model.generate(**options))
        torch.testing.assert_close(stored(**batch).logits, model(**batch).logits)


def test_a_streamer_is_given_every_token() -> None:
    streamer, ids = StreamedIds(), random_ids(1, 5)
    out = writer().generate(ids, max_new_tokens=6, do_sample=False, stream_to=streamer, custom_generate=decode)
    assert streamer.given == out[0].tolist() and streamer.ended


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_beams": 2}, "one beam"),
        ({"use_cache": False}, "needs a cache"),
        ({"return_dict_in_generate": True}, "token ids only"),
        ({"prompt_lookup_num_tokens": 2}, "no assistant"),
        ({"prefill_chunk_size": 2}, "as a whole"),
    ],
)
def test_what_it_cannot_do_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=f"decode cannot do what was asked, because .*{reason}"):
        writer().generate(random_ids(1, 5), max_new_tokens=3, do_sample=False, custom_generate=decode, **options)


def test_token_types_are_refused_where_the_model_reads_them() -> None:
    given = {"input_ids": random_ids(1, 5), "token_type_ids": torch.zeros(1, 5, dtype=torch.long)}
    options = {"max_new_tokens": 3, "do_sample": False, "custom_generate": decode}
    with pytest.raises(ValueError, match="because it passes on no token_type_ids"):
        writer(type_vocab_size=2).generate(**given, **options)
    assert torch.equal(writer().generate(**given, **options), writer().generate(given["input_ids"], **options))


def test_compiled_decoding_compiles_no_more_after_its_first_batches() -> None:
    """Prompts and continuations of other lengths, padded or not, beyond the window of sliding layers. A sliding cache's
    length is a number, which is compiled as open the second time: hence two batches."""
    model = writer(sliding_window=5, layer_types=[SLIDING, FULL])
    options = {"do_sample": False, **compile_options(model, 40, backend="eager")}
    batch = padded_batch()
    write_ids(model, **batch, max_new_tokens=30, **options)
    write_ids(model, input_ids=random_ids(3, 3), max_new_tokens=4, **options)
    counters.clear()
    for length, number in ((9, 30), (4, 12), (6, 5)):
        cut = {name: value[:, -length:] for name, value in batch.items()}
        expected = model.generate(**cut, max_new_tokens=number, do_sample=False)
        assert torch.equal(write_ids(model, **cut, max_new_tokens=number, **options), expected)
    assert counters["stats"]["unique_graphs"] == 0 and not counters["graph_break"]


def test_compiled_training_compiles_twice_for_each_mode_at_most(tmp_path: Path) -> None:
    """Once for the first shape of training and of evaluation each, once more for a smaller last batch."""
    rows = [{"input_ids": row, "labels": row} for row in random_ids(21, 16)]
    arguments = TrainingArguments(
        *(tmp_path,),
        **{"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "max_steps": 8, "eval_steps": 2},
        **{"eval_strategy": "steps", "report_to": [], "use_cpu": True, "save_strategy": "no", "logging_steps": 100},
        **{"torch_compile": True, "torch_compile_backend": "eager", "disable_tqdm": True},
    )
    counters.clear()
    Trainer(writer(), arguments, train_dataset=rows[:16], eval_dataset=rows).train()
    assert 1 <= counters["stats"]["unique_graphs"] <= 4 and not counters["graph_break"]


def test_weights_in_8_bits_stay_close() -> None:
    """Weights within half a step, logits within 5 % of their spread, in a quarter of the memory."""
    model = writer(tie_word_embeddings=False, attention_bias=True)
    small, ids = quantize_int8(copy.deepcopy(model)), random_ids(2, 12)
    for (name, linear), found in zip(model.named_modules(), small.modules()):
        if isinstance(linear, torch.nn.Linear):
            assert isinstance(found, Int8Linear) and found.weight.dtype == torch.int8, name
            error = (found.weight * found.scale[:, None] - linear.weight).abs()
            assert (error <= found.scale[:, None] * 0.5001).all()
    with torch.no_grad():
        full = model(ids).logits
        for number in (1, 2):  # 12 rows at once, and 2 for which the weights are not written out
            logits = small(ids).logits if number == 1 else small(ids[:, :1]).logits
            reference = full if number == 1 else full[:, :1]
            assert 0 < (logits - reference).std() < 0.05 * full.std()
    weights = [module for module in small.modules() if isinstance(module, Int8Linear)]
    whole = sum(module.weight.numel() * 4 for module in weights)
    assert sum(module.weight.nbytes + module.scale.nbytes for module in weights) < 0.4 * whole
    out = small.generate(ids, max_new_tokens=5, do_sample=False, custom_generate=decode)
    assert out.shape == (2, 17)


def test_a_model_without_a_cache_writes_the_same_and_is_not_compiled() -> None:
    model, options = writer(), {"input_ids": random_ids(1, 5), "max_new_tokens": 6, "do_sample": False}
    expected = write_ids(model, **options)
    model.config.use_cache = model.generation_config.use_cache = False
    assert torch.equal(write_ids(model, **options), expected)
    with pytest.raises(RecipeError, match="Weft models that keep a cache"):
        compile_options(model, 11)


def test_compiling_for_a_processor_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(RecipeError, match=r"compile needs a C\+\+ compiler on a processor"):
        compile_options(writer(), 11)


def test_a_model_without_linear_maps_is_refused() -> None:
    with pytest.raises(RecipeError, match="Embedding has no linear map to quantise"):
        quantize_int8(torch.nn.Embedding(3, 3))


def test_the_command_compiles_and_quantises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: Any) -> None:
    """The same text for each prompt of a last batch that is not full; the checkpoint stays as it is."""
    from helpers.text import sentences

    from weft.recipes.generation import run as generation_run
    from weft.tokenizer.train import train_tokenizer

    tokenizer = train_tokenizer(iter(sentences(50)), "char", 300, model_max_length=64)
    folder, prompts = tmp_path / "model", tmp_path / "prompts.txt"
    writer(vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    prompts.write_text("the river\na\nseven light stones\n")

    def texts(*words: str) -> list[str]:
        command = [*("--model", folder, "--prompt_file", prompts), "--batch_size", "2", *words]
        printed = written(*command, "--do_sample", "false", "--max_new_tokens", "12")
        return [json.loads(line)["text"] for line in printed.splitlines()]

    monkeypatch.setattr(generation_run, "compile_options", lambda *given: compile_options(*given, backend="eager"))
    plain = texts()
    assert len(plain) == 3 and texts("--compile", "true") == plain
    assert [text[:1] for text in texts("--int8", "true")] == [text[:1] for text in plain]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(RecipeError, match="num_beams is 2, but compile is for one beam"):
        texts("--compile", "true", "--num_beams", "2")


@pytest.mark.parametrize("width", [4, 8, 16, 24, 36, 40, 48, 100])
@pytest.mark.parametrize("rows", [1, 8, 9])
def test_eight_bit_products_are_right_at_any_width(width, rows):
    linear = torch.nn.Linear(width, 7)
    eight, states = Int8Linear(linear), torch.randn(rows, width)
    expected = states @ (eight.weight * eight.scale[:, None]).T + linear.bias
    # a product in bfloat16 rounds the states to 8 bits
    torch.testing.assert_close(eight(states), expected, rtol=0.02, atol=0.02 * width**0.5)
