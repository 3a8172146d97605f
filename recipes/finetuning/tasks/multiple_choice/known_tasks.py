"""Known multiple-choice tasks: SWAG, HellaSwag, PIQA, WinoGrande and ARC."""

from weft.recipes.finetuning.known_tasks import WITH_TEST, KnownTask


def _winogrande(size: str) -> KnownTask:
    return KnownTask(
        files={"train": (f"train_{size}.jsonl",), "validation": ("dev.jsonl",)},
        hub="allenai/winogrande",
        hub_config=f"winogrande_{size}",
    )


def _arc(name: str) -> KnownTask:
    """The official archive has a folder for each of the two sets."""
    parts = {"train": "Train", "validation": "Dev", "test": "Test"}
    files = {split: (f"{name}-{part}.jsonl", f"{name}/{name}-{part}.jsonl") for split, part in parts.items()}
    return KnownTask(files=files, hub="allenai/ai2_arc", hub_config=name, hub_splits=WITH_TEST)


KNOWN_TASKS = {
    "swag": KnownTask(
        files={"train": ("train.csv",), "validation": ("val.csv", "dev.csv", "validation.csv")},
        hub="allenai/swag",
        hub_config="regular",
    ),
    "hellaswag": KnownTask(
        files={
            "train": ("hellaswag_train.jsonl", "train.jsonl"),
            "validation": ("hellaswag_val.jsonl", "val.jsonl", "dev.jsonl"),
        },
        hub="Rowan/hellaswag",
    ),
    "piqa": KnownTask(
        files={"train": ("train.jsonl",), "validation": ("valid.jsonl", "dev.jsonl")},
        hub="ybisk/piqa",
    ),
    "winogrande": _winogrande("xl"),
    **{f"winogrande_{size}": _winogrande(size) for size in ("xs", "s", "m", "l")},
    "arc_easy": _arc("ARC-Easy"),
    "arc_challenge": _arc("ARC-Challenge"),
}
