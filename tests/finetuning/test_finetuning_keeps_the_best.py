"""The published weights are those of the best evaluation, and the step and the scores told of them are their own."""

import pytest
from helpers import finetuning as ft
from safetensors.torch import load_file

from weft.recipes.finetuning.best_metric import BestMetric
from weft.recipes.finetuning.best_weights import BestWeights, Evaluation, best_of, load_weights, step_of_weights
from weft.recipes.finetuning.prediction import TaskEvaluator
from weft.recipes.finetuning.report import FinishedSeeds
from weft.recipes.finetuning.trainer import SeedResult
from weft.recipes.training import evaluation_order


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return ft.write_files(tmp_path_factory.mktemp("data"))


def test_the_kept_weights_are_those_of_the_best_evaluation(files, tmp_path):
    # a learning rate that spoils the model late in the run
    ft.run_here(**files, output_dir=tmp_path / "run", max_steps=40, evaluations=10, learning_rate=0.03)
    result, found = ft.seed_result(tmp_path / "run"), ft.metrics(tmp_path / "run")
    scores = {entry["step"]: entry for entry in result["history"] if "eval_accuracy" in entry}
    best = max(entry["eval_accuracy"] for entry in scores.values())
    assert len({entry["eval_accuracy"] for entry in scores.values()}) > 1
    equal = [step for step, entry in scores.items() if entry["eval_accuracy"] == best]
    assert found["best_step"] == min(equal, key=lambda step: scores[step]["eval_loss"])
    assert found["eval_accuracy"] == best


def evaluations(*pairs):
    return [Evaluation(step, {"f1": score, "loss": loss}) for step, (score, loss) in enumerate(pairs, start=1)]


@pytest.mark.parametrize(
    ("pairs", "step"),
    [
        ([(0.0, 0.9), (0.0, 0.7), (0.0, 0.8)], 2),
        ([(0.5, 0.9), (0.4, 0.1)], 1),
        ([(0.5, 0.7), (0.5, 0.7)], 1),
        ([(float("nan"), 0.1), (0.2, 0.9)], 2),
        ([(0.5, float("nan")), (0.5, 0.9)], 2),
    ],
)
def test_of_equal_scores_the_one_with_the_lower_loss_is_the_best(pairs, step):
    assert best_of(evaluations(*pairs), BestMetric("f1")).step == step


def test_of_equal_seeds_the_one_with_the_lower_loss_is_published():
    results = [SeedResult(seed, {"f1": 0.5, "loss": loss}, 1, 1, 1.0, None) for seed, loss in ((1, 0.9), (2, 0.7))]
    finished = FinishedSeeds.__new__(FinishedSeeds)
    object.__setattr__(finished, "results", results)
    task = type("Task", (), {"best_metric": BestMetric("f1")})
    object.__setattr__(finished, "task", task)
    assert finished._best().seed == 2


def test_a_lower_loss_at_the_same_score_does_not_put_early_stopping_off(tmp_path):
    history = [{"step": step, "eval_f1": 0.0, "eval_loss": 1 / step} for step in range(1, 5)]
    best = BestWeights(BestMetric("f1"), tmp_path / "best.safetensors", patience=3)
    for steps, stopped in ((3, False), (4, True)):
        state = type("State", (), {"log_history": history[:steps], "global_step": steps, "max_steps": 9})
        assert best.was_stopped(state) is stopped


def test_weights_kept_before_an_interruption_are_published_under_their_own_step_and_score(
    files, tmp_path, monkeypatch, capsys
):
    """As on hardware that gives other numbers when a run goes on: the log then has another step as the best."""
    fields = {**files, "output_dir": tmp_path / "run", "evaluations": 4}
    scores = {3: 0.5, 6: 0.9, 9: 0.3, 12: 0.2}
    score, write = TaskEvaluator.__call__, evaluation_order.write_text

    def scripted(evaluator, trainer):
        return {**score(evaluator, trainer), "accuracy": scores[trainer.state.global_step]}

    def killed(state, text):
        if state.parent.name == "checkpoint-6":
            raise InterruptedError
        write(state, text)

    monkeypatch.setattr(TaskEvaluator, "__call__", scripted)
    monkeypatch.setattr(evaluation_order, "write_text", killed)
    with pytest.raises(InterruptedError):
        ft.run_here(**fields)
    kept = tmp_path / "run" / "seed-1" / "best.safetensors"
    assert step_of_weights(kept) == 6
    weights = load_file(kept)
    scores[6] = 0.4
    monkeypatch.setattr(evaluation_order, "write_text", write)
    scored = []

    def remember(model, file):
        load_weights(model, file)
        scored.append(step_of_weights(file))
        scores[12] = 0.7  # what the kept weights get when they are scored anew

    monkeypatch.setattr("weft.recipes.finetuning.seed_training.load_weights", remember)
    ft.run_here(**fields)
    assert "the log has step 3 as the best" in capsys.readouterr().out
    assert scored == [6]
    found = ft.metrics(tmp_path / "run")
    assert found["best_step"] == 6 and found["seeds"][0]["accuracy"] == 0.7
    published = load_file(tmp_path / "run" / "model.safetensors")
    assert all((published[name] == value).all() for name, value in weights.items())
