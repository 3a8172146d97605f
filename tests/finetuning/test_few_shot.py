"""Few-shot training: pairs that follow from the seed, a head that is a logistic regression, and an ordinary folder.

The loss is sentence-transformers', which is optional: here the formula of its paper stands in its place
(tests/ecosystem trains with the library).
"""

import csv
import json

import numpy as np
import pytest
import torch
from helpers import finetuning as ft
from helpers.models import make_model, tiny_config
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from weft import WeftForSequenceClassification
from weft.recipes.finetuning.collation import EncodedExample, PackingCollator
from weft.recipes.finetuning.dataset import TrainingOrder
from weft.recipes.finetuning.tasks.text_classification import arguments, contrast
from weft.recipes.finetuning.tasks.text_classification.contrast import Contrast, PairOrder, fit_head
from weft.tokenizer.train import train_tokenizer

LABELS = [0, 1, 2, 0, 1, 2, 0, 1, 2, 1]


def items_of(labels):
    return [EncodedExample([[3 + number] * (1 + number % 4)], number, label) for number, label in enumerate(labels)]


def pairs_of(labels=LABELS, passes=6, seed=1):
    items = items_of(labels)
    return PairOrder(TrainingOrder(items, seed, passes * len(items)))


def told(pair):
    return pair.example, pair.sequences, pair.target


def test_pairs_are_a_function_of_the_seed_alone():
    first, again, other = pairs_of(), pairs_of(), pairs_of(seed=2)
    backwards = [told(again[place]) for place in reversed(range(len(again)))][::-1]
    assert [told(first[place]) for place in range(len(first))] == backwards
    assert backwards != [told(other[place]) for place in range(len(other))]


