"""A process that trains a small Weft model, for figures that depend on how a process was begun.

Its argument is JSON: config (of WeftConfig), rows, length, threads, and keep (freed memory). Each line of its input is
a number of steps; it takes them and prints their seconds. It is started by its path, and imports nothing of the recipes
before PyTorch is there, since these say how long waiting threads spin.
"""

import json
import sys
import time

import torch

from weft import WeftConfig, WeftForCausalLM


def train(settings: dict) -> None:
    """Take as many steps as each line of the input says, and print the seconds."""
    if settings["keep"]:
        from weft.recipes.common.hardware import keep_freed_memory  # with what the recipes set, behind PyTorch

        keep_freed_memory()
    if settings["threads"] is not None:
        torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    config = WeftConfig(**settings["config"])
    tokens = torch.randint(0, config.vocab_size, (settings["rows"], settings["length"]))
    model = WeftForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    for line in sys.stdin:
        began = time.perf_counter()
        for _ in range(int(line)):
            model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    train(json.loads(sys.argv[1]))
