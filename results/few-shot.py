"""Few-shot classification beside ordinary fine-tuning, from the same sentence encoder and the same examples.

    python results/few-shot.py runs/minilm runs/few-shot --data sst2=data/sst2 pydoc --sizes 8 16 64 --seeds 1 2 3

A seed draws the examples of each label (all of them where there are fewer), and the same 500 held-out texts score what
was trained on them: once, in the end, so that they choose nothing. One line of JSON for each training, then means and
standard deviations.
"""

import argparse
import contextlib
import json
import random
import statistics
import time
from collections import defaultdict
from pathlib import Path

from weft.recipes import finetune_classification
from weft.recipes.data.tables import read_records
from weft.recipes.finetuning.tasks.text_classification.builtin_task import docstring_records
from weft.recipes.finetuning.tasks.text_classification.few_shot import BATCH, MOST_PAIRS, PASSES

HELD_OUT = 500
EQUAL = "ordinary, learning rate 5e-5, as many texts read"
WAYS = {
    "few_shot": {"few_shot": "true"},
    "head on the encoder as it is": {"few_shot": "true", "max_steps": 1, "learning_rate": 1e-12},
    "ordinary, defaults": {},
    EQUAL: {"learning_rate": 5e-5},
}


def examples_of(source: str) -> tuple[list[dict], list[dict]]:
    """Rows to learn from, and those to be scored on, of Python's documentation or of a folder in GLUE's layout."""
    name, _, folder = source.partition("=")
    if name == "pydoc":
        splits = docstring_records()
        learn, held_out = ([record.values for record in splits[split]] for split in ("train", "test"))
    else:
        learn, held_out = (
            [
                {"text": record.values["sentence"], "label": record.values["label"]}
                for record in read_records(Path(folder) / f"{split}.tsv")
            ]
            for split in ("train", "dev")
        )
    random.Random(0).shuffle(held_out)
    return learn, held_out[:HELD_OUT]


def write(path: Path, rows: list[dict]) -> Path:
    """Rows as lines of JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def train(folder: Path, **fields: object) -> dict[str, float]:
    """Scores of a training, and the seconds of processor time that it took."""
    if not (folder / "seconds.json").is_file():
        words = [word for name, value in {**fields, "output_dir": folder}.items() for word in (f"--{name}", str(value))]
        began = time.process_time()
        with (folder.with_suffix(".log")).open("w") as log, contextlib.redirect_stdout(log):
            finetune_classification.main(words)
        (folder / "seconds.json").write_text(json.dumps(time.process_time() - began))
    found = json.loads((folder / "metrics.json").read_text())
    seconds = json.loads((folder / "seconds.json").read_text())
    return {"accuracy": found["eval_accuracy"], "ece": found["eval_ece"], "steps": found["steps"], "seconds": seconds}


def main() -> None:
    """Draw, train, score, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--sizes", nargs="+", type=int, default=[8, 16, 64])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    given = parser.parse_args()
    found = defaultdict(list)
    for source in given.data:
        name, (learn, held_out) = source.partition("=")[0], examples_of(source)
        validation = write(given.folder / f"{name}.jsonl", held_out)
        labels = sorted({row["label"] for row in learn})
        for size in given.sizes:
            for seed in given.seeds:
                draw = random.Random(seed)
                of_labels = [[row for row in learn if row["label"] == label] for label in labels]
                rows = [row for own in of_labels for row in draw.sample(own, min(size, len(own)))]
                file = write(given.folder / f"{name}-{size}-{seed}.jsonl", rows)
                for way in given.ways:
                    fields = {"train_file": file, "validation_file": validation, "model_name_or_path": given.model}
                    fields |= {"seeds": seed, "evaluations": 1, "cpu_threads": 1, "use_cpu": "true", **WAYS[way]}
                    if way == EQUAL:  # 32 texts a step, as 16 pairs are
                        fields["max_steps"] = min(PASSES * len(rows), MOST_PAIRS) // BATCH
                    scores = train(given.folder / f"{name}-{size}-{seed}-{list(WAYS).index(way)}", **fields)
                    print(json.dumps({"data": name, "size": size, "seed": seed, "way": way, **scores}), flush=True)
                    found[name, size, way].append(scores)
    for (name, size, way), scores in found.items():
        figures = [
            f"{key} {statistics.fmean(values):.3f} ({statistics.stdev(values) if len(values) > 1 else 0:.3f})"
            for key in ("accuracy", "ece", "seconds")
            if (values := [each[key] for each in scores])
        ]
        print(f"{name} | {size} | {way} | {' | '.join(figures)} | {scores[0]['steps']} steps, {len(scores)} seeds")


if __name__ == "__main__":
    main()
