"""Every backend, compiled, exported, checkpointed or adapted, computes what plain eager attention computes."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.models import ENCODERS, EXPORTED, FULL, ROLES, SLIDING, make_model, make_role, random_ids, tiny_config
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from weft import WeftConfig, WeftForCausalLM, WeftForMaskedLM

ROUNDING = {"rtol": 0.0, "atol": 2e-5}
IN_FLOAT64 = {"rtol": 0.0, "atol": 1e-12}
LAYERS: dict[str, dict[str, Any]] = {"full": {}, "mixed": {"sliding_window": 5, "layer_types": [SLIDING, FULL]}}
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")),
    reason="flex_attention on a CPU is compiled with a C++ compiler",
)


def padded_mask(batch: int, length: int) -> torch.Tensor:
    """Ones, but for three padded tokens at the left of the last row."""
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[-1, :3] = 0
    return mask


def packed_positions(length: int) -> torch.Tensor:
    """Two documents in a row of `length` tokens."""
    return torch.cat((torch.arange(6), torch.arange(length - 6)))[None]


def inputs_of(kind: str, batch: int, length: int) -> dict[str, torch.Tensor]:
    """Token ids and what may stand beside them."""
    beside = {
        "plain": {},
        "padded": {"attention_mask": padded_mask(batch, length)},
        "packed": {"position_ids": packed_positions(length)},
        "packed and padded": {
            "attention_mask": padded_mask(batch, length).flip(-1),
            "position_ids": packed_positions(length),
        },
    }
    return {"input_ids": random_ids(batch, length), **beside[kind]}


def gradients_of(model: PreTrainedModel, seed: int = 5, **inputs: Any) -> dict[str, torch.Tensor]:
    """Gradient of the language-model loss for every parameter, dropout under a fixed seed."""
    model.zero_grad()
    torch.manual_seed(seed)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kind", ["plain", "padded", "packed", "packed and padded"])
@pytest.mark.parametrize("role", list(ROLES))
@pytest.mark.parametrize("layers", list(LAYERS))
def test_sdpa_equals_eager(layers: str, role: str, kind: str) -> None:
    inputs = inputs_of(kind, 2, 21)
    real = inputs.get("attention_mask", torch.ones(2, 21)).bool()
    with torch.no_grad():
        eager = make_role(role, "eager", **LAYERS[layers]).double()(**inputs)[0]
        sdpa = make_role(role, "sdpa", **LAYERS[layers]).double()(**inputs)[0]
    torch.testing.assert_close(sdpa[real], eager[real], **IN_FLOAT64)


@pytest.mark.parametrize("kind", ["padded", "packed and padded"])
@pytest.mark.parametrize("layers", list(LAYERS))
@pytest.mark.parametrize("role", ENCODERS[1:])
def test_gradients_of_an_encoder_on_sdpa_equal_those_on_eager(role: str, layers: str, kind: str) -> None:
    """Of every weight there is, the heads' own ones included."""
    inputs = inputs_of(kind, 2, 21)
    labels = inputs["input_ids"].masked_fill((inputs["attention_mask"] == 0) | (torch.rand(2, 21) < 0.5), -100)
    if role == "pretraining head":
        inputs["next_sentence_label"] = torch.tensor([0, 1] if kind == "padded" else [0, 1, 1, 0])
    found = []
    for backend in ("eager", "sdpa"):
        model = make_role(role, backend, **LAYERS[layers]).double()
        model(**inputs, labels=labels).loss.backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, rtol=0, atol=1e-10 * max(1, expected.abs().max().item()))


@needs_compiler
def test_flex_attention_equals_eager() -> None:
    """Every kind of mask costs a compilation: packed and bidirectional rows are compared in the test of packing."""
    inputs = inputs_of("padded", 2, 48)
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        eager = make_model(tiny_config(**LAYERS["mixed"]), "eager")(**inputs).logits
        flex = make_model(tiny_config(**LAYERS["mixed"]), "flex_attention")(**inputs).logits
    torch.testing.assert_close(flex[real], eager[real], **ROUNDING)


@pytest.mark.parametrize("kind", ["plain", "padded", "packed", "packed and padded"])
@pytest.mark.parametrize("layers", list(LAYERS))
def test_gradients_of_sdpa_equal_those_of_eager(layers: str, kind: str) -> None:
    config, inputs = tiny_config(**LAYERS[layers]), inputs_of(kind, 2, 21)
    mask = inputs.get("attention_mask", torch.ones(2, 21))
    labels = inputs["input_ids"].masked_fill((mask == 0) | (mask.cumsum(-1) == 1), -100)
    found = []
    for backend in ("eager", "sdpa"):
        model = make_model(config, backend).double()
        model(**inputs, labels=labels).loss.backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, rtol=0, atol=1e-10 * max(1, expected.abs().max().item()))


