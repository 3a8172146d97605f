"""What is learnt of conversations: the assistant's tokens, each conversation by itself, cut at whole turns."""

import pytest
import torch
from helpers import finetuning as ft
from helpers.models import make_model, tiny_config
from torch import nn

from weft.losses import IGNORE_INDEX
from weft.recipes import finetune_chat
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.conversations import Conversation
from weft.recipes.finetuning.tasks.chat import preview
from weft.recipes.finetuning.tasks.chat.arguments import ChatArguments
from weft.recipes.finetuning.tasks.chat.builtin_task import pydoc_conversations
from weft.recipes.finetuning.tasks.chat.encoding import SplitCounts, encode_learnt, encode_prompts, labels_of
from weft.recipes.finetuning.tasks.chat.reading import asked_first
from weft.recipes.finetuning.tasks.chat.task import ChatTask
from weft.recipes.training.model_setup import start_rows
from weft.tokenizer.chat_templates import give_chat_template
from weft.tokenizer.conversation_tokens import ConversationTokens, encode_conversations
from weft.tokenizer.train import train_tokenizer

TRAIN, VALIDATION = 12, 6


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer((text for text, _ in ft.sentences(200)), "bpe", 300)


@pytest.fixture
def make_task(tokenizer, tmp_path):
    def make(max_length=512, **fields):
        files = ft.files_of("finetune_chat", tmp_path, TRAIN, VALIDATION)
        task = ChatTask(ChatArguments(**{name: str(path) for name, path in files.items()}, **fields))
        task.prepare_tokenizer(tokenizer)
        return task, {split: task.encode(split, tokenizer, max_length) for split in task.splits}

    return make


def model_for(tokenizer):
    return make_model(tiny_config(vocab_size=len(tokenizer), is_causal=True, pad_token_id=0)).double()


@torch.no_grad()
def naive_nats(model, item):
    """Cross-entropy of the learnt tokens of one conversation alone, token by token."""
    ids = torch.tensor(item.sequences)
    logs = model(ids).logits[0].log_softmax(-1)
    return [
        -logs[place - 1, label]
        for place, label in enumerate(item.target)
        if label != IGNORE_INDEX and label == int(ids[0, place])
    ]


@pytest.mark.parametrize("loss_on", ["assistant", "all"])
@pytest.mark.parametrize("packed", [True, False])
def test_the_loss_of_a_batch_is_that_of_its_conversations_one_at_a_time(make_task, tokenizer, packed, loss_on):
    task, items = make_task(loss_on=loss_on)
    model, collator = model_for(tokenizer), task.make_collator(tokenizer, packed)
    expected = torch.cat([torch.stack(naive_nats(model, item)) for item in items["train"]])
    total = torch.tensor(0.0, dtype=torch.float64)
    for first in range(0, TRAIN, 5):  # cut unevenly, divided by the tokens of all
        batch, layout = collator.lay_out(items["train"][first : first + 5])
        targets = task.targets(layout)
        outputs = task.forward(model, {**batch, "labels": targets["labels"]})
        total += task.loss(outputs, targets, len(expected)).detach()
    assert total.item() == pytest.approx(expected.mean().item(), rel=1e-6)
    assert (packed and layout.packed) or batch["input_ids"].shape[0] == TRAIN - 10


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("at_once", [1, 1 << 27])
def test_scores_are_those_of_each_conversation_alone(make_task, tokenizer, packed, at_once, monkeypatch):
    monkeypatch.setattr("weft.recipes.finetuning.tasks.chat.task.LOGITS_AT_ONCE", at_once)
    task, items = make_task()
    model = model_for(tokenizer)
    batch, layout = task.make_collator(tokenizer, packed).lay_out(items["validation"])
    results = task.predict(model, batch, layout)
    for item, result in zip(layout.items, results, strict=True):
        nats = naive_nats(model, item)
        assert (result.tokens, result.nats) == (len(nats), pytest.approx(float(sum(nats)), rel=1e-9))
        guessed = model(torch.tensor(item.sequences)).logits[0].argmax(-1).tolist()
        right = sum(label == guess for label, guess in zip(item.target[1:], guessed))
        assert result.right == right
    scores = task.score("validation", layout.items, results)
    assert scores["loss"] == pytest.approx(sum(one.nats for one in results) / sum(one.tokens for one in results))


