"""Span corruption beside stock T5 of the same size under transformers' Trainer.

    python results/text_to_text_beside_t5.py data/enwiki/enwiki_2018.txt runs/beside_t5 --seeds 1 2 3

Both learn from the same pairs of a source and a target, each step from those of 2,048 tokens of text, no text twice,
and are scored on the same held-out pairs by the same function. T5 has relative positions, ReLU, tied embeddings and no
dropout, and as wide a feed-forward as makes its parameters as many; AdamW (0.9, 0.95, weight decay 0.1), cosine after
5% of warm-up, at the best of several rates on the first seed. Weft runs as `pretrain_seq2seq.py` does by itself. A run
that is finished is kept. Prints a line of JSON for each, then the losses by tokens.
"""

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
    set_seed,
)

from weft import WeftForConditionalGeneration
from weft.recipes import pretrain_seq2seq
from weft.recipes.common.command_line import parse_count
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.data.prepare import prepare
from weft.recipes.pretraining.arguments import RunArguments
from weft.recipes.pretraining.objectives import objectives
from weft.recipes.pretraining.objectives.base import Objective
from weft.recipes.pretraining.plan import make_plan

TEXT, ROW, STEP, WIDTH, LAYERS, HEADS = 5_000_000, 256, 2048, 128, 2, 4  # bytes of text, and the shape of both


