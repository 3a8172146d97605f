"""Text-to-text pretraining: how full batches are, and what it is worth to fine-tuning.

    python results/text_to_text.py data runs/text_to_text --seeds 1 2 3

`data` holds enwiki/enwiki_2018.txt, multi30k/ and scitldr/. Pretraining reads a part of Wikipedia, the abstracts of
SciTLDR without their summaries, and lines of Multi30k in one language each, none of which is a pair that fine-tuning
learns from. Fine-tuning is then the same from pretrained and from random weights of that shape and tokenizer, each seed
with a pretraining of its own. A run that is finished is kept. Prints the share of places that hold tokens, a line of
JSON for each training, and the means over the seeds.
"""

import argparse
import contextlib
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from weft.recipes import finetune_seq2seq, pretrain_seq2seq
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.data.prepare import prepare
from weft.recipes.pretraining.arguments import RunArguments
from weft.recipes.pretraining.datasets.denoising.rows import collate_pairs
from weft.recipes.pretraining.objectives import objectives, offered_by
from weft.recipes.pretraining.plan import make_plan

WIKIPEDIA, PAIRS, BATCHES = 1_200_000, 4000, 200  # bytes; pairs to fine-tune on; batches that are counted
ROW, STEP, TOKENS = 256, 2048, "0.8M"
RANDOM = "random weights"
COMMON = {"cpu_threads": 1, "use_cpu": "true"}
TASKS = {
    "multi30k": {"max_train_examples": PAIRS, "num_train_epochs": 3},
    "scitldr": {"num_train_epochs": 2, "max_source_length": 128, "max_new_tokens": 32},
}
SCORES = {"multi30k": ("test_bleu", "test_chrf", "eval_loss"), "scitldr": ("test_rougeL", "test_rouge1", "eval_loss")}


def write_texts(data: Path, folder: Path) -> list[str]:
    """The texts to pretrain on, documents between blank lines; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    with (data / "enwiki" / "enwiki_2018.txt").open(encoding="utf-8") as file:
        articles = file.read(WIKIPEDIA).rpartition("\n\n")[0].split("\n\n")
    with (data / "scitldr" / "train.jsonl").open(encoding="utf-8") as file:
        abstracts = [" ".join(json.loads(line)["source"]) for line in file]
    lines = {
        side: (data / "multi30k" / f"train.{side}").read_text(encoding="utf-8").splitlines() for side in ("en", "de")
    }
    middle = (PAIRS + len(lines["en"])) // 2
    texts = {
        "articles": articles,
        "abstracts": abstracts,
        "english": lines["en"][PAIRS:middle],
        "german": lines["de"][middle:],
    }
    for name, documents in texts.items():
        (folder / f"{name}.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return [str(folder / f"{name}.txt") for name in texts]


def count_filled(corpus: Corpus, name: str) -> str:
    """How many of the places of batches of one step hold tokens: with a row for each row of text, and packed."""
    kind = objectives()[name]
    objective = kind(*(arguments() for arguments in kind.arguments))
    tokenizer = objective.prepare_tokenizer(corpus.tokenizer())
    packed = objective.pack(corpus, ROW, 1, tokenizer)
    run = RunArguments(sequence_length=ROW, tokens_per_step=str(STEP), max_steps=BATCHES)
    rows = objective.make_rows(packed, make_plan(run, packed.rows_per_epoch, 1))
    of_rows, of_batches, shapes = [], [], []
    for first in range(0, len(rows), STEP // ROW):
        batch = [rows[index] for index in range(first, first + STEP // ROW)]
        lengths = np.array([[len(row["input_ids"]), len(row["labels"])] for row in batch])
        of_rows.append([lengths.sum(0), len(batch) * lengths.max(0)])
        masks = [collate_pairs(batch)[mask] for mask in ("attention_mask", "decoder_attention_mask")]
        of_batches.append([[int(mask.sum()) for mask in masks], [mask.numel() for mask in masks]])
        shapes.append([len(masks[0]), *(mask.shape[1] for mask in masks)])
    shares = [
        " and ".join(f"{share:.3f}" for share in np.divide(*np.sum(each, axis=0))) for each in (of_rows, of_batches)
    ]
    shape = " x ".join(f"{length:.0f}" for length in np.median(shapes, axis=0))
    return f"| {name} | {shares[0]} | {shares[1]} | {shape} |"


def train(main: Callable[[list[str]], None], folder: Path, **fields: object) -> dict:
    """Carry a run out, unless it is finished: its metrics, and the seconds of processor time that it took."""
    took = folder / "processor_seconds.json"
    if not took.is_file():
        words = [
            word
            for name, value in {**COMMON, **fields, "output_dir": folder}.items()
            for word in (f"--{name}", str(value))
        ]
        folder.parent.mkdir(parents=True, exist_ok=True)
        began = time.process_time()
        with folder.with_suffix(".log").open("a") as log, contextlib.redirect_stdout(log):
            main(words)
        took.write_text(json.dumps(time.process_time() - began))
    return {**json.loads((folder / "metrics.json").read_text()), "seconds": json.loads(took.read_text())}


def main() -> None:
    """Count, pretrain, fine-tune, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--objectives", nargs="+", default=["span"], choices=offered_by("pretrain_seq2seq"))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    given = parser.parse_args()
    texts = write_texts(given.data, given.folder / "text")
    settings = DataArguments(train_files=texts, vocab_size=4096, segmenter="characters")
    corpus = prepare(settings, given.folder / "corpus", quiet=True)
    print("| objective | a row for each row of text: sources and targets filled | packed | rows x source x target |")
    for name in offered_by("pretrain_seq2seq"):
        print(count_filled(corpus, name), flush=True)
    found = defaultdict(list)
    for seed in given.seeds:
        starts = {}
        for objective in given.objectives:
            starts[objective] = given.folder / f"{objective}-{seed}"
            fields = {"data": corpus.folder, "objective": objective, "seed": seed, "tokens": TOKENS}
            fields |= {"sequence_length": ROW, "tokens_per_step": STEP, "eval_steps": 0.5, "save_steps": 0.5}
            scores = train(pretrain_seq2seq.main, starts[objective], **fields)
            shown = {name: scores[name] for name in ("eval_loss", "seconds")}
            print(json.dumps({"pretrained": objective, "seed": seed, **shown}), flush=True)
        shape = next(iter(starts.values()))
        ways = {
            RANDOM: {"config_name": shape},
            **{name: {"model_name_or_path": start} for name, start in starts.items()},
        }
        for task in given.tasks:
            for way, start in ways.items():
                fields = {"task": task, "data": given.data / task, **TASKS[task], **start, "seeds": seed}
                fields |= {"learning_rate": 2e-3, "evaluations": 1}
                folder = given.folder / f"{task}-{'random' if way == RANDOM else way}-{seed}"
                scores = train(finetune_seq2seq.main, folder, **fields)
                shown = {name: scores[name] for name in (*SCORES[task], "seconds")}
                print(json.dumps({"task": task, "start": way, "seed": seed, **shown}), flush=True)
                found[task, way].append(shown)
    for (task, way), scores in found.items():
        figures = [
            f"{name} {statistics.fmean(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})"
            for name in SCORES[task]
            if (values := [each[name] for each in scores])
        ]
        print(f"| {task} | {way} | {' | '.join(figures)} |")


if __name__ == "__main__":
    main()
