"""The folder of a run: seeds may be added to it, a folder that is refused stays as it was, and no scraps are left."""

import json

import pytest
import torch
from helpers import finetuning as ft
from safetensors.torch import load_file

from weft.recipes.finetuning import report
from weft.recipes.finetuning.report import FinishedSeeds
from weft.recipes.finetuning.seed_training import SeedRun
from weft.recipes.finetuning.trainer import SeedResult


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return ft.write_files(tmp_path_factory.mktemp("data"))


def names_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def weights(folder):
    return load_file(folder / "model.safetensors")


def have_same_weights(one, other):
    return all(torch.equal(one[name], value) for name, value in other.items())


def test_a_folder_that_is_refused_stays_as_it_was(files, tmp_path):
    foreign, other = tmp_path / "foreign", tmp_path / "other"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    assert "no run of this recipe" in ft.run_error(**files, output_dir=foreign)
    assert names_in(foreign) == ["thesis.txt"]
    other.mkdir()
    (other / "run.json").write_text(json.dumps({"tokens": "1B"}))
    (other / "metrics.json").write_text("{}")
    assert "other settings" in ft.run_error(**files, output_dir=other)
    assert names_in(other) == ["metrics.json", "run.json"]


@pytest.mark.parametrize("lora_rank", [None, 2])
def test_seeds_can_be_added_to_a_finished_run(files, tmp_path, monkeypatch, capsys, lora_rank):
    """The result is that of all seeds at once, and those that are done are not trained again."""
    fields = {**files, "max_steps": 6, "evaluations": 2, "lora_rank": lora_rank}
    if lora_rank is not None:
        ft.run_here(**files, output_dir=tmp_path / "start", max_steps=1)
        fields["model_name_or_path"] = tmp_path / "start"
    ft.run_here(**fields, output_dir=tmp_path / "once", seeds=[3, 1, 2])
    ft.run_here(**fields, output_dir=tmp_path / "added", seeds=[3])
    noted = tmp_path / "added" / "run.json"
    young = ("command", "layer_decay", "freeze_layers", "thresholds")  # fields that were not there from the beginning
    before = {name: value for name, value in json.loads(noted.read_text()).items() if name not in young}
    noted.write_text(json.dumps({**before, "command": "finetune_choice"}))
    assert "command was 'finetune_choice'" in ft.run_error(**fields, output_dir=tmp_path / "added", seeds=[3, 1, 2])
    noted.write_text(json.dumps(before))
    capsys.readouterr()
    ft.run_here(**fields, output_dir=tmp_path / "added", seeds=[3, 1, 2])
    printed = capsys.readouterr().out
    assert "seed 3 in" not in printed and "seed 1 in" in printed and "seed 2 in" in printed
    once, added = ft.metrics(tmp_path / "once"), ft.metrics(tmp_path / "added")
    for name in ("seed", "best_step", "eval_accuracy", "eval_loss", "over_seeds"):
        assert added[name] == once[name], name
    assert have_same_weights(weights(tmp_path / "added"), weights(tmp_path / "once"))
    assert json.loads((tmp_path / "added" / "run.json").read_text())["seeds"] == [3, 1, 2]
    monkeypatch.setattr(SeedRun, "train", None)  # nothing is trained from here on
    ft.run_here(**fields, output_dir=tmp_path / "added", seeds=[3, 1, 2])
    assert "is finished" in capsys.readouterr().out
    assert "seeds was [3, 1, 2], now [3]" in ft.run_error(**fields, output_dir=tmp_path / "added", seeds=[3])


@pytest.mark.parametrize("best", [1, 2])
def test_of_old_and_added_seeds_the_best_is_published_wherever_the_run_was_killed(files, tmp_path, monkeypatch, best):
    fields = {**files, "output_dir": tmp_path / "run", "max_steps": 2, "evaluations": 1}
    ft.run_here(**fields, seeds=[1])
    first = weights(tmp_path / "run")
    result = SeedRun._result

    def scripted(run, seed, *rest):
        found = result(run, seed, *rest)
        found.metrics["accuracy"] = 2.0 if best == 2 else -1.0
        return found

    monkeypatch.setattr(SeedRun, "_result", scripted)
    for owner, name in ((SeedResult, "write"), (FinishedSeeds, "_reopen"), (report, "write_json")):
        with monkeypatch.context() as killed:
            killed.setattr(owner, name, _die)
            with pytest.raises(InterruptedError):
                ft.run_here(**fields, seeds=[1, 2])
    assert not (tmp_path / "run" / "metrics.json").exists()  # no longer finished while its files are replaced
    ft.run_here(**fields, seeds=[1, 2])
    assert ft.metrics(tmp_path / "run")["seed"] == best
    assert have_same_weights(weights(tmp_path / "run"), first) == (best == 1)


def test_a_run_killed_after_its_metrics_were_written_is_tidied_at_the_next_call(files, tmp_path, monkeypatch):
    fields = {**files, "output_dir": tmp_path / "run", "max_steps": 2, "evaluations": 1}
    with monkeypatch.context() as killed:
        killed.setattr(report, "remove_leftovers", _die)
        with pytest.raises(InterruptedError):
            ft.run_here(**fields)
    assert (tmp_path / "run" / "seed-1" / "best.safetensors").is_file()
    (tmp_path / "run" / "seed-1" / "checkpoint-2").mkdir()
    ft.run_here(**fields)
    assert names_in(tmp_path / "run" / "seed-1") == ["result.json"]


def test_a_trial_leaves_its_score_and_nothing_else(files, tmp_path, monkeypatch):
    fields = {**files, "output_dir": tmp_path / "run", "max_steps": 2, "evaluations": 1, "search_trials": 2}
    train = SeedRun.train

    def only_trials(run, folder, seed):
        assert names_in(tmp_path / "run" / "search") in ([], ["trials.json"])
        if folder.parent.name != "search":
            raise InterruptedError
        return train(run, folder, seed)

    monkeypatch.setattr(SeedRun, "train", only_trials)
    with pytest.raises(InterruptedError):
        ft.run_here(**fields)
    assert len(json.loads((tmp_path / "run" / "search" / "trials.json").read_text())) == 2
    # scores are work: a run with other settings does not take them up
    assert "other settings" in ft.run_error(**{**fields, "learning_rate": 1e-3})


def _die(*_, **__):
    raise InterruptedError
