"""Fine-tuning as transformers' own Trainer does it, to set beside the recipes at equal settings.

    python results/finetuning_beside_trainer.py TASK DATA MODEL SEED [EXAMPLES]

TASK is sst2, rte, mrpc, conll2000 or squad, DATA the folder of its files, MODEL one that the stock Auto class loads,
EXAMPLES the number of training examples. Batches of 32 (squad: 16) padded to their longest text, AdamW with a linear
rise and fall, dropout as the model has it, one evaluation in the end. Prints a line of JSON: score and processor time,
of the training alone and of the whole process.
"""

import csv
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import torch
from datasets import Dataset
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

METRICS = Path(__file__).parents[1] / "recipes" / "metrics"
EPOCHS = {"sst2": 1, "rte": 3, "mrpc": 3, "conll2000": 2, "squad": 2}
RATE, LONGEST, STRIDE = {"conll2000": 2e-4}, 256, 64
FILES = {
    "sst2": ("train.tsv", "dev.tsv"),
    "rte": ("train.tsv", "dev.tsv"),
    "mrpc": ("msr-para-train.tsv", "msr-para-val.tsv"),
    "conll2000": ("train.txt", "test.txt"),
    "squad": ("train_subset.json", "heldout_subset.json"),
}
TEXTS = {"sst2": ("sentence",), "rte": ("sentence1", "sentence2"), "mrpc": ("#1 String", "#2 String")}
LABELS = {"sst2": ("0", "1"), "rte": ("entailment", "not_entailment"), "mrpc": ("0", "1")}


def texts(task: str, file: Path, tokenizer: Any) -> Dataset:
    """Texts, or pairs of them, with the number of their label."""
    with file.open(encoding="utf-8-sig", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))
    encoded = tokenizer(*([row[name] for row in rows] for name in TEXTS[task]), truncation=True, max_length=512)
    numbers = [LABELS[task].index(row["Quality" if task == "mrpc" else "label"]) for row in rows]
    return Dataset.from_dict({**encoded, "labels": numbers})


def words(file: Path, tokenizer: Any, names: list[str]) -> Dataset:
    """Sentences of words, whose first tokens have the number of the word's tag."""
    blocks = [[line.split() for line in block.splitlines()] for block in file.read_text().strip().split("\n\n")]
    encoded = tokenizer([[line[0] for line in block] for block in blocks], is_split_into_words=True, truncation=True)
    labels = []
    for number, block in enumerate(blocks):
        places = encoded.word_ids(number)
        is_first = [place is not None and place != before for place, before in zip(places, [None, *places])]
        for line in block:
            if line[-1] not in names:
                names.append(line[-1])
        labels.append([names.index(block[at][-1]) if first else -100 for at, first in zip(places, is_first)])
    return Dataset.from_dict({**encoded, "labels": labels})


