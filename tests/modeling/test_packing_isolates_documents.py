"""Documents packed into one row do not see each other, whatever else the caller passes and whichever backend computes.

Where the content of the other documents changes and the shapes do not, equality is to the bit; against the document
alone it is to rounding.
"""

import itertools
import random
import shutil
from typing import Any

import pytest
import torch
from helpers.flash import use_stand_in
from helpers.models import FULL, ROLES, SLIDING, make_role, random_ids, tiny_config
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    Qwen3Config,
    Qwen3ForCausalLM,
    StaticCache,
)
from transformers.masking_utils import sdpa_mask

from weft import WeftConfig
from weft.masks import document_lengths, find_documents

LENGTHS = (16, 21, 11)
ROUNDING = {"rtol": 0.0, "atol": 2e-5}
IN_FLOAT64 = {"rtol": 0.0, "atol": 1e-12}

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")),
    reason="flex_attention on a CPU is compiled with a C++ compiler",
)
LAYERS: dict[str, dict[str, Any]] = {
    "full": {},
    "sliding": {"sliding_window": 5},
    "mixed": {"sliding_window": 5, "layer_types": [SLIDING, FULL]},
}
# flex_attention compiles one kernel for each kind of layer and each direction: it is tried where one model has all.
CASES = [
    *itertools.product(("eager", "sdpa"), ("full", "sliding"), ROLES),
    *(("sdpa", "mixed", role) for role in ROLES),
    *(
        pytest.param("flex_attention", "mixed", role, marks=needs_compiler)
        for role in ("causal head", "masked head, shifted")
    ),
]


def packed_positions(lengths: tuple[int, ...] = LENGTHS) -> torch.Tensor:
    """[1, sum of lengths], counted from 0 in each document."""
    return torch.cat([torch.arange(length) for length in lengths])[None]


def places(lengths: tuple[int, ...] = LENGTHS) -> list[slice]:
    """Where each document stands in the row."""
    ends = torch.tensor((0, *lengths)).cumsum(0).tolist()
    return [slice(start, end) for start, end in itertools.pairwise(ends)]


def packed_model(backend: str, layers: str, role: str = "causal head") -> torch.nn.Module:
    """The stack in one of its roles."""
    return make_role(role, backend, **LAYERS[layers])


def outputs(model: torch.nn.Module, **inputs: Any) -> torch.Tensor:
    """Logits or last hidden states, without gradients, and with whatever cache the defaults make."""
    with torch.no_grad():
        return model(**inputs)[0]


def replaced(ids: torch.Tensor, place: slice) -> torch.Tensor:
    """The same row with other tokens in one document."""
    changed = ids.clone()
    changed[:, place] = 3 + (ids[:, place] - 3 + 7) % 58
    return changed


def call_arguments(kind: str, batch: int) -> dict[str, torch.Tensor]:
    """What a caller may pass next to packed tokens."""
    positions = packed_positions()
    ones = torch.ones(batch, sum(LENGTHS), dtype=torch.long)
    return {
        "positions": {"position_ids": positions.expand(batch, -1)},
        "broadcast positions": {"position_ids": positions},
        "mask of ones": {"position_ids": positions.expand(batch, -1), "attention_mask": ones},
        "broadcast positions, mask of ones": {"position_ids": positions, "attention_mask": ones},
        "boolean mask": {"position_ids": positions, "attention_mask": ones.bool()},
    }[kind]


@pytest.mark.parametrize(("backend", "layers", "role"), CASES)
def test_other_documents_change_nothing(backend: str, layers: str, role: str) -> None:
    """With the default cache arguments, with and without a mask, for one row and for several."""
    model = packed_model(backend, layers, role)
    kinds = ["positions", "broadcast positions", "mask of ones", "broadcast positions, mask of ones", "boolean mask"]
    for kind in kinds[1:3] if backend == "flex_attention" else kinds:
        for batch in (2,) if backend == "flex_attention" else (1, 2):
            ids = random_ids(batch, sum(LENGTHS))
            arguments = call_arguments(kind, batch)
            before = outputs(model, input_ids=ids, **arguments)
            for changed_document, place in enumerate(places()):
                after = outputs(model, input_ids=replaced(ids, place), **arguments)
                for document, here in enumerate(places()):
                    if document == changed_document:
                        assert not torch.equal(after[:, here], before[:, here])
                    else:
                        message = f"document {document} sees document {changed_document} ({kind}, batch {batch})"
                        assert torch.equal(after[:, here], before[:, here]), message