def padded(rows: Sequence[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """A row for each pair, padded to the longest of each side."""
    sides = [
        [torch.from_numpy(text) for row in rows for text in np.split(row[ids], np.flatnonzero(row[places] == 0)[1:])]
        for ids, places in (("input_ids", "position_ids"), ("labels", "decoder_position_ids"))
    ]
    batch = {
        name: pad_sequence(texts, batch_first=True, padding_value=fill)
        for name, texts, fill in zip(("input_ids", "labels"), sides, (0, -100))
    }
    mask = pad_sequence([torch.ones_like(text) for text in sides[0]], batch_first=True)
    return {**batch, "attention_mask": mask}


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, rows: Any) -> float:
    """Nats of each target of the held-out pairs, on average."""
    model.eval()
    nats = targets = 0
    for first in range(0, len(rows), STEP // ROW):
        batch = padded([rows[index] for index in range(first, min(first + STEP // ROW, len(rows)))])
        logits = model(**batch).logits.float()
        nats += cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), reduction="sum").item()
        targets += int((batch["labels"] != -100).sum())
    return nats / targets


def make_t5(parameters: int, vocabulary: int, start: int, end: int) -> T5ForConditionalGeneration:
    """A T5 with nearly so many parameters."""
    fields = {"vocab_size": vocabulary, "d_model": WIDTH, "d_kv": WIDTH // HEADS, "num_heads": HEADS}
    fields |= {"num_layers": LAYERS, "dropout_rate": 0.0, "tie_word_embeddings": True, "pad_token_id": 0}
    fields |= {"decoder_start_token_id": start, "eos_token_id": end}
    with torch.device("meta"):
        least, more = (T5ForConditionalGeneration(T5Config(**fields, d_ff=inner)).num_parameters() for inner in (8, 16))
    inner = 8 + 8 * round((parameters - least) / (more - least))
    return T5ForConditionalGeneration(T5Config(**fields, d_ff=inner))


def train_t5(model: PreTrainedModel, rows: Any, steps: int, rate: float, seed: int, folder: Path) -> None:
    """Train it as a user of transformers would."""
    arguments = TrainingArguments(
        str(folder),
        max_steps=steps,
        per_device_train_batch_size=STEP // ROW,
        learning_rate=rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        weight_decay=0.1,
        adam_beta2=0.95,
        seed=seed,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
        logging_steps=50,
    )
    Trainer(model, arguments, train_dataset=rows, data_collator=padded).train()


def make_objective(corpus: Corpus) -> tuple[Objective, PreTrainedTokenizerBase]:
    """Span corruption with its defaults, and the tokenizer with its sentinels."""
    kind = objectives()["span"]
    objective = kind(*(arguments() for arguments in kind.arguments))
    return objective, objective.prepare_tokenizer(corpus.tokenizer())


def result_of(model: PreTrainedModel, corpus: Corpus) -> dict[str, Any]:
    """The loss of a trained model, and its parameters."""
    objective, tokenizer = make_objective(corpus)
    rows = objective.make_evaluator(corpus, ROW, tokenizer).rows
    return {"loss": held_out_loss(model, rows), "parameters": model.num_parameters()}


def run_weft(folder: Path, corpus: Corpus, tokens: str, seed: int) -> dict[str, Any]:
    """Train Weft, and score it."""
    fields = {"data": corpus.folder, "tokens": tokens, "seed": seed, "sequence_length": ROW, "tokens_per_step": STEP}
    fields |= {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "cpu_threads": 1}
    fields |= {"use_cpu": "true", "eval_steps": 0.5, "save_steps": 0.5, "output_dir": folder}
    pretrain_seq2seq.main([word for name, value in fields.items() for word in (f"--{name}", str(value))])
    return result_of(WeftForConditionalGeneration.from_pretrained(folder), corpus)


def run_t5(folder: Path, corpus: Corpus, tokens: str, seed: int, rate: float, beside: Path) -> dict[str, Any]:
    """Train a T5 as large as the model beside it, and score it."""
    weft = WeftForConditionalGeneration.from_pretrained(beside)
    objective, tokenizer = make_objective(corpus)
    packed = objective.pack(corpus, ROW, seed, tokenizer)
    run = RunArguments(sequence_length=ROW, tokens_per_step=str(STEP), tokens=tokens)
    plan = make_plan(run, packed.rows_per_epoch, 1)
    set_seed(seed)
    config = weft.config
    model = make_t5(weft.num_parameters(), config.vocab_size, config.decoder_start_token_id, tokenizer.eos_token_id)
    train_t5(model, objective.make_rows(packed, plan), plan.max_steps, rate, seed, folder)
    return result_of(model, corpus)


def keep(folder: Path, run: Callable[..., dict[str, Any]], *arguments: Any, **said: Any) -> dict[str, Any]:
    """The result of a run, which is carried out unless it is there, with the seconds of processor time that it took."""
    file = folder / "result.json"
    if not file.is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        began = time.process_time()
        with folder.with_suffix(".log").open("a") as log, contextlib.redirect_stdout(log):
            result = run(folder, *arguments)
        folder.mkdir(exist_ok=True)
        file.write_text(json.dumps({**result, "seconds": time.process_time() - began}))
    result = {**said, **json.loads(file.read_text())}
    print(json.dumps(result), flush=True)
    return result


def main() -> None:
    """Train both with every seed, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("text", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--tokens", nargs="+", default=["0.32M", "0.48M", "0.8M"], help="of Weft's runs")
    parser.add_argument("--t5_tokens", default="0.8M")
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-3, 3e-3, 1e-2], help="of T5 on the first seed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    text = given.folder / "text.txt"
    given.folder.mkdir(parents=True, exist_ok=True)
    with given.text.open(encoding="utf-8") as file:
        text.write_text(file.read(TEXT).rpartition("\n\n")[0] + "\n", encoding="utf-8")
    corpus = prepare(DataArguments(train_files=[str(text)], vocab_size=8192), given.folder / "corpus", quiet=True)
    objective, tokenizer = make_objective(corpus)
    longest = max(map(parse_count, (*given.tokens, given.t5_tokens)))
    if objective.pack(corpus, ROW, 1, tokenizer).num_places < longest:
        raise SystemExit(f"the text has fewer than {longest:,} tokens: give a longer one, so that none comes twice.")
    found: dict[tuple[str, str], list[float]] = {}
    rates = given.rates
    for seed in given.seeds:
        for tokens in given.tokens:
            folder = given.folder / f"weft-{tokens}-{seed}"
            result = keep(folder, run_weft, corpus, tokens, seed, model="weft", tokens=tokens, seed=seed)
            found.setdefault(("Weft", tokens), []).append(result["loss"])
        losses = {}
        for rate in rates:
            folder, said = given.folder / f"t5-{given.t5_tokens}-{rate:g}-{seed}", {"model": "t5", "rate": rate}
            arguments = (corpus, given.t5_tokens, seed, rate, given.folder / f"weft-{given.tokens[0]}-{seed}")
            losses[rate] = keep(folder, run_t5, *arguments, **said, tokens=given.t5_tokens, seed=seed)["loss"]
        rates = [min(losses, key=losses.get)]
        found.setdefault((f"T5, rate {rates[0]:g}", given.t5_tokens), []).append(losses[rates[0]])
    print("| tokens | model | held-out nats per target, mean (seeds) |")
    for (name, tokens), values in found.items():
        print(f"| {tokens} | {name} | {statistics.fmean(values):.4f} ({', '.join(f'{each:.4f}' for each in values)}) |")


if __name__ == "__main__":
    main()
