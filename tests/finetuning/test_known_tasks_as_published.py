"""Every known task is read from files in the form in which they are published, and nothing of them is out of reach."""

import contextlib
import io
import re
from pathlib import Path

import pytest
from helpers.official_files import OFFICIAL, write_official

from weft.recipes.finetune import main
from weft.recipes.finetuning.tasks import known_task_names

SMALL = "--vocab_size 400 --hidden_size 16 --num_hidden_layers 1 --num_attention_heads 2 --seeds 1 --cpu_threads 1"
BUILTIN = {"pydoc", "pydoc_chat"}  # need no files
BY_CHARACTER, BY_WORD = "characters, joined without blanks", "words joined with blanks"
JOINED = {
    **dict.fromkeys(("conll2000", "conll2003", "wnut17", "ud_en_ewt", "ud_zh_gsdsimp"), BY_WORD),
    **dict.fromkeys(("msra_ner", "weibo_ner", "resume_ner", "people_daily"), BY_CHARACTER),
}
SCHEMES = {"conll2003": "IOB1, written as IOB2", "resume_ner": "BMES, written as IOB2", "conll2000": "IOB2"}


def plan_of(task: str, folder: Path, *fields: str) -> list[str]:
    places = ["--data", str(folder), "--output_dir", str(folder / "run")]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        main(["--task", task, *places, *SMALL.split(), *fields, "--plan"])
    return output.getvalue().splitlines()


def line(plan: list[str], name: str) -> str:
    return next(text[14:] for text in plan if text.startswith(f"  {name:11} "))


def test_every_known_task_has_its_stand_in() -> None:
    assert set(OFFICIAL) == set(known_task_names()) - BUILTIN


@pytest.mark.parametrize("task", OFFICIAL)
def test_official_files_are_read_and_nothing_is_out_of_reach(tmp_path: Path, task: str) -> None:
    plan = plan_of(task, write_official(task, tmp_path))
    assert int(re.match(r"train (\d+), ", line(plan, "examples"))[1]) >= 20
    warnings = [text for text in plan if text.startswith("  warning")]
    assert not warnings, warnings
    tokens = float(line(plan, "input").split(" tokens")[0].replace(",", ""))
    assert tokens < 80, "texts that fall to pieces have many times as many"
    if task in JOINED:
        assert line(plan, "text") == JOINED[task]
    if task in SCHEMES:
        assert line(plan, "tags") == SCHEMES[task]
    if task == "weibo_ner":
        assert "place in a word" in line(plan, "reading")


def test_entities_out_of_reach_are_warned_of_with_the_field_that_helps(tmp_path: Path) -> None:
    """Byte-level tokens of Chinese reach over the ends of names."""
    folder = write_official("people_daily", tmp_path)
    plan = plan_of("people_daily", folder, "--tokenizer_type", "bpe")
    assert "% of the entities of train begin or end within a token, and cannot be found exactly" in line(
        plan, "warning"
    )
    assert "--tokenizer_type wordpiece" in line(plan, "warning")


@pytest.mark.parametrize(
    ("task", "fields", "message"),
    [
        ("cmrc2018", ["--tokenizer_type", "bpe"], "% of the answers of train begin or end within a token"),
        (
            "sst2",
            ["--max_length", "6"],
            "% of the train examples are longer than what is read: give a larger --max_len",
        ),
        ("hellaswag", ["--max_length", "9"], "% of the prompts of train are longer than what is read"),
        (
            "csl",
            ["--max_source_length", "6"],
            "% of the sources of train are longer than what is read: give a larger --max",
        ),
    ],
)
def test_what_is_cut_off_is_warned_of_in_every_task(tmp_path: Path, task: str, fields: list[str], message: str) -> None:
    plan = plan_of(task, write_official(task, tmp_path), *fields)
    assert any(message in text for text in plan if text.startswith("  warning")), plan
