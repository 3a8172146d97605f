"""lm-evaluation-harness runs on Weft, offline: causal models in its own class, masked ones through the adapter."""

import json
import math

import pytest
from helpers.scored import causal_by_hand, make_scored_model, make_tokenizer, masked_by_hand

from weft.recipes import evaluate_lm
from weft.recipes.common.errors import RecipeError
from weft.recipes.evaluation.likelihood import Scorer
from weft.recipes.evaluation.model_loading import load_model
from weft.tokenizer.special_tokens import for_role, without_start_and_end

lm_eval = pytest.importorskip("lm_eval")
harness = pytest.importorskip("weft.recipes.evaluation.harness")

CLOSE = {"rel": 2e-5, "abs": 2e-5}  # the models compute in float32
QUESTIONS = [
    {"question": "the river made", "choices": ["stones", "a", "in light"], "answer": 0},
    {"question": "seven", "choices": ["of the", "quietly", "s"], "answer": 1},
    {"question": "to is", "choices": ["that river", "in", "of a"], "answer": 2},
    {"question": "under", "choices": ["is a", "to", "made"], "answer": 0},
]
CHOICE_TASK = """\
task: local_choice
dataset_path: json
dataset_kwargs:
  data_files: {test: FILE}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list:
  - metric: acc
"""
ROLLING_TASK = """\
task: local_perplexity
dataset_path: json
dataset_kwargs:
  data_files: {test: FILE}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list:
  - metric: byte_perplexity
"""
WRITING_TASK = """\
task: local_writing
dataset_path: json
dataset_kwargs:
  data_files: {test: FILE}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "river"
generation_kwargs:
  until: ["."]
  max_gen_toks: 4
metric_list:
  - metric: exact_match
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """`datasets` keeps what it read under the test's folder."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def tasks(tmp_path):
    """A folder with tasks that read a local file."""
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    folder = tmp_path / "tasks"
    folder.mkdir()
    for number, task in enumerate((CHOICE_TASK, ROLLING_TASK, WRITING_TASK)):
        (folder / f"{number}.yaml").write_text(task.replace("FILE", str(tmp_path / "questions.jsonl")))
    return folder


def masked_scorer(family="bert", scoring="masked"):
    tokenizer = make_tokenizer(encoder=True)
    return Scorer(make_scored_model(family, tokenizer), tokenizer, scoring, quiet=True)


def expected_accuracy(by_hand, model, tokenizer):
    """Of the choice task: the choice with the highest sum, after the question and a blank."""
    right = 0
    for question in QUESTIONS:
        texts = [f"{question['question']} {choice}" for choice in question["choices"]]
        sums = [sum(by_hand(model, tokenizer, t)[len(question["question"]) + 1 :]) for t in texts]
        right += sums.index(max(sums)) == question["answer"]
    return right / len(QUESTIONS)


def ask(*arguments):
    return lm_eval.api.instance.Instance("loglikelihood", {}, arguments, 0, metadata=("a_task", 0, 1))


def test_its_own_class_runs_on_a_causal_checkpoint(tmp_path, tasks):
    tokenizer = make_tokenizer()
    model = make_scored_model("weft", tokenizer)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    found = lm_eval.simple_evaluate(
        "hf",
        model_args={"pretrained": str(tmp_path / "model"), "trust_remote_code": True},
        tasks=["local_choice", "local_writing"],
        task_manager=lm_eval.tasks.TaskManager(include_path=str(tasks), include_defaults=False),
        device="cpu",
        batch_size=2,
        bootstrap_iters=0,
    )
    blank_and_choice = []  # lm_eval counts the blank before a choice as the choice's own
    for question in QUESTIONS:
        length = len(question["question"])
        texts = [f"{question['question']} {choice}" for choice in question["choices"]]
        blank_and_choice.append([sum(causal_by_hand(model, tokenizer, text)[length:]) for text in texts])
    right = sum(sums.index(max(sums)) == question["answer"] for sums, question in zip(blank_and_choice, QUESTIONS))
    assert found["results"]["local_choice"]["acc,none"] == right / len(QUESTIONS)
    assert "exact_match,none" in found["results"]["local_writing"]
    logged = [sample["resps"] for sample in found["samples"]["local_choice"]]
    for responses, sums in zip(logged, blank_and_choice):
        assert [float(response[0][0]) for response in responses] == pytest.approx(sums, rel=1e-4)


@pytest.mark.parametrize("family, scoring", [("bert", "masked"), ("weft-masked", "masked"), ("bert", "within-word")])
def test_a_masked_model_answers_with_pseudo_log_likelihoods(family, scoring):
    scorer = masked_scorer(family, scoring)
    model = harness.MaskedHarnessModel(scorer)
    context, continuation = "the river", " is made"
    words = [0] * 3 + [1] * 6 + [2] * 3 + [3] * 5 if scoring == "within-word" else None
    tokens = masked_by_hand(scorer.model, scorer.tokenizer, context + continuation, words)
    ((total, is_greedy), (whole, _)) = model.loglikelihood(
        [ask(context, continuation), ask("", context + continuation)]
    )
    assert total == pytest.approx(sum(tokens[len(context) + 1 :]), **CLOSE)
    assert whole == pytest.approx(sum(tokens), **CLOSE)
    assert is_greedy is False
    assert model.loglikelihood_rolling([ask(context + continuation)]) == [pytest.approx(sum(tokens), **CLOSE)]


