"""A run is pushed to a hub and loaded from there by name in a process that has never heard of Weft."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import finetuning, runs
from helpers.elsewhere import BLOCK_THE_PACKAGE
from helpers.fake_hub import FakeHub

from weft.recipes.common.command_line import parse_arguments
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.corpus import Corpus
from weft.recipes.data.tokenization import count_words
from weft.recipes.pretraining.arguments import RunArguments
from weft.recipes.training.hub import publish

PUBLISH = Path(__file__).resolve().parents[2] / "recipes" / "publish.py"
FIELDS = {"max_steps": 10, "save_steps": 5, "eval_steps": 5}
SHIPPED = {"attention.py", "backends.py", "configuration_checks.py", "configuration_weft.py", "growing_cache.py"}
SHIPPED |= {"language_model.py", "layers.py", "linear_attention.py", "losses.py", "masks.py", "modeling_weft.py"}
SHIPPED |= {"positions.py", "pretrained_model.py", "products.py", "recurrent.py", "sequences.py", "stack.py"}
SHIPPED |= {"state_cache.py", "task_heads.py", "tiles.py"}


def test_the_code_in_a_checkpoint_can_be_read_in_one_sitting():
    modeling = Path(__file__).resolve().parents[2] / "modeling"
    lines = {name: len((modeling / name).read_text(encoding="utf-8").splitlines()) for name in SHIPPED}
    assert sum(lines.values()) < 4400 and max(lines.values()) < 400


@pytest.fixture
def hub(tmp_path):
    with FakeHub(tmp_path / "hub") as running:
        yield running


def python(hub, home, *words: str, token: str | None = "hf_secret") -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=home,
        env={**environment, **hub.environment(home, token), "OMP_NUM_THREADS": "1"},
    )


def test_a_run_publishes_itself_and_its_checkpoints_and_loads_by_name(corpus, hub, tmp_path):
    words = runs.command(
        data=corpus, output_dir=tmp_path / "run", push_to_hub="me/tiny", hub_revisions="true", **FIELDS
    )
    done = python(hub, tmp_path, str(runs.RECIPES / "pretrain_clm.py"), *words)
    assert done.returncode == 0, done.stderr
    assert "published as" in done.stdout
    assert "hf_secret" not in done.stdout + done.stderr

    assert set(hub.repositories.refs("me/tiny")) == {"main", "step-5", "step-10"}
    pushed = set(hub.repositories.files("me/tiny", "main"))
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md", "curve.png"} | SHIPPED <= pushed
    private = ("optimizer.pt", "training_args.bin", "run.json", "checkpoint-5", "rng_state.pth", ".lock")
    assert not [path for path in pushed for name in private if name in path]
    assert {"model.safetensors", "config.json", "tokenizer.json"} | SHIPPED <= set(
        hub.repositories.files("me/tiny", "step-5")
    )

    local = python(hub, tmp_path, "-c", runs.LOAD_WITHOUT_WEFT, str(tmp_path / "run"))
    remote = python(hub, tmp_path, "-c", runs.LOAD_WITHOUT_WEFT, "me/tiny", token=None)
    assert remote.returncode == 0, remote.stderr
    assert "LOGITS" in remote.stdout and remote.stdout == local.stdout

    revision = runs.LOAD_WITHOUT_WEFT.replace("trust_remote_code=True", 'trust_remote_code=True, revision="step-5"')
    earlier = python(hub, tmp_path, "-c", revision, "me/tiny", token=None)
    checkpoint = python(hub, tmp_path, "-c", runs.LOAD_WITHOUT_WEFT, str(tmp_path / "run" / "checkpoint-5"))
    assert earlier.returncode == 0, earlier.stderr
    assert earlier.stdout == checkpoint.stdout != local.stdout


def test_a_finished_run_is_published_later(corpus, hub, tmp_path):
    runs.run_here(data=corpus, output_dir=tmp_path / "run", **FIELDS)
    assert 'from_pretrained("OWNER/NAME"' in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    done = python(hub, tmp_path, str(PUBLISH), str(tmp_path / "run"), "tiny")
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert 'from_pretrained("me/tiny"' in card and "OWNER/NAME" not in card
    assert "model.safetensors" in hub.repositories.files("me/tiny", "main")
    assert all(token == "Bearer hf_secret" for method, _, token in hub.repositories.requests if method == "POST")


def test_without_a_right_to_write_the_run_is_kept_and_the_way_back_is_named(corpus, hub, tmp_path):
    runs.run_here(data=corpus, output_dir=tmp_path / "run", **FIELDS)
    done = python(hub, tmp_path, str(PUBLISH), str(tmp_path / "run"), "me/tiny", token=None)
    assert done.returncode == 2
    assert done.stderr.startswith("error: me/tiny could not be published") and "recipes/publish.py" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "metrics.json").is_file()


@pytest.mark.parametrize(
    "revisions, private, words", [("true", True, " --hub_revisions true --private"), ("false", False, "")]
)
def test_the_way_back_keeps_what_was_asked_for(tmp_path, monkeypatch, revisions, private, words):
    def refused(*args, **kwargs):
        raise OSError("no network")

    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refused)
    with pytest.raises(RecipeError) as error:
        publish(tmp_path, "me/tiny", revisions, private)
    assert str(error.value).endswith(f"recipes/publish.py {tmp_path} me/tiny{words}`.")


def test_wrong_names_and_folders_are_refused_before_anything_is_sent(tmp_path):
    with pytest.raises(RecipeError, match="OWNER/NAME"):
        publish(tmp_path, "a/b/c")
    with pytest.raises(RecipeError, match="finished run"):
        publish(tmp_path, "me/tiny")
    message = runs.run_error(data=tmp_path, output_dir=tmp_path / "run", push_to_hub="not a name")
    assert "'not a name' is not the name" in message


def test_a_classifier_publishes_its_plots_and_its_adapter_but_no_text_and_works_by_name(hub, tmp_path):
    files = finetuning.write_files(tmp_path / "data", train=60, validation=30)
    files["test_file"] = finetuning.write_examples(tmp_path / "data" / "test.csv", 30, seed=3)
    fields = {**files, "max_steps": 2, "evaluations": 1}
    finetuning.run_here(**fields, output_dir=tmp_path / "start")
    fields |= {"model_name_or_path": tmp_path / "start", "lora_rank": 2}
    words = finetuning.command(**fields, output_dir=tmp_path / "run", push_to_hub="me/classifier")
    done = python(hub, tmp_path, str(runs.RECIPES / "finetune_classification.py"), *words)
    assert done.returncode == 0, done.stderr
    pushed = set(hub.repositories.files("me/classifier", "main"))
    wanted = {"model.safetensors", "README.md", "metrics.json", "adapter/adapter_model.safetensors"} | SHIPPED
    assert {*wanted, "curve.png", "confusion_matrix.png", "calibration.png", "test/confusion_matrix.png"} <= pushed
    assert not [path for path in pushed if path.endswith(".csv") or "seed-" in path or path.endswith("run.json")]
    card = (tmp_path / "run" / "README.md").read_text()
    assert all(link in pushed for link in re.findall(r"!\[[^]]*\]\(([^)]+)\)", card))

    code = """
