"""The trained weights depend on seed and data, not on how the work was cut, interrupted or laid out in batches."""

import numpy as np
import pytest
import torch
from helpers import finetuning as ft
from helpers.launched import run_together
from helpers.models import tiny_config
from safetensors.torch import load_file

import weft
from weft.losses import sequence_classification_loss
from weft.recipes.finetuning.collation import EncodedExample, PackingCollator, cut_out, in_place
from weft.recipes.finetuning.dataset import TrainingOrder
from weft.tokenizer.train import train_tokenizer

# Added to every choice or token alike, so that no probability depends on it: its gradient is nothing but rounding, of
# which Adam makes whole steps.
UNSEEN = {"finetune_qa": "qa_outputs.bias", "finetune_choice": "choice_score.bias"}
DROPOUT_OFF = {"hidden_dropout": 0.0, "classifier_dropout": 0.0}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return ft.write_files(tmp_path_factory.mktemp("data"))


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_close(found, expected, unseen=None):
    """Equal but for the order in which float32 numbers are added up, over a few steps of Adam."""
    for name, value in weights(expected).items():
        if name != unseen:
            assert torch.allclose(weights(found)[name], value, rtol=1e-3, atol=2e-4), name


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    ft.run_here(**files, output_dir=folder, max_steps=6, learning_rate=1e-3, **DROPOUT_OFF)
    return folder


def test_accumulating_gradients_changes_nothing(files, whole, tmp_path):
    ft.run_here(
        **{**files, "max_steps": 6, "learning_rate": 1e-3, **DROPOUT_OFF},
        output_dir=tmp_path / "cut",
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
    )
    assert_close(tmp_path / "cut", whole)
    assert ft.losses(tmp_path / "cut") == pytest.approx(ft.losses(whole), rel=1e-4)


@pytest.mark.parametrize("recipe", ft.MAINS)
def test_two_processes_give_what_one_gives(recipe, tmp_path, capfd):
    fields = {**ft.files_of(recipe, tmp_path), "max_steps": 6, "learning_rate": 1e-3, **DROPOUT_OFF}
    ft.run_here(ft.MAINS[recipe], **fields, output_dir=tmp_path / "one")
    capfd.readouterr()
    fields |= {"output_dir": tmp_path / "two", "per_device_train_batch_size": 8}
    if recipe == "finetune_classification":  # one of them as a user starts it
        process = ft.launch(2, recipe, **fields)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    else:
        run_together("cpu_2.yaml", ft.run_here, ft.MAINS[recipe], **fields)
        output = capfd.readouterr().out
    assert "2 processes" in output
    assert_close(tmp_path / "two", tmp_path / "one", UNSEEN.get(recipe))
    assert ft.losses(tmp_path / "two") == pytest.approx(ft.losses(tmp_path / "one"), rel=1e-4)
    found, expected = ft.metrics(tmp_path / "two"), ft.metrics(tmp_path / "one")
    assert found["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-4)


def test_packed_and_padded_batches_train_the_same_model(files, whole, tmp_path):
    fields = {**files, "max_steps": 6, "learning_rate": 1e-3, **DROPOUT_OFF}
    ft.run_here(**fields, output_dir=tmp_path / "padded", batching="padded")
    assert_close(tmp_path / "padded", whole)


@pytest.mark.parametrize("recipe", ft.MAINS)
def test_a_killed_run_continues_bit_for_bit(recipe, tmp_path):
    main = ft.MAINS[recipe]
    fields = {**ft.files_of(recipe, tmp_path), "seeds": [1, 2], "max_steps": 24, "evaluations": 8}
    ft.run_here(main, **fields, output_dir=tmp_path / "whole")
    process = ft.start(recipe, **fields, output_dir=tmp_path / "killed")
    ft.kill_once_saved(process, tmp_path / "killed")
    ft.run_here(main, **fields, output_dir=tmp_path / "killed")
    for name, value in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "killed")[name], value), name
    for seed in (1, 2):
        assert (
            ft.seed_result(tmp_path / "killed", seed)["metrics"] == ft.seed_result(tmp_path / "whole", seed)["metrics"]
        )


