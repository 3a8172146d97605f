"""A field says what its value may be; whatever else it is given is refused in one sentence."""

import dataclasses
import importlib
import pkgutil

import pytest

import weft.recipes
from weft.recipes.common import options
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import RULES, Options, option


@dataclasses.dataclass
class Fields(Options):
    kind: str = option("bpe", "", choices=("bpe", "wordpiece"))
    form: str | None = option(None, "", choices=("csv", "json"))
    tool: str | None = option(None, "", choices=("a", "b"), otherwise="write one")
    count: int = option(1, "", least=1)
    limit: int | None = option(None, "", least=1)
    share: float = option(0.5, "", above=0, most=1)
    smoothing: float = option(0.0, "", least=0, below=1)
    free: float = option(0.0, "")
    flag: bool = option(True, "")
    seeds: list[int] = option([], "", least=0, most=9)
    names: list[str] = option(["x"], "", choices=("x", "y"))


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"kind": "words"}, "kind is 'words': choose one of bpe, wordpiece."),
        ({"kind": "wordpeace"}, "kind is 'wordpeace' (did you mean wordpiece?): choose one of bpe, wordpiece."),
        ({"form": "xml"}, "form is 'xml': choose one of csv, json, or leave it out."),
        ({"tool": "c"}, "tool is 'c': choose one of a, b, or write one."),
        ({"count": 0}, "count is 0: give at least 1."),
        ({"limit": -1}, "limit is -1: give at least 1, or leave it out."),
        ({"share": 0.0}, "share is 0.0: give a number above 0 and at most 1."),
        ({"share": 1.5}, "share is 1.5: give a number above 0 and at most 1."),
        ({"smoothing": 1.0}, "smoothing is 1.0: give at least 0 and below 1."),
        ({"smoothing": float("nan")}, "smoothing is nan: give a finite number."),
        ({"free": float("inf")}, "free is inf: give a finite number."),
        ({"seeds": [3, 10, 11]}, "seeds has 10: give at least 0 and at most 9."),
        ({"names": ["y", "z"]}, "names has 'z': choose one of x, y."),
    ],
)
def test_a_value_that_is_not_allowed_is_refused(fields, sentence):
    with pytest.raises(RecipeError) as raised:
        Fields(**fields).check()
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    "fields", [{}, {"form": "csv", "limit": 1, "share": 1.0}, {"smoothing": 0.999, "free": -5.0, "seeds": [0, 9]}]
)
def test_allowed_values_pass(fields):
    Fields(**fields).check()


def test_defaults_are_among_what_their_fields_declare_and_declared_fields_are_checked(monkeypatch):
    monkeypatch.setattr(options, "is_missing_folder", lambda name: False)  # a run that was not made here
    found = set()
    for entry in pkgutil.walk_packages(weft.recipes.__path__, "weft.recipes."):
        if ".metrics." not in entry.name and ".configs." not in entry.name:
            found |= {each for each in vars(importlib.import_module(entry.name)).values() if isinstance(each, type)}
    checked = 0
    for kind in filter(dataclasses.is_dataclass, found):
        rules = [rule for field in dataclasses.fields(kind) if (rule := field.metadata.get(RULES))]
        if any(choices or limits for choices, limits, *_ in rules):
            assert issubclass(kind, Options), f"{kind.__name__} declares what nothing checks"
            Options.check(kind())
            checked += 1
    assert checked > 15


@pytest.mark.parametrize(
    "name, missing",
    [("runs/mine", True), ("./mine", True), ("/a/b/c", True), ("a/b/c", True), ("gpt2", False), ("me/model", False)],
)
def test_a_folder_that_is_not_there_is_not_sought_on_the_hub(name, missing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert options.is_missing_folder(name) is missing
    if not name.startswith("/"):
        (tmp_path / name).mkdir(parents=True)
        assert not options.is_missing_folder(name)
