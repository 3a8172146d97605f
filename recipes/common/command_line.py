"""One command line for all recipes: an optional YAML file, then --field value; unknown names are refused."""

import argparse
import copy
import dataclasses
import difflib
import functools
import json
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from transformers.hf_argparser import HfArgumentParser, string_to_bool

from weft.recipes.common.class_source import config_fields, config_texts, trainer_arguments
from weft.recipes.common.errors import RecipeError, one_line, refusing
from weft.recipes.common.help import USUAL_OF_MODEL, USUAL_OF_TRAINER, listed_section, own_sections, page
from weft.recipes.common.options import RULES, rules_of
from weft.recipes.common.schedule import number_or_stages

Group = TypeVar("Group")

# Fields of WeftConfig that the recipes set themselves: from the tokenizer, or from what is trained.
MANAGED_MODEL_FIELDS = (
    *("vocab_size", "is_causal", "masked_next_token", "type_vocab_size", "use_cache"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"),
    *("is_encoder_decoder", "num_decoder_layers"),
)

# Fields of TrainingArguments that would contradict what the recipes derive, or that nothing here would obey, and what
# to do instead.
_REASONS = {
    "it is derived: give tokens_per_step and per_device_train_batch_size": (
        *("gradient_accumulation_steps", "auto_find_batch_size", "accelerator_config", "dataloader_drop_last"),
    ),
    "the order of the text is a function of seed, epoch and step": (
        *("train_sampling_strategy", "length_column_name", "data_seed"),
    ),
    "a run resumes by itself when the same command is run again": (
        *("resume_from_checkpoint", "ignore_data_skip", "restore_callback_states_from_checkpoint"),
    ),
    "checkpoints hold what resuming needs, every save_steps, and SIGTERM saves one": (
        *("save_only_model", "save_strategy", "enable_jit_checkpoint", "save_on_each_node"),
    ),
    "the recipe scores every held-out token itself, every eval_steps": (
        *("eval_strategy", "prediction_loss_only", "eval_do_concat_batches", "eval_use_gather_object", "label_names"),
        *("eval_accumulation_steps", "include_for_metrics", "batch_eval_metrics", "bf16_full_eval", "fp16_full_eval"),
        *("do_train", "do_eval", "do_predict"),
    ),
    "pretraining keeps the last weights": ("load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
    "the recipes choose what the model is given": ("remove_unused_columns", "use_cache"),
    "a loss that is not finite stops the run": ("logging_nan_inf_filter",),
    "give logging_steps": ("logging_strategy",),
    "give decay_steps and min_lr_ratio": ("lr_scheduler_kwargs",),
    "each loss is divided by the targets of all processes": ("average_tokens_across_devices",),
    "the loss has no label smoothing": ("label_smoothing_factor",),
    "its overflowing steps look like a run that fails: give bf16": ("fp16",),
    "there are no such kernels for Weft": ("use_liger_kernel", "liger_kernel_config"),
    "the launcher says how weights are held: choose a file of recipes/configs/accelerate": (
        *("fsdp", "fsdp_config", "deepspeed", "parallelism_config"),
    ),
    "give push_to_hub NAME, and hub_revisions for the intermediate checkpoints": (
        *("hub_model_id", "hub_strategy", "hub_always_push", "hub_revision"),
    ),
    "log in with `hf auth login`, or set HF_TOKEN": ("hub_token",),
    "the launcher sets it": ("local_rank",),
}
MANAGED_TRAINER_FIELDS = {name: reason for reason, names in _REASONS.items() for name in names}

CONFIG_HELP = "A YAML file of fields may come first; what is given on the command line wins."
MODEL_GROUP = "Shape of a new model (fields of WeftConfig), where it is not the preset's"  # headings in --help
TRAINER_GROUP = "Other fields of transformers.TrainingArguments"


@dataclasses.dataclass
class Parsed:
    """What was given: the recipe's own dataclasses, and the model and Trainer fields that were named."""

    groups: list[Any]
    model: dict[str, Any]
    trainer: dict[str, Any]
    given: frozenset[str] = frozenset()

    def __getitem__(self, kind: type[Group]) -> Group:
        """The group of this class, or of one derived from it."""
        return next(group for group in self.groups if isinstance(group, kind))

    def refuse_together(self, names: Iterable[str], other: str, reason: str) -> None:
        """Raise RecipeError where `other` is given and one of `names` too, which would have no effect then."""
        ignored = [name for name in names if name in self.given]
        if other in self.given and ignored:
            raise RecipeError(f"{', '.join(ignored)} cannot be given together with {other}: {reason}.")

    def refuse_without(self, names: Iterable[str], other: str) -> None:
        """Raise RecipeError where one of `names` is given, which needs `other`, and that is not."""
        ignored = [name for name in names if name in self.given]
        if other not in self.given and ignored:
            raise RecipeError(f"{', '.join(ignored)} has no effect without {other}: give that too, or leave it out.")


def parse_arguments(
    description: str | None,
    groups: Sequence[type],
    with_model: bool = False,
    with_trainer: bool = False,
    argv: Sequence[str] | None = None,
    alternatives: Sequence[str] = (),
    managed: dict[str, str] = MANAGED_TRAINER_FIELDS,
    model_fields: Sequence[str] | None = None,
) -> Parsed:
    """Parse `[CONFIG.yaml] [--field value ...]`; the command line wins over the file.

    Args:
        description: the recipe's docstring, printed by --help.
        groups: dataclasses of the recipe's own fields, with defaults and a "help" in their metadata.
        with_model: also take the fields of WeftConfig.
        with_trainer: also take the fields of TrainingArguments.
        alternatives: fields of which one replaces the others: given on the command line, it beats all in the file.
        managed: fields of TrainingArguments that are refused, and what to do instead.
        model_fields: the fields of WeftConfig to take; None: all that the recipes do not set themselves.

    Raises:
        RecipeError: a missing or wrong file, an unknown name (the nearest known one is suggested), a wrong value.
    """
    trainer_groups = [trainer_arguments(TRAINER_GROUP)] if with_trainer else []
    parser = _Parser(
        [*trainer_groups, *groups],
        conflict_handler="resolve",
        allow_abbrev=False,
        add_help=False,
    )
    own = {field.name for group in groups for field in dataclasses.fields(group)}
    trainer_fields = {field.name for group in trainer_groups for field in dataclasses.fields(group)} - own
    for action in parser._actions:  # only what is given is passed on: transformers' defaults are its own
        if action.dest in trainer_fields:
            action.default = argparse.SUPPRESS
            if action.dest in managed:  # refused whatever the value
                action.type, action.choices, action.nargs = None, None, "*"
    shape = [name for name in model_fields or shape_fields() if name not in own] if with_model else []
    _add_model_fields(parser, shape)
    managed = {name: reason for name, reason in managed.items() if name in trainer_fields}
    pages = functools.partial(_page, parser, description, groups, shape, trainer_fields - set(managed))
    for words in (("-h", "--help"), ("--help_all",)):
        parser.add_argument(*words, dest="help", action=_Help, nargs=0, const=pages, default=argparse.SUPPRESS)
    parser.add_argument("config", nargs="?")

    argv = list(sys.argv[1:] if argv is None else argv)
    given, unknown = parser.parse_known_args(argv)
    _refuse_unknown(parser, unknown)
    from_file, named = None, _names_given(parser, argv)
    if given.config is not None:
        names = {action.dest for action in parser._actions} - {"help", "config"}
        replaced = set(alternatives) if named & set(alternatives) else set()
        words = _read_yaml(Path(given.config), names, replaced)
        with refusing(given.config, RecipeError):
            from_file, named = parser.parse_args(words), named | _names_given(parser, words)
    values = vars(parser.parse_args(argv, from_file))
    _refuse_managed(values, managed)
    return Parsed(
        groups=[group(**{field.name: values[field.name] for field in dataclasses.fields(group)}) for group in groups],
        model={name: values[name] for name in shape if name in values},
        trainer={name: values[name] for name in sorted(trainer_fields) if name in values},
        given=frozenset(named),
    )


class _Parser(HfArgumentParser):
    @staticmethod
    def _parse_dataclass_field(parser: argparse.ArgumentParser, field: dataclasses.Field) -> None:
        field = copy.copy(field)  # which gets another type here
        if rules_of(field).staged:
            field.type = number_or_stages
        field.metadata = {name: value for name, value in field.metadata.items() if name != RULES}
        HfArgumentParser._parse_dataclass_field(parser, field)

    def error(self, message: str) -> typing.NoReturn:
        raise RecipeError(f"{message} (see --help).")


def _names_given(parser: argparse.ArgumentParser, words: Sequence[str]) -> set[str]:
    """The fields that a command line names."""
    options = {option: action.dest for action in parser._actions for option in action.option_strings}
    return {options[word.split("=")[0]] for word in words if word.split("=")[0] in options}


def shape_fields() -> list[str]:
    """The fields of WeftConfig that a user of a recipe may give."""
    return [name for name in config_fields() if name not in MANAGED_MODEL_FIELDS]


def _add_model_fields(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    if not names:
        return
    group = parser.add_argument_group(MODEL_GROUP)
    hints, texts = config_fields(), config_texts()
    for name in names:
        group.add_argument(
            f"--{name}",
            default=argparse.SUPPRESS,
            help=texts.get(name, "").replace("%", "%%"),
            **_argument_type(hints[name]),
        )


def _argument_type(hint: Any) -> dict[str, Any]:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind in (str, int):
        if list[kind] in options:
            return {"nargs": "+", "type": kind}
    parsers: dict[Any, Callable[[str], Any]] = {dict: _json_object, bool: string_to_bool, float: float, int: int}
    return {"type": next((parse for kind, parse in parsers.items() if kind in options), str)}


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is not a JSON object, like {{"rope_type": "default"}}')
    return value


def _page(
    parser: argparse.ArgumentParser,
    description: str | None,
    groups: Sequence[type],
    shape: Sequence[str],
    trainer_fields: set[str],
    everything: bool,
) -> str:
    """The recipe's own fields first, transformers' last."""
    sections = own_sections(groups)
    for heading, names, usual in (
        (MODEL_GROUP, set(shape), USUAL_OF_MODEL),
        (TRAINER_GROUP, trainer_fields, USUAL_OF_TRAINER),
    ):
        sections[heading] = listed_section((each for each in parser._actions if each.dest in names), usual)
    usage = f"{parser.prog} [CONFIG.yaml] [--field value ...]"
    return page(usage, f"{description}\n{CONFIG_HELP}", sections, everything)


class _Help(argparse.Action):
    """Prints the page of --help or --help_all, and ends."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> typing.NoReturn:
        print(self.const(everything="--help_all" in self.option_strings), end="")
        parser.exit()


# What yaml raises for what it cannot read: its own errors, and Python's for days that there are none of and the like.
UNREADABLE = (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OSError)


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is given twice, of which yaml would take the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: list[Any] = []
        for key, _ in node.value:
            if key.value in names and key.tag != "tag:yaml.org,2002:merge":
                place = f"{self.name}, line {key.start_mark.line + 1}"
                raise RecipeError(f"{place}: {key.value!r} is there more than once: give it once.")
            names.append(key.value)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> Any:
    """The content of a YAML file; raises RecipeError."""
    if not path.is_file():
        raise RecipeError(
            f"{path} is missing: the first argument is a YAML file of fields; other fields are --name value."
        )
    with refusing(f"{path} is not YAML that can be read", *UNREADABLE, say=one_line):
        loader = _UniqueKeys(path.read_text(encoding="utf-8"))
        loader.name = str(path)
        return loader.get_single_data()


def _read_yaml(path: Path, names: set[str], left_out: set[str]) -> list[str]:
    """The file's fields as words of a command line, but for those in `left_out`."""
    return words_of(load_yaml(path), str(path), names, left_out)


def words_of(content: Any, where: str, names: Collection[str], left_out: Collection[str] = ()) -> list[str]:
    """Write a mapping of fields, as YAML has them, as words of a command line.

    Args:
        where: what holds the mapping, for messages.
        names: fields that there are.
        left_out: fields that are passed over.

    Raises:
        RecipeError: it is no mapping, or holds an unknown field.
    """
    if not isinstance(content, dict):
        raise RecipeError(f"{where} holds a {type(content).__name__}, where `field: value` lines are needed.")
    words: list[str] = []
    for name, value in content.items():
        if name not in names:
            raise RecipeError(f"{where}: unknown field {name!r}{_near_miss(str(name), names)}.")
        if name in left_out or value is None or value == []:
            continue
        if isinstance(value, list):
            words += [f"--{name}", *(str(item) for item in value)]
        else:
            text = json.dumps(value, default=str) if isinstance(value, dict | bool) else str(value)
            words.append(f"--{name}={text}")  # in one word, so that it may begin with a dash
    return words


def _refuse_unknown(parser: argparse.ArgumentParser, unknown: list[str]) -> None:
    for word in unknown:
        if word.startswith("-"):
            name = word.split("=")[0].lstrip("-").replace("-", "_")
            names = {action.dest for action in parser._actions}
            raise RecipeError(f"unknown field --{name}{_near_miss(name, names)} (see --help).")
    if unknown:
        raise RecipeError(f"{unknown[0]!r} belongs to no field: fields are given as --name value (see --help).")


def _refuse_managed(values: dict[str, Any], managed: dict[str, str]) -> None:
    for name, reason in managed.items():
        if name in values:
            raise RecipeError(f"--{name} cannot be given: {reason}.")


def _near_miss(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def parse_count(text: str | int) -> int:
    """A number of tokens: 2000000, 2_000_000, 2e6, 2M, 1.5B or 500k.

    Raises:
        RecipeError: anything else, or less than 1.
    """
    plain = str(text).strip().replace("_", "").replace(",", "").lower()
    match = re.fullmatch(r"([0-9.]+(?:e[+]?[0-9]+)?)([kmbt]?)", plain)
    try:
        number = round(float(match.group(1)) * {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}[match.group(2)])
    except (AttributeError, ValueError, OverflowError):
        number = 0
    if number < 1:
        raise RecipeError(f"{text!r} is not a number of tokens: give for example 2000000, 2M or 1.5B.")
    return number


def parse_duration(text: str) -> float:
    """Seconds of a duration like 90s, 30m, 2h or 1h30m (raises RecipeError: anything else, or no time at all)."""
    found = re.fullmatch(r"(?:([0-9.]+)h)?(?:([0-9.]+)m)?(?:([0-9.]+)s)?", text.strip().lower())
    try:
        seconds = sum(float(part) * unit for part, unit in zip(found.groups(), (3600, 60, 1)) if part is not None)
    except (AttributeError, ValueError):
        seconds = 0
    if seconds <= 0:
        raise RecipeError(f"{text!r} is not a duration: give for example 90s, 30m, 2h or 1h30m.")
    return seconds
