"""Choices become sequences of which no choice is cut; their logits are one distribution, for any model."""

import csv
import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.models import make_model, tiny_config
from sklearn.metrics import accuracy_score
from transformers import BertConfig, BertForMultipleChoice

from weft import WeftForMultipleChoice
from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.arguments import FileArguments
from weft.recipes.finetuning.collation import PackingCollator
from weft.recipes.finetuning.prediction import predict
from weft.recipes.finetuning.tasks.multiple_choice.known_tasks import KNOWN_TASKS
from weft.recipes.finetuning.tasks.multiple_choice.task import MultipleChoice
from weft.tokenizer.special_tokens import for_role
from weft.tokenizer.train import train_tokenizer

WORDS = ("red", "blue", "green", "small", "old", "new", "stone", "river")


def write(path, seed, number, most=5):
    """Questions with two to `most` choices; the right one repeats a word of the question."""
    draw = random.Random(seed)
    rows = []
    for i in range(number):
        words = draw.sample(WORDS, draw.randint(2, most))
        label = draw.randrange(len(words))
        rows.append(
            {
                "question": f"Number {i}: which is {words[label]}?",
                "choices": [f"a {w} one" for w in words],
                "label": label,
            }
        )
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """A kind, its tokenizer (with token types) and its items."""
    root = tmp_path_factory.mktemp("choices")
    files = FileArguments(
        train_file=write(root / "train.jsonl", 1, 30), validation_file=write(root / "dev.jsonl", 2, 12)
    )
    task = MultipleChoice(files)
    tokenizer = for_role(train_tokenizer(task.texts(), "bpe", 350), "encoder", token_types=True)
    return task, tokenizer, {split: task.encode(split, tokenizer, 64) for split in task.splits}


def weft_model(tokenizer):
    config = tiny_config(vocab_size=len(tokenizer), type_vocab_size=2, pad_token_id=tokenizer.pad_token_id)
    return make_model(config, model_class=WeftForMultipleChoice).double()


def bert_model(tokenizer):
    torch.manual_seed(2)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    )
    return BertForMultipleChoice(config).double().eval()


def alone(model, item):
    """The loss and log-probabilities of one example without any padding of choices."""
    longest = max(map(len, item.sequences))
    ids, mask, types = (torch.zeros(1, len(item.sequences), longest, dtype=torch.long) for _ in range(3))
    for choice, sequence in enumerate(item.sequences):
        ids[0, choice, : len(sequence)] = torch.tensor(sequence)
        mask[0, choice, : len(sequence)] = 1
        types[0, choice, : len(sequence)] = torch.tensor(item.token_types[choice])
    outputs = model(ids, attention_mask=mask, token_type_ids=types, labels=torch.tensor([item.target]))
    return outputs.loss.item(), outputs.logits[0].log_softmax(-1).tolist()


def test_each_choice_is_a_sequence_with_its_prompt_first(encoded):
    task, tokenizer, items = encoded
    assert [len(item.sequences) for item in items["train"]] == [len(e.texts) for e in task.examples["train"]]
    for item, example in zip(items["train"], task.examples["train"]):
        assert item.target == example.gold
        for ids, types, (first, second) in zip(item.sequences, item.token_types, example.pairs, strict=True):
            pair = tokenizer(first, second)
            assert ids == pair["input_ids"] and types == pair["token_type_ids"]


@pytest.mark.parametrize("make, packed", [(weft_model, False), (weft_model, True), (bert_model, False)])
def test_a_batch_has_the_loss_and_probabilities_of_its_examples_alone(make, packed, encoded):
    """Also where a family gives choices that do not exist a logit of their own."""
    task, tokenizer, items = encoded
    model = make(tokenizer)
    expected = {item.example: alone(model, item) for item in items["validation"]}
    batch, layout = PackingCollator(tokenizer, packed, choices=True).lay_out(items["validation"])
    outputs, targets = model(**batch), task.targets(layout)
    mean = sum(loss for loss, _ in expected.values()) / len(expected)
    assert task.loss(outputs, targets, None).item() == pytest.approx(mean, abs=1e-10)
    with torch.no_grad():
        results = task.results(model(**batch), layout)
    for item, result in zip(layout.items, results, strict=True):
        assert result.tolist() == pytest.approx(expected[item.example][1], abs=1e-10)
    found = predict(task, model, items["validation"], PackingCollator(tokenizer, packed, choices=True), 5)
    scores = task.score("validation", items["validation"], found)
    assert scores["loss"] == pytest.approx(mean, abs=1e-10)


