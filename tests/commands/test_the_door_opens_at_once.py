"""Starting loads what it needs, and nothing that takes seconds and is needed later or never."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.text import sentences
from transformers import AutoTokenizer, HfArgumentParser

from weft import WeftConfig, interop
from weft.recipes.common import class_source
from weft.recipes.common.checkpoint_files import load_tokenizer
from weft.recipes.common.command_line import MANAGED_TRAINER_FIELDS
from weft.tokenizer.train import train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
DRAWING = ("matplotlib.pyplot",)
SPARED = (*DRAWING, "datasets", "deepspeed", "lm_eval", "optuna", "pandas", "peft", "scipy", "sklearn")
SPARED += ("accelerate", "torch", "transformers.modeling_utils", "transformers.trainer")
# Each command, and words that it refuses once it has understood them.
PREPARING = ("prepare_data", "prepare_data_many", "train_tokenizer", "pretrain_clm", "pretrain_mlm")
PREPARING += ("pretrain_seq2seq",)
NO_TEXT = ("--train_files", "missing.txt", "--output_dir", "out")
NO_EXAMPLES = ("--train_file", "missing.jsonl")
NO_FILES = ("--tokenizer_name", "out", "--files", "missing.txt")
REFUSED = {f"recipes/{name}.py": NO_TEXT for name in PREPARING}
FINE_TUNING = ("classification", "tokens", "qa", "choice", "seq2seq", "embeddings")
REFUSED |= {f"recipes/finetune_{name}.py": NO_EXAMPLES for name in FINE_TUNING}
REFUSED |= {
    "recipes/finetune.py": ("--task", "sst2", "--data", "missing"),
    "tokenizer/train.py": NO_TEXT,
    "tokenizer/judge.py": NO_FILES,
    "recipes/judge_tokenizer.py": NO_FILES,
    "recipes/evaluate_lm.py": ("--task", "last-word", "--files", "missing.jsonl"),
    "recipes/generate.py": ("--prompt_file", "missing.txt"),
    "recipes/convert.py": ("import", "missing", "."),
    "recipes/benchmark.py": ("--subject", "finetune", "--train_files", "missing.tsv"),
    "recipes/publish.py": ("missing", "me/model"),
    "recipes/baselines.py": ("--models", "perceptron"),
    "recipes/search.py": ("ask", "missing", "question"),
}


def loaded_by(program: str, folder: Path | None = None) -> set[str]:
    """The modules that a fresh Python, begun in a folder, has loaded at the end of a program."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint(*sys.modules, file=sys.stderr)"],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def test_importing_weft_waits_for_neither_torch_nor_transformers() -> None:
    assert not {"torch", "transformers", "numpy", *DRAWING} & loaded_by("import weft")


def test_auto_classes_know_weft_however_they_are_imported() -> None:
    for program in (
        "import weft; from transformers import AutoConfig, AutoModel",
        "from transformers import AutoConfig, AutoModel; import weft",
    ):
        made = "config = AutoConfig.for_model('weft', vocab_size=9, hidden_size=8, num_attention_heads=2)"
        loaded = loaded_by(f"{program}\n{made}\nassert type(AutoModel.from_config(config)) is weft.WeftModel")
        assert "weft.modeling_weft" in loaded


@pytest.mark.parametrize("words", [("--help",), ("--misspelt", "1"), REFUSED], ids=["help", "misspelt", "refused"])
def test_no_answer_of_the_command_line_waits(
    words: tuple[str, ...] | dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    calls = [(str(ROOT / name), words[name] if isinstance(words, dict) else words) for name in REFUSED]
    program = f"""
import runpy
for path, words in {calls}:
    sys.argv = [path, *words]
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        assert end.code == (0 if words == ("--help",) else 2), path
    else:
        assert words == ("--help",), f"{{path}} goes on"
    found = [name for name in {SPARED} if name in sys.modules]
    assert not found, f"{{path}} imports {{found}}"
"""
    loaded_by(program, tmp_path)


@pytest.mark.parametrize("more", [{}, {"model_type": "weft"}], ids=["tokenizer", "checkpoint"])
def test_text_is_prepared_without_torch(more: dict[str, str], tmp_path: Path) -> None:
    folder, text = tmp_path / "tokenizer", "\n\n".join(sentences(20))
    train_tokenizer(iter([text]), "bpe", 300).save_pretrained(folder)
    if more:
        (folder / "config.json").write_text(json.dumps(more))
    (tmp_path / "text.txt").write_text(text)
    words = ["prepare_data.py", "--train_files", "text.txt", "--tokenizer_name", str(folder), "--output_dir", "corpus"]
    path = str(ROOT / "recipes" / "prepare_data.py")
    program = f"import runpy\nsys.argv = {words}\nrunpy.run_path({path!r}, run_name='__main__')"
    assert not {*SPARED} & loaded_by(program, tmp_path)
    loaded, expected = load_tokenizer(str(folder)), AutoTokenizer.from_pretrained(tmp_path / "corpus" / "tokenizer")
    assert type(loaded) is type(expected)
    assert loaded.backend_tokenizer.to_str() == expected.backend_tokenizer.to_str()


@pytest.mark.parametrize("name, value", [("", "10000"), ("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "PASSIVE")])
def test_waiting_threads_spin_for_a_short_while_unless_the_user_says_otherwise(name: str, value: str) -> None:
    program = "import os, sys\nfrom weft.recipes import finetune\nassert 'torch.nn' not in sys.modules\n"
    program += "print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"
    given = {key: text for key, text in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=given | ({name: value} if name else {})
    )
    expected = {"": "10000 None", "GOMP_SPINCOUNT": "7 None", "OMP_WAIT_POLICY": "None PASSIVE"}
    assert done.stdout.strip() == expected[name], done.stderr


def test_fields_of_the_trainer_are_those_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    def options() -> dict[str, list]:
        actions = HfArgumentParser([class_source.trainer_arguments("of the Trainer")])._actions
        return {
            action.dest: [action.option_strings, action.nargs, action.const, action.choices, action.help, action.type]
            for action in actions
        }

    read, taken = options(), ("parallelism_config", "help")  # a class of accelerate, which no command takes
    monkeypatch.setattr(class_source, "TRAINER", Path("moved.py"))
    imported = options()
    assert read.keys() == imported.keys() and "parallelism_config" in MANAGED_TRAINER_FIELDS
    for name in read.keys() - {*taken}:
        assert read[name][:-1] == imported[name][:-1], name
        assert getattr(read[name][-1], "__name__", None) == getattr(imported[name][-1], "__name__", None), name


def test_fields_of_the_config_and_names_of_families_are_read_as_they_are() -> None:
    assert list(class_source.config_fields().items()) == list(WeftConfig.__annotations__.items())
    for name, text in class_source.config_texts().items():
        assert name in WeftConfig.__annotations__ and text in " ".join(WeftConfig.__doc__.split()), name
    assert interop.family_names() == sorted(interop.families())
