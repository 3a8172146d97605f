"""A document's logits and loss are the same alone, padded on either side, or packed with others, on every backend."""

import shutil
from typing import Any

import pytest
import torch
from helpers.flash import use_stand_in
from helpers.models import FULL, SLIDING, TASKS, make_task, random_ids
from transformers import PreTrainedModel

EXACT = {"rtol": 0.0, "atol": 1e-10}
ROUNDING = {"rtol": 0.0, "atol": 2e-5}
LENGTHS = (7, 1, 4, 12, 5, 3)
DOCUMENTS = [random_ids(1, length, seed=length) for length in LENGTHS]
ROWS = ((0, 1, 2), (3,), (4, 5))  # which documents are packed into one row
COUNTS = torch.tensor([2, 1, 3])  # how many of them belong to each example of multiple choice
MODELS: dict[str, dict[str, Any]] = {
    "causal, last": {},
    "causal, mean": {"classifier_pooling": "mean"},
    "bidirectional, mean": {"is_causal": False},
    "bidirectional, cls": {"is_causal": False, "classifier_pooling": "cls"},
    "bidirectional, last": {"is_causal": False, "classifier_pooling": "last"},
    "causal, sliding": {"sliding_window": 4, "layer_types": [SLIDING, FULL]},
    "bidirectional, sliding": {"is_causal": False, "sliding_window": 4, "layer_types": [SLIDING, FULL]},
}
MINIMUM = torch.finfo(torch.float64).min
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")),
    reason="flex_attention on a CPU is compiled with a C++ compiler",
)


def padded(side: str, tokens: int = 14) -> dict[str, torch.Tensor]:
    """Every document in its own row."""
    ids, mask = torch.zeros(len(DOCUMENTS), tokens).long(), torch.zeros(len(DOCUMENTS), tokens).long()
    for row, document in enumerate(DOCUMENTS):
        length = document.shape[1]
        here = slice(tokens - length, tokens) if side == "left" else slice(0, length)
        ids[row, here], mask[row, here] = document[0], 1
    return {"input_ids": ids, "attention_mask": mask}


def packed(side: str, tokens: int = 14) -> dict[str, torch.Tensor]:
    """The documents in three rows, the padding of each on one side."""
    shape = (len(ROWS), tokens)
    ids, mask, positions = torch.zeros(shape).long(), torch.zeros(shape).long(), torch.zeros(shape).long()
    for row, numbers in enumerate(ROWS):
        place = tokens - sum(LENGTHS[number] for number in numbers) if side == "left" else 0
        for number in numbers:
            here = slice(place, place + LENGTHS[number])
            ids[row, here], mask[row, here] = DOCUMENTS[number][0], 1
            positions[row, here] = torch.arange(LENGTHS[number])
            place = here.stop
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


LAYOUTS = {
    "padded left": padded("left"),
    "padded right": padded("right"),
    "packed, left": packed("left"),
    "packed, right": packed("right"),
}


def logits_alone(task: str, model: PreTrainedModel) -> list[torch.Tensor]:
    """Logits of each document by itself: [1, labels], [1, tokens, labels], [1, tokens, 2] or [1, 1]."""
    if task == "choice":
        return [model(document[None]).logits for document in DOCUMENTS]
    outputs = [model(document) for document in DOCUMENTS]
    if task == "question":
        return [torch.stack((output.start_logits, output.end_logits), dim=-1) for output in outputs]
    return [output.logits for output in outputs]


