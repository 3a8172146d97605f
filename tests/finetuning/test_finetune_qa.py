"""The command answers questions: from files to a folder that works where the package is not, and predicts again."""

import contextlib
import csv
import io
import json
import random

import pytest
from helpers.cards import head_of, usage_of
from helpers.elsewhere import succeed

from weft.recipes.finetune_qa import main

NAMES, PLACES = ("Anna", "Bob", "Clara", "Dan"), ("Paris", "Rome", "Oslo", "Bern")
MODEL = "--hidden_size 32 --num_hidden_layers 1 --num_attention_heads 2 --num_key_value_heads 2 --intermediate_size 48"
RUN = "--vocab_size 300 --max_length 64 --stride 8 --evaluations 1 --seeds 3 --cpu_threads 1"


def write(path, seed, number, chinese=False):
    """Questions of which every other has no answer."""
    draw = random.Random(seed)
    paragraphs = []
    for i in range(number):
        name, place = draw.choice(NAMES), draw.choice(PLACES)
        context = f"In May {name} went to {place}. " * (1 + i % 4)
        answer = {"text": place, "answer_start": context.index(place)}
        asked = [(f"Where did {name} go?", [answer]), ("Who wrote the letter?", [])]
        if chinese:
            context, asked = f"五月{name}去了河边的树下。" * 3, [("去了哪里", [{"text": "河边", "answer_start": -1}])]
        qas = [{"id": f"{seed}-{i}-{j}", "question": q, "answers": a} for j, (q, a) in enumerate(asked)]
        paragraphs.append({"context": context, "qas": qas})
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), encoding="utf-8")
    return str(path)


def own_example(folder):
    """A file to predict for with the question that the model card asks."""
    values = {}
    for line in usage_of(folder).splitlines():
        if line.startswith(("question =", "context =")):
            exec(line, values)
    row = {"id": "x", "question": values["question"], "context": values["context"]}
    path = folder.parent / f"{folder.name}.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What finished runs printed, by the name of their folder: some questions without an answer, and all with one."""
    root = tmp_path_factory.mktemp("runs")
    train, dev = write(root / "train.json", 1, 12), write(root / "dev.json", 2, 6)
    chinese = write(root / "chinese.json", 3, 8, chinese=True)
    some = f"--train_file {train} --validation_file {dev} --max_steps 6 --learning_rate 3e-3"
    fields = {"two": some, "causal": f"{some} --causal true", "one": f"--train_file {chinese} --max_steps 2"}
    printed = {}
    for name, words in fields.items():
        folder = root / name
        command = f"{words} --output_dir {folder} {MODEL} {RUN}"
        printed[name] = []
        for more in ("", f" --predict_file {root / name}.jsonl"):
            if more:
                own_example(folder)
            with contextlib.redirect_stdout(io.StringIO()) as output:
                main((command + more).split())
            printed[name].append(output.getvalue())
    return root, printed


def test_the_plan_says_what_the_questions_are(runs):
    _, printed = runs
    for name in ("two", "causal"):
        assert "version 2, 50.0% without an answer; compared as English" in printed[name][0]
        assert "windows of 24 questions, sharing 8 tokens" in printed[name][0]
    assert "version 1; compared as Chinese" in printed["one"][0]
    assert "wrong offsets" in printed["one"][0] and "0 nowhere in the context" in printed["one"][0]


@pytest.mark.parametrize("name", ["two", "causal"])
def test_a_run_writes_what_the_official_scripts_read(name, runs):
    root, _ = runs
    metrics = json.loads((root / name / "metrics.json").read_text())
    assert 50 <= metrics["eval_f1"] <= 100 and 0 <= metrics["eval_no_answer_threshold"] <= 1
    paragraphs = json.loads((root / "dev.json").read_text())["data"][0]["paragraphs"]
    identifiers = [question["id"] for paragraph in paragraphs for question in paragraph["qas"]]
    for file in ("predictions.json", "nbest.json", "na_prob.json"):
        assert list(json.loads((root / name / file).read_text())) == identifiers
    assert (root / name / "answers.png").is_file() and (root / name / "mistakes.csv").is_file()


def test_where_all_questions_have_an_answer_all_are_answered(runs):
    root, _ = runs
    assert all(json.loads((root / "one" / "predictions.json").read_text()).values())
    assert not (root / "one" / "na_prob.json").exists() and "if scores" not in usage_of(root / "one")


def test_the_model_card_names_a_language_where_it_is_known(runs):
    root, _ = runs
    assert head_of(root / "one").language == "zh"
    assert head_of(root / "two").language is None


def test_the_model_card_answers_elsewhere_as_the_finished_run_predicts(runs, tmp_path):
    """The same question is asked of both; for a causal model, "no answer" is the last token."""
    root, printed = runs
    expected = []
    for name in printed:
        assert "is finished: nothing to train" in printed[name][1]
        with (root / name / "predicted.csv").open(encoding="utf-8", newline="") as handle:
            expected.append(next(csv.DictReader(handle))["predicted"])
        assert json.loads((root / name / "predicted.json").read_text()) == {"x": expected[-1]}
    assert expected[-1]
    assert "scores[0, 0]" in usage_of(root / "two") and "scores[-1, -1]" in usage_of(root / "causal")
    code = "\n".join(usage_of(root / name) for name in printed)
    assert succeed(code, tmp_path).splitlines() == expected
