"""The wheel holds everything: a command of it trains from another folder, without the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("modeling", "recipes", "tokenizer")
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "sequence_length": 32}
TINY |= {"tokens_per_step": 64, "max_steps": 2, "cpu_threads": 1, "use_cpu": "true"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel of a copy of the source."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    for name in FILES:
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--wheel-dir", source, source], check=True, capture_output=True)
    (wheel,) = source.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(target)
    return target


def run(installed: Path, folder: Path, *words: object) -> str:
    """What a Python that finds the wheel first prints, in another folder."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_command_trains_and_its_model_loads(installed, corpus, tmp_path):
    fields = [word for name, value in TINY.items() for word in (f"--{name}", value)]
    command = ("-m", "weft.recipes.pretrain_clm", "--data", corpus, "--output_dir", "out", *fields)
    assert "finished: out loads with AutoModelForCausalLM" in run(installed, tmp_path, *command)
    program = "import weft; from transformers import AutoModel; AutoModel.from_pretrained('out'); print(weft.__file__)"
    assert run(installed, tmp_path, "-c", program).strip() == str(installed / "weft" / "__init__.py")


def test_it_holds_every_file_of_python_and_of_settings(installed):
    packages = dict(zip(FOLDERS, ("weft", "weft/recipes", "weft/tokenizer")))
    for folder, package in packages.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".slurm", ".html"):
                assert (installed / package / path.relative_to(ROOT / folder)).is_file(), path