def logits_of(task: str, model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The same out of one batch; what is left over must be marked as nothing."""
    output = model(**inputs, **({"choice_counts": COUNTS} if task == "choice" else {}))
    if task == "sequence":
        assert output.logits.shape == (len(DOCUMENTS), 3)
        return list(output.logits.split(1))
    if task == "choice":
        exists = torch.arange(3) < COUNTS[:, None]
        assert output.logits.shape == exists.shape and (output.logits[~exists] == torch.finfo(model.dtype).min).all()
        return list(output.logits[exists].view(-1, 1, 1))
    is_packed, mask = "position_ids" in inputs, inputs["attention_mask"].bool()
    if task == "token":
        of_documents = output.logits[mask].split(LENGTHS)
        return [logits[None] for logits in of_documents]
    logits = torch.stack((output.start_logits, output.end_logits), dim=-1)
    if is_packed:
        mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    assert logits.shape[:2] == mask.shape and (logits[~mask] == torch.finfo(model.dtype).min).all()
    return [each[None] for each in logits[mask].split(LENGTHS)]


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("kind", list(MODELS))
@pytest.mark.parametrize("task", list(TASKS))
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_logits_are_those_of_each_document_alone(backend: str, task: str, kind: str, layout: str) -> None:
    model = make_task(task, backend, **MODELS[kind])
    inputs = LAYOUTS[layout]
    with torch.no_grad():
        expected, found = logits_alone(task, model), logits_of(task, model, inputs)
        other_content = {**inputs, "input_ids": inputs["input_ids"] + 9 * (1 - inputs["attention_mask"])}
        torch.testing.assert_close(found, expected, **EXACT)
        torch.testing.assert_close(logits_of(task, model, other_content), found, rtol=0, atol=0)


@pytest.mark.parametrize("task", list(TASKS))
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("kind", ["causal, last", "bidirectional, mean", "bidirectional, sliding"])
def test_flash_attention_too(kind: str, layout: str, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for its kernels, in float32, which is all that it takes on a CPU."""
    expected = make_task(task, "eager", **MODELS[kind]).float()
    model = use_stand_in(make_task(task, "eager", **MODELS[kind]).float(), monkeypatch)
    with torch.no_grad():
        found = logits_of(task, model, LAYOUTS[layout])
        torch.testing.assert_close(found, logits_alone(task, expected), **ROUNDING)


@needs_compiler
def test_flex_attention_too() -> None:
    """One head and one kind of mask: each mask costs a compilation, and the heads come after the stack."""
    inputs = packed("right", tokens=16)
    expected, model = (
        make_task("sequence", backend, is_causal=False).float() for backend in ("eager", "flex_attention")
    )
    with torch.no_grad():
        found = logits_of("sequence", model, inputs)
        torch.testing.assert_close(found, logits_alone("sequence", expected), **ROUNDING)


LABELS = {"sequence": torch.tensor([2, 0, -100, 1, 1, 0]), "choice": torch.tensor([1, 0, 2])}
STARTS, ENDS = torch.tensor([3, 0, -100, 11, 4, 0]), torch.tensor([6, 0, 2, 11, -100, 1])


def labels_of(task: str, layout: str) -> dict[str, torch.Tensor]:
    """The same targets for any layout."""
    inputs = LAYOUTS[layout]
    if task in LABELS:
        return {"labels": LABELS[task], **({"choice_counts": COUNTS} if task == "choice" else {})}
    if task == "token":
        return {"labels": (inputs["input_ids"] % 3).masked_fill(inputs["attention_mask"] == 0, -100)}
    shift = inputs["attention_mask"].argmax(-1) if layout == "padded left" else 0
    return {
        "start_positions": torch.where(STARTS == -100, -100, STARTS + shift),
        "end_positions": torch.where(ENDS == -100, -100, ENDS + shift),
    }


@pytest.mark.parametrize("task", list(TASKS))
@pytest.mark.parametrize("kind", ["causal, last", "bidirectional, mean"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_do_not_depend_on_the_layout(checkpointing: bool, kind: str, task: str) -> None:
    results = []
    for layout in LAYOUTS:
        model = make_task(task, **MODELS[kind])
        if checkpointing:
            model.train().gradient_checkpointing_enable()
        loss = model(**LAYOUTS[layout], **labels_of(task, layout)).loss
        loss.backward()
        results.append((loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}))
    assert results[0][0] > 0.1
    for loss, gradients in results[1:]:
        torch.testing.assert_close(loss, results[0][0], **EXACT)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, results[0][1][name], **EXACT)


@pytest.mark.parametrize("kind", ["causal, last", "bidirectional, mean"])
@pytest.mark.parametrize("task", list(TASKS))
def test_every_weight_gets_a_gradient(task: str, kind: str) -> None:
    """All that a config can switch on included. One number more for all tokens, or choices, changes no probability,
    so that the biases of these two heads get 0."""
    everything = {"attention_bias": True, "mlp_bias": True, "type_vocab_size": 2, "classifier_dropout": 0.1}
    model = make_task(task, **MODELS[kind], **everything).train()
    inputs = LAYOUTS["packed, right"]
    types = torch.arange(14) % 2
    model(**inputs, **labels_of(task, "packed, right"), token_type_ids=types.expand(3, -1)).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert name in ("qa_outputs.bias", "choice_score.bias") or parameter.grad.abs().max() > 1e-6, name


def test_positions_for_all_rows_at_once() -> None:
    """Position ids [1, tokens] hold for every row, with a mask and without."""
    ids, positions = random_ids(3, 11), torch.cat((torch.arange(4), torch.arange(7)))[None]
    for task in ("sequence", "question"):
        model = make_task(task)
        with torch.no_grad():
            expected = model(ids, position_ids=positions.expand(3, -1))
            for mask in (None, torch.ones_like(ids)):
                found = model(ids, position_ids=positions, attention_mask=mask)
                assert len(found[0]) == 6
                for one, other in zip(found.values(), expected.values()):
                    assert torch.equal(one, other)


@pytest.mark.parametrize("kind", list(MODELS))
def test_a_mask_that_is_ready_made_is_obeyed(kind: str) -> None:
    """4-D, of a batch without padding: one document in each row, as without any mask."""
    if "sliding" in kind:
        mask: Any = {FULL: None, SLIDING: None}
        model = make_task("sequence", **{**MODELS[kind], "sliding_window": 40})
    else:
        sees = torch.ones(9, 9).tril() if "causal" in kind and "bi" not in kind else torch.ones(9, 9)
        mask = torch.zeros(1, 1, 9, 9).double().masked_fill(sees == 0, MINIMUM).expand(2, -1, -1, -1)
        model = make_task("sequence", **MODELS[kind])
    ids = random_ids(2, 9)
    with torch.no_grad():
        expected = model(ids).logits
        torch.testing.assert_close(model(ids, attention_mask=mask).logits, expected, **EXACT)
        positions = torch.cat((torch.arange(4), torch.arange(5)))[None]
        assert model(ids, attention_mask=mask, position_ids=positions).logits.shape == (2, 3)


def test_without_a_mask_the_last_token_is_no_padding() -> None:
    """The last one that is not pad_token_id, as in stock decoders; without such an id, or ids, the last one."""
    ids = random_ids(3, 9)
    ids[0, 6:], ids[1, :4], ids[2] = 0, 0, 0
    model = make_task("sequence", pad_token_id=0)
    with torch.no_grad():
        states = model.model(ids).last_hidden_state
        embeddings = model.model.embed_tokens(ids)
        expected = model.score(torch.stack((states[0, 5], states[1, 8], states[2, 0])))
        torch.testing.assert_close(model(ids).logits, expected, **EXACT)
        last = model.score(states[:, -1])
        torch.testing.assert_close(model(inputs_embeds=embeddings).logits, last, **EXACT)
        model.config.pad_token_id = None
        torch.testing.assert_close(model(ids).logits, last, **EXACT)
        mask = torch.ones_like(ids)
        model.config.pad_token_id = 0
        torch.testing.assert_close(model(ids, attention_mask=mask).logits, last, **EXACT)


@pytest.mark.parametrize("kind", list(MODELS))
@pytest.mark.parametrize("task", ["sequence", "token", "question"])
def test_a_row_of_only_padding_harms_nothing(task: str, kind: str) -> None:
    """It keeps its place, has finite numbers, and gives no gradient where its label is no target."""
    inputs = {"input_ids": random_ids(3, 9), "attention_mask": torch.ones(3, 9).long()}
    inputs["attention_mask"][1] = 0
    names = ("start_positions", "end_positions") if task == "question" else ("labels",)
    label = torch.tensor([2, -100, 1])
    labels = dict.fromkeys(names, label[:, None].expand(-1, 9) if task == "token" else label)
    both = {name: value[[0, 2]] for name, value in {**inputs, **labels}.items()}
    gradients = []
    for batch in ({**inputs, **labels}, both):
        model = make_task(task, **MODELS[kind])
        output = model(**batch)
        assert all(value.isfinite().all() for value in output.values())
        assert len(output[1]) == len(batch["input_ids"])
        output.loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], **EXACT)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", list(MODELS))