@pytest.mark.parametrize("use_cache", [None, True, False])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_cache_arguments_change_nothing(backend: str, use_cache: bool | None) -> None:
    model = packed_model(backend, "mixed")
    ids = random_ids(2, sum(LENGTHS))
    arguments = {} if use_cache is None else {"use_cache": use_cache}
    expected = outputs(model, input_ids=ids, position_ids=packed_positions())
    for cache in (None, DynamicCache(), DynamicCache(config=model.config)):
        if cache is not None and use_cache is False:
            continue
        actual = outputs(model, input_ids=ids, position_ids=packed_positions(), past_key_values=cache, **arguments)
        assert torch.equal(actual, expected)


@pytest.mark.parametrize(("backend", "layers", "role"), CASES)
def test_each_document_alone_gives_the_same_numbers(backend: str, layers: str, role: str) -> None:
    model = packed_model(backend, layers, role)
    reference = packed_model("eager", layers, role)
    ids = random_ids(2, sum(LENGTHS))
    packed = outputs(model, input_ids=ids, position_ids=packed_positions())
    for place in places():
        alone = outputs(reference, input_ids=ids[:, place])
        torch.testing.assert_close(packed[:, place], alone, **ROUNDING)


@pytest.mark.parametrize("role", list(ROLES))
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("padding_position", [0, 1, -1])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_padded_packed_rows(backend: str, padding_position: int, side: str, role: str) -> None:
    """Rows of several lengths, padded to the longest: documents stay apart and padding has no effect."""
    model = packed_model(backend, "mixed", role)
    rows = [(7, 9, 4), (5, 3)]
    longest = max(map(sum, rows))
    ids, mask = torch.zeros(2, longest, dtype=torch.long), torch.zeros(2, longest, dtype=torch.long)
    positions = torch.full((2, longest), padding_position)
    starts = [0 if side == "right" else longest - sum(lengths) for lengths in rows]
    for row, (lengths, start) in enumerate(zip(rows, starts)):
        here = slice(start, start + sum(lengths))
        ids[row, here] = random_ids(sum(lengths), seed=row)
        mask[row, here] = 1
        positions[row, here] = packed_positions(lengths)[0]
    packed = outputs(model, input_ids=ids, attention_mask=mask, position_ids=positions)
    other_padding = outputs(model, input_ids=ids + 9 * (1 - mask), attention_mask=mask, position_ids=positions)
    assert torch.equal(packed[mask.bool()], other_padding[mask.bool()])
    assert packed.isfinite().all()
    for row, (lengths, start) in enumerate(zip(rows, starts)):
        for place in places(lengths):
            here = slice(place.start + start, place.stop + start)
            alone = outputs(model, input_ids=ids[row : row + 1, here])
            torch.testing.assert_close(packed[row : row + 1, here], alone, **ROUNDING)


@pytest.mark.parametrize("with_mask", [False, True], ids=["no mask", "mask of ones"])
@pytest.mark.parametrize("layers", ["full", "sliding"])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_no_gradient_flows_to_other_documents(backend: str, layers: str, with_mask: bool) -> None:
    """The loss of one document has a gradient of exactly zero for the embeddings of the others."""
    model = packed_model(backend, layers).train()
    ids = random_ids(1, sum(LENGTHS))
    arguments: dict[str, Any] = {"position_ids": packed_positions()}
    if with_mask:
        arguments["attention_mask"] = torch.ones_like(ids)
    for place in places():
        embeddings = model.get_input_embeddings()(ids).detach().requires_grad_()
        labels = torch.full_like(ids, -100)
        labels[:, place.start + 1 : place.stop] = ids[:, place.start + 1 : place.stop]
        model(inputs_embeds=embeddings, labels=labels, **arguments).loss.backward()
        inside = torch.zeros(ids.shape[1], dtype=torch.bool)
        inside[place] = True
        assert (embeddings.grad[:, ~inside] == 0).all()
        assert (embeddings.grad[:, place.start : place.stop - 1] != 0).any(dim=-1).all()


