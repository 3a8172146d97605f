"""Layers of linear attention and recurrent networks, alone and between attention, keep what every layer of Weft keeps:
documents apart, padding without effect, one pass and single steps equal, every head and role."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers.models import FULL, SLIDING, TASKS, make_model, random_ids, tiny_config
from transformers import DynamicCache, StaticCache

from weft import (
    WeftForCausalLM,
    WeftForConditionalGeneration,
    WeftForMaskedLM,
    WeftForPreTraining,
    WeftModel,
    linear_attention,
    stack,
)

LINEAR, RECURRENT = "linear_attention", "recurrent"
EXACT = {"rtol": 1e-9, "atol": 1e-11}
KINDS: dict[str, dict[str, Any]] = {
    "linear": {"layer_types": [LINEAR] * 2, "linear_num_value_heads": 4},
    "lstm": {"layer_types": [RECURRENT] * 2},
    "gru": {"layer_types": [RECURRENT] * 2, "recurrent_cell": "gru"},
    "rnn": {"layer_types": [RECURRENT] * 2, "recurrent_cell": "rnn", "recurrent_hidden_size": 20},
    "mixed": {
        "num_hidden_layers": 4,
        "layer_types": [LINEAR, SLIDING, RECURRENT, FULL],
        "sliding_window": 5,
        "value_residual": True,
        "attention_gate": True,
    },
}
TWO_STACKS = {"is_encoder_decoder": True, "decoder_start_token_id": 1, "pad_token_id": 0}
LENGTHS = (7, 12, 9)
PLACES = [slice(0, 7), slice(7, 19), slice(19, 28)]
POSITIONS = torch.cat([torch.arange(length) for length in LENGTHS])[None]


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(linear_attention, "CHUNK", 8)
    yield


def make(kind: str, model_class: type = WeftForCausalLM, **changes: Any) -> torch.nn.Module:
    """In float64; causal as the class asks, where nothing else is said."""
    encodes = model_class in (WeftForMaskedLM, WeftForPreTraining)
    return make_model(
        tiny_config(**{"is_causal": not encodes, **KINDS[kind], **changes}), model_class=model_class
    ).double()


def run(model: torch.nn.Module, ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(ids, **inputs)[0]


@pytest.mark.parametrize("model_class", [WeftForCausalLM, WeftForMaskedLM])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_documents_stay_apart(kind: str, model_class: type) -> None:
    """To the bit where others' content changes, to rounding against each alone; no gradient goes over."""
    model, ids = make(kind, model_class), random_ids(2, 28)
    packed = run(model, ids, position_ids=POSITIONS)
    for place in PLACES:
        torch.testing.assert_close(packed[:, place], run(model, ids[:, place]), **EXACT)
        changed = ids.clone()
        changed[:, place] = 3 + (ids[:, place] + 4) % 58
        after = run(model, changed, position_ids=POSITIONS)
        for other in PLACES:
            assert torch.equal(after[:, other], packed[:, other]) == (other != place)
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    model(inputs_embeds=embedded, position_ids=POSITIONS)[0][:, PLACES[1]].sin().sum().backward()
    assert (embedded.grad[:, PLACES[1]] != 0).any(-1).all()
    assert (embedded.grad[:, :7] == 0).all() and (embedded.grad[:, 19:] == 0).all()