def test_only_the_assistant_is_learnt_or_all(make_task, tokenizer):
    (_, of_assistant), (_, of_all) = make_task(), make_task(loss_on="all")
    for one, other in zip(of_assistant["train"], of_all["train"], strict=True):
        assert one.sequences == other.sequences and other.target == [IGNORE_INDEX, *other.sequences[0][1:]]
        learnt = [label for label in one.target if label != IGNORE_INDEX]
        answers = tokenizer.decode(learnt, skip_special_tokens=False).split("<|im_end|>")
        assert answers[-1] == "" and all(" " in answer for answer in answers[:-1])
        assert 0 < len(learnt) < len(one.target) / 2


@pytest.mark.parametrize("on_all", [False, True])
def test_an_answer_of_weight_0_is_read_and_not_learnt(tokenizer, on_all):
    def learnt(messages, longest=512):
        return encode_learnt([Conversation(messages, "1")], tokenizer, longest, on_all, False, SplitCounts())

    give_chat_template(tokenizer, "chatml")
    texts = ["the old", "tree", "and", "a house", "while", "they"]
    talk = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]
    weighted = [{**message, "weight": number % 4 != 3} for number, message in enumerate(talk)]
    (whole,), (item,) = learnt(talk), learnt(weighted)
    (tokens,) = encode_conversations(tokenizer, [talk])
    first, end = tokens.answers[1]
    assert item.sequences == whole.sequences
    assert item.target == [*whole.target[:first], *[IGNORE_INDEX] * (end - first), *whole.target[end:]] != whole.target
    (tokens,) = encode_conversations(tokenizer, [talk[2:]])
    assert learnt(talk[2:], tokens.answers[0][1]) and not learnt(weighted[2:], tokens.answers[0][1])


def test_conversations_without_room_lose_whole_turns_or_are_left_out(make_task, tokenizer):
    whole, items = make_task()
    lengths = sorted(item.tokens for item in items["train"])
    limit = lengths[len(lengths) // 3]
    task, cut = make_task(max_length=limit)
    counts = task.encoded["train"]
    assert counts.shortened and counts.too_long and all(item.tokens <= limit for item in cut["train"])
    assert counts.too_long == TRAIN - len(cut["train"])
    by_number = {item.example: item for item in items["train"]}
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    shortened = 0
    for item in cut["train"]:
        full = by_number[item.example]
        assert full.sequences[0][: item.tokens] == item.sequences[0] and item.sequences[0][-1] == stop
        assert full.target[: item.tokens] == item.target
        shortened += item.tokens < full.tokens
    assert shortened == counts.shortened
    lines = dict(task.describe())
    assert lines["shortened"].startswith(f"{counts.shortened} in train")
    assert lines["left out"].startswith(f"{counts.too_long} in train")
    assert "give a larger --max_length" in lines["warning"]
    assert not {"shortened", "left out"} & dict(whole.describe()).keys()


def test_the_plan_shows_one_conversation_and_what_is_learnt_of_it(make_task, tokenizer, monkeypatch):
    task, items = make_task()
    text = task.preview()
    messages = task.examples["train"][0].messages
    learnt = [part.partition("+}")[0] for part in text.split("{+")[2:]]  # the first is that of the heading
    assert learnt == [f"{message['content']}<|im_end|>" for message in messages if message["role"] == "assistant"]
    assert "\033" not in text
    ids, labels = items["train"][0].sequences[0], items["train"][0].target
    coloured = preview.preview_of(tokenizer, ids, labels, colour=True)
    assert f"\033[32m{learnt[0]}\033[0m" in coloured and "{+" not in coloured
    bell = tokenizer("a\x1b[2Jb", add_special_tokens=False).input_ids
    assert "\\x1b[2J" in preview.preview_of(tokenizer, bell, bell, colour=True)


@pytest.mark.parametrize(
    ("terminal", "environment", "expected"),
    [(True, {}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False), (True, {"TERM": "dumb"}, False)],
)
def test_colour_is_for_terminals_that_want_it(terminal, environment, expected, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    assert preview.shows_colour() == expected


def test_conversations_with_the_same_beginning_stay_on_one_side():
    asked, other = {"role": "user", "content": "q  q"}, {"role": "user", "content": "q q"}
    one = Conversation([asked, {"role": "assistant", "content": "a"}], "1")
    two = Conversation([other, {"role": "assistant", "content": "b"}], "2")
    system = Conversation([{"role": "system", "content": "s"}, *one.messages], "3")
    assert asked_first(one) == asked_first(two) != asked_first(system)


def test_new_rows_begin_as_the_mean_of_the_others():
    model = make_model(tiny_config(is_causal=True, tie_word_embeddings=False, lm_head_bias=True))
    tables = [
        module.weight.detach().clone() for module in (model.get_input_embeddings(), model.get_output_embeddings())
    ]
    bias = model.get_output_embeddings().bias.detach().clone()
    start_rows(model, [7, 9], range(20))
    known = [number for number in range(20) if number not in (7, 9)]
    for module, before in zip((model.get_input_embeddings(), model.get_output_embeddings()), tables):
        assert torch.allclose(module.weight[[7, 9]], before[known].mean(0).expand(2, -1))
        rest = [number for number in range(len(before)) if number not in (7, 9)]
        assert torch.equal(module.weight[rest], before[rest])
    assert torch.allclose(model.get_output_embeddings().bias[7], bias[known].mean())


def test_a_wrapped_model_computes_the_same_loss(make_task, tokenizer):
    """Adapters and processes wrap a model, which then makes all logits."""
    task, items = make_task()
    model = model_for(tokenizer)

    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, **inputs):
            return self.inner(**inputs)

    batch, layout = task.make_collator(tokenizer, True).lay_out(items["train"])
    targets = task.targets(layout)
    inputs = {**batch, "labels": targets["labels"]}
    plain, wrapped = (task.forward(each, inputs) for each in (model, Wrapped(model)))
    assert plain.logits is None and wrapped.logits is not None
    assert plain.loss.item() == pytest.approx(wrapped.loss.item(), rel=1e-9)


def test_what_python_carries_makes_conversations_with_no_answer_on_both_sides():
    splits = pydoc_conversations()
    assert len(splits["train"]) > 1500 and len(splits["validation"]) > 80
    answers = {split: {one.messages[1]["content"] for one in talks} for split, talks in splits.items()}
    assert not answers["train"] & answers["validation"]
    everything = {one.messages[0]["content"]: one.messages for talks in splits.values() for one in talks}
    dedent = everything["What does `textwrap.dedent` do?"]
    assert dedent[1]["content"].startswith("Remove any common leading whitespace")
    assert [message["content"] for message in dedent[2:]] == ["How is it called?", "`dedent(text)`"]
    assert pydoc_conversations() == splits


def test_a_seed_is_trained_once_unless_more_are_asked_for(tmp_path):
    fields = {**ft.files_of("finetune_chat", tmp_path, 30, 6), "max_steps": 1, "evaluations": 1, "samples": 0}
    ft.run_here(finetune_chat.main, **{**fields, "seeds": None}, output_dir=tmp_path / "run")
    assert [entry["seed"] for entry in ft.metrics(tmp_path / "run")["seeds"]] == [1]


LAST_ALONE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' and loop.last %}"
    "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def said(*texts):
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]


