"""Class numbers to names, by the schema of `datasets`, which Parquet files of the Hub carry too."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.wording import counted

METADATA = b"huggingface"  # where a Parquet file keeps the features, as {"info": {"features": {...}}}


def features_of(schema: pyarrow.Schema) -> dict[str, Any]:
    """The features of the columns of a Parquet file as `datasets.Features.to_dict` writes them; none where it was
    written by another library."""
    try:
        features = json.loads((schema.metadata or {})[METADATA])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}


def with_class_names(row: Mapping[str, Any], features: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A row whose class numbers, in lists and objects too, are names; -1, which stands for a secret label, is None.

    Args:
        features: see `features_of`.
        where: the row's place, for messages.

    Raises:
        RecipeError: a number has no name.
    """
    return {column: _named(value, features.get(column), f"{where}, column {column!r}") for column, value in row.items()}


def classes_only(features: Mapping[str, Any]) -> dict[str, Any]:
    """The features of the columns that hold class numbers."""
    return {column: feature for column, feature in features.items() if '"ClassLabel"' in json.dumps(feature)}


def _named(value: Any, feature: Any, where: str) -> Any:
    if isinstance(feature, list) and len(feature) == 1:  # how older versions write a list
        feature = {"_type": "List", "feature": feature[0]}
    if value is None or not isinstance(feature, dict):
        return value
    kind = feature.get("_type")
    if kind == "ClassLabel":
        return _name(value, feature.get("names"), where)
    inner = feature.get("feature") if kind in ("List", "LargeList", "Sequence") else feature
    if isinstance(value, dict) and isinstance(inner, dict):
        # a Sequence of objects is kept as an object of lists
        as_lists = kind == "Sequence"
        return {
            key: _named(each, [inner[key]] if as_lists and key in inner else inner.get(key), where)
            for key, each in value.items()
        }
    return [_named(each, inner, where) for each in value] if isinstance(value, list) else value


def _name(value: Any, names: Any, where: str) -> Any:
    if not isinstance(value, int) or isinstance(value, bool) or not isinstance(names, list):
        return value
    if value == -1:
        return None
    if not 0 <= value < len(names):
        raise RecipeError(
            f"{where}: the class number {value}, but the file's schema names "
            f"{counted(len(names), 'class', 'classes')} (the first is 0): mend the row or the schema."
        )
    return names[value]