@pytest.mark.parametrize("model_class", [WeftForCausalLM, WeftForMaskedLM])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_has_no_effect(kind: str, model_class: type) -> None:
    """In front, behind and between, of one text and of packed ones."""
    # a window counts the places between, which are no tokens of the text
    changes = {"sliding_window": 30} if kind == "mixed" else {}
    model, texts = make(kind, model_class, **changes), [random_ids(1, 11, seed=1), random_ids(1, 4, seed=2)]
    alone = [run(model, text)[0] for text in texts]
    together = run(model, torch.cat(texts, dim=1), position_ids=torch.tensor([[*range(11), *range(4)]]))[0]
    where = [[*range(3, 8), *range(9, 15)], [*range(12, 16)], [*range(2, 9), *range(10, 18)]]
    ids, mask = torch.full((3, 18), 5), torch.zeros(3, 18, dtype=torch.long)
    positions = torch.zeros(3, 18, dtype=torch.long)
    for row, (places, text) in enumerate(zip(where, [*texts, torch.cat(texts, dim=1)])):
        ids[row, places], mask[row, places] = text[0], 1
        positions[row, places] = torch.arange(len(places)) if row < 2 else torch.tensor([*range(11), *range(4)])
    found = run(model, ids[:2], attention_mask=mask[:2])
    for row, expected in enumerate(alone):
        torch.testing.assert_close(found[row, where[row]], expected, **EXACT)
    packed = run(model, ids, attention_mask=mask, position_ids=positions)
    for row, expected in enumerate([*alone, together]):
        torch.testing.assert_close(packed[row, where[row]], expected, **EXACT)
    assert packed.isfinite().all()