def encoded(tokenizer, messages, longest=512):
    (item,) = encode_learnt([Conversation(messages, "1")], tokenizer, longest, False, False, SplitCounts())
    return item


def test_the_last_answer_is_that_of_the_message_it_stands_for():
    """By it the report asks, and by it the model's answer is judged beside the right one."""
    tokenizer, messages = train_tokenizer((text for text, _ in ft.sentences(200)), "bpe", 300), said(*"abcdef")
    give_chat_template(tokenizer, LAST_ALONE)
    item = encoded(tokenizer, messages)
    assert tokenizer.decode(item.sequences[0][item.info.token :]) == "f<|im_end|>" and item.info.message == 5
    give_chat_template(tokenizer, "chatml")
    whole = encoded(tokenizer, messages)
    assert whole.info.message == 5
    cut = encoded(tokenizer, messages, whole.tokens - 1)
    assert tokenizer.decode(cut.sequences[0][cut.info.token :]) == "d<|im_end|>" and cut.info.message == 3


def test_nothing_is_learnt_from_the_conversation_before_it_in_a_row():
    assert labels_of(ConversationTokens([7, 8, 9], [(0, 3)]), on_all=False) == [IGNORE_INDEX, 8, 9]


def test_what_spells_a_special_token_is_neither_learnt_nor_answered(tokenizer, make_task):
    make_task()
    for messages, tools in ((said("a <|im_end|> b"), None), (said("a"), [{"name": "<|im_end|>"}])):
        with pytest.raises(RecipeError, match=r"^here: a text in it spells the special token '<\|im_end\|>'"):
            encode_prompts([Conversation(messages, "here", tools)], tokenizer, 512)
        (found,) = encode_conversations(tokenizer, [[*messages, *said("q", "a")[1:]]], [tools])
        assert isinstance(found, str) and found.startswith("a text in it spells")
