"""Of several validation files each has scores of its own, beside those of all of them, which are as they were."""

import json

import pytest
from helpers import runs

OBJECTIVES = {
    "causal": {},
    "masked": {"objective": "masked", "mask_rate": 0.3},
    "hybrid": {"objective": "hybrid", "causal_share": 0.4, "mask_rate": 0.3},
    "three kinds": {"objective": "hybrid", "causal_share": 0.4, "diffusion_share": 0.3, "mask_rate": 0.3},
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A text to train on and two of other lengths to evaluate on, one of which has text that the other has too."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "news").mkdir()
    return {
        "train_files": [runs.write_sentences(folder / "train.txt")],
        "validation_files": [
            runs.write_sentences(folder / "wiki.txt", documents=7, seed=1),
            runs.write_sentences(folder / "news" / "of_today.txt", documents=13, seed=2),
        ],
    }


def fields_of(texts, objective: str) -> dict:
    fields = {"tokenizer_type": "char", "max_steps": 2, "eval_steps": 1, "seed": 3, **OBJECTIVES[objective]}
    return {**texts, **fields}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_file_has_the_scores_that_it_has_alone(objective, texts, tmp_path, capsys):
    fields = fields_of(texts, objective)
    runs.run_here(output_dir=tmp_path / "both", **fields)
    said = capsys.readouterr().out
    both = json.loads((tmp_path / "both" / "metrics.json").read_text())
    card = (tmp_path / "both" / "README.md").read_text()
    weights = []
    for name, file in zip(("wiki", "of_today"), texts["validation_files"]):
        runs.run_here(output_dir=tmp_path / name, **{**fields, "validation_files": [file]})
        alone = json.loads((tmp_path / name / "metrics.json").read_text())
        if objective == "causal" or name == "wiki":  # masks follow from a document's number, which is another one
            assert both[f"eval_loss_on_{name}"] == pytest.approx(alone["eval_loss"], rel=1e-6)
        assert not [metric for metric in alone if "_on_" in metric]
        words = f"loss on {name}".replace("_", " ")
        assert f"{words} {both[f'eval_loss_on_{name}']:.4f}" in said and words in card
        description = json.loads((tmp_path / name / "data" / "corpus.json").read_text())
        weights.append(description["splits"]["validation"])
    described = json.loads((tmp_path / "both" / "data" / "corpus.json").read_text())["validation_files"]
    assert [{key: file[key] for key in weights[0]} for file in described] == weights
    logged = [entry for entry in runs.history(tmp_path / "both") if "eval_loss" in entry]
    assert len(logged) == 2 and all("eval_loss_on_wiki" in entry for entry in logged)
    if objective == "causal":
        nats = [both[f"eval_bits_per_byte_on_{name}"] * of["bytes"] for name, of in zip(("wiki", "of_today"), weights)]
        assert both["eval_bits_per_byte"] == pytest.approx(sum(nats) / sum(of["bytes"] for of in weights), rel=1e-9)


def test_files_of_one_name_are_numbered_and_one_without_text_of_its_own_is_left_out(texts, tmp_path, capsys):
    same = texts["validation_files"][0]
    (tmp_path / "a").mkdir()
    other = runs.write_sentences(tmp_path / "a" / "wiki.txt", documents=5, seed=4)
    copy = tmp_path / "copy.txt"
    copy.write_text(same.read_text(encoding="utf-8"), encoding="utf-8")
    fields = {**fields_of(texts, "causal"), "validation_files": [same, other, copy]}
    runs.run_here(output_dir=tmp_path / "run", **fields)
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [name for name in found if name.startswith("eval_loss_on")] == ["eval_loss_on_wiki_1", "eval_loss_on_wiki_2"]