def test_a_choice_without_a_token_does_not_exist(kind: str, backend: str) -> None:
    """Rows of it are passed over: logits, loss and gradients are those of the choices that there are, packed."""
    ids, mask = torch.zeros(3, 3, 14).long(), torch.zeros(3, 3, 14).long()
    exists = torch.arange(3) < COUNTS[:, None]
    ids[exists], mask[exists] = LAYOUTS["padded left"]["input_ids"], LAYOUTS["padded left"]["attention_mask"]
    results = []
    for inputs in (
        {"input_ids": ids, "attention_mask": mask},
        {"input_ids": ids + 9 * (1 - mask), "attention_mask": mask},
        {**LAYOUTS["packed, right"], "choice_counts": COUNTS},
    ):
        model = make_task("choice", backend, **MODELS[kind])
        output = model(**inputs, labels=LABELS["choice"])
        output.loss.backward()
        assert (output.logits[~exists] == MINIMUM).all() and output.loss.isfinite()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        results.append((output.logits[exists].detach(), output.loss.detach(), gradients))
    for result in results[:2]:
        torch.testing.assert_close(result, results[2], **EXACT)
    with pytest.raises(ValueError, match="The label of example 0 is 2, a choice that it does not have"):
        model(ids, attention_mask=mask, labels=torch.tensor([2, 0, 1]))


