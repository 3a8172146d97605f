"""What docs/other_tools.md shows works, from top to bottom, and so does what it says of a server."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

PAGE = Path(__file__).parents[2] / "docs" / "other_tools.md"
RUNS = {"pretrain_clm": "causal", "pretrain_mlm": "masked"}


def test_its_programs_run(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kind in RUNS.items():
        shutil.copytree(folders[kind], tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    blocks = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), {"__name__": "__main__"})


def test_a_server_loads_a_folder_once_the_class_has_its_name(folders: dict[str, Path], monkeypatch) -> None:
    import transformers
    from transformers.cli.serving.model_manager import ModelManager

    import weft

    monkeypatch.setattr(transformers, "WeftForCausalLM", weft.WeftForCausalLM, raising=False)
    model, _ = ModelManager(device="cpu").load_model_and_processor(f"{folders['causal']}@main")
    ids = torch.randint(5, 200, (1, 7))
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folders["causal"], dtype=model.dtype)(ids).logits
        torch.testing.assert_close(model(ids).logits, expected)
