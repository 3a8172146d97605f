"""The fields of the model that a run trains: a preset, a config or an existing model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.recipes.common.class_source import config_fields
from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.common.options import Options, option

# Width, depth and heads; everything else is WeftConfig's default. From `mini` on widths are multiples of 256 and heads
# 64 wide; key-value heads are shared by two to five query heads.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4},
    "mini": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2},
    "small": {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4},
    "medium": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 8},
    "large": {"hidden_size": 1280, "num_hidden_layers": 28, "num_attention_heads": 20, "num_key_value_heads": 4},
    "xl": {"hidden_size": 2048, "num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 8},
}
# Parameters with a vocabulary of 32,768, as `count_parameters` finds them.
PRESET_SIZES = {"tiny": "5.05M", "mini": "12.8M", "small": "40.4M", "base": "101M"}
PRESET_SIZES |= {"medium": "312M", "large": "524M", "xl": "1.04B"}

# What a new model is given beside its shape, unless it is told not to: a lower loss for the same tokens (measured:
# RESULTS.md, section 26), which no stock class computes.
DEFAULT_EXTRAS = ("attention_gate", "value_residual")

# What may be changed on a model that exists: nothing that its weights depend on.
CHANGEABLE_FIELDS = ("attention_dropout", "hidden_dropout", "max_position_embeddings", "rope_parameters")


@dataclass
class ModelArguments(Options):
    """Which model to train."""

    preset: str = option(
        "tiny",
        "shape of a new model, and its parameters with a vocabulary of 32,768: "
        + ", ".join(
            f"{n} ({p['num_hidden_layers']} x {p['hidden_size']}, {PRESET_SIZES[n]})" for n, p in PRESETS.items()
        ),
        choices=PRESETS,
    )
    config_name: str | None = option(
        None, "folder or file with a config.json of a Weft model, instead of a preset", rare=True
    )
    model_name_or_path: str | None = option(
        None, "an existing Weft checkpoint (folder or Hub id) to train on", folder_or_id=True
    )
    attn_implementation: str | None = option(
        None,
        "attention backend: sdpa (the default), eager, flex_attention, flash_attention_2",
        rare=True,
    )

    def check(self, model_fields: dict[str, Any]) -> None:
        """Refuse combinations that contradict each other.

        Raises:
            RecipeError: an unknown preset, a missing config, or fields that an existing model cannot change.
        """
        super().check()
        if self.config_name is not None and self.model_name_or_path is not None:
            raise RecipeError("both config_name and model_name_or_path are given: choose one.")
        if self.config_name is not None:
            read_config(self.config_name)
        fixed = [name for name in model_fields if name not in CHANGEABLE_FIELDS]
        if self.model_name_or_path is not None and fixed:
            raise RecipeError(
                f"{', '.join(fixed)} cannot be changed on {self.model_name_or_path}, whose weights depend on it: leave "
                f"it out, or train a new model (changeable: {', '.join(CHANGEABLE_FIELDS)})."
            )

    def check_length(self, model_fields: dict[str, Any], sequence_length: int) -> None:
        """Refuse a sequence_length that a config or a folder's model does not take, before any text is prepared."""
        name = self.config_name or self.model_name_or_path
        if name is None or not (self.config_name or (Path(name) / "config.json").is_file()):
            return
        try:
            content = read_config(name)
        except RecipeError:  # of another family, which is refused when it is loaded
            return
        refuse_longer(content, model_fields, sequence_length, self.model_name_or_path)


def refuse_longer(
    content: dict[str, Any],
    model_fields: dict[str, Any],
    length: int,
    existing: str | None = None,
    length_field: str = "sequence_length",
) -> None:
    """Raise RecipeError where inputs are longer than a model takes, or learned positions would be changed.

    Args:
        content: fields of its config, and `model_fields` those that were given instead.
        existing: the folder or id of a model whose weights are there.
        length_field: what the length is called.
    """
    limit = content.get("max_position_embeddings")
    wanted = model_fields.get("max_position_embeddings", limit)
    if existing is not None and content.get("position_embedding_type") == "learned":
        learned = f"model {existing!r} has learned {limit} positions"
        if wanted != limit:
            raise RecipeError(f"{learned}: max_position_embeddings cannot be changed.")
        if limit is not None and length > limit:
            raise RecipeError(
                f"{length_field} is {length}, but {learned} (max_position_embeddings): give {limit} at most, or train "
                "a new model."
            )
    if wanted is not None and length > wanted:
        raise RecipeError(
            f"{length_field}={length} is longer than the model's max_position_embeddings={wanted}: shorten it, or give "
            f"--max_position_embeddings {length}."
        )


def repeat_layer_types(pattern: Sequence[str], layers: int) -> list[str]:
    """The type of each of so many layers, by a pattern that is repeated: `linear_attention*3,full_attention` is three
    layers of one type and one of the other, again and again. Names may also stand apart, as they do in a config.

    Raises:
        RecipeError: a number of times that is none.
    """
    types: list[str] = []
    for word in ",".join(pattern).split(","):
        name, star, times = word.partition("*")
        if star and not (times.isdecimal() and int(times) > 0):
            raise RecipeError(f"layer_types has {word!r}: give a name and how often, as linear_attention*3.")
        types += [name.strip()] * (int(times) if star else 1)
    return types if len(types) >= layers else (types * layers)[:layers]


def read_config(path: str) -> dict[str, Any]:
    """The fields of a Weft model's config.json, or of the one in a folder; raises RecipeError where it is none."""
    file = Path(path) / "config.json" if Path(path).is_dir() else Path(path)
    what = f"config_name {path!r} is not a config.json or a folder with one"
    with refusing(what, OSError, UnicodeDecodeError, json.JSONDecodeError):
        content = json.loads(file.read_text(encoding="utf-8"))
    content = content if isinstance(content, dict) else {}
    known = {name: value for name, value in content.items() if name in config_fields()}
    if content.get("model_type", "weft") != "weft" or not known:
        raise RecipeError(f"config_name {path!r} is not the config of a Weft model.")
    return known