def test_losses_of_parts_add_up_to_that_of_the_whole(encoded):
    task, tokenizer, items = encoded
    model, collator = weft_model(tokenizer), PackingCollator(tokenizer, True, choices=True)
    parts = [collator.lay_out(items["train"][a:b]) for a, b in ((0, 3), (3, 4), (4, 10))]
    total = sum(task.count(task.targets(layout)) for _, layout in parts)
    batch, layout = collator.lay_out(items["train"][:10])
    whole = task.loss(model(**batch), task.targets(layout), None)
    added = sum(task.loss(model(**batch), task.targets(layout), total) for batch, layout in parts)
    assert total == 10 and added.item() == pytest.approx(whole.item(), abs=1e-12)


def random_results(task, split, seed=0):
    draw = np.random.default_rng(seed)
    logits = [draw.normal(size=len(example.texts)) for example in task.examples[split]]
    return [row - np.log(np.exp(row).sum()) for row in logits]


def test_accuracy_is_sklearns_also_by_number_of_choices(encoded):
    task, _, items = encoded
    results = random_results(task, "train")
    scores = task.score("train", items["train"], results)
    gold, guesses = [item.target for item in items["train"]], [int(result.argmax()) for result in results]
    assert scores["accuracy"] == pytest.approx(accuracy_score(gold, guesses))
    numbers = np.array([len(result) for result in results])
    assert len(set(numbers)) > 2
    for number in set(numbers.tolist()):
        of_these = np.flatnonzero(numbers == number)
        expected = accuracy_score([gold[i] for i in of_these], [guesses[i] for i in of_these])
        assert scores[f"accuracy_of_{number}_choices"] == pytest.approx(expected)


def test_the_report_lists_all_predictions_and_the_most_confident_mistakes_first(encoded, tmp_path):
    task, _, items = encoded
    results = random_results(task, "validation")
    text = task.write_report(tmp_path, "validation", items["validation"], results)
    tables = {}
    for name in ("predictions", "mistakes"):
        with (tmp_path / f"{name}.csv").open(encoding="utf-8", newline="") as handle:
            tables[name] = list(csv.DictReader(handle))
    assert len(tables["predictions"]) == 12
    for row, example, result in zip(tables["predictions"], task.examples["validation"], results):
        given = [float(value) for name, value in row.items() if name.startswith("probability_") and value]
        assert given == pytest.approx(np.exp(result), abs=1e-6)
        assert row["gold"] == example.texts[example.gold] and row["predicted"] == example.texts[result.argmax()]
        assert row["right"] == str(int(row["gold"] == row["predicted"]))
    wrong = [row for row in tables["predictions"] if row["right"] == "0"]

    def confidence(row):
        return max(float(value) for name, value in row.items() if name.startswith("probability_") and value)

    assert tables["mistakes"] and sorted(wrong, key=confidence, reverse=True) == tables["mistakes"]
    assert (tmp_path / "choices.png").stat().st_size > 5000
    assert f"lists the {len(wrong)} of 12 examples" in text and "| 2 |" in text


def winogrande(tmp_path, words):
    row = {"sentence": f"{' '.join(WORDS * words)} so _ won it.", "option1": "Ann", "option2": "Eve", "answer": "2"}
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(json.dumps({**row, "sentence": f"{i} {row['sentence']}"}) for i in range(4)))
    return MultipleChoice(FileArguments(train_file=str(path)))


