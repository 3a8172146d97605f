"""`recipes/baselines.py` compares models on one text, keeps what is finished, and refuses what it cannot do."""

import importlib.util
import json

import pytest
from helpers import runs

from weft.recipes import baselines
from weft.recipes.benchmarks.baselines.arguments import NETWORKS, BaselineArguments
from weft.recipes.common.errors import RecipeError
from weft.recipes.evaluation.model_loading import load_model
from weft.recipes.pretraining.command import read_command
from weft.recipes.training.model_arguments import PRESETS

LEARNT = ("ngram-1", "ngram-3", "hmm", "transformer")
WORDS = runs.WORDS[2:10]


def run(folder, corpus, *words):
    given = {"data": corpus, "output_dir": folder, "tokens": 2048, "sequence_length": 32, "states": 3, "iterations": 2}
    fields = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    baselines.main([*fields, "--vectors", "none", *map(str, words)])


@pytest.fixture(scope="module")
def finished(english, tmp_path_factory):
    """A folder of results, with pairs of the text's words, and what was there after the first two models."""
    root = tmp_path_factory.mktemp("baselines")
    pairs = root / "pairs.csv"
    pairs.write_text("".join(f"{a},{b},{len(a) + len(b)}\n" for a in WORDS for b in WORDS if a < b))
    run(root / "out", english, "--models", *LEARNT[:2])
    before = {path: path.stat().st_mtime_ns for path in (root / "out").glob("ngram-*/*")}
    run(root / "out", english, "--models", *LEARNT, "--similarity_file", pairs)
    return root / "out", before


def test_every_model_has_its_figures_a_sample_and_a_place_in_table_and_picture(finished):
    folder = finished[0]
    found = json.loads((folder / "baselines.json").read_text())
    assert [each["model"] for each in found["models"]] == list(LEARNT)
    page = (folder / "README.md").read_text()
    for each in found["models"]:
        assert each["bits_per_byte"] > 0 and each["seconds"] > 0 and each["bytes_on_disk"] > 0 and each["size"] > 0
        assert f"| {each['title']} | {each['bits_per_byte']:.4f} |" in page
        assert each["sample"].strip().replace("```", "'''") in page
        assert json.loads((folder / each["model"] / "result.json").read_text()) == each
    seen, train = [each["tokens"] for each in found["models"]], found["text"]["train"]["tokens"]
    assert seen == [train, train, 2 * train, 2048]
    assert (folder / "baselines.png").stat().st_size > 5000
    bits = {each["model"]: each["bits_per_byte"] for each in found["models"]}
    assert bits["ngram-3"] < bits["ngram-1"]


def test_the_network_is_an_ordinary_checkpoint_with_the_figures_of_pretraining(finished):
    folder = finished[0] / "transformer"
    model, _, scoring = load_model(str(folder), "auto")
    found, metrics = (json.loads((folder / name).read_text()) for name in ("result.json", "metrics.json"))
    assert scoring == "causal" and sum(each.numel() for each in model.parameters()) == found["size"]
    assert found["bits_per_byte"] == metrics["eval_bits_per_byte"]


def test_vectors_of_words_are_compared_on_the_given_pairs(finished):
    found = json.loads((finished[0] / "baselines.json").read_text())["word_similarity"]
    assert found["pairs"] == found["in_the_text"] == 28
    (correlation,) = found["spearman"].values()
    assert -1 <= correlation <= 1
    assert (
        f"| input embeddings, transformer, Weft's default | {correlation:.3f} |"
        in (finished[0] / "README.md").read_text()
    )


def test_what_is_finished_is_kept(finished):
    _, before = finished
    assert before and {path: path.stat().st_mtime_ns for path in before} == before


def test_results_of_other_settings_are_not_mixed(finished, english):
    with pytest.raises(RecipeError, match="seed was 42, now 7"):
        run(finished[0], english, "--models", "ngram-2", "--seed", 7)
    assert not (finished[0] / "ngram-2").exists()


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--models", "ngram-6"], "models has 'ngram-6'"),
        (["--budget", "1m"], "budget cannot be given together with tokens"),
        (["--vocab_size", 300], "vocab_size cannot be given together with data"),
        (["--vectors", "none", "word2vec"], "vectors has none and word2vec"),
        (["--similarity_file", "missing.csv"], "similarity_file missing.csv is no file"),
        (["--states", 0], "states is 0"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, english, words, sentence):
    with pytest.raises(RecipeError, match=sentence):
        run(tmp_path / "out", english, *words)
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, english, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "gensim" else find(name, *rest)
    )
    with pytest.raises(RecipeError, match="fasttext need gensim: pip install gensim"):
        run(tmp_path / "out", english, "--vectors", "fasttext")
    baselines.main(["--data", str(english), "--output_dir", str(tmp_path / "out"), "--plan", "true"])
    printed = capsys.readouterr().out
    assert "word2vec and fasttext are left out: pip install gensim" in printed
    assert "64 states, 20 passes over the text" in printed and "LSTM, tokens 300k" in printed
    assert not (tmp_path / "out").exists()


def test_networks_have_the_layers_that_their_names_say(english, tmp_path):
    layers = PRESETS["tiny"]["num_hidden_layers"]
    shapes = {}
    for name, network in NETWORKS.items():
        words = BaselineArguments().words_of(network, english, tmp_path / name)
        shapes[name] = read_command("causal", "runs/any", None, words, ["causal"])[1].model
    assert shapes["transformer"] == {}
    assert shapes["elman"]["layer_types"] == ["recurrent"] * layers and shapes["elman"]["recurrent_cell"] == "rnn"
    assert shapes["lstm"]["layer_types"] == ["recurrent"] * layers and shapes["lstm"]["recurrent_cell"] == "lstm"
    assert shapes["lstm-attention"]["layer_types"] == ["recurrent"] * (layers - 1) + ["full_attention"]
