"""Whatever a YAML file of fields holds, the fields are taken, or it is refused in a sentence that names it."""

from dataclasses import fields

import pytest
import yaml
from helpers.fuzz import EDITS, ODD, VALUES, dumped, edited, fuzzed, read_or_refused
from hypothesis import given
from hypothesis import strategies as st

from weft.recipes.common.command_line import load_yaml, parse_arguments
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.streaming.documents import StreamArguments
from weft.recipes.finetuning.arguments import FineTuningArguments, ModelSetupArguments
from weft.recipes.pretraining.arguments import RunArguments
from weft.recipes.training.model_arguments import ModelArguments

GROUPS = {
    "pretraining": [RunArguments, DataArguments, StreamArguments, ModelArguments],
    "finetuning": [FineTuningArguments, ModelSetupArguments],
}
NAMES = {kind: sorted(field.name for group in groups for field in fields(group)) for kind, groups in GROUPS.items()}
WHOLE = b"train_files: [a.txt, b.txt]\nvocab_size: 300\nmax_steps: 2\nlearning_rate: 1e-3\nplan: true\n"
SCALARS = st.sampled_from(
    (
        *("1", "1e-3", "0x", "2001-99-99", "2001-01-01", "!!binary '='", "!!int x", "!!set {a}", "&a [*a]", "*b", "~"),
        *("!!map [1]", "!!omap 1", "!!python/object:os.system x", "{a: 2001-01-01}", "{[1]: 2}", "<<: 1", "1:99:99"),
        *(".inf", "[1, {a: b}]", "--plan", "-1", "''", '"\\udc00"', "[" * 1200, "!!timestamp x", "!!float a", "? [1]"),
        *("{<<: [1]}", "9" * 5000),
    )
)


def take(path, kind):
    """Read a file as a command does, with `max_steps` of the command line beside it."""
    is_pretraining = kind == "pretraining"
    return parse_arguments("", GROUPS[kind], is_pretraining, is_pretraining, argv=[str(path), "--max_steps", "3"])


@pytest.mark.parametrize("kind", GROUPS)
@given(place=st.integers(0, 10**6), value=ODD | VALUES)
@fuzzed(40)
def test_a_field_of_any_value_is_taken_or_refused(tmp_path, kind, place, value):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({NAMES[kind][place % len(NAMES[kind])]: value}, allow_unicode=False))
    read_or_refused(lambda: take(path, kind) and None, path)
    path.write_text(f"{NAMES[kind][place % len(NAMES[kind])]}: {dumped(value)}\n")
    read_or_refused(lambda: take(path, kind) and None, path)


@given(place=st.integers(0, 10**6), value=SCALARS)
@fuzzed(80)
def test_values_that_only_yaml_knows_are_taken_or_refused(tmp_path, place, value):
    path = tmp_path / "run.yaml"
    path.write_text(f"{NAMES['finetuning'][place % len(NAMES['finetuning'])]}: {value}\n")
    read_or_refused(lambda: take(path, "finetuning") and None, path)


@given(edits=EDITS, text=st.text("{}[]:,-?&*!|>'\"#%@ \n\ta1~", max_size=30))
@fuzzed(120)
def test_edited_files_of_fields_are_taken_or_refused(tmp_path, edits, text):
    path = tmp_path / "run.yaml"
    for content in (edited(WHOLE, edits), text.encode() or b" "):
        path.write_bytes(content)
        read_or_refused(lambda: load_yaml(path), path)
        read_or_refused(lambda: take(path, "finetuning") and None, path)
