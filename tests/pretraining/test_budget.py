"""A run that is given a time: its size and its steps follow from measured seconds, once, and stay."""

import json
import shutil

import pytest
import torch
from helpers import runs
from helpers.launched import run_together
from helpers.machine import Machine

from weft.recipes.common.command_line import parse_duration
from weft.recipes.common.errors import RecipeError
from weft.recipes.pretraining.time_budget import measurement
from weft.recipes.pretraining.time_budget.arithmetic import Costs, Speed, choose
from weft.recipes.pretraining.validation import RowEvaluator
from weft.recipes.training.model_setup import PRESETS

NO_SHAPE = dict.fromkeys(
    ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
)


@pytest.mark.parametrize(
    "text, seconds",
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1h0m5s", 3605), ("1.5h", 5400), (" 2M ", 120)],
)
def test_a_duration_is_written_as_people_do(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "soon", "0s", "-5m", "5m1h", "1.2.3s", "h", "30 m", "nan", "1d"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(RecipeError, match="is not a duration: give for example 90s"):
        parse_duration(text)


def speeds(*pairs: tuple[int, float]) -> list[Speed]:
    return [Speed(str(parameters), parameters, speed) for parameters, speed in pairs]


def test_the_size_nearest_to_twenty_tokens_per_parameter_is_chosen():
    measured = speeds((10**6, 1e6), (10**7, 2e5), (10**8, 3e4))
    assert choose(measured, 20, None).parameters == 10**6  # 20, 0.4, 0.006
    assert choose(measured, 1000, None).parameters == 10**7  # 1000, 20, 0.3
    assert choose(measured, 10**5, None).parameters == 10**8  # 100000, 2000, 30
    assert choose(measured, 1e-9, None).parameters == 10**6


def test_tokens_of_more_than_four_passes_do_not_ask_for_a_larger_model():
    measured = speeds((10**6, 1e6), (10**7, 2e5))
    assert choose(measured, 1000, 10**9).parameters == 10**7
    assert choose(measured, 1000, 10**7).parameters == 10**6  # 40 million tokens are 40 and 4 for each parameter
    assert measured[0].is_small(1000, 10**7) and not measured[0].is_small(1000, 10**6)


@pytest.mark.parametrize("eval_steps, save_steps", [(None, None), (7, 3), (0.25, None), (1000, 0.5)])
def test_as_many_steps_as_fit_and_no_more(eval_steps, save_steps):
    costs = Costs(setup=3, step=0.7, evaluation=2, checkpoint=1, report=4)
    for seconds in (15, 60, 333):
        steps = costs.steps_within(seconds, eval_steps, save_steps)
        assert costs.seconds(steps, eval_steps, save_steps) <= seconds
        assert seconds - costs.seconds(steps, eval_steps, save_steps) < 8
    assert costs.steps_within(10, None, None) == 0


def test_the_end_is_evaluated_and_saved_in_any_case():
    costs = Costs(setup=0, step=1, evaluation=1000, checkpoint=10**6, report=0)
    assert costs.seconds(20, None, None) == 20 + 10 * 1000 + 10 * 10**6
    assert costs.seconds(25, None, None) == 25 + 9 * 1000 + 9 * 10**6  # every third step, and the last
    assert costs.seconds(25, 10, 100) == 25 + 3 * 1000 + 10**6


def test_evaluations_take_a_twentieth_of_the_time_at_most_but_the_end_is_always_scored():
    costs = Costs(setup=0, step=1, evaluation=5, checkpoint=0, report=0)
    assert costs.with_few_evaluations(1000).evaluations == 10
    assert costs.with_few_evaluations(400).evaluations == 4
    assert costs.with_few_evaluations(9).evaluations == 1
    assert costs.with_few_evaluations(400).seconds(100, None, None) == 100 + 4 * 5
    assert costs.with_few_evaluations(400).seconds(100, 10, None) == 100 + 10 * 5  # an interval that is given stays


def test_an_evaluation_of_many_batches_is_measured_by_some(corpus, tmp_path, monkeypatch, slow):
    """The seconds of the rows that were scored, times the rows that there are; the run itself scores all of them."""
    asked, sums = [], RowEvaluator.sums
    monkeypatch.setattr(RowEvaluator, "sums", lambda self, *given: [asked.append(given[1:]), sums(self, *given)][1])
    monkeypatch.setattr(measurement, "MEASURED_BATCHES", 1)
    told = []
    monkeypatch.setattr(measurement, "seconds_of", lambda times, call: [call(), 5.0][1])
    measure = measurement._evaluation_seconds
    monkeypatch.setattr(
        measurement, "_evaluation_seconds", lambda trainer: told.append((trainer, measure(trainer))) or 1
    )
    runs.run_here(data=corpus, output_dir=tmp_path, budget="10000s", per_device_eval_batch_size=2)
    ((trainer, seconds),) = told
    rows = len(trainer.evaluator.rows)
    assert rows >= 4 and seconds == 5.0 * rows / 2
    assert asked[0] == (2,) and set(asked[1:]) == {()}


@pytest.fixture
def slow(monkeypatch):
    """Parts of a run that are measured, and then said to take long, so that the real clock decides nothing."""
    return Machine(monkeypatch)


def test_a_run_with_a_budget_ends_as_planned_and_resumes_to_the_same_length(
    corpus, tmp_path, monkeypatch, slow, capsys
):
    folder = tmp_path / "run"
    fields = {"data": corpus, "output_dir": folder, "budget": "35000s", "eval_steps": 5}
    runs.run_here(**fields)
    printed = capsys.readouterr().out
    assert "35000s: 33," in printed and "11 steps, 2,816 tokens" in printed and "budget 35000s: 33," in printed
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["max_steps"] == json.loads((folder / "metrics.json").read_text())["steps"] == 11
    assert plan["budget"]["chosen"] is None  # the shape is given
    assert not list(folder.glob(".unfinished*"))
    assert [entry["step"] for entry in runs.history(folder) if "loss" in entry] == list(range(1, 12))
    whole = runs.weights(folder)
    (folder / "metrics.json").unlink()
    shutil.rmtree(folder / "checkpoint-11")
    monkeypatch.setattr(measurement, "measure_speed", None)  # it would be called
    runs.run_here(**fields)
    assert "resuming from" in capsys.readouterr().out
    assert json.loads((folder / "plan.json").read_text()) == plan
    assert json.loads((folder / "metrics.json").read_text())["steps"] == 11
    assert all(value.equal(whole[name]) for name, value in runs.weights(folder).items())
    assert "budget was '35000s', now '2h'" in runs.run_error(**{**fields, "budget": "2h"})


@pytest.mark.parametrize("objective", ["masked", "hybrid", "diffusion", "replaced-tokens"])
def test_masked_objectives_take_a_budget(english, tmp_path, slow, objective):
    runs.run_here(data=english, output_dir=tmp_path / "run", objective=objective, budget="10000s")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 3


def test_a_stream_takes_a_budget(tmp_path, slow):
    text = runs.write_text(tmp_path / "text.txt", documents=300)
    stream = {"train_files": [text], "tokenizer_type": "char", "stream": "true", "block_size": "20k"}
    runs.run_here(output_dir=tmp_path / "run", budget="10000s", **stream)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 3


def fake_speed(run, preset, tokens_per_step):
    """As on a GPU that is ten times slower with each size."""
    run.configure(preset, max_steps=10, tokens_per_step=str(tokens_per_step))
    return Speed(preset, run.parameters.total, 10.0 ** (6 - list(PRESETS).index(preset)))


@pytest.fixture
def measured(monkeypatch):
    monkeypatch.setattr(measurement, "measure_speed", fake_speed)
    monkeypatch.setattr(measurement, "measure_costs", lambda *_: Costs(10, 1, 1, 1, 1))


def test_the_preset_is_chosen_where_none_is_given(corpus, tmp_path, measured, capsys):
    """Of a text this short no more than four passes count, so that the smallest is right for any time."""
    fields = {"data": corpus, "output_dir": tmp_path / "run", "plan": "true", **NO_SHAPE, "tokens_per_step": None}
    runs.run_here(**fields, budget="1h")
    printed = capsys.readouterr().out
    assert "4 layers of 128" in printed and "tiny, " in printed and "mini" not in printed
    assert "beyond 4 passes over a text more of them add little" in printed
    assert not (tmp_path / "run" / "run.json").exists()
    text = runs.write_text(tmp_path / "text.txt", documents=300)
    stream = {"train_files": [text], "tokenizer_type": "char", "stream": "true", "data": None}
    runs.run_here(**{**fields, **stream}, budget="1h")  # 3.6 billion tokens for tiny, 0.36 for mini, 0.036 for small
    printed = capsys.readouterr().out
    assert "6 layers of 256" in printed and "mini, " in printed
    assert "of tiny 1,000,000, mini 100,000, small 10,000 tokens/s" in printed


@pytest.mark.parametrize("given", [{"preset": "mini"}, {"hidden_size": 96}])
def test_a_size_that_is_given_is_kept(corpus, tmp_path, monkeypatch, measured, given, capsys):
    monkeypatch.setattr(measurement, "measure_speed", lambda *_: Speed(None, 10**6, 1e9))
    fields = {**NO_SHAPE, "num_attention_heads": 4, "tokens_per_step": None, **given}
    runs.run_here(data=corpus, output_dir=tmp_path / "run", plan="true", budget="1h", **fields)
    printed = capsys.readouterr().out
    assert f"layers of {256 if 'preset' in given else 96}" in printed and "chosen" not in printed


def test_a_size_too_large_for_the_memory_ends_the_search(corpus, tmp_path, monkeypatch, measured, capsys):
    def speed(run, preset, tokens_per_step):
        if preset == "mini":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return fake_speed(run, preset, tokens_per_step)

    monkeypatch.setattr(measurement, "measure_speed", speed)
    monkeypatch.setattr(measurement, "_tokens_per_epoch", lambda run: None)
    fields = {**NO_SHAPE, "tokens_per_step": None}
    runs.run_here(data=corpus, output_dir=tmp_path / "run", plan="true", budget="1h", **fields)
    assert "4 layers of 128" in capsys.readouterr().out


def test_several_processes_plan_together(corpus, tmp_path, capfd):
    run_together("cpu_2.yaml", runs.run_here, data=corpus, output_dir=tmp_path / "run", budget="5h", plan="true")
    output = capfd.readouterr().out
    assert output.count("budget      5h: ") == 1 and "2 processes x" in output
    assert not list((tmp_path / "run").glob(".unfinished*"))


def test_budgets_that_make_no_sense_are_refused(corpus, tmp_path, monkeypatch, measured):
    fields = {"data": tmp_path / "missing", "output_dir": tmp_path / "run"}  # before anything is opened
    for other in ({"max_steps": 5}, {"tokens": "1M"}, {"num_train_epochs": 2}):
        message = runs.run_error(**fields, **other, budget="30m")
        assert message == f"the length is given by {next(iter(other))} and budget: choose one."
    assert "'soon' is not a duration" in runs.run_error(**fields, budget="soon")
    monkeypatch.setattr(measurement, "measure_costs", lambda *_: Costs(10, 10**6, 1, 1, 1))
    message = runs.run_error(data=corpus, output_dir=tmp_path / "run", **NO_SHAPE, budget="1h")
    assert "budget 1h is too short for" in message and "a run of one step takes 1000013 s" in message
    assert not (tmp_path / "run" / "run.json").exists()
