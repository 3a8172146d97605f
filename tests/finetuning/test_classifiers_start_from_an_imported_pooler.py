"""A classifier on an imported checkpoint starts from what a stock classifier on the same file starts from."""

import json
from pathlib import Path

import pytest
import torch
from helpers.families import make_batch, make_pair, output_of
from safetensors.torch import load_file
from transformers import BertForPreTraining, BertForSequenceClassification, ModernBertForSequenceClassification

from weft import WeftForMaskedLM, WeftForSequenceClassification
from weft.recipes import finetune_classification
from weft.recipes.conversion.run import convert
from weft.tokenizer.special_tokens import for_role
from weft.tokenizer.train import train_tokenizer


def import_case(case: str, head: str, folder: Path, architecture: str | None = None) -> None:
    _, stock, _ = make_pair(case, head)
    stock.save_pretrained(folder / "stock")
    if architecture is not None:
        path = folder / "stock" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": [architecture]}))
    convert("import", str(folder / "stock"), folder / "weft", None)


@pytest.mark.parametrize(
    ("case", "head", "architecture", "stock_class"),
    [
        ("bert", "pretraining", "BertForMaskedLM", BertForSequenceClassification),  # as bert-base-uncased says
        ("bert", "pretraining", None, BertForSequenceClassification),
        ("bert", "base", None, BertForSequenceClassification),
        ("modernbert", "masked", None, ModernBertForSequenceClassification),
    ],
)
def test_all_but_the_output_matrix_is_what_a_stock_classifier_has(
    case: str, head: str, architecture: str | None, stock_class: type, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    import_case(case, head, tmp_path, architecture)
    assert "kept beside the model, for a classifier to start from: classifier_transform." in capsys.readouterr().out
    stock = stock_class.from_pretrained(tmp_path / "stock", num_labels=3, attn_implementation="eager").eval()
    model = WeftForSequenceClassification.from_pretrained(
        tmp_path / "weft", num_labels=3, attn_implementation="eager"
    ).eval()
    model.score.load_state_dict(stock.classifier.state_dict())
    batch = make_batch(stock, "sequence", "right")
    torch.testing.assert_close(output_of(model, batch), output_of(stock, batch), rtol=0, atol=1e-5)


def test_the_language_model_is_the_same_with_and_without(tmp_path: Path) -> None:
    import_case("bert", "pretraining", tmp_path, "BertForMaskedLM")
    model, info = WeftForMaskedLM.from_pretrained(tmp_path / "weft", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    convert("export", str(tmp_path / "weft"), tmp_path / "back", "bert")
    stock = BertForPreTraining.from_pretrained(tmp_path / "stock").eval()
    batch = make_batch(stock, "masked", "right")
    expected = stock(**batch).prediction_logits[batch["attention_mask"].bool()]
    torch.testing.assert_close(output_of(model.eval(), batch), expected, rtol=0, atol=1e-5)


def test_fine_tuning_starts_from_it_and_begins_anew_what_another_task_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a learning rate of nearly 0, the published weights are those that it started from."""
    import_case("bert", "pretraining", tmp_path, "BertForMaskedLM")
    for_role(train_tokenizer(iter(["a red cat"] * 3), "char", 97), "encoder").save_pretrained(tmp_path / "weft")
    rows = tmp_path / "rows.csv"
    name = "classifier_transform.dense.weight"
    before = load_file(tmp_path / "weft" / "model.safetensors")[name]

    def tune(source: Path, output: str, labels: tuple[str, str]) -> torch.Tensor:
        rows.write_text("sentence,label\n" + "".join(f"a red cat {n},{labels[n % 2]}\n" for n in range(20)))
        words = ["--model_name_or_path", source, "--train_file", rows, "--max_steps", "1", "--seeds", "1"]
        words += ["--evaluations", "1", "--learning_rate", "1e-12", "--output_dir", tmp_path / output]
        monkeypatch.setattr("sys.argv", ["finetune_classification.py", *map(str, words)])
        finetune_classification.main()
        return load_file(tmp_path / output / "model.safetensors")[name]

    after = tune(tmp_path / "weft", "first", ("no", "yes"))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    again = tune(tmp_path / "first", "second", ("left", "right"))
    assert (again - before).abs().max() > 1e-2
