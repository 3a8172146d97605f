"""Small fine-tuning runs for the tests: sentences that the test makes up, a model of a few thousand weights."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from helpers.forked import Forked
from helpers.models import tiny_config
from weft import WeftForCausalLM, WeftForMaskedLM
from weft.recipes import finetune_chat, finetune_choice, finetune_classification, finetune_qa, finetune_tokens
from weft.recipes.common.errors import RecipeError
from weft.tokenizer.train import train_tokenizer

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
GOOD, BAD = ("lovely", "splendid", "happy"), ("awful", "gloomy", "broken")
OTHERS = ("the", "house", "river", "sees", "old", "and", "tree", "bird", "while", "they", "quiet", "stone")

MAINS = {
    "finetune_classification": finetune_classification.main,
    "finetune_tokens": finetune_tokens.main,
    "finetune_qa": finetune_qa.main,
    "finetune_choice": finetune_choice.main,
    "finetune_chat": finetune_chat.main,
}

SMALL_RUN = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 300,
    "max_steps": 12,
    "evaluations": 2,
    "per_device_train_batch_size": 16,
    "learning_rate": 3e-3,
    "seeds": [1],
    "use_cpu": "true",
    "cpu_threads": 1,
}


def kill_once_saved(process: Forked | subprocess.Popen, folder: Path) -> None:
    """Kill a run of `start` as soon as it has written a checkpoint, long before its end."""
    deadline = time.monotonic() + 240
    while not list(folder.glob("seed-*/checkpoint-*")):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (folder / "metrics.json").exists()


def sentences(number: int, seed: int = 0) -> list[tuple[str, str]]:
    """Sentences of three to thirteen words with their label: whether a good or a bad word is among them."""
    draw = random.Random(seed)
    examples = []
    for _ in range(number):
        label = draw.choice(("good", "bad"))
        words = draw.choices(OTHERS, k=draw.randint(2, 12))
        words.insert(draw.randint(0, len(words)), draw.choice(GOOD if label == "good" else BAD))
        examples.append((" ".join(words), label))
    return examples


def write_examples(path: Path, number: int, seed: int = 0) -> Path:
    """A CSV file of such sentences."""
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([("text", "label"), *sentences(number, seed)])
    return path


def rows_of(recipe: str, number: int, seed: int = 0) -> list[dict]:
    """Examples that a recipe can learn from, all about the good and bad words of `sentences`."""
    draw = random.Random(seed)
    rows = []
    for place, (text, label) in enumerate(sentences(number, seed)):
        words = text.split()
        marked = next(word for word in words if word in GOOD + BAD)
        if recipe == "finetune_classification":
            rows.append({"text": text, "label": label})
        elif recipe == "finetune_tokens":
            tags = [f"B-{label}" if word == marked else "O" for word in words]
            rows.append({"tokens": words, "tags": tags})
        elif recipe == "finetune_qa":
            answers = {"text": [marked], "answer_start": [text.index(marked)]}
            rows.append({"id": str(place), "question": "what is it like", "context": text, "answers": answers})
        elif recipe == "finetune_chat":
            said = [text, f"{label} {marked}", *(["why", f"it is {marked}"] if place % 2 else [])]
            roles = ("user", "assistant") * 2
            rows.append({"messages": [{"role": role, "content": each} for role, each in zip(roles, said)]})
        else:
            choices = [draw.choice(GOOD), draw.choice(BAD)]
            draw.shuffle(choices)
            rows.append({"question": text, "choices": choices, "label": 0 if choices[0] in GOOD else 1})
    return rows


def write_rows(path: Path, rows: list[dict]) -> Path:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def files_of(recipe: str, folder: Path, train: int = 200, validation: int = 60) -> dict[str, Path]:
    """Training and validation files for a recipe, as fields of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "train_file": write_rows(folder / f"{recipe}-train.jsonl", rows_of(recipe, train, seed=1)),
        "validation_file": write_rows(folder / f"{recipe}-validation.jsonl", rows_of(recipe, validation, seed=2)),
    }


def write_files(folder: Path, train: int = 200, validation: int = 60) -> dict[str, Path]:
    """Training and validation files, as fields of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "train_file": write_examples(folder / "train.csv", train, seed=1),
        "validation_file": write_examples(folder / "validation.csv", validation, seed=2),
    }


def make_start(folder: Path, causal: bool = False) -> Path:
    """A new model with a tokenizer of these sentences, saved as pretraining saves one."""
    tokenizer = train_tokenizer([text for text, _ in sentences(200)], "bpe", 300, model_max_length=64)
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = tiny_config(vocab_size=len(tokenizer), is_causal=causal, **ids)
    (WeftForCausalLM if causal else WeftForMaskedLM)(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def command(**fields: object) -> list[str]:
    """Words of a command line for a small run; `fields` override the small run's (None: not given)."""
    words = []
    chosen = dict(SMALL_RUN)
    if fields.get("model_name_or_path") is not None:  # which has its own shape and tokenizer
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
            del chosen[name]
    for name, value in {**chosen, **fields}.items():
        if value is None:
            continue
        words += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return words


def run_here(main=finetune_classification.main, **fields: object) -> None:
    """Carry a run out in this process."""
    main(command(**fields))


def run_error(main=finetune_classification.main, **fields: object) -> str:
    """The sentence with which a run is refused."""
    try:
        run_here(main, **fields)
    except RecipeError as error:
        return str(error)
    raise AssertionError("the run was not refused")


def start(recipe: str, **fields: object) -> Forked | subprocess.Popen:
    """Start a run in a process of its own."""
    if torch.cuda.is_available():
        return launch(1, recipe, **fields)
    return Forked(RECIPES / f"{recipe}.py", command(**fields))


def launch(processes: int, recipe: str, **fields: object) -> subprocess.Popen:
    """Start a run with `accelerate launch`, as a user would."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no"]
    launcher += ["--dynamo_backend", "no", "--num_processes", str(processes)]
    launcher += ["--multi_gpu", "--main_process_port", "0"] if processes > 1 else []
    return subprocess.Popen(
        [*launcher, str(RECIPES / f"{recipe}.py"), *command(**fields)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def metrics(folder: Path) -> dict:
    """What a finished run measured."""
    return json.loads((folder / "metrics.json").read_text())


def seed_result(folder: Path, seed: int = 1) -> dict:
    """What a seed of a run came to, with its log."""
    return json.loads((folder / f"seed-{seed}" / "result.json").read_text())


def losses(folder: Path, seed: int = 1) -> list[float]:
    """Training losses that a seed logged."""
    return [entry["loss"] for entry in seed_result(folder, seed)["history"] if "loss" in entry]