@pytest.mark.parametrize("cut", [(20,), (9, 1, 4, 6), (1,) * 20])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_gives_what_one_pass_gives(kind: str, cut: tuple[int, ...]) -> None:
    """Prompts of unequal length, with padding in front of them, in the middle of chunks and over whole ones."""
    model, ids, mask = make(kind), random_ids(3, 20), torch.ones(3, 20, dtype=torch.long)
    mask[1, :11], mask[2, 12:14] = 0, 0
    expected = run(model, ids, attention_mask=mask)
    for made in (None, DynamicCache(), DynamicCache(config=model.config))[: 1 if len(cut) == 20 else 3]:
        cache, found = made, []
        for begin, end in itertools.pairwise((0, *itertools.accumulate(cut))):
            with torch.no_grad():
                given = {"past_key_values": cache, "attention_mask": mask[:, :end], "use_cache": True}
                outputs = model(ids[:, begin:end], **given)
            cache = outputs.past_key_values
            found.append(outputs.logits)
            assert cache.get_seq_length() == end
        torch.testing.assert_close(torch.cat(found, dim=1)[mask.bool()], expected[mask.bool()], **EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_generated_is_likeliest_without_a_cache(kind: str) -> None:
    """One by one, in a batch of prompts of unequal length, with a cache of fixed length, and with beams."""
    model, prompts = make(kind), [random_ids(1, 6, seed=1), random_ids(1, 3, seed=2)]
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    written = []
    for prompt in prompts:
        text = prompt
        for _ in range(6):
            text = torch.cat((text, run(model, text)[:, -1:].argmax(-1)), dim=1)
        written.append(text)
        assert torch.equal(model.generate(prompt, **options), text)
    batch = torch.cat((prompts[0], torch.cat((torch.zeros(1, 3, dtype=torch.long), prompts[1]), dim=1)))
    mask = torch.tensor([[1] * 6, [0] * 3 + [1] * 3])
    for more in ({}, {"cache_implementation": "static"}):
        found = model.generate(batch, attention_mask=mask, **options, **more)
        assert torch.equal(found[0], written[0][0]) and torch.equal(found[1, 3:], written[1][0])
    alone = [model.generate(prompt, **options, num_beams=3)[0] for prompt in prompts]
    beams = model.generate(batch, attention_mask=mask, **options, num_beams=3)
    slow = model.generate(batch, attention_mask=mask, **options, num_beams=3, use_cache=False)
    assert torch.equal(beams, slow) and torch.equal(beams[0], alone[0]) and torch.equal(beams[1, 3:], alone[1])


def test_what_takes_tokens_back_is_refused() -> None:
    for kind in ("linear", "mixed"):
        model, ids = make(kind), random_ids(1, 6)
        with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
            model.generate(ids, prompt_lookup_num_tokens=2, max_new_tokens=3)
        with pytest.raises(ValueError, match="decode without an assistant"):
            model(ids, use_cache=True).past_key_values.crop(-1)
        with pytest.raises(ValueError, match="Continuous batching cannot run linear_attention and recurrent layers"):
            model.generate_batch(ids.tolist())


def test_what_a_recurrence_cannot_see_is_refused() -> None:
    ids, rows = random_ids(2, 6), torch.tensor([True, False])
    for kind in ("linear", "lstm", "mixed"):
        model = make(kind)
        with pytest.raises(ValueError, match="give a 2-D one, or a dict by layer type"):
            model(ids, attention_mask=torch.ones(2, 1, 6, 6, dtype=torch.bool).tril())
        with pytest.raises(ValueError, match="prefix_mask is for attention"):
            model(ids, prefix_mask=torch.ones(2, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match="causal_rows cannot turn recurrent layers"):
        make("lstm", WeftForMaskedLM)(ids, causal_rows=rows)
    with pytest.raises(ValueError, match="recurrent layers read one way only"):
        make("gru", WeftModel)(ids, is_causal=False)
    for model_class, is_causal in ((WeftForCausalLM, False), (WeftForMaskedLM, True), (WeftForPreTraining, True)):
        with pytest.raises(ValueError, match=f"{model_class.__name__} cannot use this config: recurrent layers read"):
            make("rnn", model_class, is_causal=is_causal)
    keys = DynamicCache()
    for layer in range(2):
        keys.update(torch.zeros(2, 2, 3, 8), torch.zeros(2, 2, 3, 8), layer)
    with pytest.raises(ValueError, match="prefixes of keys and values are for models whose layers are all attention"):
        make("linear")(ids, past_key_values=keys)


def test_masks_by_layer_type_are_obeyed() -> None:
    model, ids = make("mixed"), random_ids(2, 9)
    mask = torch.tensor([[0] * 4 + [1] * 5, [1] * 9])
    seen = torch.ones(9, 9, dtype=torch.bool).tril() & mask[:, None, None].bool()
    near = seen & (torch.arange(9)[:, None] - torch.arange(9) < 5)
    masks = {FULL: seen, SLIDING: near, LINEAR: mask, RECURRENT: mask}
    expected = run(model, ids, attention_mask=mask)
    found = run(model, ids, attention_mask=masks, position_ids=(mask.cumsum(-1) - 1).clamp(min=0))
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], **EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_directions_are_seen(kind: str) -> None:
    """A causal model's token depends on all before it and none behind it, an encoder's on all."""
    ids = random_ids(1, 12)
    for model_class in (WeftForCausalLM, WeftForMaskedLM):
        model = make(kind, model_class)
        embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
        model(inputs_embeds=embedded)[0][:, 5].sin().sum().backward()
        is_seen = (embedded.grad[0] != 0).any(-1)
        assert is_seen.tolist() == [model_class is WeftForMaskedLM or token <= 5 for token in range(12)]


def test_linear_attention_serves_both_roles_and_rows_of_both() -> None:
    """The same weights; a causal row of a bidirectional batch is what the causal model computes."""
    masked, causal = make("linear", WeftForMaskedLM), make("linear", WeftForCausalLM)
    causal.load_state_dict(masked.state_dict())
    ids, mask = random_ids(3, 19), torch.ones(3, 19, dtype=torch.long)
    mask[1, 13:], mask[2, :4] = 0, 0
    for given in ({}, {"position_ids": torch.tensor([[*range(8), *range(11)]] * 3)}, {"attention_mask": mask}):
        found = run(masked, ids, causal_rows=torch.tensor([True, False, True]), **given)
        both, one = run(masked, ids, **given), run(causal, ids, **given)
        for row, expected in enumerate((one, both, one)):
            is_token = mask[row].bool() if "attention_mask" in given else slice(None)
            torch.testing.assert_close(found[row, is_token], expected[row, is_token], **EXACT)
    with pytest.raises(Exception, match="linear_num_key_heads=3 is odd"):
        make("linear", WeftForMaskedLM, linear_num_key_heads=3, linear_num_value_heads=3)
    with pytest.raises(ValueError, match="linear_num_key_heads=1 is odd, and without is_causal half of the heads"):
        make("linear", WeftForCausalLM, linear_num_key_heads=1)(ids, is_causal=False)


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_same_with_activation_checkpointing(kind: str, use_reentrant: bool) -> None:
    model, ids = make(kind).train(), random_ids(2, 28)
    mask = torch.ones(2, 28, dtype=torch.long)
    mask[1, 25:] = 0

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(ids, attention_mask=mask, position_ids=POSITIONS, labels=ids).loss.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    expected = gradients()
    assert all(gradient.abs().sum() > 0 for gradient in expected.values())
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})
    if use_reentrant:
        model.enable_input_require_grads()
    torch.testing.assert_close(gradients(), expected, **EXACT)


