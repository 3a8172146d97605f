"""The model card of a run: a README.md that people read, with a head from which the Hub shows the scores.

Here is its form. What it says is put together in `pretraining/report.py` and `finetuning/report.py`, with sections of
`finetuning/model_card.py` and of each task's `report.py`, and the `summary` of each task and objective.
"""

import contextlib
import importlib.metadata
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from weft.recipes.common.files import write_text
from weft.recipes.common.markdown import in_cell, table
from weft.recipes.training.metric_format import FORMATS, text_of, words_of

PACKAGES = ("weft-lm", "transformers", "torch")
LICENSE = ("license", "license_name", "license_link")  # fields of a head that say under which terms a model is given
UNPUBLISHED = "OWNER/NAME"  # in Python, of a model that has no name on the Hub
UNPUBLISHED_NOTE = f"\n\nPut this folder in the place of `{UNPUBLISHED}`, or the model's name on the Hub."
LONGEST_NAME = 80  # of a data set, in characters


@dataclass(frozen=True)
class Card:
    """Everything that a model card says.

    Attributes:
        usage: Python that uses the model, shown first.
        facts: of data and training, a table above the curve.
        curve: what curve.png shows, in words.
        sections: Markdown by heading.
        settings: fields of the run, a table at the end; None, "" and empty lists are left out.
        pipeline_tag: the Hub's name of the task.
        scores: metrics of each split for the head; what is no finite number is left out.
        dataset: what the data are called, `dataset_id` their id on the Hub and `dataset_config` their configuration.
        base_model: the model that the training started from. Of this and `dataset_id` folders are not named.
        language: of the texts, such as "en".
        license: of the model, as its user says; None: that which the card of the base model names.
        library: the Hub's name of what loads the model.
    """

    title: str
    summary: str
    usage: str
    facts: Mapping[str, Any]
    curve: str
    sections: Mapping[str, str]
    settings: Mapping[str, Any]
    pipeline_tag: str
    scores: Mapping[str, Mapping[str, Any]]
    dataset: str
    dataset_id: str | None = None
    dataset_config: str | None = None
    base_model: str | None = None
    language: str | list[str] | None = None
    license: str | None = None
    library: str = "transformers"
    usage_heading: str = "How to use it"

    def write(self, path: Path) -> None:
        """Write the README.md of the published folder."""
        sections = {
            self.usage_heading: f"```python\n{self.usage}\n```"
            + (UNPUBLISHED_NOTE if UNPUBLISHED in self.usage else ""),
            "Data and training": f"{pairs_table(self.facts)}\n\n![{self.curve}](curve.png)",
            **self.sections,
            "Settings": pairs_table(
                {name: value for name, value in self.settings.items() if value not in (None, [], "")}
            ),
        }
        body = "\n\n".join(f"## {heading}\n\n{text}" for heading, text in sections.items())
        ModelCard(f"---\n{self.head().to_yaml()}\n---\n\n# {self.title}\n\n{self.summary}\n\n{body}\n").save(path)

    def head(self) -> ModelCardData:
        """Make the head, with the scores as a model-index (huggingface.co/docs/hub/model-cards)."""
        dataset_id, results, base = hub_id(self.dataset_id), self._results(), head_of(self.base_model)
        return ModelCardData(
            base_model=hub_id(self.base_model) or base.get("base_model"),
            **({"license": self.license} if self.license else {name: base[name] for name in LICENSE if name in base}),
            datasets=[dataset_id] if dataset_id else None,
            language=self.language,
            library_name=self.library,
            pipeline_tag=self.pipeline_tag,
            tags=["weft"],
            model_name=self.title if results else None,
            eval_results=results or None,
        )

    def _results(self) -> list[EvalResult]:
        name = self.dataset if len(self.dataset) <= LONGEST_NAME else f"{self.dataset[: LONGEST_NAME - 3]}..."
        # data that are not on the Hub get what its check of a model-index takes for an id
        own_id = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-") or "local"
        return [
            EvalResult(
                task_type=self.pipeline_tag,
                dataset_type=hub_id(self.dataset_id) or own_id,
                dataset_name=name,
                dataset_config=self.dataset_config,
                dataset_split=split,
                metric_type=metric,
                metric_name=words_of(metric),
                metric_value=value if isinstance(value, int) else float(value),
            )
            for split, metrics in self.scores.items()
            for metric, value in metrics.items()
            if isinstance(value, int | float) and math.isfinite(value)
        ]


def head_of(model: str | None) -> dict[str, Any]:
    """What the head of a model's card says, as far as this machine has the card; nothing is fetched.

    Args:
        model: a folder, or an id of the Hub whose files were fetched before.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, yaml.YAMLError):
        found = Path(model) / "README.md" if Path(model).is_dir() else try_to_load_from_cache(model, "README.md")
        if isinstance(found, str | Path) and Path(found).is_file():
            return ModelCard.load(found, ignore_metadata_errors=True).data.to_dict()
    return {}


def published_name(push_to_hub: str | None) -> str:
    """What a card calls its model in Python: its name on the Hub where that is known, and else what stands for it."""
    return push_to_hub if push_to_hub is not None and "/" in push_to_hub else UNPUBLISHED


def name_in_card(path: Path, repository: str) -> None:
    """Put a model's name on the Hub into a card that was written before it had one."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if UNPUBLISHED in text:
        write_text(path, text.replace(UNPUBLISHED_NOTE, "").replace(UNPUBLISHED, repository))


def hub_id(name: str | None) -> str | None:
    """The name where it is one of the Hub; None for a folder, and for what cannot be one."""
    try:
        if name is None or Path(name).exists():
            return None
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name


def versions() -> str:
    """The packages that a run was made with."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)


def pairs_table(rows: Mapping[str, Any]) -> str:
    """Names and values as a Markdown table."""
    return table(("", ""), rows.items())


def metrics_table(metrics: Mapping[str, Any], formats: Mapping[str, str] = FORMATS) -> str:
    """Metrics as a Markdown table, with their names in words."""
    return pairs_table({words_of(name): text_of(name, value, formats) for name, value in metrics.items()})


def notes_section(notes: Sequence[str]) -> str:
    """What should be known of the scores above it, as a Markdown list; nothing where there is nothing to say."""
    lines = "".join(f"\n- {in_cell(note)}." for note in notes)
    return f"\n\nBefore you rely on these scores:\n{lines}" if notes else ""