@pytest.mark.parametrize("tokenizer_type", ["bpe", "wordpiece", "unigram", "char"])
def test_a_long_prompt_is_cut_at_its_beginning_and_counted(tokenizer_type, tmp_path):
    task = winogrande(tmp_path, 5)
    tokenizer = for_role(train_tokenizer(task.texts(), tokenizer_type, 300), "encoder")
    whole = task.encode("train", tokenizer, 2000)
    assert "cut" not in dict(task.describe())
    cut = task.encode("train", tokenizer, 40)
    assert dict(task.describe())["cut"] == "the beginning of the prompts of 3 in train"
    for full, item in zip(whole, cut, strict=True):
        for before, after in zip(full.sequences, item.sequences, strict=True):
            assert len(after) == 40 and after == [before[0], *before[-39:]]
    assert tokenizer.truncation_side == "right"


def test_a_choice_that_leaves_no_room_for_the_prompt_is_refused(tmp_path):
    row = {"question": "Why?", "choices": ["no", " ".join(WORDS * 9)], "label": 0}
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(json.dumps({**row, "question": f"Why {i}?"}) for i in range(3)))
    task = MultipleChoice(FileArguments(train_file=str(path)))
    tokenizer = for_role(train_tokenizer(task.texts(), "char", 300), "encoder")
    with pytest.raises(RecipeError, match=r"x.jsonl, line \d: choice 2 has so many tokens .* max_length=64"):
        task.encode("train", tokenizer, 64)


def test_examples_with_the_same_prompt_are_held_out_together(tmp_path):
    rows = [{"question": f"Why {i % 6}?", "choices": ["a", "b"], "label": i % 2} for i in range(24)]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    task = MultipleChoice(FileArguments(train_file=str(path), validation_fraction=0.3))
    prompts = [{example.prompt for example in task.examples[split]} for split in ("train", "validation")]
    assert task.splits == {"train": 16, "validation": 8} and not prompts[0] & prompts[1]


ROWS = {
    "swag": {"sent1": "x", "sent2": "y", **{f"ending{i}": f"z{i}" for i in range(4)}, "label": 1},
    "hellaswag": {"ctx": "x", "endings": ["a", "b"], "label": 1},
    "piqa": {"goal": "x", "sol1": "a", "sol2": "b"},
    "winogrande": {"sentence": "x _ y", "option1": "a", "option2": "b", "answer": "2"},
    "arc": {
        "question": {"stem": "x", "choices": [{"text": "a", "label": "A"}, {"text": "b", "label": "B"}]},
        "answerKey": "B",
    },
}


@pytest.mark.parametrize("name", KNOWN_TASKS)
def test_a_known_task_is_read_from_a_folder_with_its_official_files(name, tmp_path):
    row = next(row for known, row in ROWS.items() if name.startswith(known))
    for names in KNOWN_TASKS[name].files.values():
        path = tmp_path / names[-1 if name.startswith("arc") else 0]
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".csv":
            path.write_text("\n".join(",".join(map(str, line)) for line in (row, row.values())))
        else:
            path.write_text(json.dumps(row) + "\n")
        if name == "piqa":
            (tmp_path / f"{path.stem}-labels.lst").write_text("1\n")
    task = MultipleChoice(FileArguments(task=name, data=str(tmp_path)))
    assert list(task.splits) == list(KNOWN_TASKS[name].files)
    assert {example.gold for examples in task.examples.values() for example in examples} == {1}


def test_missing_choices_of_other_families_are_masked(encoded):
    task = encoded[0]
    layout = SimpleNamespace(items=[SimpleNamespace(sequences=[[1]] * n, target=0) for n in (2, 3)])
    outputs = SimpleNamespace(logits=torch.tensor([[0.0, 0.0, 50.0], [0.0, 0.0, 0.0]]))
    results = task.results(outputs, layout)
    assert np.exp(results[0]).tolist() == pytest.approx([0.5, 0.5]) and len(results[1]) == 3