@pytest.mark.parametrize("role", list(ROLES))
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_packed_training_gives_the_gradients_of_separate_documents(backend: str, role: str) -> None:
    model = packed_model(backend, "mixed", role).double()
    ids = random_ids(1, sum(LENGTHS))
    direction = torch.randn(32 if role == "bidirectional base" else 61, dtype=torch.float64)

    def gradients(rows: list[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
        model.zero_grad()
        for row in rows:
            (model(**row)[0] @ direction).tanh().sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    packed = gradients([{"input_ids": ids, "position_ids": packed_positions()}])
    separate = gradients([{"input_ids": ids[:, place]} for place in places()])
    for one, other in zip(packed, separate):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * other.abs().max().item())


def find_documents_slowly(positions: list[int], mask: list[int] | None) -> list[int]:
    """A plain loop with the rule of `find_documents` for one row; padding is -1.

    A token begins a document if it neither follows the token before it (padding skipped) nor the column before it,
    or if it stands at 0 behind another token.
    """
    documents: list[int] = []
    current, last_token = 0, None
    for index, position in enumerate(positions):
        if mask is not None and not mask[index]:
            documents.append(-1)
            continue
        if last_token is not None:
            follows_token = position == positions[last_token] + 1
            follows_column = position == positions[index - 1] + 1 and position != 0
            current += not (follows_token or follows_column)
        documents.append(current)
        last_token = index
    return documents


def partition(documents: list[int]) -> list[int]:
    """Ids renumbered in order of appearance, padding left at -1: only who is with whom matters."""
    names: dict[int, int] = {}
    return [-1 if document == -1 else names.setdefault(document, len(names)) for document in documents]


def test_find_documents_equals_a_plain_loop() -> None:
    """On random rows with restarts, jumps, holes and padding on both sides."""
    chance = random.Random(0)
    found_several = found_one = 0
    for _ in range(1500):
        batch, length = chance.randint(1, 3), chance.randint(2, 14)
        with_mask = chance.random() < 0.7
        rows, masks = [], []
        for _ in range(batch):
            position, row, mask = chance.choice([0, 0, 2]), [], []
            for _ in range(length):
                row.append(position)
                mask.append(int(chance.random() < 0.75))
                position = chance.choice([0, position, 5]) if chance.random() < 0.2 else position + 1
            if chance.random() < 0.5:
                # padding written by the usual hands: at one fixed position
                row = [at if is_token else chance.choice([-1, 0, 1]) for at, is_token in zip(row, mask)]
            rows.append(row)
            masks.append(mask)
        attention_mask = torch.tensor(masks) if with_mask else None
        found = find_documents(torch.tensor(rows), attention_mask, None)
        expected = [
            partition(find_documents_slowly(row, mask if with_mask else None)) for row, mask in zip(rows, masks)
        ]
        several = any(max(row) > 0 for row in expected)
        assert (found is not None) == several, (rows, masks)
        if found is not None:
            assert [partition(row) for row in found.tolist()] == expected, (rows, masks)
        found_several, found_one = found_several + several, found_one + (not several)
    assert found_several > 300 and found_one > 30


def test_find_documents_on_cases_written_by_hand() -> None:
    def found(positions: list[int], mask: list[int] | None = None) -> list[int] | None:
        attention_mask = None if mask is None else torch.tensor([mask])
        documents = find_documents(torch.tensor([positions]), attention_mask, None)
        return None if documents is None else documents[0].tolist()

    assert found([0, 1, 2, 3]) is None
    assert found([4, 5, 6]) is None
    assert found([0, 1, 0, 1, 2]) == [0, 0, 1, 1, 1]
    assert found([0, 0, 0]) == [0, 1, 2]
    assert found([0, 1, 5, 6]) == [0, 0, 1, 1]
    assert found([0, 1, 2, 3], [0, 0, 1, 1]) is None
    assert found([1, 1, 0, 1], [0, 0, 1, 1]) is None
    assert found([0, 1, 1, 2], [1, 1, 0, 1]) is None
    assert found([0, 1, 1, 1], [1, 1, 0, 0]) is None
    assert found([1, 0, 1, 0, 1], [0, 1, 1, 1, 1]) == [-1, 0, 0, 1, 1]
    assert found([0, 1, 0, 0, 1], [1, 1, 0, 1, 1]) == [0, 0, -1, 1, 1]
    assert found([0, 1, -1, 0, 1], [1, 1, 0, 1, 1]) == [0, 0, -1, 1, 1]


def as_backend_wants(allowed: torch.Tensor, backend: str) -> torch.Tensor:
    """A ready-made mask: booleans for sdpa, numbers to add for eager."""
    return allowed if backend == "sdpa" else torch.where(allowed, 0.0, torch.finfo(torch.float32).min)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_a_ready_made_mask_is_obeyed_as_it_is(backend: str) -> None:
    """Positions that restart beside a 4-D mask say nothing about documents."""
    model = packed_model(backend, "full")
    length = sum(LENGTHS)
    ids = random_ids(2, length)
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    own_document = torch.block_diag(*(torch.ones(n, n) for n in LENGTHS)).bool()
    isolated = outputs(model, input_ids=ids, position_ids=packed_positions())

    for allowed, leaks in ((causal, True), (causal & own_document, False)):
        mask = as_backend_wants(allowed.expand(2, 1, -1, -1), backend)
        arguments = {"attention_mask": mask, "position_ids": packed_positions()}
        obeyed = outputs(model, input_ids=ids, **arguments)
        if not leaks:
            torch.testing.assert_close(obeyed, isolated, **ROUNDING)
        changed = outputs(model, input_ids=replaced(ids, places()[0]), **arguments)
        assert torch.equal(changed[:, places()[2]], obeyed[:, places()[2]]) != leaks
        as_table = outputs(
            model, input_ids=ids, attention_mask={"full_attention": mask}, position_ids=packed_positions()
        )
        assert torch.equal(as_table, obeyed)

    stock = Qwen3ForCausalLM._from_config(
        Qwen3Config(
            vocab_size=61,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            tie_word_embeddings=True,
        ),
        attn_implementation=backend,
    ).eval()
    stock.load_state_dict(model.state_dict())
    mask = as_backend_wants(causal.expand(2, 1, -1, -1), backend)
    arguments = {"input_ids": ids, "attention_mask": mask, "position_ids": packed_positions()}
    torch.testing.assert_close(outputs(model, **arguments), outputs(stock, **arguments), **ROUNDING)


@pytest.mark.parametrize("make_cache", [DynamicCache, StaticCache], ids=["dynamic", "static"])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_positions_that_continue_a_cache_are_no_new_document(backend: str, make_cache: type) -> None:
    model = packed_model(backend, "mixed")
    ids = random_ids(2, 20)
    whole = outputs(model, input_ids=ids)
    sizes = {"max_cache_len": 24} if make_cache is StaticCache else {}
    cache = make_cache(config=model.config, **sizes)
    parts = []
    for start, end in ((0, 9), (9, 14), (14, 15), (15, 20)):
        positions = torch.arange(start, end)[None]
        parts.append(outputs(model, input_ids=ids[:, start:end], position_ids=positions, past_key_values=cache))
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, **ROUNDING)
    assert find_documents(torch.tensor([[0, 1, 0, 1]]), None, cache) is None


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_positions_that_restart_behind_a_cache_still_see_all_of_it(backend: str) -> None:
    """As under a ready-made mask that shows everything that came before."""
    model = packed_model(backend, "full")
    ids, restarting = random_ids(2, 13), torch.tensor([[0, 1, 0, 1]])
    before = torch.ones(4, 13, dtype=torch.bool).tril(9)
    results = []
    for mask in (None, as_backend_wants(before.expand(2, 1, -1, -1), backend)):
        cache = DynamicCache(config=model.config)
        outputs(model, input_ids=ids[:, :9], past_key_values=cache)
        arguments = {"position_ids": restarting, "past_key_values": cache, "attention_mask": mask}
        results.append(outputs(model, input_ids=ids[:, 9:], **arguments))
    torch.testing.assert_close(*results, **ROUNDING)


