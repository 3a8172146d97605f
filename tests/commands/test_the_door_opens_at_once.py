"""Starting loads what it needs, and nothing that takes seconds and is needed later or never."""

import subprocess
import sys

import pytest

DRAWING = ("matplotlib.pyplot",)


def loaded_by(program: str) -> set[str]:
    """The modules that a fresh Python has loaded at the end of a program."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint(*sys.modules, file=sys.stderr)"],
        capture_output=True,
        text=True,
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


@pytest.mark.parametrize("command", ["pretrain_clm", "pretrain_mlm", "prepare_data", "generate"])
def test_help_draws_nothing(command: str) -> None:
    program = f"sys.argv = ['{command}.py', '--help']\nfrom weft.recipes import {command}\n"
    program += f"try:\n    {command}.main()\nexcept SystemExit:\n    pass"
    assert not set(DRAWING) & loaded_by(program)
