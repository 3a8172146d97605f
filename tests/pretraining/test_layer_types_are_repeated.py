"""What mixes the tokens of each layer is given as a pattern, and what cannot be trained with it is refused."""

from pathlib import Path

import pytest
from helpers import runs
from helpers.models import tiny_config

from weft.interop import InteropError, find_family
from weft.recipes.common.errors import RecipeError
from weft.recipes.conversion.gguf_export import find_shape
from weft.recipes.conversion.onnx_export import _refuse
from weft.recipes.training.model_arguments import repeat_layer_types

LINEAR, RECURRENT, FULL = "linear_attention", "recurrent", "full_attention"


@pytest.mark.parametrize(
    ("pattern", "layers", "expected"),
    [
        ([f"{LINEAR}*3,{FULL}"], 8, [LINEAR, LINEAR, LINEAR, FULL] * 2),
        ([f"{LINEAR}*3", FULL], 4, [LINEAR, LINEAR, LINEAR, FULL]),
        ([f"{LINEAR}, {FULL}"], 3, [LINEAR, FULL, LINEAR]),
        ([FULL], 2, [FULL, FULL]),
        ([FULL, RECURRENT, FULL], 2, [FULL, RECURRENT, FULL]),  # too many, which the config refuses
    ],
)
def test_a_pattern_is_written_out_over_the_depth(pattern: list[str], layers: int, expected: list[str]) -> None:
    assert repeat_layer_types(pattern, layers) == expected


@pytest.mark.parametrize("times", ["0", "-1", "x", ""])
def test_a_number_of_times_that_is_none_is_refused(times: str) -> None:
    with pytest.raises(RecipeError, match="give a name and how often, as linear_attention"):
        repeat_layer_types([f"{LINEAR}*{times}"], 4)


def test_a_run_takes_it_and_says_what_it_cannot_learn(corpus: Path, english: Path, tmp_path: Path) -> None:
    fields = {"output_dir": tmp_path / "run", "plan": "true", "max_steps": 3}
    runs.run_here(data=corpus, layer_types=f"{LINEAR},{RECURRENT}", num_hidden_layers=4, **fields)
    error = runs.run_error(data=corpus, layer_types=LINEAR, prefix_share=0.5, **fields)
    assert "prefix_share cannot be given with layer_types of linear_attention or recurrent" in error
    error = runs.run_error(data=english, objective="hybrid", layer_types=RECURRENT, **fields)
    assert "the weights of recurrent layers belong to one: choose linear_attention" in error
    error = runs.run_error(data=corpus, layer_types=[LINEAR] * 3, **fields)
    assert "`num_hidden_layers` (2) must be equal to the number of `layer_types` (3)" in error


def test_exports_name_what_other_programs_cannot_compute() -> None:
    config = tiny_config(layer_types=[LINEAR, RECURRENT])
    for family in ("qwen3", "llama", "gemma2"):
        with pytest.raises(InteropError, match="layer_types has linear_attention and recurrent") as caught:
            find_family(family).export_config(config, "causal")
        assert caught.value.fields == ("layer_types",)
    with pytest.raises(InteropError, match="layer_types has linear_attention and recurrent"):
        find_shape(config)
    with pytest.raises(InteropError, match="take a step for each token"):
        _refuse(config, "causal")
