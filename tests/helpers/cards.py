"""Model cards as the Hub reads them."""

import json
import re
from pathlib import Path

import yaml
from huggingface_hub import ModelCard, ModelCardData

HUB_DATASET = r"(?:[A-Za-z0-9_-]+/)?[A-Za-z0-9_.-]+"  # the Hub refuses a card whose model-index has another


def head_of(folder: Path) -> ModelCardData:
    """The head of a run's card, whose scores are those of its metrics.json."""
    path = folder / "README.md"
    head = ModelCard.load(path).data
    assert head.to_dict() == yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1])
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert head.eval_results
    for result in head.eval_results:
        prefix = "eval" if result.dataset_split == "validation" else result.dataset_split
        assert result.metric_value == metrics[f"{prefix}_{result.metric_type}"]
        assert result.task_type == head.pipeline_tag and result.dataset_name
        assert re.fullmatch(HUB_DATASET, result.dataset_type)
    return head


def scores_of(head: ModelCardData) -> set[tuple[str, str]]:
    """The split and the name of each score of a card."""
    return {(result.dataset_split, result.metric_type) for result in head.eval_results}


def usage_of(folder: Path) -> str:
    """The Python of a run's card, with its folder in the place of a name on the Hub."""
    code = (folder / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    assert "OWNER/NAME" in code and str(folder) not in code
    return code.replace("OWNER/NAME", str(folder))
