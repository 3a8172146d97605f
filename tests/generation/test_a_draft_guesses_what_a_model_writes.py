"""With a smaller model that guesses ahead a model writes what it would alone, or draws with the same probabilities."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.chi_square import assert_fits
from helpers.models import FULL, SLIDING, make_model, random_ids, shake, tiny_config
from helpers.streamed import StreamedIds
from helpers.text import sentences
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StoppingCriteria, set_seed

from weft.recipes.common.errors import RecipeError
from weft.recipes.generation import drafts
from weft.recipes.generation.generate_text import write_ids
from weft.tokenizer.train import train_tokenizer

MIXED = {"num_hidden_layers": 3, "sliding_window": 5, "layer_types": [SLIDING, FULL, SLIDING]}
KINDS: dict[str, dict[str, Any]] = {
    **{kind: {"position_embedding_type": kind} for kind in ("rope", "learned", "alibi", "t5")},
    "sliding": {"sliding_window": 5},
    "mixed": MIXED,
}
GREEDY = {"do_sample": False, "max_new_tokens": 30}


@pytest.fixture(params=[0.0, drafts.SURE])
def sure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """From what probability on a draft guesses; models of random weights are seldom sure."""
    monkeypatch.setattr(drafts, "SURE", request.param)
    return request.param


def writer(seed: int = 0, **changes: Any) -> PreTrainedModel:
    return make_model(tiny_config(pad_token_id=0, **changes), seed=seed)


def close_to(model: PreTrainedModel) -> PreTrainedModel:
    """A model that often, not always, finds the same token most likely."""
    draft = type(model)._from_config(model.config).eval()
    draft.load_state_dict({name: value + 0.02 * torch.randn_like(value) for name, value in model.state_dict().items()})
    return draft


@pytest.mark.parametrize("length", [1, 4, 11])
@pytest.mark.parametrize("kind", list(KINDS))
def test_the_most_likely_tokens_are_those_without_it(kind: str, length: int, sure: float) -> None:
    """With a draft that is always right, often, and hardly ever; within the window and beyond."""
    model, ids = writer(**KINDS[kind]), random_ids(1, length)
    set_seed(0)
    expected = model.generate(ids, **GREEDY)
    smaller = make_model(tiny_config(pad_token_id=0, num_hidden_layers=1, hidden_size=16, vocab_size=64), seed=1)
    for draft in (model, close_to(model), smaller):
        assert torch.equal(write_ids(model, input_ids=ids, draft=draft, **GREEDY), expected)


@pytest.mark.parametrize("options", [{"repetition_penalty": 1.3}, {"max_new_tokens": 1}, {"min_new_tokens": 9}])
def test_whatever_changes_scores_changes_those_of_guesses_too(options: dict[str, Any], sure: float) -> None:
    model, ids = writer(), random_ids(1, 7)
    options = {**GREEDY, **options}
    if "min_new_tokens" in options:
        options["eos_token_id"] = int(model.generate(ids, **GREEDY)[0, 7 + 3])
    expected = model.generate(ids, **options)
    assert torch.equal(write_ids(model, input_ids=ids, draft=close_to(model), **options), expected)


def test_a_right_guess_saves_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """30 tokens in as few steps as guesses allow: 4 + 1, 6 + 1, then 7 + 1 at a time."""
    monkeypatch.setattr(drafts, "SURE", 0.0)
    model, steps = writer(), []
    draft = close_to(model)
    draft.load_state_dict(model.state_dict())
    monkeypatch.setattr(type(model.lm_head), "forward", count(model.lm_head, steps))
    write_ids(model, input_ids=random_ids(1, 7), draft=draft, **GREEDY)
    assert steps == [5, 7, 8, 8, 2]


def count(head: torch.nn.Module, steps: list[int]) -> Any:
    forward = type(head).forward

    def counted(self: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
        if self is head:
            steps.append(states.shape[1])
        return forward(self, states)

    return counted


@pytest.mark.parametrize("ending", ["token", "criterion"])
def test_the_text_ends_where_it_would_and_is_streamed(ending: str, sure: float) -> None:
    """In the midst of right guesses."""

    class After13(StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            return torch.tensor([input_ids.shape[1] >= 13])

    model, ids, streamer = writer(), random_ids(1, 7), StreamedIds()
    end = {"stopping_criteria": [After13()]}
    if ending == "token":
        end = {"eos_token_id": int(model.generate(ids, **GREEDY)[0, 12])}
    expected = model.generate(ids, **GREEDY, **end)
    assert 7 < expected.shape[1] <= 13
    written = write_ids(model, input_ids=ids, draft=model, stream_to=streamer, **GREEDY, **end)
    assert torch.equal(written, expected)
    assert streamer.given == expected[0].tolist() and streamer.ended


def test_drawn_tokens_have_the_probabilities_of_the_model() -> None:
    """Two places, the draft's probabilities others than the model's: the pairs come as often as they should."""
    model = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.2, 0.6, 0.2]])
    offered = [torch.tensor([0.2, 0.2, 0.6]), torch.tensor([0.4, 0.5, 0.1])]
    counts = torch.zeros(3, 3)
    torch.manual_seed(0)
    for _ in range(6000):
        guessed = torch.cat([each.multinomial(1) for each in offered])
        tokens = drafts._accept(guessed, offered, model).tolist()
        # behind a guess that was not taken the model goes on by itself
        second = tokens[1] if len(tokens) > 1 else int(model[1].multinomial(1))
        counts[tokens[0], second] += 1
    assert_fits(counts.flatten().numpy(), (model[0][:, None] * model[1]).flatten().numpy())


def test_drawn_texts_come_as_often_as_without_it(sure: float) -> None:
    """Of three tokens, the first two of them; the draft's probabilities are others."""
    sizes = {"vocab_size": 4, "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    model, draft = (writer(seed, **sizes) for seed in (0, 5))
    ids, options = torch.tensor([[1, 2]]), {"do_sample": True, "max_new_tokens": 3, "top_k": 0, "temperature": 2.0}
    with torch.no_grad():
        first = (model(ids).logits[0, -1] / 2).softmax(-1)
        second = [(model(torch.tensor([[1, 2, token]])).logits[0, -1] / 2).softmax(-1) for token in range(4)]
        other = (draft(ids).logits[0, -1] / 2).softmax(-1)
    assert (first - other).abs().max() > 0.05, "the draft is the model: this proves little"
    counts = torch.zeros(4, 4)
    set_seed(0)
    for _ in range(400):
        written = write_ids(model, input_ids=ids, draft=draft, **options)[0].tolist()
        counts[written[2], written[3]] += 1
    assert_fits(counts.sum(1).numpy(), first.numpy())
    assert_fits(counts.sum(0).numpy(), (first[:, None] * torch.stack(second)).sum(0).numpy())


@pytest.mark.parametrize("batch", [{"input_ids": random_ids(2, 4)}, {"input_ids": random_ids(1, 3), "padded": True}])
def test_several_prompts_or_padding_are_refused(batch: dict[str, Any]) -> None:
    if batch.pop("padded", False):
        batch["attention_mask"] = torch.tensor([[0, 1, 1]])
    with pytest.raises(ValueError, match="one prompt without padding"):
        write_ids(writer(), draft=writer(), **batch, **GREEDY)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model, a smaller one, one with other tokens and one with few positions."""

    def save(name: str, tokenizer: PreTrainedTokenizerBase, **changes: Any) -> Path:
        folder = tmp_path_factory.mktemp(name)
        model = writer(vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, **changes)
        shake(model, std=0.4).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    tokenizer = train_tokenizer(iter(sentences(50)), "char", 300, model_max_length=64)
    other = train_tokenizer(iter(["other signs", "0123456789"]), "char", 300, model_max_length=64)
    return {
        "model": save("model", tokenizer),
        "draft": save("draft", tokenizer, num_hidden_layers=1),
        "other": save("other", other),
        "short": save("short", tokenizer, position_embedding_type="learned", max_position_embeddings=10),
    }


@pytest.fixture
def run(folders: dict[str, Path], written: Any) -> Any:
    return lambda *words: written("--model", folders["model"], "--max_new_tokens", "12", *words)


def test_the_command_writes_the_same_text(folders: dict[str, Path], run: Any, tmp_path: Path) -> None:
    """Of one prompt and of a file of them; drawn, a seed fixes it."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("the river\na\nseven light stones\n")
    draft, greedy = ("--draft", folders["draft"]), ("--do_sample", "false")
    for words in (("--prompt", "the river"), ("--prompt_file", prompts)):
        expected = run(*words, *greedy)
        assert run(*words, *greedy, *draft) == expected
        assert run(*words, *draft) == run(*words, *draft)
    assert len(json.loads(expected.splitlines()[0])["text"]) > len("the river")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--draft", "other"], "has another tokenizer than the model"),
        (["--draft", "short"], "the model has only 10 positions"),
        (["--draft", "draft", "--num_beams", "2", "--do_sample", "false"], "draft is for one beam .* num_beams 2"),
        (["--draft", "draft", "--compile", "true"], "draft is for one beam that is not compiled, but compile"),
        (["--draft", "nowhere"], "nowhere"),
    ],
)
def test_a_draft_that_cannot_guess_is_refused(
    words: list[str], message: str, folders: dict[str, Path], run: Any, tmp_path: Path
) -> None:
    words = [str(folders.get(word, tmp_path / word)) if place == 1 else word for place, word in enumerate(words)]
    with pytest.raises(RecipeError, match=message):
        run("--prompt", "the river", *words)