from transformers import pipeline
answer = pipeline("text-classification", model="me/classifier", trust_remote_code=True)("the lovely house")
print("ANSWER", answer[0]["label"])
"""
    used = python(hub, tmp_path, "-I", "-c", BLOCK_THE_PACKAGE + code, token=None)
    assert used.returncode == 0, used.stderr
    assert "ANSWER good" in used.stdout or "ANSWER bad" in used.stdout


def test_checkpoints_by_words_seen_are_published_under_the_names_of_learning_curves(corpus, hub, tmp_path, monkeypatch):
    """With hundreds of words in the place of millions."""
    from weft.recipes.pretraining import word_revisions

    monkeypatch.setattr(word_revisions, "MILLION", 100)
    fields = {**FIELDS, "data": corpus, "output_dir": tmp_path / "run", "max_steps": 30, "save_steps": 100}
    fields["tokens_per_step"] = 1024
    asked = []  # the client reads the hub's address when it is imported: another process publishes below
    monkeypatch.setattr("weft.recipes.training.run.publish", lambda *given: asked.append(given))
    runs.run_here(**fields, push_to_hub="me/words", hub_revisions="words")
    assert asked == [(tmp_path / "run", "me/words", "words", False)]
    names = json.loads((tmp_path / "run" / "revisions.json").read_text())
    words = word_revisions.words_in_training(Corpus.open(corpus))
    training = Corpus.open(corpus)
    text = (corpus.parent / "text.txt").read_text(encoding="utf-8").split("\n\n")
    assert words == pytest.approx(len(" ".join(text).split()) * len(training.documents("train")) / len(text), rel=0.1)
    per_step = words * 1024 / (training.description["splits"]["train"]["tokens"] - len(training.documents("train")))
    for checkpoint, given in names.items():
        step = int(checkpoint.split("-")[1])
        for name in given:
            due = int(name.removeprefix("chck_").removesuffix("M")) * 100
            assert (step - 1) * per_step < due <= step * per_step
    given = [name for of_checkpoint in names.values() for name in of_checkpoint]
    assert given[:12] == [f"chck_{number}M" for number in (*range(1, 11), 20, 30)]
    done = python(hub, tmp_path, str(PUBLISH), str(tmp_path / "run"), "me/words", "--hub_revisions", "words")
    assert done.returncode == 0, done.stderr
    steps = {f"step-{path.name.split('-')[1]}" for path in (tmp_path / "run").glob("checkpoint-*")}
    assert set(hub.repositories.refs("me/words")) == {"main", *steps, *given}
    assert "revisions.json" not in hub.repositories.files("me/words", "main")
    assert "model.safetensors" in hub.repositories.files("me/words", given[0])


def test_checkpoints_by_words_need_a_run_that_made_them(corpus, hub, tmp_path):
    runs.run_here(data=corpus, output_dir=tmp_path / "run", **FIELDS)
    done = python(hub, tmp_path, str(PUBLISH), str(tmp_path / "run"), "tiny", "--hub_revisions", "words")
    assert done.returncode == 2 and "train with --hub_revisions words" in done.stderr


def test_words_are_what_blanks_divide_and_signs_where_there_are_none():
    assert [count_words(text) for text in ("the  old - cat\n", "我们去 park。", "", "ไป ok")] == [4, 4, 0, 3]


@pytest.mark.parametrize("given", [[], ["True"], ["yes"]])
def test_the_name_alone_and_any_word_for_true_ask_for_revisions(given):
    parsed = parse_arguments(None, [RunArguments], argv=["--hub_revisions", *given])
    assert parsed[RunArguments].hub_revisions == "true"
    assert RunArguments(hub_revisions=False).hub_revisions == "false"