def test_a_continuation_is_greedy_when_all_its_tokens_are_the_most_likely():
    scorer = masked_scorer()
    scorer.model.cls.predictions.bias.data[scorer.tokenizer.convert_tokens_to_ids("s")] = 1000.0
    model = harness.MaskedHarnessModel(scorer)
    assert [greedy for _, greedy in model.loglikelihood([ask("the", "sss"), ask("the", "sst")])] == [True, False]


def test_tasks_run_on_a_masked_model(tasks):
    scorer = masked_scorer()
    found = harness.run_harness(scorer, ["local_choice", "local_perplexity"], tasks)
    assert found["local_choice"]["acc,none"] == expected_accuracy(masked_by_hand, scorer.model, scorer.tokenizer)
    texts = [question["question"] for question in QUESTIONS]
    nats = -sum(sum(masked_by_hand(scorer.model, scorer.tokenizer, text)) for text in texts)
    per_byte = math.exp(nats / len("".join(texts)))
    assert found["local_perplexity"]["byte_perplexity,none"] == pytest.approx(per_byte, rel=1e-4)


def test_the_name_weft_masked_loads_a_checkpoint(tmp_path, tasks):
    scorer = masked_scorer("weft-masked")
    scorer.model.save_pretrained(tmp_path / "model")
    scorer.tokenizer.save_pretrained(tmp_path / "model")
    found = lm_eval.simple_evaluate(
        "weft-masked",
        model_args=f"pretrained={tmp_path / 'model'},device=cpu",
        tasks=["local_choice"],
        task_manager=lm_eval.tasks.TaskManager(include_path=str(tasks), include_defaults=False),
        batch_size=2,
        bootstrap_iters=0,
    )
    expected = expected_accuracy(masked_by_hand, scorer.model, scorer.tokenizer)
    assert found["results"]["local_choice"]["acc,none"] == expected


@pytest.mark.parametrize("family", ["weft", "weft-masked"])
def test_one_command_runs_a_task(tmp_path, tasks, monkeypatch, capsys, family):
    tokenizer = make_tokenizer(encoder=family != "weft")
    make_scored_model(family, tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    words = ["--model", str(tmp_path / "model"), "--task", "harness", "--tasks", "local_choice"]
    words += ["--include_path", str(tasks), "--limit", "3", "--output_file", str(tmp_path / "out.json")]
    monkeypatch.setattr("sys.argv", ["evaluate_lm.py", *words])
    evaluate_lm.main()
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["scoring"] == ("causal" if family == "weft" else "masked")
    assert found["results"]["local_choice"]["acc,none"] in (0, 1 / 3, 2 / 3, 1)
    assert "acc,none" in capsys.readouterr().out


def test_what_cannot_be_done_is_refused_in_a_sentence(tasks, monkeypatch):
    def only_own_tasks(include_path, include_defaults=True):  # reading all of lm_eval's takes long
        return lm_eval.tasks.TaskManager(include_path=include_path, include_defaults=False)

    monkeypatch.setattr(harness, "TaskManager", only_own_tasks)
    with pytest.raises(RecipeError, match="knows no task 'nothing'"):
        harness.run_harness(masked_scorer(), ["nothing"], tasks)
    with pytest.raises(RecipeError, match="'local_writing' has the model write text"):
        harness.run_harness(masked_scorer(), ["local_writing"], tasks)
    tokenizer = make_tokenizer()
    with pytest.raises(RecipeError, match="use lm_eval's own class"):
        harness.MaskedHarnessModel(Scorer(make_scored_model("gpt2", tokenizer), tokenizer, "causal"))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "weft.recipes.evaluation.harness", None)
    monkeypatch.delattr("weft.recipes.evaluation.harness", raising=False)
    monkeypatch.setattr("sys.argv", ["evaluate_lm.py", "--model", "gpt2", "--task", "harness", "--tasks", "blimp"])
    with pytest.raises(RecipeError, match="pip install lm_eval"):
        evaluate_lm.main()


@pytest.mark.parametrize("marks", ["both", "none"])
@pytest.mark.parametrize("family", ["weft", "weft-hybrid"])
def test_causal_scores_are_ours_whatever_the_published_tokenizer_puts_around_a_text(tmp_path, tasks, family, marks):
    tokenizer = make_tokenizer()
    model = make_scored_model(family, tokenizer)
    tokenizer = without_start_and_end(tokenizer) if marks == "none" else tokenizer
    if marks == "both" and family == "weft-hybrid":
        tokenizer = for_role(tokenizer, "encoder")
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    scorer = Scorer(*load_model(str(tmp_path / "model"), "causal", "cpu"), quiet=True)
    found = harness.run_harness(scorer, ["local_choice", "local_perplexity", "local_writing"], tasks)
    assert all(math.isfinite(value) for metrics in found.values() for value in metrics.values())
    pairs = [(f"{each['question']}:", choice) for each in QUESTIONS for choice in each["choices"]]
    theirs = harness.CausalHarnessModel(
        pretrained=scorer.model, tokenizer=scorer.tokenizer, batch_size=4, max_length=64
    )
    sums = [total for total, _ in theirs.loglikelihood([ask(*pair) for pair in pairs])]
    assert sums == pytest.approx([scores.total for scores in scorer.score_continuations(pairs)], **CLOSE)
