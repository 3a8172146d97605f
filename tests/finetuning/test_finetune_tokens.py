"""The command tags: from files of any form to a folder that works where the package is not, and predicts again."""

import contextlib
import csv
import io
import json
import random
from pathlib import Path

import pytest
from helpers.cards import usage_of
from helpers.elsewhere import succeed
from transformers import AutoTokenizer, pipeline

from weft import WeftForTokenClassification
from weft.recipes.common.errors import RecipeError
from weft.recipes.finetune_tokens import main

NAMES, PLACES = ("Anna Bell", "Bob", "Clara Zoë", "Dan"), ("New York", "Rome", "Oslo", "Bern")
CHINESE_NAMES, CHINESE_PLACES = ("叶老桂", "王小明", "李雷"), ("北京", "上海", "浙江")
MODEL = "--hidden_size 32 --num_hidden_layers 1 --num_attention_heads 2 --num_key_value_heads 2 --intermediate_size 48"
RUN = "--vocab_size 300 --evaluations 1 --seeds 3 --cpu_threads 1 --per_device_train_batch_size 8"


def columns(path: Path, seed: int, number: int, column: str = "ner") -> Path:
    """Sentences of words, parts of speech and tags in BIOES."""
    draw = random.Random(seed)
    lines = []
    for _ in range(number):
        for text, kind in ((draw.choice(NAMES), "PER"), ("went to", None), (draw.choice(PLACES), "LOC"), (".", None)):
            words = text.split()
            for place, word in enumerate(words):
                letter = "S" if len(words) == 1 else "B" if place == 0 else "E"
                tag = f"{letter}-{kind}" if kind else "O"
                lines.append(f"{word} {'NNP' if kind else 'X' if word == '.' else 'VB'} {tag}")
        lines.append("")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def cluener(path: Path, seed: int, number: int) -> Path:
    draw = random.Random(seed)
    rows = []
    for _ in range(number):
        name, place = draw.choice(CHINESE_NAMES), draw.choice(CHINESE_PLACES)
        text = f"{name}去了{place}。" + "今天天气很好。" * draw.randint(0, 3)
        start = text.index(place)
        label = {"name": {name: [[0, len(name) - 1]]}, "address": {place: [[start, start + len(place) - 1]]}}
        rows.append(json.dumps({"text": text, "label": label}, ensure_ascii=False))
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def run(words: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        main(words.split())
    return output.getvalue()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Finished runs by the name of their folder, and what they printed."""
    root = tmp_path_factory.mktemp("runs")
    data = root / "data"
    data.mkdir()
    train, dev = columns(data / "train.txt", 1, 60), columns(data / "dev.txt", 2, 12)
    columns(data / "test.txt", 3, 8)
    cluener(data / "train.json", 1, 40)
    cluener(data / "dev.json", 2, 8)
    fields = {
        "names": f"--task conll2000 --data {data} --max_steps 60 --learning_rate 1e-2",
        "windows": f"--task cluener --data {data} --max_steps 4 --max_length 16",
        "plain": f"--train_file {train} --validation_file {dev} --tag_column 1 --max_steps 4",
    }
    printed = {name: run(f"{words} --output_dir {root / name} {MODEL} {RUN}") for name, words in fields.items()}
    return root, printed


def test_the_plan_says_what_was_read(runs: tuple[Path, dict[str, str]]) -> None:
    _, printed = runs
    assert "2 types of entities: LOC, PER" in printed["names"]
    assert "BIOES, written as IOB2" in printed["names"]
    assert "words joined with blanks" in printed["names"]
    assert "longer texts, cut into overlapping windows of 14 tokens" in printed["windows"]
    assert "3 tags: NNP, VB, X" in printed["plain"]


def test_a_run_learns_and_reports(runs: tuple[Path, dict[str, str]]) -> None:
    root, _ = runs
    metrics = json.loads((root / "names" / "metrics.json").read_text())
    assert metrics["eval_f1"] > 0.9
    assert metrics["test_f1"] > 0.9
    config = json.loads((root / "names" / "config.json").read_text())
    assert config["id2label"] == dict(zip("01234", ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]))
    for name, files in {
        "names": ("predictions.conll", "types.png", "test/types.png"),
        "windows": ("predictions.jsonl", "types.png"),
        "plain": ("predictions.conll", "confusion.png", "types.png"),
    }.items():
        for file in (*files, "predictions.csv", "mistakes.csv", "types.csv"):
            assert (root / name / file).is_file(), (name, file)
        card = (root / name / "README.md").read_text(encoding="utf-8")
        assert "| precision | recall | F1 | support |" in card
        assert all(f"({file})" in card for file in files if file.endswith("png"))
    assert json.loads((root / "plain" / "metrics.json").read_text())["eval_accuracy"] > 0


def test_the_tables_agree_with_each_other(runs: tuple[Path, dict[str, str]]) -> None:
    root, _ = runs
    for name in ("names", "windows", "plain"):
        predictions, mistakes = rows_of(root / name / "predictions.csv"), rows_of(root / name / "mistakes.csv")
        wrong = [row for row in predictions if row["gold"] != row["predicted"]]
        assert sorted(map(str, wrong)) == sorted(map(str, mistakes))
        scores = [float(row["score"]) for row in mistakes]
        assert scores == sorted(scores, reverse=True)
        support = sum(int(row["support"]) for row in rows_of(root / name / "types.csv"))
        assert support == sum(row["gold"] != "" for row in predictions)
    lines = (root / "names" / "predictions.conll").read_text(encoding="utf-8").splitlines()
    assert {len(line.split(" ")) for line in lines if line} == {3}
    for line in (root / "windows" / "predictions.jsonl").read_text(encoding="utf-8").splitlines():
        example = json.loads(line)
        assert all(example["text"][e["start"] : e["end"]] for e in example["gold"] + example["entities"])


@pytest.mark.parametrize("name", ["names", "windows"])
def test_the_published_model_gives_the_predictions_of_the_report_in_a_pipeline(
    runs: tuple[Path, dict[str, str]], name: str
) -> None:
    root, _ = runs
    model = WeftForTokenClassification.from_pretrained(root / name)
    tokenizer = AutoTokenizer.from_pretrained(root / name)
    tag = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="simple")
    texts = _texts_of(root, name)
    found: list[tuple[int, int, int, str]] = []
    expected = [
        (int(row["example"]), int(row["start"]), int(row["end"]), row["predicted"])
        for row in rows_of(root / name / "predictions.csv")
        if row["predicted"]
    ]
    compared = set()
    for number, text in enumerate(texts, start=1):
        if len(tokenizer(text)["input_ids"]) > 16 and name == "windows":
            continue  # the report reads it in windows
        compared.add(number)
        found += [(number, e["start"], e["end"], e["entity_group"]) for e in tag(text)]
    assert compared
    assert found == [row for row in expected if row[0] in compared]


def _texts_of(root: Path, name: str) -> list[str]:
    """The texts of the validation split, put together from what the report says of it."""
    if name == "windows":
        lines = (root / name / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["text"] for line in lines]
    blocks = (root / name / "predictions.conll").read_text(encoding="utf-8").strip().split("\n\n")
    return [" ".join(line.split(" ")[0] for line in block.split("\n")) for block in blocks]


def test_the_model_card_works_where_the_package_is_not(runs: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    root, printed = runs
    codes = [usage_of(root / name) for name in printed]
    names, _, plain = succeed("\nprint('---')\n".join(codes), tmp_path).split("---\n")
    lines = names.strip().splitlines()
    assert lines == [line.strip() for line in lines]
    assert {line.split(" ")[-2] for line in lines} == {"PER", "LOC"}
    assert "stride=4" in codes[1]
    assert plain


def test_a_finished_run_predicts_for_texts_and_for_words(runs: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    root, _ = runs
    command = (
        f"--task conll2000 --data {root / 'data'} --max_steps 60 --learning_rate 1e-2 --output_dir {root / 'names'}"
    )
    command += f" {MODEL} {RUN} --predict_file"
    plain = tmp_path / "plain.txt"
    plain.write_text("Anna Bell went to Rome .\nBob went to New York .\n", encoding="utf-8")
    assert "nothing to train" in run(f"{command} {plain}")
    of_texts = rows_of(root / "names" / "predicted.csv")
    words = tmp_path / "words.txt"
    words.write_text("\n\n".join(line.replace(" ", "\n") for line in plain.read_text().splitlines()), encoding="utf-8")
    run(f"{command} {words}")
    assert rows_of(root / "names" / "predicted.csv") == of_texts
    assert {row["example"] for row in of_texts} == {"1", "2"}
    assert {row["text"] for row in of_texts} >= {"Anna Bell", "New York"}
    assert all(row["gold"] == "" for row in of_texts)
    lines = (root / "names" / "predicted.conll").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "Anna B-PER"


def test_a_command_without_examples_says_what_to_give() -> None:
    with pytest.raises(RecipeError, match=r"give task \(one of conll2000, .*\), train_file or dataset_name"):
        main(["--plan", "true"])
    with pytest.raises(RecipeError, match="format is 'xml'"):
        main(["--train_file", __file__, "--format", "xml"])
