"""The pages of --help, with the usual fields, and of --help_all, with every field."""

import argparse
import dataclasses
import enum
import inspect
import shutil
import textwrap
import typing
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from weft.recipes.common.options import rules_of

# Of the fields that are declared elsewhere, those that many need; all others are rare.
USUAL_OF_MODEL = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("max_position_embeddings", "position_embedding_type", "sliding_window", "hidden_dropout"),
    *("attention_gate", "value_residual"),
)
USUAL_OF_TRAINER = {
    "max_grad_norm": "longest gradient, to which longer ones are cut; 0: none is cut [1.0]",
    "bf16": "compute in bfloat16, for GPUs that can",
    "activation_checkpointing": "less memory for slower steps: layers are computed again when gradients are",
    "torch_compile": "compile the model: slower to start, faster steps",
    "use_cpu": "leave a GPU alone",
    "dataloader_num_workers": "processes that read examples; 0: the training's own [0]",
    "eval_steps": "steps between evaluations; without it evenly spread",
    "save_steps": "steps between checkpoints; without it evenly spread",
    "save_total_limit": "checkpoints to keep; without it the last ones",
    "logging_steps": "steps between lines of the log; without it they follow from the length",
    "report_to": "who else is told the curves: tensorboard, wandb, trackio, mlflow ... [none]",
    "run_name": "what the run is called there",
}
LONGEST_CHOICES = 30  # characters; more are left to the text


@dataclasses.dataclass(frozen=True)
class Entry:
    """A field as a page shows it."""

    name: str
    text: str
    value: str
    rare: bool


def own_sections(groups: Iterable[type]) -> dict[str, list[Entry]]:
    """The recipe's own fields, under the first sentence of the class that declares them, the last where several do."""
    groups, sections = list(groups), {}
    last = {field.name: group for group in groups for field in dataclasses.fields(group)}
    for group in groups:
        for field in (field for field in dataclasses.fields(group) if last[field.name] is group):
            sections.setdefault(_heading(group, field.name), []).append(_own_entry(field))
    return sections


def listed_section(actions: Iterable[argparse.Action], usual: Collection[str]) -> list[Entry]:
    """Fields that a parser has got from elsewhere; `usual` names those that many need, and may have a text for each."""
    texts = usual if isinstance(usual, dict) else {}
    return [
        Entry(
            each.dest,
            texts.get(each.dest) or (each.help or "").rstrip("."),
            _value_of_action(each),
            each.dest not in usual,
        )
        for each in actions
        if each.help != argparse.SUPPRESS and not each.option_strings[0].startswith("--no_")
    ]


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Breaks lines at blanks only, so that a name with a hyphen can be found."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def page(usage: str, description: str | None, sections: dict[str, list[Entry]], everything: bool) -> str:
    """What is printed: what the recipe does, then a section for each group of fields."""
    width = min(shutil.get_terminal_size((110, 24)).columns, 120)
    parser = argparse.ArgumentParser(
        usage=usage,
        description=description,
        add_help=False,
        formatter_class=lambda prog: _Formatter(prog, max_help_position=34, width=width),
    )
    for heading, entries in sections.items():
        shown = [entry for entry in entries if everything or not entry.rare]
        section = parser.add_argument_group(heading) if shown else None
        for entry in shown:
            section.add_argument(f"--{entry.name}", metavar=entry.value, help=entry.text)
    hidden = sum(entry.rare for entries in sections.values() for entry in entries)
    if hidden:
        more = f"--help_all shows {hidden} more fields."
        parser.epilog = "These are all fields; --help shows the usual ones." if everything else more
    return parser.format_help()


def _heading(group: type, name: str) -> str:
    """The first sentence about the class that declares a field, or about the nearest one that has any."""
    classes = [each for each in group.__mro__ if dataclasses.is_dataclass(each)]
    owner = max(number for number, each in enumerate(classes) if name in inspect.get_annotations(each))
    texts = [each.__doc__ for each in classes[owner:] + classes[:owner]]
    told = next((text for text in texts if text and not text.startswith(f"{group.__name__}(")), group.__name__)
    return " ".join(told.split("\n\n")[0].split()).rstrip(".").split(". ")[0]


def _own_entry(field: dataclasses.Field) -> Entry:
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    text = str(field.metadata.get("help", "")).replace("%", "%%")
    if default not in (None, "", [], False) and "default" not in text:
        words = " ".join(map(str, default)) if isinstance(default, list) else _plain(default)
        text += f" [{words}]".replace("%", "%%")
    return Entry(field.name, text, _value(field.type, rules_of(field).choices), rules_of(field).rare)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def _value(kind: Any, choices: Sequence[str]) -> str:
    """What stands for a field's value."""
    words, kinds = "|".join(choices), set(_kinds(kind))
    names = {bool: "true|false", int: "NUMBER", float: "NUMBER"}
    one = next((name for each, name in names.items() if each in kinds), "TEXT")
    one = words if 0 < len(words) <= LONGEST_CHOICES else one
    return f"{one} ..." if list in kinds else one


def _kinds(kind: Any) -> Iterator[Any]:
    origin = typing.get_origin(kind)
    if origin is None:
        yield kind
    else:
        yield origin
        for each in typing.get_args(kind):
            yield from _kinds(each)


def _value_of_action(action: argparse.Action) -> str:
    names = [each.value if isinstance(each, enum.Enum) else str(each) for each in action.choices or ()]
    kind = (
        action.type if action.type in (int, float) else bool if "bool" in getattr(action.type, "__name__", "") else str
    )
    return _value(list[kind] if action.nargs in ("+", "*") else kind, names)
