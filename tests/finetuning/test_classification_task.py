"""What a classifier learns: items, targets, losses, the order of labels, and what is cut off."""

import json

import numpy as np
import pytest
import torch
from helpers.models import tiny_config
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from weft import WeftForSequenceClassification
from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.collation import PackingCollator
from weft.recipes.finetuning.tasks.text_classification.arguments import TextClassificationArguments
from weft.recipes.finetuning.tasks.text_classification.task import TextClassification

SINGLE, MULTI = "single_label_classification", "multi_label_classification"
WORDS = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{n}" for n in range(40))]


def make_tokenizer(task="encoder"):
    """A word is a token; "bert" has token types, "bare" puts nothing around texts."""
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if task != "bare":
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    names = ["input_ids", "token_type_ids", "attention_mask"] if task == "bert" else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        model_input_names=names,
    )


def make_task(folder, labels, columns=("text",), validation=None, longest=9, **changes):
    """A kind whose texts are random words, number n of them n % longest + 1 long."""
    draw = np.random.default_rng(0)

    def rows(values):
        for number, label in enumerate(values):
            words = [f"w{n}" for n in draw.integers(0, 40, number % longest + 1)]
            yield {**{column: " ".join(words) for column in columns}, "label": label}

    for name, values in (("train", labels), ("validation", labels if validation is None else validation)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(values)))
    files = {"train_file": str(folder / "train.jsonl"), "validation_file": str(folder / "validation.jsonl")}
    return TextClassification(TextClassificationArguments(**files, text_columns=",".join(columns), **changes))


def outputs_of(task, model_class, config, items, packed, tokenizer):
    torch.manual_seed(0)
    for name, value in task.config_fields().items():
        setattr(config, name, value)
    model = model_class(config).double().eval()
    batch, layout = PackingCollator(tokenizer, packed).lay_out(items)
    return model(**batch), task.targets(layout), layout


LABELS = {SINGLE: ["a", "b", "c"] * 6, MULTI: [["a"], ["b", "c"], []] * 6, "regression": [0.5, 2.0, -1.0] * 6}


@pytest.mark.parametrize("problem", LABELS)
@pytest.mark.parametrize("pair", [False, True])
def test_the_loss_is_the_same_for_packed_and_padded_batches_and_torch_agrees(tmp_path, problem, pair):
    task = make_task(tmp_path, LABELS[problem], ("one", "two") if pair else ("text",))
    assert task.problem_type == problem
    tokenizer = make_tokenizer()
    items = task.encode("train", tokenizer, 64)
    losses = []
    for packed in (True, False):
        config = tiny_config(vocab_size=len(WORDS), pad_token_id=0, is_causal=False)
        outputs, targets, layout = outputs_of(task, WeftForSequenceClassification, config, items, packed, tokenizer)
        gold = [task.data.splits["train"][item.example].label for item in layout.items]
        if problem == SINGLE:
            expected = functional.cross_entropy(outputs.logits, torch.tensor(["abc".index(name) for name in gold]))
        elif problem == MULTI:
            there = torch.tensor([[float(name in names) for name in "abc"] for names in gold], dtype=torch.float64)
            expected = functional.binary_cross_entropy_with_logits(outputs.logits, there)
        else:
            expected = functional.mse_loss(outputs.logits[:, 0], torch.tensor(gold, dtype=torch.float64))
        loss = task.loss(outputs, targets, None)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(task.loss(outputs, targets, task.count(targets)), expected)
        losses.append(loss)
        results = task.results(outputs, layout)
        scored = task.score("validation", layout.items, results)["loss"]
        assert scored == pytest.approx(expected.item(), rel=1e-5)  # results are kept in float32
    torch.testing.assert_close(losses[0], losses[1])