def test_whatever_stands_beside_the_choices_has_their_shape() -> None:
    """Token types, positions and embeddings; each choice as if it were a row by itself."""
    model = make_task("choice", is_causal=False, type_vocab_size=2)
    ids, types = random_ids(2, 3, 9), (torch.arange(9) > 4).long().expand(2, 3, -1)
    positions = torch.arange(9).expand(2, 3, -1)
    with torch.no_grad():
        scores = [model(each[None, None], token_type_ids=types[:1, :1]).logits for each in ids.flatten(0, 1)]
        expected = torch.cat(scores).view(2, 3)
        arguments = {"token_type_ids": types, "position_ids": positions, "attention_mask": torch.ones_like(ids)}
        torch.testing.assert_close(model(ids, **arguments).logits, expected, **EXACT)
        embeddings = model.model.embed_tokens(ids)
        torch.testing.assert_close(model(inputs_embeds=embeddings, **arguments).logits, expected, **EXACT)
        one_for_all = model(ids, token_type_ids=types, position_ids=torch.arange(9)[None]).logits
        torch.testing.assert_close(one_for_all, expected, **EXACT)
        assert (model(ids).logits - expected).abs().max() > 1e-3, "the types say something"
        two_documents = torch.cat((torch.arange(4), torch.arange(5)))
        with pytest.raises(ValueError, match=r"announces 6 choices .* but holds 12 documents: give each choice one"):
            model(ids, position_ids=two_documents.expand(2, 3, -1))


def test_a_row_of_only_padding_among_packed_rows_holds_no_document() -> None:
    """So that the last batch may be filled up with such rows."""
    filled = {name: torch.cat((value, torch.zeros(1, 14).long())) for name, value in LAYOUTS["packed, right"].items()}
    with torch.no_grad():
        for task in ("sequence", "question", "choice"):
            model, counts = make_task(task), {"choice_counts": COUNTS} if task == "choice" else {}
            found, expected = (
                list(model(**inputs, **counts).values()) for inputs in (filled, LAYOUTS["packed, right"])
            )
            torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("task", list(TASKS))