def test_one_graph_computes_the_same() -> None:
    """Of packed and padded rows of an encoder, and of single steps."""
    ids, mask = random_ids(2, 6), torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    packed = {"attention_mask": mask, "position_ids": torch.tensor([[0, 0, 0, 1, 0, 1], [0, 1, 2, 0, 1, 2]])}
    types = {"layer_types": [LINEAR, RECURRENT]}
    model = make("linear", WeftForMaskedLM, **types)
    found = run(torch.compile(model, fullgraph=True, backend="eager"), ids, **packed)
    torch.testing.assert_close(found[mask.bool()], run(model, ids, **packed)[mask.bool()], **EXACT)
    model, results = make("linear", **types), []
    for step in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        cache = StaticCache(config=model.config, max_cache_len=10)
        run(model, ids[:, :4], past_key_values=cache)
        results.append([run(step, ids[:, at : at + 1], past_key_values=cache) for at in (4, 5)])
    torch.testing.assert_close(*results, **EXACT)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_last_layer_maps_what_is_read(kind: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the loss and its gradients stay those of all tokens."""
    model, ids, places = make(kind, WeftForMaskedLM).train(), random_ids(2, 12), torch.tensor([1, 7, 15])
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    labels = ids.flatten()[places]
    everywhere = torch.full((24,), -100).scatter(0, places, labels).view(2, 12)
    mask = torch.tensor([[1] * 12, [0] * 2 + [1] * 8 + [0] * 2])
    seen, results = [], []
    model.model.layers[-1].mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:-1].numel()))
    monkeypatch.setattr(stack, "LEAST_TOKENS", 1)
    for given in ({"labels": labels, "predict_from": places}, {"labels": everywhere}):
        model.zero_grad()
        loss = model(ids, attention_mask=mask, **given).loss
        loss.backward()
        results.append({"loss": loss} | {name: each.grad for name, each in model.named_parameters()})
    assert seen[0] == 3 and seen[-1] == 24
    torch.testing.assert_close(*results, **EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_how_a_batch_is_cut_changes_no_gradient(kind: str) -> None:
    model, ids = make(kind).train(), random_ids(4, 9)
    results = []
    for parts in (1, 2):
        model.zero_grad()
        for rows in ids.chunk(parts):
            model(rows, labels=rows, num_items_in_batch=4 * 8, use_cache=False).loss.backward()
        results.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(*results, **EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_every_head_learns_and_is_saved(kind: str, tmp_path: Any) -> None:
    """All weights get a gradient, and a folder gives the same numbers."""
    ids, mask = random_ids(2, 9), torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    labels = {
        "sequence": {"labels": torch.tensor([0, 1])},
        "token": {"labels": ids % 2},
        "question": {"start_positions": torch.tensor([1, 2]), "end_positions": torch.tensor([3, 4])},
    }
    heads: list[tuple[type, dict[str, Any], dict[str, Any]]] = [
        (TASKS[task], {"is_causal": causal}, given) for task, given in labels.items() for causal in (False, True)
    ]
    heads += [(WeftForMaskedLM, {}, {"labels": ids}), (WeftForCausalLM, {}, {"labels": ids})]
    heads.append(
        (WeftForPreTraining, {"type_vocab_size": 2}, {"labels": ids, "next_sentence_label": torch.tensor([0, 1])})
    )
    heads.append((WeftForConditionalGeneration, TWO_STACKS, {"labels": ids}))
    for model_class, fields, given in heads:
        model = make(kind, model_class, **fields)
        outputs = model(ids, attention_mask=mask, **given)
        outputs.loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters()), model_class
    model.save_pretrained(tmp_path)
    again = model_class.from_pretrained(tmp_path, dtype=torch.float64).eval()
    torch.testing.assert_close(again(ids, attention_mask=mask, **given).loss, outputs.loss, **EXACT)
    choices = make(kind, TASKS["choice"], is_causal=False)
    assert choices(ids[:, None].expand(-1, 3, -1), labels=torch.tensor([0, 2])).logits.shape == (2, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_beside_an_encoder_keeps_its_states(kind: str) -> None:
    """Packed, step by step, generated and with beams."""
    model, ids, answer = (
        make(kind, WeftForConditionalGeneration, **TWO_STACKS),
        random_ids(2, 9),
        random_ids(2, 7, seed=1),
    )
    whole = run(model, ids, decoder_input_ids=answer)
    past, found = None, []
    for begin, end in ((0, 3), (3, 4), (4, 7)):
        with torch.no_grad():
            given = {"decoder_input_ids": answer[:, begin:end], "past_key_values": past, "use_cache": True}
            outputs = model(ids, **given)
        past = outputs.past_key_values
        found.append(outputs.logits)
    torch.testing.assert_close(torch.cat(found, dim=1), whole, **EXACT)
    positions, of_answer = torch.tensor([[*range(4), *range(5)]]), torch.tensor([[*range(3), *range(4)]])
    packed = run(model, ids, position_ids=positions, decoder_input_ids=answer, decoder_position_ids=of_answer)
    torch.testing.assert_close(packed[:, :3], run(model, ids[:, :4], decoder_input_ids=answer[:, :3]), **EXACT)
    torch.testing.assert_close(packed[:, 3:], run(model, ids[:, 4:], decoder_input_ids=answer[:, 3:]), **EXACT)
    for beams in (1, 3):
        options = {"max_new_tokens": 5, "do_sample": False, "num_beams": beams}
        assert torch.equal(model.generate(ids, **options), model.generate(ids, **options, use_cache=False))


def test_states_are_kept_in_float32() -> None:
    """Of a model in bfloat16, whose logits stay near those in float32."""
    for kind in ("linear", "lstm"):
        whole = make(kind).float()
        half = make(kind).to(torch.bfloat16)
        ids = random_ids(2, 40)
        cache = half(ids, use_cache=True).past_key_values
        states = [state for layer in cache.layers for state in layer.recurrent_states.values()]
        assert states and all(state.dtype == torch.float32 for state in states)
        found, expected = run(half, ids).float(), run(whole, ids)
        assert (found - expected).norm() < 0.1 * expected.norm()
        with torch.autocast("cpu", torch.bfloat16):
            assert (run(whole, ids).float() - expected).norm() < 0.1 * expected.norm()


def test_layers_without_attention_have_no_positions() -> None:
    """Only the order of tokens counts: later positions, and rotary dicts for other types, change nothing."""
    model, ids = make("linear"), random_ids(1, 6)
    later = run(model, ids, position_ids=torch.arange(6)[None] + 7)
    assert torch.equal(later, run(model, ids))
    rope = {FULL: {"rope_type": "default", "rope_theta": 500.0}, SLIDING: {"rope_type": "default", "rope_theta": 50.0}}
    assert set(make("mixed", rope_parameters=rope).model.rotary_emb) == {FULL, SLIDING}


def test_a_cache_is_as_large_after_one_token_as_after_all() -> None:
    sizes = []
    for tokens in (1, 40):
        cache = make("mixed")(random_ids(1, tokens), use_cache=True).past_key_values
        layers = (cache.layers[0], cache.layers[2])
        kept = [
            state
            for each in layers
            for states in (each.conv_states, each.recurrent_states)
            for state in states.values()
        ]
        sizes.append([state.shape for state in kept])
    assert sizes[0] == sizes[1] == [(1, 3, 64), (1, 2, 8, 16), (1, 32), (1, 32)]