@pytest.mark.parametrize("asked", ["flex_attention", {"": "flex_attention"}], ids=["name", "table"])
def test_attention_dropout_and_flex_attention_are_refused_together(asked: Any) -> None:
    config = tiny_config(attention_dropout=0.1)
    with pytest.raises(ValueError, match=r"flex_attention cannot drop attention weights.*attention_dropout is 0\.1"):
        make_model(config, asked)
    model = make_model(config)
    with pytest.raises(ValueError, match=r"flex_attention cannot drop attention weights.*attention_dropout is 0\.1"):
        model.set_attn_implementation(asked)
    assert model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        assert model(random_ids(1, 5)).logits.isfinite().all()


def test_a_checkpoint_is_refused_with_a_backend_that_cannot_compute_it(tmp_path: Path) -> None:
    make_model(tiny_config(attention_dropout=0.1)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="flex_attention cannot drop attention weights"):
        WeftForCausalLM.from_pretrained(tmp_path, attn_implementation="flex_attention")


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="no_such_backend"):
        make_model(tiny_config(), "no_such_backend")
    with pytest.raises(ValueError, match="no_such_backend"):
        make_model().set_attn_implementation("no_such_backend")


def test_what_flex_attention_cannot_do_on_a_cpu_is_refused() -> None:
    """The masks are given, so that none has to be compiled."""
    model = make_model(tiny_config(), "flex_attention").train()
    with pytest.raises(ValueError, match="flex_attention has no backward pass on a CPU"):
        model(random_ids(1, 16), attention_mask={FULL: None})
    sliding = make_model(tiny_config(sliding_window=5), "flex_attention")
    with torch.no_grad(), pytest.raises(ValueError, match="computes a sliding window wrongly at 24 tokens"):
        sliding(random_ids(1, 24), attention_mask={SLIDING: None})


def test_the_backend_can_be_changed_later() -> None:
    model, ids = make_model(tiny_config(), "eager"), random_ids(2, 9)
    with torch.no_grad():
        eager = model(ids, output_attentions=True)
        assert len(eager.attentions) == 2
        model.set_attn_implementation("sdpa")
        assert model.config._attn_implementation == model.model.config._attn_implementation == "sdpa"
        torch.testing.assert_close(model(ids).logits, eager.logits, **ROUNDING)


def test_nothing_asked_is_sdpa() -> None:
    assert WeftForCausalLM(tiny_config()).config._attn_implementation == "sdpa"


@pytest.mark.parametrize("kind", ["plain", "padded", "packed"])
@pytest.mark.parametrize("role", ["causal head", "bidirectional base", "masked head", "masked head, shifted"])
def test_attention_weights_and_hidden_states(role: str, kind: str) -> None:
    causal = role == "causal head"
    model = make_role(role, "eager", **LAYERS["mixed"])
    inputs = inputs_of(kind, 2, 21)
    with torch.no_grad():
        plain = model(**inputs)[0]
        output = model(**inputs, output_attentions=True, output_hidden_states=True)
        base = model if role == "bidirectional base" else model.model
        last = base(**inputs, is_causal=causal).last_hidden_state
    assert torch.equal(output[0], plain)
    assert len(output.attentions) == 2
    assert len(output.hidden_states) == 3
    real = inputs.get("attention_mask", torch.ones(2, 21)).bool()
    for weights in output.attentions:
        assert weights.shape == (2, 4, 21, 21)
        rows = weights.transpose(1, 2)[real]
        torch.testing.assert_close(rows.sum(-1), torch.ones(rows.shape[:-1]), rtol=0, atol=1e-6)
        above = weights.triu(1)[real[:, None].expand(-1, 4, -1)]
        assert bool((above == 0).all()) == causal
    positions = torch.arange(21)
    outside = (positions[:, None] - positions).abs() > (4 if causal else 5)
    sliding, full = output.attentions
    assert (sliding[:, :, outside][real[:, None, :, None].expand(2, 4, 21, 21)[:, :, outside]] == 0).all()
    assert (full[0, :, -1] > 0).sum(-1).min() > 6
    embeddings = model.get_input_embeddings()(inputs["input_ids"])
    assert torch.equal(output.hidden_states[0], embeddings)
    assert torch.equal(output.hidden_states[-1], last)
    assert all(states.shape == (2, 21, 32) for states in output.hidden_states)


def test_outputs_as_a_tuple() -> None:
    model, ids = make_model(), random_ids(1, 7)
    with torch.no_grad():
        output = model(ids, labels=ids, return_dict=False, use_cache=False)
        named = model(ids, labels=ids, use_cache=False)
    assert isinstance(output, tuple)
    assert torch.equal(output[0], named.loss) and torch.equal(output[1], named.logits)


