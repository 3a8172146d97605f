"""Train a model by a reward that a program can check: GRPO on small sums, with TRL (pip install 'trl>=1.16').

    python examples/grpo_arithmetic.py runs/pretrain_clm runs/sums

Answers are drawn from the model, several for each problem, and those that are right are made likelier than the rest of
their group. Two rewards are added: 1 for the right sum, and 0.1 for a number and nothing else. A model that is never
right learns nothing from the first; so it is shown some sums with their results before, until it is right now and then
(--warm_up_steps; 0 for a model that can count). Put another check in the place of `is_right` for a task of your own.
"""

import argparse
import itertools
import os
import random
import re
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # TRL would tell its makers of the run

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

LARGEST, HELD_OUT, MOST_TOKENS = 9, 10, 4
Row = dict[str, Any]


def problems(number: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Sums of two digits: so many to learn from, and others to ask for, which stand in no order among the first."""
    draw, pairs = random.Random(seed), list(itertools.combinations_with_replacement(range(LARGEST + 1), 2))
    draw.shuffle(pairs)
    kinds = pairs[HELD_OUT:], pairs[:HELD_OUT]
    learnt, held_out = (sorted({*kind, *(pair[::-1] for pair in kind)}) for kind in kinds)
    return _rows(draw.choices(learnt, k=number)), _rows(held_out)


def _rows(pairs: Sequence[tuple[int, int]]) -> list[Row]:
    return [
        {"prompt": f"{one} + {other} =", "completion": f" {one + other}", "result": one + other} for one, other in pairs
    ]


def is_right(completions: list[str], result: list[int], **_: Any) -> list[float]:
    """1 where the first number of an answer is the sum. `result` is the column of that name."""
    found = [re.match(r"\s*(\d+)\b", text) for text in completions]
    return [float(match is not None and int(match[1]) == wanted) for match, wanted in zip(found, result)]


def is_number(completions: list[str], **_: Any) -> list[float]:
    """0.1 where an answer is a number and nothing else."""
    return [0.1 * bool(re.fullmatch(r"\s*\d+\s*", text)) for text in completions]


@torch.no_grad()
def share_right(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]) -> float:
    """How many problems are solved, by the likeliest answer."""
    inputs = tokenizer([row["prompt"] for row in rows], padding=True, padding_side="left", return_tensors="pt")
    inputs = inputs.to(model.device)
    tokens = model.eval().generate(**inputs, max_new_tokens=MOST_TOKENS, do_sample=False)
    texts = tokenizer.batch_decode(tokens[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    return sum(is_right(texts, [row["result"] for row in rows])) / len(rows)


def main(argv: Sequence[str] | None = None) -> tuple[float, float]:
    """Warm up, train, save, and return the share that is right before and after GRPO."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub id to start from")
    parser.add_argument("output_dir", help="folder for the trained model")
    parser.add_argument("--warm_up_steps", type=int, default=150)
    parser.add_argument("--max_steps", type=int, default=100)
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--num_generations", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=64)
    fields = parser.parse_args(argv)

    tokenizer = AutoTokenizer.from_pretrained(fields.model, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(fields.model, dtype=torch.float32, trust_remote_code=True)
    on_gpu = torch.cuda.is_available()
    shared = {
        "per_device_train_batch_size": fields.batch_size,
        "save_strategy": "no",
        "report_to": "none",
        "bf16": on_gpu,
        "use_cpu": not on_gpu,
        "gradient_checkpointing": False,
    }
    learnt, held_out = problems(2000, seed=1)
    if fields.warm_up_steps:
        examples = [{name: row[name] for name in ("prompt", "completion")} for row in learnt]
        config = SFTConfig(
            f"{fields.output_dir}/warm_up", max_steps=fields.warm_up_steps, learning_rate=1e-3, max_length=64, **shared
        )
        SFTTrainer(model, args=config, train_dataset=Dataset.from_list(examples), processing_class=tokenizer).train()
    before = share_right(model, tokenizer, held_out)

    prompts = [{name: row[name] for name in ("prompt", "result")} for row in learnt]
    config = GRPOConfig(
        f"{fields.output_dir}/grpo",
        max_steps=fields.max_steps,
        learning_rate=fields.learning_rate,
        num_generations=fields.num_generations,
        max_completion_length=MOST_TOKENS,
        **shared,
    )
    trainer = GRPOTrainer(
        model,
        reward_funcs=[is_right, is_number],
        args=config,
        train_dataset=Dataset.from_list(prompts),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(fields.output_dir)
    after = share_right(trainer.model, tokenizer, held_out)
    print(f"right before GRPO {before:.2f}, after {after:.2f}; the model is in {fields.output_dir}")
    return before, after


if __name__ == "__main__":
    main()