def test_every_pass_shows_each_example_once_in_an_order_of_its_own():
    items = [EncodedExample([[1] * (1 + number % 7)], number) for number in range(50)]
    for group in (0, 8):
        rows = TrainingOrder(items, seed=3, number=150, group=group)
        order = [rows[index].example for index in range(150)]
        passes = [order[:50], order[50:100], order[100:]]
        assert all(sorted(one) == list(range(50)) for one in passes)
        assert passes[0] != passes[1] != passes[2]
        assert order == [TrainingOrder(items, 3, 150, group)[index].example for index in range(150)]
        assert order != [TrainingOrder(items, 4, 150, group)[index].example for index in range(150)]


def test_grouped_batches_hold_examples_of_like_length():
    draw = np.random.default_rng(0)
    items = [EncodedExample([[1] * int(length)], number) for number, length in enumerate(draw.integers(1, 60, 800))]

    def padding(group):
        rows = TrainingOrder(items, seed=0, number=800, group=group)
        lengths = np.array([rows[index].tokens for index in range(800)]).reshape(-1, 16)
        return (lengths.max(1) * 16).sum() / lengths.sum()

    assert padding(16) < 1.1 < 1.6 < padding(0)


def test_packed_logits_are_those_of_each_example_alone():
    tokenizer = _tokenizer()
    draw = np.random.default_rng(0)
    items = [
        EncodedExample([draw.integers(3, 61, length).tolist()], number)
        for number, length in enumerate((5, 40, 1, 17, 33, 8, 70))
    ]
    for is_causal in (False, True):
        config = tiny_config(is_causal=is_causal, num_labels=3, pad_token_id=0)
        model = weft.WeftForSequenceClassification(config).eval().double()
        alone = {item.example: model(torch.tensor(item.sequences)).logits[0] for item in items}
        for packed in (True, False):
            batch, layout = PackingCollator(tokenizer, packed).lay_out(items)
            logits = model(**batch).logits
            expected = torch.stack([alone[item.example] for item in layout.items])
            assert torch.allclose(logits, expected, atol=1e-12)
        assert batch["input_ids"].numel() > 2 * sum(item.tokens for item in items)
        packed_batch, _ = PackingCollator(tokenizer, True).lay_out(items)
        assert packed_batch["input_ids"].numel() < 1.25 * sum(item.tokens for item in items)


def test_a_layout_says_where_every_sequence_stands():
    items = [EncodedExample([[5, 6], [7, 8, 9]], 0), EncodedExample([[3], [4, 4]], 1)]
    for packed in (True, False):
        batch, layout = PackingCollator(_tokenizer(), packed, choices=True).lay_out(items)
        flat = batch["input_ids"].reshape(layout.shape)
        found = [part.tolist() for part in cut_out(layout, flat)]
        assert found == [ids for item in layout.items for ids in item.sequences]
        marked = in_place(layout, [[1] * len(ids) for item in layout.items for ids in item.sequences], 0)
        assert torch.equal(marked, batch["attention_mask"].reshape(layout.shape))


def test_a_loss_divided_over_the_step_is_the_mean_over_all_its_examples():
    logits, labels = torch.randn(12, 3).double(), torch.randint(0, 3, (12,))
    weights = torch.tensor([1.0, 2.0, 0.5]).double()
    expected = torch.nn.functional.cross_entropy(logits, labels, weight=weights)
    total = weights[labels].sum()
    parts = [
        sequence_classification_loss(logits[i : i + 5], labels[i : i + 5], None, total, class_weights=weights)
        for i in (0, 5, 10)
    ]
    assert sum(parts).item() == pytest.approx(expected.item(), abs=1e-12)


def _tokenizer():
    return train_tokenizer(["a b c"], "char", 60)
