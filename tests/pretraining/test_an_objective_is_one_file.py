"""An objective that one file defines, registered from outside or lying in the folder, is trained like all others."""

import contextlib
import json
import sys
from pathlib import Path

import pytest
from helpers import runs
from helpers.toy_objectives.two_tokens_on import TwoOnObjective
from matplotlib.figure import Figure

from weft.recipes.pretraining import objectives

FOLDER = Path(__file__).resolve().parents[1] / "helpers" / "toy_objectives"
FIELDS = {"objective": "two-on", "max_steps": 2, "save_steps": 2, "eval_steps": 2}


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(objectives, "_registered", {})
    objectives.register("two-on", TwoOnObjective)


def test_a_registered_objective_is_trained_logged_drawn_and_reported(registered, corpus, tmp_path, monkeypatch, capsys):
    figures, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **kw: figures.append(figure) or save(figure, *args, **kw)
    )
    runs.run_here(data=corpus, output_dir=tmp_path / "run", **FIELDS)
    printed = capsys.readouterr().out
    assert "distance    2 tokens" in printed and "| two on accuracy " in printed
    assert "finished:" in printed and "; two on accuracy " in printed.splitlines()[-1]
    logged = [entry for entry in runs.history(tmp_path / "run") if "loss" in entry]
    assert len(logged) == 2
    for entry in logged:  # all of the loss is this part
        assert entry["loss_two_on"] == pytest.approx(entry["loss"], rel=1e-5)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["eval_two_on_loss"] == metrics["eval_loss"] and 0 <= metrics["eval_two_on_accuracy"] < 1
    (figure,) = figures
    assert figure.axes[0].get_ylabel() == "loss (nats per distant token)"
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "two on training",
        "two on validation",
    ]
    card = (tmp_path / "run" / "README.md").read_text()
    shown = f"| two on accuracy | {metrics['eval_two_on_accuracy']:.3%} |"
    for words in ("A model that looks two tokens on.", shown, "| distance | 2 |", "the next token but one"):
        assert words in card, words
    for idle in ("masking", "causal_share"):
        assert f"| {idle} |" not in card


def test_its_fields_are_its_own(registered, corpus, tmp_path, capsys):
    from weft.recipes import pretrain_mlm

    with contextlib.suppress(SystemExit):
        pretrain_mlm.main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "one of masked, diffusion, next-sentence, sentence-order, replaced-tokens, hybrid, two-on" in printed
        and "--distance " in printed
    )
    fields = {**FIELDS, "data": corpus, "output_dir": tmp_path / "run"}
    assert runs.run_error(**fields, distance=0) == "distance is 0: give at least 1."
    others = "--objective masked or next-sentence or sentence-order or replaced-tokens or hybrid"
    assert f"mask_rate has no effect without {others}" in runs.run_error(**fields, mask_rate=0.2)
    fields["objective"] = "masked"
    assert "distance has no effect without --objective two-on" in runs.run_error(**fields, distance=3)


def test_a_name_is_given_once(registered):
    objectives.register("two-on", TwoOnObjective)
    with pytest.raises(ValueError, match="an objective is called 'masked' already: choose another name"):
        objectives.register("masked", TwoOnObjective)


def test_a_file_in_the_folder_is_found(monkeypatch):
    monkeypatch.setattr(objectives, "__path__", [*objectives.__path__, str(FOLDER)])
    module = f"{objectives.__name__}.two_tokens_on"
    try:
        assert objectives.objectives()["two-on"].__module__ == module
    finally:
        sys.modules.pop(module, None)


def test_one_that_is_not_registered_is_refused(corpus, tmp_path):
    sentence = runs.run_error(data=corpus, **FIELDS, output_dir=tmp_path / "run")
    assert sentence.startswith("objective is 'two-on': choose one of masked")
    assert not (tmp_path / "run").exists()