def test_a_packed_row_fills_a_static_cache_as_a_dynamic_one() -> None:
    """The mask of a cache of fixed length has columns beyond the row, which belong to no document."""
    model = packed_model("sdpa", "mixed")
    ids = random_ids(2, sum(LENGTHS))
    expected = outputs(model, input_ids=ids, position_ids=packed_positions())
    cache = StaticCache(config=model.config, max_cache_len=64)
    actual = outputs(model, input_ids=ids, position_ids=packed_positions(), past_key_values=cache)
    torch.testing.assert_close(actual, expected, **ROUNDING)


def flash_config() -> WeftConfig:
    """A config that says it computes with flash attention."""
    config = tiny_config()
    config._attn_implementation_internal = "flash_attention_2"
    return config


def test_flash_arguments_equal_a_plain_loop() -> None:
    chance = random.Random(0)
    for _ in range(300):
        batch, length = chance.randint(1, 4), chance.randint(1, 12)
        rows = []
        for _ in range(chance.choice([1, batch])):
            document, row = 0, []
            for _ in range(length):
                row.append(-1 if chance.random() < 0.1 else document)
                document += chance.random() < 0.3
            rows.append(row)
        ends = [0]
        for row in rows * (batch if len(rows) == 1 else 1):
            for index in range(1, length):
                if row[index] != row[index - 1]:
                    ends.append(ends[-1] - (ends[-1] % length) + index)
            ends.append((ends[-1] // length + 1) * length)
        arguments = document_lengths(flash_config(), torch.tensor(rows), batch)
        assert arguments["cu_seq_lens_q"].tolist() == arguments["cu_seq_lens_k"].tolist() == ends
        assert arguments["cu_seq_lens_q"].dtype == torch.int32
        longest = max(end - start for start, end in itertools.pairwise(ends))
        assert arguments["max_length_q"] == arguments["max_length_k"] == longest
        assert isinstance(arguments["max_length_q"], int)


def test_only_flash_gets_flash_arguments() -> None:
    documents = torch.tensor([[0, 0, 1]])
    for backend in ("eager", "sdpa", "flex_attention"):
        config = tiny_config()
        config._attn_implementation_internal = backend
        assert document_lengths(config, documents, 1) == {}


@pytest.mark.parametrize("role", list(ROLES))
@pytest.mark.parametrize("layers", list(LAYERS))
@pytest.mark.parametrize("kind", ["positions", "broadcast positions", "mask of ones"])
@pytest.mark.parametrize("batch", [1, 3])
def test_flash_equals_sdpa_on_packed_rows(
    batch: int, kind: str, layers: str, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers' flash path with a stand-in for the kernel; documents, whole rows and padded rows."""
    model = packed_model("sdpa", layers, role).double()
    ids = random_ids(batch, sum(LENGTHS))
    padding = torch.ones_like(ids)
    padding[0, :7] = 0
    cases = [call_arguments(kind, batch), {}, {"attention_mask": padding}]
    expected = [outputs(model, input_ids=ids, **arguments) for arguments in cases]
    use_stand_in(model, monkeypatch)
    for arguments, reference in zip(cases, expected):
        real = arguments.get("attention_mask", torch.ones_like(ids)).bool()
        torch.testing.assert_close(outputs(model, input_ids=ids, **arguments)[real], reference[real], **IN_FLOAT64)


def test_documents_reach_any_other_backend_as_a_mask() -> None:
    """A backend that the caller registers gets the isolation through the mask it is given."""
    seen: list[torch.Tensor | None] = []

    def probe(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
        seen.append(attention_mask)
        return query.transpose(1, 2).contiguous(), None

    AttentionInterface.register("probe_of_documents", probe)
    AttentionMaskInterface.register("probe_of_documents", sdpa_mask)
    model = packed_model("probe_of_documents", "full")
    outputs(model, input_ids=random_ids(1, 5), position_ids=torch.tensor([[0, 1, 0, 1, 2]]))
    expected = torch.block_diag(torch.ones(2, 2).tril(), torch.ones(3, 3).tril()).bool()
    assert len(seen) == 2
    assert torch.equal(seen[0][0, 0], expected)