def test_the_decoder_may_be_given_a_text_of_its_own(task: str) -> None:
    """Of another length and with other padding than the encoder's; the head reads the decoder."""
    model = make_task(task, is_encoder_decoder=True, decoder_start_token_id=1)
    inputs = padded("right", tokens=16)
    own = {f"decoder_{name}": value.flip(0)[:, -13:] for name, value in padded("left").items()}
    if task == "choice":  # two examples of three
        inputs, own = ({name: each.view(2, 3, -1) for name, each in one.items()} for one in (inputs, own))
    with torch.no_grad():
        found = list(model(**inputs, **own).values())[: 2 if task == "question" else 1]
        for row in range(len(DOCUMENTS)):
            pair = {"input_ids": DOCUMENTS[row], "decoder_input_ids": DOCUMENTS[-1 - row]}
            if task == "choice":
                pair = {name: each[None] for name, each in pair.items()}
            alone = list(model(**pair).values())[: 2 if task == "question" else 1]
            tokens = LENGTHS[-1 - row]
            for logits, expected in zip(found, alone):
                here = logits.flatten()[row, None, None] if task == "choice" else logits[None, row]
                here = here[:, -tokens:] if task in ("token", "question") else here.view_as(expected)
                torch.testing.assert_close(here, expected, **EXACT)
        assert model(**inputs).keys() >= {"encoder_last_hidden_state"}, "the decoder reads the encoder's text then"


@pytest.mark.parametrize("task", list(TASKS))
def test_a_cached_prefix_counts_as_no_document(task: str) -> None:
    """Keys and values that stand before the text (as prefix tuning puts them there) give logits for the text alone."""
    model = make_task(task)
    ids = random_ids(2, 9)
    with torch.no_grad():
        cache = model.model(ids[:, :4], use_cache=True).past_key_values
        arguments = {"past_key_values": cache, "attention_mask": torch.ones(2, 9).long()}
        if task == "choice":
            arguments["choice_counts"] = torch.tensor([2])
        found = model(ids[:, 4:], **arguments)[0]
        states = model.model(ids).last_hidden_state
        head = {"sequence": "score", "token": "classifier", "question": "qa_outputs", "choice": "choice_score"}[task]
        expected = getattr(model, head)(states[:, 4:])
        if task in ("sequence", "choice"):
            expected = expected[:, -1]
        expected = expected[..., 0] if task == "question" else expected.T if task == "choice" else expected
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize(
    ("task", "arguments", "sentence"),
    [
        ("sequence", {"labels": torch.zeros(3).long()}, "labels has 3 values for 6 documents: give one for each"),
        ("sequence", {"labels": torch.zeros(6, 2)}, "labels has 12 values for 6 documents: give 3 for each document"),
        ("token", {"labels": torch.zeros(6).long()}, "labels has 6 values for 42 tokens: give one for each token"),
        (
            "question",
            {"start_positions": torch.zeros(3).long(), "end_positions": torch.zeros(6).long()},
            "start_positions has 3 values for 6 documents",
        ),
        (
            "question",
            {"start_positions": torch.zeros(6).long(), "end_positions": torch.zeros(3).long()},
            "end_positions has 3 values for 6 documents",
        ),
        ("choice", {"choice_counts": torch.tensor([2, 3])}, "announces 5 choices .* but holds 6 documents"),
        ("choice", {}, r"Give input_ids \[examples, choices, tokens\]"),
        (
            "choice",
            {"choice_counts": COUNTS, "labels": torch.zeros(2).long()},
            "labels has 2 values for 3 examples: give one for each example",
        ),
        (
            "choice",
            {"choice_counts": COUNTS, "labels": torch.tensor([1, 1, -100])},
            "The label of example 1 is 1, a choice that it does not have",
        ),
        (
            "choice",
            {"choice_counts": COUNTS, "labels": torch.tensor([1, 0, 3])},
            "The label of example 2 is 3, a choice that it does not have",
        ),
    ],
)
def test_what_does_not_fit_the_documents_is_refused(task: str, arguments: dict[str, Any], sentence: str) -> None:
    with torch.no_grad(), pytest.raises(ValueError, match=sentence):
        make_task(task)(**LAYOUTS["packed, right"], **arguments)
