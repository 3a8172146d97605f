"""What is refused leaves neither locks nor folders that were not there before."""

from pathlib import Path

import pytest
from helpers import finetuning as ft
from helpers import runs
from helpers.models import make_model, tiny_config

from weft import WeftForCausalLM
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import only_one_process
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.prepare import prepare
from weft.tokenizer.special_tokens import for_role
from weft.tokenizer.train import train_tokenizer

SHAPE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")


def broken_text(folder: Path) -> Path:
    path = folder / "text.jsonl"
    path.write_text('{"text": "whole"}\n{"text": \n', encoding="utf-8")
    return path


def refused_pretraining(folder: Path, output: Path) -> None:
    runs.run_here(train_files=[broken_text(folder)], max_steps=2, output_dir=output)


def refused_continuation(folder: Path, output: Path) -> None:
    """The model that it goes on from lacks a tensor, which is seen before text is prepared for it."""
    model = make_model(tiny_config(vocab_size=300), model_class=WeftForCausalLM)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if "o_proj" not in name}
    model.save_pretrained(folder / "model", state_dict=tensors)
    texts = iter(["a red cat saw the dog"] * 3)
    for_role(train_tokenizer(texts, "char", 300), "decoder").save_pretrained(folder / "model")
    (folder / "text.txt").write_text("a red cat saw the dog\n" * 50, encoding="utf-8")
    fields = {"train_files": folder / "text.txt", "model_name_or_path": folder / "model", "output_dir": output}
    with pytest.raises(RecipeError, match=r"lacks .*o_proj") as refusal:
        runs.run_here(**dict.fromkeys(SHAPE), sequence_length=16, max_steps=2, **fields)
    raise refusal.value


def refused_fine_tuning(folder: Path, output: Path) -> None:
    files = ft.write_files(folder)
    ft.run_here(**files, attn_implementation="flex_attention", output_dir=output)


def refused_preparation(folder: Path, output: Path) -> None:
    prepare(DataArguments(train_files=[str(broken_text(folder))], vocab_size=300), output, quiet=True)


@pytest.mark.parametrize(
    "refused", [refused_pretraining, refused_continuation, refused_fine_tuning, refused_preparation]
)
@pytest.mark.parametrize("is_there", [False, True])
def test_a_refusal_leaves_the_place_as_it_was(refused, is_there, tmp_path) -> None:
    place = tmp_path / "place"
    output = place / "new" / "run"
    if is_there:
        output.mkdir(parents=True)
    with pytest.raises(RecipeError):
        refused(tmp_path, output)
    assert [path.name for path in sorted(place.rglob("*"))] == (["new", "run"] if is_there else [])
    assert place.exists() is is_there


def test_a_lock_that_was_there_or_is_not_refused_stays(tmp_path) -> None:
    lock = tmp_path / ".lock"
    with only_one_process(lock, "it"):
        pass
    assert lock.is_file()
    with pytest.raises(RecipeError), only_one_process(lock, "it"):
        raise RecipeError("no.")
    assert lock.is_file()
    with pytest.raises(KeyboardInterrupt), only_one_process(tmp_path / ".other", "it"):
        raise KeyboardInterrupt
    assert (tmp_path / ".other").is_file()
