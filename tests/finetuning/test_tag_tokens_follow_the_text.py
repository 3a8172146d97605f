"""What a tagger learns and is scored on is what `pipeline("token-classification")` makes of the raw text."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.models import shake, tiny_config
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast, pipeline
from transformers.modeling_outputs import TokenClassifierOutput

from weft import WeftForTokenClassification
from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.arguments import FineTuningArguments
from weft.recipes.finetuning.collation import EncodedExample, PackingCollator
from weft.recipes.finetuning.tasks.token_classification.arguments import TokenClassificationArguments
from weft.recipes.finetuning.tasks.token_classification.encoding import cut, mark, owners
from weft.recipes.finetuning.tasks.token_classification.scoring import score_plain, score_spans, score_tags
from weft.recipes.finetuning.tasks.token_classification.task import TokenClassification
from weft.recipes.finetuning.tasks.token_classification.windows import UNREACHABLE
from weft.tokenizer.special_tokens import for_role
from weft.tokenizer.train import train_tokenizer

ENGLISH = [
    (
        ["Angela", "Merkel", "visited", "New", "York", ",", "then", "Paris", "."],
        ["B-PER", "I-PER", "O", "B-LOC", "I-LOC", "O", "O", "B-LOC", "O"],
    ),
    (["Paris", "Hilton", "left", "Rome", "Athens"], ["B-PER", "I-PER", "O", "B-LOC", "B-LOC"]),
    (["Naïve", "Zoë", "did", "n't", "go"], ["O", "B-PER", "O", "O", "O"]),
]
CHINESE = [
    (list("叶老桂在浙商银行工作"), [*("B-PER", "I-PER", "I-PER", "O"), "B-ORG", *["I-ORG"] * 3, "O", "O"]),
    (list("他去北京上海玩CSOL"), ["O", "O", "B-LOC", "I-LOC", "B-LOC", "I-LOC", "O", "B-ORG", *["I-ORG"] * 3]),
]
# prefix: a tokenizer that takes the first word of a text as if a blank stood before it
KINDS = {"bpe": {}, "bpe, prefix": {"add_prefix_space": True}, "wordpiece": {}, "char": {}}

Pairs = list[tuple[list[str], list[str]]]


def make(folder: Path, pairs: Pairs, **fields: Any) -> TokenClassification:
    """The kind for a file of words and tags, which is also the validation split."""
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps({"tokens": words, "tags": tags}) + "\n" for words, tags in pairs))
    files = TokenClassificationArguments(train_file=str(path), validation_file=str(path), **fields)
    return TokenClassification.read(files, FineTuningArguments())


def make_tokenizer(task: TokenClassification, name: str = "bpe", vocab_size: int = 330) -> PreTrainedTokenizerFast:
    texts = iter([*task.texts()] * 3)
    tokenizer = train_tokenizer(texts, name.partition(",")[0], vocab_size, **KINDS[name])
    return task.prepare_tokenizer(for_role(tokenizer, "encoder"))


class Oracle(WeftForTokenClassification):
    """Says the labels that training would teach; knows only the inputs that training would show."""

    def __init__(self, task: TokenClassification, items: Sequence[EncodedExample], vocab_size: int) -> None:
        super().__init__(tiny_config(vocab_size=vocab_size, **task.config_fields()))
        self.answers = {tuple(item.sequences[0]): item.target for item in items}

    def forward(self, input_ids: torch.Tensor, **_: Any) -> TokenClassifierOutput:
        target = torch.tensor([self.answers[tuple(ids)] for ids in input_ids.tolist()])
        logits = torch.nn.functional.one_hot(target.clamp(min=0), self.config.num_labels) * 9.0
        logits[target < 0] = -20.0 * torch.eye(self.config.num_labels)[0] + 1  # anything but O
        return TokenClassifierOutput(logits=logits)


def piped(model: Any, tokenizer: Any, text: str, **options: Any) -> list[tuple[int, int, str]]:
    tag = pipeline("token-classification", model=model, tokenizer=tokenizer, device="cpu", **options)
    return [(found["start"], found["end"], found["entity_group"]) for found in tag(text)]


def predicted(
    task: TokenClassification, model: Any, items: Sequence[EncodedExample], collator: PackingCollator
) -> list[Any]:
    """Results in the order of the items."""
    inputs, layout = collator.lay_out(items)
    with torch.no_grad():
        results = task.results(model(**inputs), layout)
    of_item = {id(item): result for item, result in zip(layout.items, results)}
    return [of_item[id(item)] for item in items]


def of_labels(
    task: TokenClassification, tokenizer: Any, items: Sequence[EncodedExample], packed: bool = True
) -> list[Any]:
    """Results of a model that is right everywhere."""

    def model(**inputs: torch.Tensor) -> SimpleNamespace:
        labels = task.targets(layout)["labels"]
        return SimpleNamespace(logits=torch.nn.functional.one_hot(labels.clamp(min=0), len(task.labels)) * 30.0)

    collator = PackingCollator(tokenizer, packed)
    _, layout = collator.lay_out(items)
    return predicted(task, model, items, collator)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("pairs", [ENGLISH, CHINESE], ids=["English", "Chinese"])
def test_a_model_that_learnt_its_labels_gives_exactly_the_right_spans_in_a_pipeline(
    tmp_path: Path, pairs: Pairs, name: str
) -> None:
    task = make(tmp_path, pairs)
    smallest = pairs is CHINESE and name.startswith("bpe")  # no token is to reach over an end of an entity
    tokenizer = make_tokenizer(task, name, 261 if smallest else 330)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "tokenizer")
    items = task.encode("validation", tokenizer, 256)
    oracle = Oracle(task, items, len(tokenizer)).eval()
    for passage in task.examples["validation"]:
        found = piped(oracle, tokenizer, passage.text, aggregation_strategy="simple")
        assert found == [tuple(span) for span in passage.spans]
        assert all(passage.text[start:end] == passage.text[start:end].strip() for start, end, _ in found)
    scores = task.score("validation", items, of_labels(task, tokenizer, items))
    assert {scores[key] for key in ("precision", "recall", "f1", "accuracy", "span_f1")} == {1.0}
    assert scores["loss"] < 1e-6


def test_without_trimming_the_spans_of_a_byte_level_tokenizer_begin_with_a_blank(tmp_path: Path) -> None:
    """Why `prepare_tokenizer` changes the tokenizer."""
    task = make(tmp_path, ENGLISH)
    plain = for_role(train_tokenizer(iter([*task.texts()] * 3), "bpe", 330), "encoder")
    trimmed = task.prepare_tokenizer(plain)
    text = "visited New York"
    assert plain(text)["input_ids"] == trimmed(text)["input_ids"]
    assert (7, 11) in plain(text, return_offsets_mapping=True)["offset_mapping"]
    assert (8, 11) in trimmed(text, return_offsets_mapping=True)["offset_mapping"]
    assert (7, 11) in plain(text, return_offsets_mapping=True)["offset_mapping"]  # it was copied
    again = task.prepare_tokenizer(trimmed)
    assert again(text, return_offsets_mapping=True) == trimmed(text, return_offsets_mapping=True)


def test_a_tokenizer_that_cannot_be_trimmed_is_reported_and_its_spans_are_scored_without_blanks(tmp_path: Path) -> None:
    words, tags = ["York", "New", "York", "to", "York"], ["B-LOC", "B-LOC", "I-LOC", "O", "B-LOC"]
    task = make(tmp_path, [(words, tags)] * 2)
    vocabulary = ["<unk>", "<s>", "</s>", "<pad>", "York", "New", "\u2581York", "\u2581New", "\u2581to"]
    backend = Tokenizer(models.Unigram([(token, -1.0) for token in vocabulary], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    tokenizer = task.prepare_tokenizer(for_role(tokenizer, "encoder"))
    assert tokenizer(" ".join(words), return_offsets_mapping=True)["offset_mapping"][2] == (4, 8)
    items = task.encode("validation", tokenizer, 64)
    assert task.score("validation", items, of_labels(task, tokenizer, items))["span_f1"] == 1.0
    assert any(name == "blanks" for name, _ in task.describe())
    assert "strip" in task.usage("me/model")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("packed", [True, False])
def test_whatever_a_model_says_its_entities_are_those_of_the_pipeline(tmp_path: Path, name: str, packed: bool) -> None:
    """Random weights give every sequence of labels, broken ones too."""
    task = make(tmp_path, ENGLISH + CHINESE)
    tokenizer = make_tokenizer(task, name)
    model = WeftForTokenClassification(tiny_config(vocab_size=len(tokenizer), is_causal=False, **task.config_fields()))
    shake(model).eval()
    items = task.encode("validation", tokenizer, 128)
    results = predicted(task, model, items, PackingCollator(tokenizer, packed))
    tag = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="simple")
    number = 0
    for passage, tokens in zip(task.examples["validation"], task._tokens("validation", items, results)):
        ours = task._entities(passage, tokens)
        theirs = tag(passage.text)
        assert [entity[:3] for entity in ours] == [(e["start"], e["end"], e["entity_group"]) for e in theirs]
        assert np.allclose([entity.score for entity in ours], [float(e["score"]) for e in theirs], atol=1e-5)
        number += len(ours)
    assert number > 20


def test_a_model_of_another_family_is_read_as_the_pipeline_reads_it(tmp_path: Path) -> None:
    task = make(tmp_path, ENGLISH + CHINESE)
    tokenizer = make_tokenizer(task, "wordpiece")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    config = BertConfig(vocab_size=len(tokenizer), initializer_range=1.0, **sizes, **task.config_fields())
    model = BertForTokenClassification(config).eval()
    items = task.encode("validation", tokenizer, 128)
    results = predicted(task, model, items, PackingCollator(tokenizer, packed=False))
    for passage, tokens in zip(task.examples["validation"], task._tokens("validation", items, results)):
        found = [entity[:3] for entity in task._entities(passage, tokens)]
        assert found == piped(model, tokenizer, passage.text, aggregation_strategy="simple")


def test_a_switch_that_keeps_blanks_is_turned(tmp_path: Path) -> None:
    """As GPT-2 has it."""
    task = make(tmp_path, ENGLISH)
    tokenizer = for_role(train_tokenizer(iter([*task.texts()] * 3), "bpe", 330), "encoder")
    backend = tokenizer.backend_tokenizer
    backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), backend.post_processor])
    text = "visited New York"
    assert (7, 11) in tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    trimmed = task.prepare_tokenizer(tokenizer)
    assert (8, 11) in trimmed(text, return_offsets_mapping=True)["offset_mapping"]
    assert trimmed(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_labelling_first_pieces_alone_leaves_the_others_to_chance_in_the_pipeline(tmp_path: Path) -> None:
    """Why all pieces are labelled by default."""
    words = ENGLISH[:2]  # "n't" has pieces that no strategy of the pipeline takes for one word
    first = make(tmp_path, words, label_all_pieces=False)
    tokenizer = make_tokenizer(first, "wordpiece", 80)
    items = first.encode("validation", tokenizer, 128)
    number = sum(len(passage.words) for passage in first.examples["validation"])
    assert sum(label >= 0 for item in items for label in item.target) == number
    pieces = sum(len(item.sequences[0]) - 2 for item in items)
    assert pieces > number
    oracle = Oracle(first, items, len(tokenizer)).eval()
    passages = first.examples["validation"]
    spans = [[tuple(span) for span in passage.spans] for passage in passages]
    found = {
        strategy: [piped(oracle, tokenizer, passage.text, aggregation_strategy=strategy) for passage in passages]
        for strategy in ("simple", "first")
    }
    assert found["simple"] != spans
    assert found["first"] == spans
    scores = first.score("validation", items, of_labels(first, tokenizer, items))
    assert scores["f1"] == scores["span_f1"] == 1.0
    every = make(tmp_path, words).encode("validation", tokenizer, 128)
    assert sum(label >= 0 for item in every for label in item.target) == pieces
    assert 'aggregation_strategy="first"' in first.usage("me/model")


def test_words_without_a_token_do_not_shift_the_labels(tmp_path: Path) -> None:
    words = ["\u200e", "Anna", "\x00", "Bell", "", "saw", "\u200b", "Rome"]
    tags = ["O", "B-PER", "I-PER", "I-PER", "O", "O", "O", "B-LOC"]
    task = make(tmp_path, [(words, tags)] * 2)
    tokenizer = make_tokenizer(task, "wordpiece", 120)
    items = task.encode("validation", tokenizer, 64)
    assert all("Anna" in task.examples["validation"][0].text for _ in items)
    scores = task.score("validation", items, of_labels(task, tokenizer, items))
    assert scores["f1"] == scores["span_f1"] == scores["accuracy"] == 1.0
    silent = next(line for name, line in task.describe() if name == "validation")
    assert "words without any token" in silent


def test_an_example_of_nothing_but_such_words_counts_as_missed(tmp_path: Path) -> None:
    task = make(tmp_path, [(["Anna", "left"], ["B-PER", "O"]), (["\x00"], ["B-PER"])])
    tokenizer = make_tokenizer(task, "wordpiece", 120)
    items = task.encode("validation", tokenizer, 64)
    assert [item.example for item in items] == [0]
    assert task.score("validation", items, of_labels(task, tokenizer, items))["recall"] == 0.5


def test_entities_whose_ends_are_inside_of_a_token_are_counted(tmp_path: Path) -> None:
    pairs = [(list("在北京大学"), ["O", "B-LOC", "I-LOC", "O", "O"])] * 40
    task = make(tmp_path, pairs)
    tokenizer = make_tokenizer(task, "bpe", 400)
    assert len(tokenizer("在北京大学", add_special_tokens=False)["input_ids"]) == 1
    items = task.encode("validation", tokenizer, 64)
    assert task.counts["validation"][UNREACHABLE] == 40
    assert any("40 of 40 entities that cannot be found" in line for _, line in task.describe())
    scores = task.score("validation", items, of_labels(task, tokenizer, items))
    assert scores["f1"] == scores["span_f1"] == 0


@pytest.mark.parametrize(("max_length", "stride"), [(12, None), (12, 0), (12, 9), (20, 5), (4, 1)])
@pytest.mark.parametrize("name", ["bpe", "wordpiece"])
def test_long_texts_become_windows_in_which_every_word_is_scored_once(
    tmp_path: Path, name: str, max_length: int, stride: int | None
) -> None:
    words = [word for pair in ENGLISH for word in pair[0]] * 4
    tags = [tag for pair in ENGLISH for tag in pair[1]] * 4
    task = make(tmp_path, [(words, tags), *ENGLISH], stride=stride)
    tokenizer = make_tokenizer(task, name, 400)
    [whole] = [item for item in task.encode("train", tokenizer, 4096) if item.example == 0]
    items = [item for item in task.encode("validation", tokenizer, max_length) if item.example == 0]
    assert len(items) > 5
    assert all(len(item.sequences[0]) <= max_length for item in items)
    learnt = [label for item in items for label in item.target or [] if label >= 0]
    assert learnt == [label for label in whole.target if label >= 0]
    every = task.encode("validation", tokenizer, max_length)
    scores = task.score("validation", every, of_labels(task, tokenizer, every))
    assert scores["f1"] == scores["span_f1"] == 1.0
    if max_length > 10:  # longer than the longest word: no window begins or ends in one
        joined = task.examples["validation"][0].text
        ends = {tuple(item.sequences[0][-2:-1]) for item in items}
        assert len(ends) > 1
        for item in items:
            text = tokenizer.decode(item.sequences[0], skip_special_tokens=True).strip()
            if name == "bpe":
                at = joined.find(text)
                assert at >= 0
                after = joined[at + len(text) : at + len(text) + 1]
                assert (at == 0 or joined[at - 1] == " ") and after in ("", " ")
    assert any("overlapping windows" in line for _, line in task.describe())


def naive_owner(windows: list[Any], token: int, number: int) -> set[int]:
    """The windows that show most around a token, where the ends of the text are no loss."""

    def context(window: Any) -> float:
        left = float("inf") if window.first == 0 else token - window.first
        right = float("inf") if window.end == number else window.end - 1 - token
        return min(left, right)

    inside = [place for place, window in enumerate(windows) if window.first <= token < window.end]
    best = max(context(windows[place]) for place in inside)
    return {place for place in inside if context(windows[place]) >= best - 1}


@pytest.mark.parametrize(("capacity", "stride"), [(8, 2), (8, 7), (16, 4), (5, 0), (3, 2)])
def test_each_token_belongs_to_the_window_that_shows_most_around_it(capacity: int, stride: int) -> None:
    for number in range(1, 60):
        windows = cut([True] * number, capacity, stride)
        assert [t for w in windows for t in range(w.low, w.high)] == list(range(number))
        assert all(w.first <= w.low <= w.high <= w.end <= w.first + capacity for w in windows)
        assert all(a.end - b.first <= stride for a, b in zip(windows, windows[1:]))  # noqa: RUF007
        for place, window in enumerate(windows):
            for token in range(window.low, window.high):
                assert place in naive_owner(windows, token, number)


def test_words_are_cut_only_where_one_is_longer_than_a_window() -> None:
    draw = np.random.default_rng(0)
    for _ in range(300):
        is_cut = (draw.random(50) < 0.4).tolist()
        is_cut[0] = True
        capacity = int(draw.integers(2, 12))
        windows = cut(is_cut, capacity, int(draw.integers(0, capacity)))
        assert [t for w in windows for t in range(w.low, w.high)] == list(range(50))
        assert all(a.end < b.end for a, b in zip(windows, windows[1:]))  # noqa: RUF007
        long_cuts = {0}
        for window in windows:
            if window.end < 50 and not is_cut[window.end]:
                assert not any(is_cut[window.first + 1 : window.end])
                long_cuts.add(window.end)
            assert is_cut[window.first] or window.first in long_cuts


def test_a_token_over_several_entities_is_of_the_one_that_most_of_it_is_in() -> None:
    marks = mark(9, [(0, 3), (3, 5), (6, 9)])
    offsets = np.array([[0, 3], [2, 5], [0, 5], [2, 4], [5, 6], [5, 8], [3, 3], [4, 4]])
    assert owners(marks, offsets).tolist() == [0, 1, 0, 0, -1, 2, -1, 1]


def test_a_window_without_room_is_refused(tmp_path: Path) -> None:
    task = make(tmp_path, ENGLISH, stride=6)
    tokenizer = make_tokenizer(task)
    with pytest.raises(RecipeError, match="max_length is 2"):
        task.encode("train", tokenizer, 2)
    with pytest.raises(RecipeError, match="stride is 6, but a window holds 6"):
        task.encode("train", tokenizer, 8)
    with pytest.raises(RecipeError, match="stride is -1"):
        TokenClassificationArguments(stride=-1).check()


def test_labels_keep_their_names_and_an_existing_model_its_order(tmp_path: Path) -> None:
    task = make(tmp_path, ENGLISH)
    assert task.config_fields()["id2label"] == dict(enumerate(["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]))
    theirs = ["B-PER", "I-PER", "B-LOC", "I-LOC", "O"]
    assert not task.align_labels(tiny_config(id2label=dict(enumerate(theirs[:4]))))
    assert task.labels[0] == "O"
    assert task.align_labels(tiny_config(id2label=dict(enumerate(theirs))))
    assert task.config_fields()["label2id"] == {name: number for number, name in enumerate(theirs)}
    tokenizer = make_tokenizer(task)
    items = task.encode("validation", tokenizer, 64)
    assert theirs[next(label for label in items[0].target if label >= 0)] == "B-PER"
    assert task.score("validation", items, of_labels(task, tokenizer, items))["f1"] == 1.0


def test_plain_tags_are_scored_by_words(tmp_path: Path) -> None:
    pairs = [(["He", "sees", "York", "\x00"], ["PRON", "VERB", "PROPN", "X"]), (["He"], ["PRON"])]
    task = make(tmp_path, pairs)
    tokenizer = make_tokenizer(task, "wordpiece", 60)
    items = task.encode("validation", tokenizer, 64)
    assert task.best_metric.name == "accuracy"
    scores = task.score("validation", items, of_labels(task, tokenizer, items))
    assert scores["accuracy"] == 4 / 5  # the last word has no token
    assert scores["f1_macro"] == pytest.approx(3 / 4)
    assert "aggregation" not in task.usage("me/model")


def test_span_scores_are_those_of_seqeval_over_characters() -> None:
    draw = np.random.default_rng(0)
    gold, found, gold_tags, found_tags = [], [], [], []

    def spans() -> tuple[list[tuple[int, int, str]], list[str]]:
        places = sorted(draw.choice(30, size=8, replace=False).tolist())
        chosen = [(a, b, "XYZ"[draw.integers(3)]) for a, b in zip(places[::2], places[1::2]) if draw.random() < 0.8]
        tags = ["O"] * 30
        for start, end, label in chosen:
            tags[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 1)]
        return chosen, tags

    for _ in range(60):
        one, tags = spans()
        other = one if draw.random() < 0.4 else spans()[0]
        other_tags = ["O"] * 30
        for start, end, label in other:
            other_tags[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 1)]
        gold.append(one)
        found.append(other)
        gold_tags.append(tags)
        found_tags.append(other_tags)
    ours, theirs = score_spans(gold, found), score_tags(gold_tags, found_tags)
    assert ours["f1"] > 0.3
    for name in ("precision", "recall", "f1"):
        assert ours[name] == pytest.approx(theirs[name])
    for name, of in theirs["types"].items():
        assert ours["types"][name] == pytest.approx(of)
    assert score_spans([[]], [[]])["f1"] == 0.0


def test_plain_scores_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, classification_report, f1_score

    draw = np.random.default_rng(0)
    gold, found = draw.integers(0, 4, 200).tolist(), draw.integers(1, 5, 200).tolist()
    ours = score_plain(gold, found, list("abcde"))
    assert ours["accuracy"] == pytest.approx(accuracy_score(gold, found))
    assert ours["f1_macro"] == pytest.approx(f1_score(gold, found, average="macro"))
    report = classification_report(gold, found, target_names=list("abcde"), output_dict=True, zero_division=0)
    for name, of in ours["types"].items():
        assert of == pytest.approx({key.replace("f1-score", "f1"): value for key, value in report[name].items()})


def test_the_loss_of_a_split_is_the_mean_over_all_its_targets(tmp_path: Path) -> None:
    task = make(tmp_path, ENGLISH, stride=1)
    tokenizer = make_tokenizer(task)
    model = shake(WeftForTokenClassification(tiny_config(vocab_size=len(tokenizer), **task.config_fields()))).eval()
    items = task.encode("validation", tokenizer, 16)
    collator = PackingCollator(tokenizer, packed=True)
    inputs, layout = collator.lay_out(items)
    targets = task.targets(layout)
    with torch.no_grad():
        outputs = model(**inputs)
    loss = task.loss(outputs, targets, None)
    halves = [collator.lay_out(items[:2]), collator.lay_out(items[2:])]
    parts = [task.loss(model(**part), task.targets(place), task.count(targets)) for part, place in halves]
    assert sum(parts).item() == pytest.approx(loss.item(), rel=1e-5)
    found = task.score("validation", items, predicted(task, model, items, collator))["loss"]
    assert found == pytest.approx(loss.item(), rel=1e-5)