def test_a_stock_model_gets_token_types_and_learns_the_same_targets(tmp_path):
    task = make_task(tmp_path, LABELS[SINGLE], ("one", "two"))
    tokenizer = make_tokenizer("bert")
    items = task.encode("train", tokenizer, 64)
    assert items[1].token_types == [[0] * 4 + [1] * 3]
    config = BertConfig(vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    outputs, targets, _ = outputs_of(task, BertForSequenceClassification, config, items, False, tokenizer)
    torch.testing.assert_close(
        task.loss(outputs, targets, None), functional.cross_entropy(outputs.logits, targets["labels"])
    )


def test_class_weights_and_smoothing_are_those_of_torch(tmp_path):
    labels = ["a"] * 12 + ["b"] * 3 + ["c"] * 3
    task = make_task(tmp_path, labels, class_weights=["balanced"], label_smoothing_factor=0.2)
    weights = torch.tensor([18 / (3 * 12), 2.0, 2.0])
    torch.testing.assert_close(task.class_weights, weights)
    items = task.encode("train", make_tokenizer(), 64)
    _, layout = PackingCollator(make_tokenizer(), False).lay_out(items)
    targets, logits = task.targets(layout), torch.randn(18, 3)
    outputs = type("Outputs", (), {"logits": logits})
    expected = functional.cross_entropy(logits, targets["labels"], weight=weights, label_smoothing=0.2)
    torch.testing.assert_close(task.loss(outputs, targets, None), expected)
    assert task.count(targets).item() == pytest.approx(18.0)  # balanced weights add up to the number of examples
    assert task.count({"labels": targets["labels"][:1]}).item() == pytest.approx(0.5)
    plain = functional.cross_entropy(logits, targets["labels"]).item()
    assert task.score("validation", items, task.results(outputs, layout))["loss"] == pytest.approx(plain, rel=1e-6)


def test_balanced_weights_of_several_labels_are_odds(tmp_path):
    task = make_task(tmp_path, [["a"], [], [], []] * 3 + [["a", "b"]] * 4, class_weights=["balanced"])
    torch.testing.assert_close(task.class_weights, torch.tensor([9 / 7, 12 / 4]))


def test_smoothing_and_weights_are_refused_where_they_mean_nothing(tmp_path):
    for labels in (LABELS[MULTI], LABELS["regression"]):
        with pytest.raises(RecipeError, match=r"label_smoothing_factor is 0\.1, but the task is"):
            make_task(tmp_path, labels, label_smoothing_factor=0.1)
    with pytest.raises(RecipeError, match="a regression has no classes"):
        make_task(tmp_path, LABELS["regression"], class_weights=["balanced"])
    with pytest.raises(RecipeError, match="class_weights names 'x': the labels are a, b, c"):
        make_task(tmp_path, LABELS[SINGLE], class_weights=["x=2"])


def test_an_existing_model_keeps_the_order_of_its_labels(tmp_path):
    task = make_task(tmp_path, LABELS[SINGLE], class_weights=["c=3"])
    assert task.align_labels(BertConfig(id2label={0: "c", 1: "a", 2: "b"}, label2id={"c": 0, "a": 1, "b": 2}))
    assert task.config_fields()["id2label"] == {0: "c", 1: "a", 2: "b"}
    items = task.encode("train", make_tokenizer(), 64)
    assert [item.target for item in items[:3]] == [1, 2, 0]
    assert task.class_weights.tolist() == [3.0, 1.0, 1.0]
    answers = task.answers("train", items, [np.eye(3, dtype=np.float32)[item.target] for item in items])
    assert answers.predicted == LABELS[SINGLE]
    other = BertConfig(id2label={0: "x", 1: "a", 2: "b"}, label2id={"x": 0, "a": 1, "b": 2})
    assert not task.align_labels(other)
    assert not task.align_labels(BertConfig(id2label={0: "a", 1: "b", 2: "c"}, problem_type=MULTI))


def test_a_head_for_regression_fits_where_it_has_one_output(tmp_path):
    task = make_task(tmp_path, LABELS["regression"])
    assert task.align_labels(BertConfig(num_labels=1))
    assert not task.align_labels(BertConfig(num_labels=2))
    assert BertConfig(**task.config_fields()).num_labels == 1


def test_what_is_cut_is_counted_and_nothing_else_is_cut(tmp_path):
    task = make_task(tmp_path, LABELS[SINGLE], ("one", "two"), longest=9)
    tokenizer = make_tokenizer()
    items = task.encode("train", tokenizer, 9)  # 3 special tokens leave room for 3 words of each text
    lengths = [2 * (number % 9 + 1) + 3 for number in range(18)]
    assert [len(item.sequences[0]) for item in items] == [min(length, 9) for length in lengths]
    long = sum(length > 9 for length in lengths)
    assert ("too long", f"{long} of 18 train examples, whose end is not read") in task.describe()
    texts = task.data.splits["train"][8].texts
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    assert items[8].sequences[0] == [1, *first[:3], 2, *second[:3], 2]
    with pytest.raises(RecipeError, match="max_length is 3, which has no room for any text"):
        task.encode("train", tokenizer, 3)


def test_a_tokenizer_that_puts_nothing_between_texts_gets_its_end_token_there(tmp_path):
    pairs, single = make_task(tmp_path, LABELS[SINGLE], ("one", "two")), make_task(tmp_path, LABELS[SINGLE])
    assert single.prepare_tokenizer(make_tokenizer("bare"))("w1")["input_ids"] == [5]
    prepared = pairs.prepare_tokenizer(make_tokenizer("bare"))
    assert prepared("w1", "w2")["input_ids"] == [5, 2, 6]
    prepared.save_pretrained(tmp_path / "saved")
    assert PreTrainedTokenizerFast.from_pretrained(tmp_path / "saved")("w1", "w2")["input_ids"] == [5, 2, 6]
    assert pairs.prepare_tokenizer(make_tokenizer())("w1", "w2")["input_ids"] == [1, 5, 2, 6, 2]
    bare = make_tokenizer("bare")
    bare.eos_token = None
    with pytest.raises(RecipeError, match="no token between the texts of a pair"):
        pairs.prepare_tokenizer(bare)


def test_thresholds_are_tuned_on_the_validation_split_only(tmp_path):
    task = make_task(tmp_path, LABELS[MULTI])
    items = task.encode("validation", make_tokenizer(), 64)
    low = [np.array(item.target, dtype=np.float32) - 5 for item in items]  # right, but all below 0.5
    assert task.score("test", items, low)["f1_micro_tuned"] == 0
    assert task.score("validation", items, low)["f1_micro_tuned"] == 1
    assert task.score("validation", items, low)["f1_micro"] == 0
    tuned = task.thresholds.copy()
    task.score("test", items, [-logits for logits in low])
    assert (task.thresholds == tuned).all()
    assert (tuned < 0.5).all()


def test_the_plan_says_what_is_learnt(tmp_path):
    lines = dict(make_task(tmp_path, LABELS[SINGLE]).describe())
    assert lines["labels"] == "3: a 6, b 6, c 6"
    assert lines["task"] == "train.jsonl, single label classification"
    lines = dict(make_task(tmp_path, LABELS["regression"]).describe())
    assert lines["labels"] == "-1 to 2, 0.5 on average"


def test_the_texts_for_a_tokenizer_are_those_of_the_training_examples(tmp_path):
    task = make_task(tmp_path, LABELS[SINGLE], ("one", "two"), validation=["a"] * 3)
    assert list(task.texts()) == [text for example in task.data.splits["train"] for text in example.texts]
    assert task.splits == {"train": 18, "validation": 3}