def questions(file: Path, tokenizer: Any, number: int | None) -> tuple[Dataset, list[dict[str, Any]]]:
    """Windows of paragraphs behind their questions, and the questions."""
    rows = [
        {
            "id": answer["id"],
            "question": answer["question"],
            "context": paragraph["context"],
            "answers": answer["answers"],
        }
        for document in json.loads(file.read_text())["data"]
        for paragraph in document["paragraphs"]
        for answer in paragraph["qas"]
    ][:number]
    encoded = tokenizer(
        [row["question"] for row in rows],
        [row["context"] for row in rows],
        truncation="only_second",
        max_length=LONGEST,
        stride=STRIDE,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    places: dict[str, list[Any]] = {"start_positions": [], "end_positions": [], "row": [], "offsets": []}
    for window, row in enumerate(encoded.pop("overflow_to_sample_mapping")):
        offsets = [
            place if part == 1 else (-1, -1)
            for place, part in zip(encoded["offset_mapping"][window], encoded.sequence_ids(window))
        ]
        answer = rows[row]["answers"][0]
        begin, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
        first = [at for at, (left, right) in enumerate(offsets) if left <= begin < right]
        last = [at for at, (left, right) in enumerate(offsets) if left < end <= right]
        is_whole = bool(first and last)
        places["start_positions"].append(first[0] if is_whole else 0)
        places["end_positions"].append(last[0] if is_whole else 0)
        places["row"].append(row)
        places["offsets"].append(offsets)
    encoded.pop("offset_mapping")
    return Dataset.from_dict({**encoded, **places}), rows


def answers(starts: np.ndarray, ends: np.ndarray, windows: Dataset, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Exact match and F1 of the best span of 30 tokens at most over all windows of a question."""
    best: dict[int, tuple[float, str]] = {}
    for start, end, row, offsets in zip(starts, ends, windows["row"], windows["offsets"]):
        inside = [at for at, (left, _) in enumerate(offsets) if left >= 0]
        for begin in sorted(inside, key=lambda at: -start[at])[:20]:
            for stop in range(begin, min(begin + 30, inside[-1] + 1)):
                score = float(start[begin] + end[stop])
                if score > best.get(row, (-np.inf, ""))[0]:
                    best[row] = score, rows[row]["context"][offsets[begin][0] : offsets[stop][1]]
    found = [{"id": each["id"], "prediction_text": best[number][1]} for number, each in enumerate(rows)]
    given = [
        {
            "id": each["id"],
            "answers": {name: [one[name] for one in each["answers"]] for name in ("text", "answer_start")},
        }
        for each in rows
    ]
    return evaluate.load(str(METRICS / "squad")).compute(predictions=found, references=given)


def main() -> None:
    task, folder, name, seed = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    number = int(sys.argv[5]) if len(sys.argv) > 5 else None
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(name)
    files = [folder / file for file in FILES[task]]
    if task == "squad":
        (train, _), (held_out, rows) = questions(files[0], tokenizer, number), questions(files[1], tokenizer, None)
        model = AutoModelForQuestionAnswering.from_pretrained(name)
        collate = DataCollatorWithPadding(tokenizer)
    elif task == "conll2000":
        tags: list[str] = []
        train, held_out = (words(file, tokenizer, tags) for file in files)
        model = AutoModelForTokenClassification.from_pretrained(name, num_labels=len(tags))
        collate = DataCollatorForTokenClassification(tokenizer)
    else:
        train, held_out = (texts(task, file, tokenizer) for file in files)
        model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=2)
        collate = DataCollatorWithPadding(tokenizer)
    train = train.select(range(min(number, len(train)))) if number and task != "squad" else train
    with tempfile.TemporaryDirectory() as temporary:
        arguments = TrainingArguments(
            temporary,
            num_train_epochs=EPOCHS[task],
            per_device_train_batch_size=16 if task == "squad" else 32,
            per_device_eval_batch_size=64,
            learning_rate=RATE.get(task, 1e-4),
            warmup_steps=0.1,
            weight_decay=0.01,
            seed=seed,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            logging_strategy="no",
        )
        trainer = Trainer(model, arguments, train_dataset=train, data_collator=collate)
        began = time.process_time()
        trainer.train()
        took = time.process_time() - began
        logits = trainer.predict(held_out).predictions
    if task == "squad":
        score = answers(*logits[:2], held_out, rows)
    elif task == "conll2000":
        kept = [np.array(each) != -100 for each in held_out["labels"]]
        said = [[tags[at] for at in row[: len(keep)].argmax(-1)[keep]] for row, keep in zip(logits, kept)]
        true = [[tags[at] for at in np.array(each)[keep]] for each, keep in zip(held_out["labels"], kept)]
        score = evaluate.load(str(METRICS / "seqeval")).compute(predictions=said, references=true)
    else:
        guess, true = logits.argmax(-1), np.array(held_out["labels"])
        hits = ((guess == 1) & (true == 1)).sum()
        score = {"accuracy": float((guess == true).mean()), "f1": 2 * hits / ((guess == 1).sum() + (true == 1).sum())}
    kept_scores = {name: float(value) for name, value in score.items() if isinstance(value, float | np.floating)}
    print(json.dumps({"task": task, "seed": seed, **kept_scores, "training": took, "process": time.process_time()}))


if __name__ == "__main__":
    main()