def test_every_other_pair_is_of_one_label_and_each_text_comes_first_once_a_pass():
    pairs, number = pairs_of(), len(LABELS)
    found = [pairs[place] for place in range(len(pairs))]
    partners = set()
    for place, pair in enumerate(found):
        first, second = (ids[0] - 3 for ids in pair.sequences)
        assert first == pair.example != second
        assert pair.target == int(LABELS[first] == LABELS[second])
        assert pair.target == 1 - (place // number + place) % 2
        partners.add((first, second))
    for start in range(0, len(found), number):
        assert sorted(pair.example for pair in found[start : start + number]) == list(range(number))
    assert sum(pair.target for pair in found) == len(found) // 2
    assert len(partners) > 4 * number  # not the same ones over and over


def test_a_label_with_one_example_is_told_from_others_only():
    pairs = pairs_of([0, 0, 0, 1], passes=40)
    for place in range(len(pairs)):
        pair = pairs[place]
        assert pair.target == 0 or 6 not in (ids[0] for ids in pair.sequences)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_head_is_the_regularised_logistic_regression(classes, weighted):
    draw = np.random.default_rng(0)
    vectors, labels = draw.normal(size=(40, 8)).astype(np.float32) * 3, np.arange(40) % classes
    weights = torch.linspace(0.5, 2, classes) if weighted else None
    head = torch.nn.Linear(8, classes)
    fit_head(head, vectors, labels, weights)
    found = head(torch.from_numpy(vectors)).double().log_softmax(-1)

    # the same by torch: vectors in units of their length, half the squared weights beside the summed losses
    inputs, target = torch.from_numpy(vectors).double(), torch.from_numpy(labels)
    inputs = inputs / inputs.square().sum(1).mean().sqrt()
    counts = torch.ones(classes) if weights is None else weights
    outputs = 1 if classes == 2 else classes  # of two classes the log-odds of the second
    matrix = torch.zeros(outputs, 8, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(outputs, dtype=torch.float64, requires_grad=True)

    def log_probabilities():
        logits = inputs @ matrix.T + bias
        logits = torch.cat([torch.zeros_like(logits), logits], 1) if classes == 2 else logits
        return logits.log_softmax(-1)

    def objective():
        optimizer.zero_grad()
        losses = functional.nll_loss(log_probabilities(), target, reduction="none") * counts.double()[target]
        total = losses.sum() + matrix.square().sum() / 2
        total.backward()
        return total

    optimizer = torch.optim.LBFGS([matrix, bias], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")
    optimizer.step(objective)
    torch.testing.assert_close(found, log_probabilities().detach(), rtol=0, atol=1e-3)
    assert found.exp().std() > 0.05  # it has learnt something that could differ


def test_the_head_answers_the_same_however_long_the_vectors_are():
    vectors, labels = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32), np.arange(20) % 3
    heads = [torch.nn.Linear(6, 3) for _ in range(2)]
    for head, factor in zip(heads, (1, 100)):
        fit_head(head, vectors * factor, labels)
    answers = [head(torch.from_numpy(vectors * factor)) for head, factor in zip(heads, (1, 100))]
    torch.testing.assert_close(*answers, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_what_is_compared_is_what_the_head_reads_packed_or_not(pooling):
    fields = {"is_causal": pooling == "last", "classifier_pooling": pooling, "num_labels": 3, "pad_token_id": 0}
    model = make_model(tiny_config(**fields), model_class=WeftForSequenceClassification)
    tokenizer = train_tokenizer(["a b c"] * 3, "char", 61)
    items = [EncodedExample([*one.sequences, *one.sequences], one.example, 1) for one in items_of(LABELS)]
    found = []
    for packed in (True, False):
        batch, layout = PackingCollator(tokenizer, packed).lay_out(items)
        vectors = Contrast().forward(model, batch)
        torch.testing.assert_close(model.score(vectors), model(**batch).logits)
        torch.testing.assert_close(vectors[0::2], vectors[1::2], atol=1e-5, rtol=0)  # a text beside itself
        found.append({item.example: vector for item, vector in zip(layout.items, vectors[0::2])})
    for example in range(len(LABELS)):
        torch.testing.assert_close(found[0][example], found[1][example], atol=1e-5, rtol=0)


def cosent(vectors, labels, scale=20.0):
    """The loss of the paper (https://penghao-bdsc.github.io/papers/CoSENT_TASLP2024.pdf) over all pairs of pairs."""
    cosines = functional.cosine_similarity(*vectors) * scale
    above = [other - one for one, y in zip(cosines, labels) for other, z in zip(cosines, labels) if z < y]
    return torch.stack([torch.zeros(()), *above]).logsumexp(0)


@pytest.fixture
def without_the_library(monkeypatch):
    monkeypatch.setattr(arguments, "find_spec", lambda name: name)
    monkeypatch.setattr(contrast, "pair_loss", lambda: cosent)


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """Folders of a masked and of a causal model."""
    root = tmp_path_factory.mktemp("starts")
    return {name: ft.make_start(root / name, name == "causal") for name in ("masked", "causal")}


def few(folder, number=24, validation=20, **fields):
    """Fields of a few-shot run on a few sentences, at a rate that so small and untrained a model learns with."""
    usual = {"few_shot": "true", "max_steps": None, "evaluations": None, "per_device_train_batch_size": None}
    return {**ft.write_files(folder, number, validation), "output_dir": folder / "run", **usual, **fields}


@pytest.mark.parametrize("start, pooling", [("masked", "mean"), ("causal", "last")])
def test_a_run_leaves_an_ordinary_folder(start, pooling, starts, tmp_path, without_the_library, capsys):
    new = tmp_path / "new.csv"
    new.write_text("text\nthe lovely house\nthe awful house\n", encoding="utf-8")
    ft.run_here(**few(tmp_path, model_name_or_path=starts[start], predict_file=new))
    printed, folder = capsys.readouterr().out, tmp_path / "run"
    assert (
        "few shot    960 pairs of texts" in printed and f"pooling     {pooling} of the tokens' last states" in printed
    )
    assert "length      60 steps of 16" in printed and "evaluation  in the end, on 20 examples" in printed
    found, config = ft.metrics(folder), json.loads((folder / "config.json").read_text())
    assert found["eval_accuracy"] >= 0.9 and found["steps"] == found["best_step"] == 60
    assert config["classifier_pooling"] == pooling and config["id2label"] == {"0": "bad", "1": "good"}
    assert {"README.md", "predictions.csv", "mistakes.csv", "curve.png", "confusion_matrix.png"} <= {
        one.name for one in folder.iterdir()
    }
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = list(csv.DictReader((folder / "predicted.csv").open()))
    assert [row["predicted"] for row in rows] == ["good", "bad"]
    for row in rows:
        probabilities = model(**tokenizer(row["text"], return_tensors="pt")).logits.softmax(-1)[0].tolist()
        assert probabilities == pytest.approx(
            [float(row[f"probability of {name}"]) for name in ("bad", "good")], abs=1e-5
        )


def test_a_killed_run_goes_on_bit_for_bit(starts, tmp_path, without_the_library, monkeypatch):
    fields = few(tmp_path, model_name_or_path=starts["masked"], max_steps=9, evaluations=3)
    whole, killed = ({**fields, "output_dir": tmp_path / name} for name in ("whole", "killed"))
    ft.run_here(**whole)
    step, done = contrast.ContrastTrainer.training_step, 0

    def fail(trainer, *args, **kwargs):
        nonlocal done
        done += 1
        if done == 8:
            raise KeyboardInterrupt
        return step(trainer, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(contrast.ContrastTrainer, "training_step", fail)
        ft.run_here(**killed)
    ft.run_here(**killed)
    one, other = (
        AutoModelForSequenceClassification.from_pretrained(tmp_path / name).state_dict() for name in ("whole", "killed")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    histories = [ft.seed_result(tmp_path / name)["history"] for name in ("whole", "killed")]
    assert [x["eval_loss"] for x in histories[0] if "eval_loss" in x] == [
        x["eval_loss"] for x in histories[1] if "eval_loss" in x
    ]


def test_pairs_grow_with_the_texts_up_to_a_limit_and_many_texts_are_warned_of(
    starts, tmp_path, without_the_library, capsys
):
    for number, line in ((20, "800 pairs"), (640, "2,560 pairs")):
        ft.run_here(**few(tmp_path / str(number), number, 100, model_name_or_path=starts["masked"], plan="true"))
        printed = capsys.readouterr().out
        assert f"few shot    {line} of texts" in printed
        assert ("320 examples of a label on average are more than the 64" in printed) == (number == 640)
        assert "evaluation  in the end" not in printed  # 100 examples are enough to choose weights by
    given = {"num_train_epochs": 3, "per_device_train_batch_size": 8, "learning_rate": 1e-4}
    ft.run_here(**few(tmp_path / "own", 20, model_name_or_path=starts["masked"], plan="true", **given))
    printed = capsys.readouterr().out
    assert "few shot    64 pairs" in printed and "8 steps of 8" in printed and "learning rate 0.0001" in printed


def test_what_few_shot_cannot_do_is_refused_before_training(starts, tmp_path, without_the_library):
    def error(rows=None, **fields):
        given = few(tmp_path, **{"model_name_or_path": starts["masked"], **fields})
        if rows is not None:
            given |= dict.fromkeys(("train_file", "validation_file"), ft.write_rows(tmp_path / "rows.jsonl", rows))
        return ft.run_error(**given)

    rows = [{"text": f"text {number}", "label": number % 2} for number in range(20)]
    assert "lora_rank is given: few_shot trains the whole body" in error(lora_rank=2)
    assert "compares the pairs of a batch" in error(gradient_accumulation_steps=2)
    assert "label_smoothing_factor is given" in error(label_smoothing_factor=0.1)
    assert "pools as embeddings do" in error(classifier_pooling="cls")
    assert "starts from a trained model: give model_name_or_path" in error(model_name_or_path=None)
    assert "this is a multi label classification" in error([{**row, "label": ["a"]} for row in rows])
    assert "this is a regression" in error([{**row, "label": row["label"] + 0.5} for row in rows])
    single = [{"text": f"text {number}", "label": f"label {number}"} for number in range(3)]
    assert "each label has one training example" in error(single)
    three = [{"text": f"text {number}", "label": number // 10} for number in range(30)]
    assert "none has '2': give some" in error(three, max_train_examples=20)
    BertForSequenceClassification(
        BertConfig(vocab_size=400, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(tmp_path / "bert")
    AutoTokenizer.from_pretrained(starts["masked"]).save_pretrained(tmp_path / "bert")
    assert "few_shot is for Weft models, and" in error(model_name_or_path=tmp_path / "bert")
    assert not (tmp_path / "run").exists()


def test_without_the_library_the_command_says_what_to_install(starts, tmp_path, monkeypatch):
    monkeypatch.setattr(arguments, "find_spec", lambda name: None)
    refused = ft.run_error(**few(tmp_path, model_name_or_path=starts["masked"]))
    assert refused == "few_shot needs the package sentence-transformers: pip install sentence-transformers."
