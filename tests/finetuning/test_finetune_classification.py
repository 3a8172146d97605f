"""The command, from examples in a file to a classifier that loads without this package."""

import csv
import json
from pathlib import Path

import pytest
from helpers.cards import head_of, scores_of, usage_of
from helpers.elsewhere import succeed

from weft.recipes import finetune_classification
from weft.recipes.common.errors import RecipeError

SMALL = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300, "max_length": 32},
    **{"cpu_threads": 1, "seeds": 1, "evaluations": 2, "use_cpu": "true", "learning_rate": 3e-3},
    **{"per_device_train_batch_size": 16},
}


def run(folder: Path, **fields):
    words = []
    for name, value in {**SMALL, "output_dir": folder, **fields}.items():
        words += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    finetune_classification.main(words)


def write_csv(path: Path, rows: list[dict]) -> str:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def read_csv(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


COLOURS = {"warm": ("red", "orange"), "cold": ("blue", "violet"), "2": ("grey", "black")}


def colours(number: int) -> list[dict]:
    names = list(COLOURS)
    return [
        {"review": f"the {COLOURS[names[n % 3]][n // 3 % 2]} house number {n % 7}", "mood": names[n % 3]}
        for n in range(number)
    ]


def test_a_table_becomes_a_classifier_that_loads_without_this_package(tmp_path):
    files = {"train_file": write_csv(tmp_path / "train.csv", colours(90))}
    files |= {"test_file": write_csv(tmp_path / "test.csv", colours(12))}
    files |= {
        "predict_file": write_csv(tmp_path / "new.csv", [{"review": "the red house"}, {"review": "the blue house"}])
    }
    folder = tmp_path / "run"
    run(folder, **files, label_column="mood", max_steps=30)
    metrics = metrics_of(folder)
    assert metrics["eval_accuracy"] == metrics["test_accuracy"] == 1.0
    assert [row["predicted"] for row in read_csv(folder / "predicted.csv")] == ["warm", "cold"]
    assert [row["gold"] for row in read_csv(folder / "test" / "predictions.csv")] == ["warm", "cold", "2"] * 4
    for name in ("mistakes.csv", "confusion_matrix.png", "calibration.png", "README.md"):
        assert (folder / name).is_file()
    assert json.loads((folder / "config.json").read_text())["id2label"] == {"0": "2", "1": "cold", "2": "warm"}
    head = head_of(folder)
    assert {("validation", "accuracy"), ("test", "accuracy")} <= scores_of(head)
    assert {result.dataset_name for result in head.eval_results} == {"train.csv"}
    usage = usage_of(folder)
    printed = succeed(usage.replace("some text", "the orange house number 3"), tmp_path)
    assert "'label': 'warm'" in printed


def test_pairs_with_several_labels_and_what_their_card_says_to_run(tmp_path):
    draws = [(n % 2, n // 2 % 2) for n in range(64)]
    things = [f"{'red' if a else 'plain'} thing {n}" for n, (a, _) in enumerate(draws)]
    rows = [
        {"text_a": thing, "text_b": "big box" if b else "box", "colour": a, "size": b}
        for thing, (a, b) in zip(things, draws)
    ]
    folder = tmp_path / "run"
    run(folder, train_file=write_csv(tmp_path / "a.csv", rows), label_column="colour,size", max_steps=30)
    assert metrics_of(folder)["eval_f1_micro_tuned"] == 1.0
    assert set(json.loads((folder / "thresholds.json").read_text())["thresholds"]) == {"colour", "size"}
    usage = usage_of(folder)
    assert 'function_to_apply="sigmoid"' in usage
    printed = succeed(usage.replace("the first text", "red thing").replace("the second", "box"), tmp_path)
    assert printed.index("colour") < printed.index("size")  # the more probable label comes first


def test_a_regression_of_pairs_and_its_glue_submission(tmp_path):
    header = "\t".join(
        ("index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2", "score")
    )
    row = "{}\tx\tx\tx\tx\tx\tx\tthe {} cat\tthe {} cat\t{}"
    words = ("old", "new", "red")
    rows = [row.format(n, words[n % 3], words[n // 3 % 3], 4.5 if n % 3 == n // 3 % 3 else 0.5) for n in range(45)]
    data = tmp_path / "STS-B"
    data.mkdir()
    for name in ("train", "dev"):
        (data / f"{name}.tsv").write_text("\n".join([header, *rows]) + "\n")
    unlabelled = ["\t".join(line.split("\t")[:-1]) for line in (header, *rows[:5])]
    (data / "test.tsv").write_text("\n".join(unlabelled) + "\n")
    folder = tmp_path / "run"
    run(folder, task="stsb", data=data, max_steps=4)
    assert {"eval_pearson", "eval_spearmanr", "eval_corrcoef", "eval_mse"} <= set(metrics_of(folder))
    assert (folder / "scatter.png").is_file()
    head = head_of(folder)
    assert (head.language, head.library_name, head.pipeline_tag) == ("en", "transformers", "text-classification")
    assert ("validation", "corrcoef") in scores_of(head) and head.eval_results[0].dataset_name == "stsb"
    assert not (folder / "glue_submission").exists()
    run(folder, task="stsb", data=data, max_steps=4, glue_submission="true")  # the finished model is used again
    lines = (folder / "glue_submission" / "STS-B.tsv").read_text().splitlines()
    assert lines[0] == "index\tprediction"
    assert [line.split("\t")[0] for line in lines[1:]] == ["0", "1", "2", "3", "4"]
    assert all(0 <= float(line.split("\t")[1]) <= 5 for line in lines[1:])


def test_a_finished_model_goes_on_in_the_order_of_its_own_labels(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    run(first, train_file=write_csv(tmp_path / "a.csv", colours(60)), label_column="mood", max_steps=30)
    config = json.loads((first / "config.json").read_text())
    order = {"0": "warm", "1": "2", "2": "cold"}  # as if another program had numbered them
    config |= {"id2label": order, "label2id": {name: int(number) for number, name in order.items()}}
    (first / "config.json").write_text(json.dumps(config))
    start = {name: value for name, value in SMALL.items() if name in ("cpu_threads", "seeds", "use_cpu", "max_length")}
    words = [word for name, value in start.items() for word in (f"--{name}", str(value))]
    words += [
        "--train_file",
        str(tmp_path / "a.csv"),
        "--label_column",
        "mood",
        "--max_steps",
        "1",
        "--evaluations",
        "1",
    ]
    finetune_classification.main([*words, "--model_name_or_path", str(first), "--output_dir", str(second)])
    assert json.loads((second / "config.json").read_text())["id2label"] == order


@pytest.mark.parametrize(
    ("rows", "fields", "message"),
    [
        ([{"text": "a", "label": "x"}, {"text": "b", "label": ""}], {}, "line 3: the label is missing"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "x"}], {}, "two labels are needed"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], {"text_columns": "txt"}, "no column 'txt'"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], {"metric": "f2"}, "metric is 'f2': choose one of"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], {"predict_file": "no.csv"}, "no.csv is missing"),
    ],
)
def test_what_cannot_be_learnt_is_refused_before_anything_is_written(tmp_path, rows, fields, message):
    with pytest.raises(RecipeError, match=message):
        run(tmp_path / "run", train_file=write_csv(tmp_path / "a.csv", rows), **fields)
    assert not (tmp_path / "run").exists()