@pytest.mark.parametrize("dropped", [0.0, 0.2], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_bits(reentrant: bool, backend: str, dropped: float) -> None:
    """Also where the head disagrees with the config's direction, which must not come back when layers are computed
    again."""
    for model_class, causal in itertools.product((WeftForCausalLM, WeftForMaskedLM), (True, False)):
        config = tiny_config(attention_dropout=dropped, hidden_dropout=dropped, is_causal=causal, num_hidden_layers=3)
        model = make_model(config, backend, model_class).train()
        for kind in ("plain", "packed"):
            inputs = inputs_of(kind, 2, 21)
            expected = gradients_of(model, **inputs)
            runs = 0

            def count(*_: Any) -> None:
                nonlocal runs
                runs += 1

            hook = model.model.layers[1].mlp.register_forward_pre_hook(count)
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
            actual = gradients_of(model, **inputs)
            model.gradient_checkpointing_disable()
            hook.remove()
            assert runs == 2, "nothing was computed again"
            for name, gradient in expected.items():
                assert torch.equal(actual[name], gradient), name
        other_seed = gradients_of(model, seed=6, **inputs)
        assert (dropped > 0) == any(not torch.equal(other_seed[name], expected[name]) for name in expected)


def test_hidden_dropout_falls_on_the_embedding_and_on_both_sums_of_every_layer() -> None:
    model = make_model(tiny_config(hidden_dropout=0.5)).train()
    dropped: list[float] = []
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(lambda _, args, output: dropped.append((output == 0).float().mean().item()))
    model(random_ids(4, 30))
    assert len(dropped) == 1 + 2 * 2
    assert all(share == pytest.approx(0.5, abs=0.05) for share in dropped)


@pytest.mark.parametrize("name", ["attention_dropout", "hidden_dropout"])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_dropout_acts_in_training_only(backend: str, name: str) -> None:
    model, ids = make_model(tiny_config(**{name: 0.5}), backend), random_ids(2, 9)
    without = make_model(tiny_config(), backend)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, without(ids).logits)
        model.train()
        assert (model(ids).logits - model(ids).logits).abs().max() > 0.1


def compiled(model: PreTrainedModel) -> Any:
    """One graph without breaks, or an error."""
    torch._dynamo.reset()
    return torch.compile(model, backend="eager", fullgraph=True)


@pytest.mark.parametrize(
    ("role", "causal"),
    [("causal head", True), ("causal head", False), ("bidirectional base", False), ("masked head, shifted", False)],
)
def test_compiled_equals_uncompiled(role: str, causal: bool) -> None:
    model = make_role(role, is_causal=causal, **LAYERS["mixed"])
    graph = compiled(model)
    for kind in ("plain", "packed", "packed and padded"):
        inputs = inputs_of(kind, 2, 21)
        real = inputs.get("attention_mask", torch.ones(2, 21)).bool()
        with torch.no_grad():
            expected, actual = model(**inputs)[0], graph(**inputs)[0]
        torch.testing.assert_close(actual[real], expected[real], **ROUNDING)
    assert model.config.is_causal is causal


@pytest.mark.parametrize("role", ["causal head", "masked head", "pretraining head"])
def test_compiled_training_equals_uncompiled(role: str) -> None:
    """With a fixed number of places to predict from and to pool, as a recipe gives them."""
    model = make_role(role, **LAYERS["mixed"]).train()
    inputs = inputs_of("packed", 2, 21)
    labels = inputs["input_ids"]
    if role != "causal head":
        inputs["predict_from"] = torch.tensor([3, 8, 20, 30])
        inputs["causal_rows"] = torch.tensor([False, True])
        labels = torch.tensor([5, 7, 9, -100])
    if role == "pretraining head":
        inputs |= {"pool_from": torch.tensor([0, 6, 21, 27]), "next_sentence_label": torch.tensor([0, 1, -100, 1])}
    model(**inputs, labels=labels).loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    compiled(model)(**inputs, labels=labels).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], **ROUNDING)


