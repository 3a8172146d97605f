"""`recipes/evaluate_lm.py` scores any checkpoint that has the head for it, and refuses the others in a sentence."""

import json
import math
import re
import shutil

import pytest
from helpers.scored import TEXTS, causal_by_hand, make_scored_model, make_tokenizer, masked_by_hand
from helpers.text import write_paragraphs
from transformers import AutoTokenizer, BertConfig, BertForPreTraining, BertModel

from weft.recipes import evaluate_lm
from weft.recipes.common.errors import RecipeError
from weft.recipes.evaluation import run as run_module
from weft.recipes.evaluation.arguments import TASKS
from weft.recipes.evaluation.model_loading import load_model

QUESTION = {"query": "the", "choices": ["river", "of"], "label": 0}
PAIR = {"UID": "order", "phenomenon": "syntax", "sentence_good": "the river", "sentence_bad": "river the"}


def save(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One checkpoint of each family."""
    found, root = {}, tmp_path_factory.mktemp("models")
    for family in ("gpt2", "llama", "weft", "bert", "roberta", "weft-masked", "weft-hybrid"):
        tokenizer = make_tokenizer(encoder=family not in ("gpt2", "llama", "weft"))
        found[family] = save(make_scored_model(family, tokenizer), tokenizer, root / family)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    config = BertConfig(vocab_size=len(tokenizer), **shape)
    found["headless"] = save(BertModel(config), tokenizer, root / "headless")
    found["pretraining"] = save(BertForPreTraining(config), tokenizer, root / "pretraining")
    return found


@pytest.fixture
def run(folders, monkeypatch, capsys):
    """Call the command on a model of a family and give back what it prints."""

    def call(family, *words):
        monkeypatch.setattr("sys.argv", ["evaluate_lm.py", "--model", folders.get(family, family), *map(str, words)])
        capsys.readouterr()
        evaluate_lm.main()
        return capsys.readouterr().out

    return call


@pytest.fixture
def files(tmp_path):
    """A file for each task."""
    write_paragraphs(tmp_path / "perplexity.txt", TEXTS)
    records = {"minimal-pairs": PAIR, "last-word": {"text": "the river is"}, "multiple-choice": QUESTION}
    for task, record in records.items():
        (tmp_path / f"{task}.jsonl").write_text(json.dumps(record) + "\n")
    return {task: tmp_path / f"{task}{'.txt' if task == 'perplexity' else '.jsonl'}" for task in TASKS}


@pytest.mark.parametrize(
    "family, scoring",
    [
        ("gpt2", "causal"),
        ("llama", "causal"),
        ("weft", "causal"),
        ("bert", "masked"),
        ("roberta", "masked"),
        ("weft-masked", "masked"),
        ("weft-hybrid", "masked-next-token"),
        ("pretraining", "masked"),
    ],
)
@pytest.mark.parametrize("task", ["perplexity", "minimal-pairs", "last-word", "multiple-choice"])
def test_every_task_runs_on_every_family(run, files, tmp_path, family, scoring, task):
    out = tmp_path / "results" / "out.json"
    words = ["--max_tokens", 40] if task == "perplexity" else []
    printed = run(family, "--task", task, "--files", files[task], "--output_file", out, *words)
    found = json.loads(out.read_text())
    assert (found["task"], found["scoring"]) == (task, scoring)
    assert found["files"] == [str(files[task])]
    assert f"{task} of" in printed and ("perplexity  " in printed or "accuracy  " in printed)


def test_undefined_figures_are_said_in_words_and_null_in_json(run, folders, tmp_path, monkeypatch):
    text, out = tmp_path / "zh.txt", tmp_path / "out.json"
    text.write_text("今天天气很好、我们去公园散步吧。" * 60, encoding="utf-8")
    printed = run("weft", "--files", text, "--output_file", out, "--window", 64)
    assert re.search(r"word_perplexity +undefined: the text has no blanks between its words\n", printed)
    assert max(map(len, printed.splitlines())) < 200
    found = json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(name))["results"][str(text)]
    assert found["word_perplexity"] is None
    assert found["undefined"] == {"word_perplexity": "the text has no blanks between its words"}

    monkeypatch.setattr(run_module, "perplexity", lambda *_: {"perplexity": math.inf, "loss": math.nan, "words": 3})
    printed = run("weft", "--files", text, "--output_file", tmp_path / "other.json")
    found = json.loads((tmp_path / "other.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert found["results"][str(text)]["perplexity"] is found["results"][str(text)]["loss"] is None
    assert re.search(r"  perplexity +undefined: the model gives some token next to no probability\n", printed)
    assert re.search(r"  loss +undefined: it is not a number\n", printed)


def test_the_results_are_those_of_the_model_in_the_folder(run, folders, files, tmp_path):
    out = tmp_path / "out.json"
    tokenizer = AutoTokenizer.from_pretrained(folders["weft"])
    run("weft", "--files", files["perplexity"], "--output_file", out)
    texts = files["perplexity"].read_text(encoding="utf-8").rstrip("\n").split("\n\n")
    model = load_model(folders["weft"], "causal")[0]
    nats = -sum(sum(causal_by_hand(model, tokenizer, text)) for text in texts)
    (found,) = json.loads(out.read_text())["results"].values()
    assert found["nats"] == pytest.approx(nats, rel=2e-5)


def test_one_checkpoint_is_scored_in_both_directions(run, folders, files, tmp_path):
    """A hybrid's own: the causal score is what the causal model with its weights gives, start token included."""
    tokenizer = AutoTokenizer.from_pretrained(folders["weft-hybrid"])
    for scoring, by_hand in (("causal", causal_by_hand), ("masked", masked_by_hand)):
        out = tmp_path / f"{scoring}.json"
        words = ["--task", "multiple-choice", "--files", files["multiple-choice"], "--scoring", scoring]
        run("weft-hybrid", *words, "--output_file", out)
        model = load_model(folders["weft-hybrid"], scoring)[0]
        sums = [sum(by_hand(model, tokenizer, f"the {c}")[-len(c) :]) for c in QUESTION["choices"]]
        assert json.loads(out.read_text())["results"]["accuracy"] == float(sums[0] > sums[1])


def test_limit_takes_the_first_examples(run, files, tmp_path):
    files["minimal-pairs"].write_text((json.dumps(PAIR) + "\n") * 5)
    run(
        "gpt2",
        "--task",
        "minimal-pairs",
        "--files",
        files["minimal-pairs"],
        "--limit",
        3,
        "--output_file",
        tmp_path / "a",
    )
    assert json.loads((tmp_path / "a").read_text())["results"]["pairs"] == 3
    run("gpt2", "--files", files["perplexity"], "--limit", 2, "--output_file", tmp_path / "b")
    (found,) = json.loads((tmp_path / "b").read_text())["results"].values()
    assert found["documents"] == 2


@pytest.mark.parametrize(
    "family, words, expected",
    [
        ("gpt2", ["--task", "perplexty"], "task is 'perplexty' (did you mean perplexity?)"),
        ("gpt2", ["--scoring", "left"], "scoring is 'left': choose one of auto, causal, masked, within-word"),
        ("gpt2", ["--dtype", "int8"], "dtype is 'int8': choose one of auto"),
        ("gpt2", ["--task", "minimal-pairs"], "no files are given: minimal-pairs needs --files"),
        ("gpt2", ["--task", "harness"], "no tasks are given: harness needs --tasks"),
        (
            "gpt2",
            ["--task", "harness", "--tasks", "a", "--include_path", "no/where"],
            "include_path no/where is no folder",
        ),
        ("gpt2", ["--files", "missing.txt"], "missing.txt is missing"),
        ("gpt2", ["--files", "FILE", "--tasks", "blimp"], "tasks has no effect on perplexity: it is for harness"),
        ("gpt2", ["--files", "FILE", "--segmenter", "jieba"], "segmenter has no effect without scoring within-word"),
        ("gpt2", ["--files", "FILE", "--delimiter", ""], "delimiter has no effect on perplexity"),
        ("gpt2", ["--files", "FILE", "--limit", "0"], "limit is 0: give at least 1"),
        ("gpt2", ["--files", "FILE", "--window", "8", "--stride", "9"], "stride is 9"),
        ("bert", ["--files", "FILE", "--scoring", "within-word", "--segmenter", "nobody"], "nobody"),
        ("gpt2", ["--files", "FILE", "--output_file", "FILE"], "exists: name another output_file"),
        (
            "gpt2",
            ["--files", "FILE", "--output_file", "FILE/out.json"],
            "because a file stands where a folder is needed",
        ),
        ("gpt2", ["--files", "FILE", "--device", "nonsense"], "device 'nonsense' cannot be used"),
        ("gpt2", ["--files", "FILE", "--scoring", "masked"], "cannot be loaded"),
        ("bert", ["--files", "FILE", "--scoring", "causal"], "sees what comes after a token"),
        ("headless", ["--files", "FILE"], "saved with neither a causal nor a masked language-model head"),
        ("headless", ["--files", "FILE", "--scoring", "masked"], "lacks cls.predictions"),
        ("no/such/folder", ["--files", "FILE"], "model is 'no/such/folder': there is no such folder"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(run, files, tmp_path, monkeypatch, family, words, expected):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError) as caught:
        run(family, *[word.replace("FILE", str(files["perplexity"])) for word in words])
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_broken_examples_are_found_before_the_model_is_loaded(run, files):
    files["minimal-pairs"].write_text(json.dumps(PAIR) + "\n{torn\n")
    with pytest.raises(RecipeError, match="line 2: not JSON"):
        run("nobody/nothing", "--task", "minimal-pairs", "--files", files["minimal-pairs"])


def test_text_of_a_table_with_an_unquoted_comma_is_not_cut(run, tmp_path):
    (tmp_path / "held_out.csv").write_text('id,text\n1,"the river, it is"\n2,the river, it is\n')
    with pytest.raises(RecipeError, match=r"held_out\.csv, line 3: 3 fields, where 2 are needed \(id, text\)"):
        run("gpt2", "--files", tmp_path / "held_out.csv")
    run("gpt2", "--files", tmp_path / "held_out.csv", "--limit", 1)


def test_torn_weights_are_named(run, folders, files, tmp_path):
    torn = tmp_path / "torn"
    shutil.copytree(folders["gpt2"], torn)
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(RecipeError, match="cannot be loaded"):
        run(str(torn), "--files", files["perplexity"])
