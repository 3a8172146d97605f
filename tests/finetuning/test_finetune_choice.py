"""The command learns to choose: from files to a folder that works where the package is not, and predicts again."""

import contextlib
import csv
import io
import json
import random

import pytest
from helpers.cards import usage_of
from helpers.elsewhere import succeed

from weft.recipes.finetune_choice import main

WORDS = ("red", "blue", "green", "small")
MODEL = "--hidden_size 32 --num_hidden_layers 1 --num_attention_heads 2 --num_key_value_heads 2 --intermediate_size 48"
RUN = "--vocab_size 300 --max_length 48 --evaluations 1 --seeds 3 --cpu_threads 1 --max_steps 8 --learning_rate 3e-3"


def write(path, seed, number):
    """Two to four choices, of which the right one is named in the question."""
    draw = random.Random(seed)
    rows = []
    for i in range(number):
        words = draw.sample(WORDS, draw.randint(2, 4))
        rows.append({"question": f"{i}: Which is {words[-1]}?", "choices": words, "label": len(words) - 1})
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run that predicted for the example of its model card, and what it printed."""
    root = tmp_path_factory.mktemp("run")
    train, dev = write(root / "train.jsonl", 1, 40), write(root / "dev.jsonl", 2, 12)
    fields = f"--train_file {train} --validation_file {dev} --output_dir {root / 'run'} {MODEL} {RUN}"
    with contextlib.redirect_stdout(io.StringIO()) as output:
        main(fields.split())
        values = {}
        for line in usage_of(root / "run").splitlines():
            if line.startswith(("prompt =", "choices =")):
                exec(line, values)
        (root / "x.jsonl").write_text(json.dumps({"question": values["prompt"], "choices": values["choices"]}))
        main(f"{fields} --predict_file {root / 'x.jsonl'}".split())
    return root / "run", output.getvalue()


def test_a_run_writes_its_scores_and_tables(run):
    folder, printed = run
    assert "2 (" in printed and "4 (" in printed and "is finished: nothing to train" in printed
    metrics = json.loads((folder / "metrics.json").read_text())
    assert 0 <= metrics["eval_accuracy"] <= 1 and {f"eval_accuracy_of_{n}_choices" for n in (2, 3, 4)} <= set(metrics)
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 12
    assert sum(int(row["right"]) for row in rows) / 12 == pytest.approx(metrics["eval_accuracy"], abs=1e-6)
    assert (folder / "choices.png").is_file() and (folder / "mistakes.csv").is_file()


def test_the_model_card_chooses_elsewhere_as_the_finished_run_does(run, tmp_path):
    folder, _ = run
    with (folder / "predicted.csv").open(encoding="utf-8", newline="") as handle:
        row = next(csv.DictReader(handle))
    printed = [line.split(maxsplit=1) for line in succeed(usage_of(folder), tmp_path).splitlines()]
    expected = [float(row[f"probability_{choice}"]) for choice in (0, 1)]
    assert [float(share) for share, _ in printed] == pytest.approx(expected, abs=1e-3)
    assert max(printed)[1] == row["predicted"]