class LogitsOf(torch.nn.Module):
    """A signature of tensors only, as an exported program has."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, beside: torch.Tensor, kind: str) -> torch.Tensor:
        """`beside` is the argument that `kind` names."""
        return self.model(input_ids=input_ids, use_cache=False, **{kind: beside})[0]


@pytest.mark.parametrize(
    ("role", "kind"),
    [
        ("causal head", "attention_mask"),
        ("bidirectional base", "position_ids"),
        ("masked head", "attention_mask"),
        ("masked head, shifted", "position_ids"),
        ("pretraining head", "attention_mask"),
    ],
)
def test_an_exported_program_equals_the_model(role: str, kind: str) -> None:
    """Exported once, with batch size and length left open (3 tokens at least)."""
    model = make_role(role, **LAYERS["mixed"], **EXPORTED)

    def beside(batch: int, length: int) -> torch.Tensor:
        if kind == "attention_mask":
            return padded_mask(batch, length)
        return packed_positions(length).repeat(batch, 1)

    sizes = {0: torch.export.Dim("batch", min=1, max=64), 1: torch.export.Dim("length", min=3, max=128)}
    program = torch.export.export(
        LogitsOf(model), (random_ids(2, 12), beside(2, 12), kind), dynamic_shapes=(sizes, sizes, None), strict=False
    ).module()
    for batch, length in ((2, 12), (3, 12), (5, 30), (1, 17)):
        inputs = (random_ids(batch, length), beside(batch, length), kind)
        real = inputs[1].bool() if kind == "attention_mask" else torch.ones(batch, length).bool()
        with torch.no_grad():
            torch.testing.assert_close(program(*inputs)[real], LogitsOf(model)(*inputs)[real], **ROUNDING)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("model_class", [WeftForCausalLM, WeftForMaskedLM])
def test_the_vocabulary_can_grow_and_shrink(model_class: type, bias: bool, tied: bool, tmp_path: Path) -> None:
    config = tiny_config(tie_word_embeddings=tied, lm_head_bias=bias, lm_head_transform=bias)
    model, ids = make_model(config, model_class=model_class), random_ids(2, 9, vocab_size=50)
    shift = model_class is WeftForCausalLM
    with torch.no_grad():
        before = model(ids).logits
    for size in (80, 50):
        model.resize_token_embeddings(size)
        kept = min(size, 61)
        assert model.config.vocab_size == size
        assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
        assert (model.lm_head.bias is not None and model.lm_head.bias.shape == (size,)) == bias
        with torch.no_grad():
            output = model(ids, labels=ids)
        assert output.logits.shape == (2, 9, size)
        torch.testing.assert_close(output.logits[..., :kept], before[..., :kept], **ROUNDING)
        expected = torch.nn.functional.cross_entropy(
            output.logits[:, : 9 - shift].flatten(0, 1), ids[:, shift:].flatten()
        )
        torch.testing.assert_close(output.loss, expected)
        model.save_pretrained(tmp_path)
        again = model_class.from_pretrained(tmp_path)
        with torch.no_grad():
            assert torch.equal(again(ids).logits, output.logits)


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]], ids=["all-linear", "named"])
@pytest.mark.parametrize("model_class", [WeftForCausalLM, WeftForMaskedLM])
def test_lora_trains_generates_saves_and_merges(model_class: type, targets: Any, tmp_path: Path) -> None:
    ids = random_ids(4, 12)
    model = make_model(tiny_config(pad_token_id=0), model_class=model_class)
    generates = model_class is WeftForCausalLM
    with torch.no_grad():
        before = model(ids).logits
    task = "CAUSAL_LM" if generates else None
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=targets, task_type=task))
    frozen = {name: weight.clone() for name, weight in adapted.named_parameters() if not weight.requires_grad}
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits, before, **ROUNDING)
    optimizer = torch.optim.SGD([weight for weight in adapted.parameters() if weight.requires_grad], lr=0.1)
    losses = []
    for _ in range(4):
        loss = adapted(input_ids=ids, labels=ids).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    assert all(torch.equal(dict(adapted.named_parameters())[name], weight) for name, weight in frozen.items())

    adapted.eval()
    if generates:
        generated = adapted.generate(input_ids=ids[:1], max_new_tokens=8, do_sample=False)
        assert generated.shape == (1, 20)
    with torch.no_grad():
        after = adapted(ids).logits
    assert (after - before).abs().max() > 1e-3
    adapted.save_pretrained(tmp_path)
    plain = make_model(tiny_config(pad_token_id=0), model_class=model_class)
    loaded = PeftModel.from_pretrained(plain, tmp_path).eval()
    merged = adapted.merge_and_unload()
    assert isinstance(merged, model_class)
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, after)
        torch.testing.assert_close(merged(ids).logits, after, **ROUNDING)
    if generates:
        assert torch.equal(merged.generate(ids[:1], max_new_tokens=8, do_sample=False), generated)


def test_fewer_layers_than_the_config_has_types_for(tmp_path: Path) -> None:
    """Overriding num_hidden_layers at load leaves layer_types as long as it was: the first layers are used."""
    config: WeftConfig = tiny_config(num_hidden_layers=3, sliding_window=5, layer_types=[SLIDING, FULL, SLIDING])
    model = make_model(config)
    model.save_pretrained(tmp_path)
    shallow = WeftForCausalLM.from_pretrained(tmp_path, num_hidden_layers=2)
    del model.model.layers[2]
    model.config.num_hidden_layers = 2
    ids = random_ids(1, 12)
    with torch.no_grad():
        assert torch.equal(shallow(ids).logits, model(ids).logits)
