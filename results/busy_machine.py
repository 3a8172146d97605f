"""Time training steps on two threads, by how long waiting threads spin, alone and beside busy programs.

    python results/busy_machine.py [SETTING ...] > results/busy-machine.log

A process for each setting trains the same small model. They take turns, in the opposite order every other round.
"""

import itertools
import os
import statistics
import subprocess
import sys
import time

SETTINGS = {
    "default": {},
    "spin 100000": {"GOMP_SPINCOUNT": "100000"},
    "spin 30000": {"GOMP_SPINCOUNT": "30000"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "spin 0": {"GOMP_SPINCOUNT": "0"},
    "passive": {"GOMP_SPINCOUNT": "0", "OMP_WAIT_POLICY": "PASSIVE"},
}
BUSY, ROUNDS = (0, 1, 2, 4), 10
STEPS = {0: 8}  # of a round; beside busy programs 2


def train() -> None:
    """Take as many steps as each line of the input says, and print the seconds."""
    import torch

    from weft import WeftConfig, WeftForCausalLM

    torch.set_num_threads(2)
    torch.manual_seed(0)
    config = WeftConfig(vocab_size=4096, hidden_size=256, num_hidden_layers=4, num_attention_heads=4)
    model, tokens = WeftForCausalLM(config).train(), torch.randint(0, 4096, (8, 256))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    for line in itertools.chain(["3"], sys.stdin):
        began = time.perf_counter()
        for _ in range(int(line)):
            model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        print(time.perf_counter() - began, flush=True)


def main(names: list[str]) -> None:
    """Measure all settings in turn beside each number of busy programs."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "OMP_"))}
    words, pipes = [sys.executable, __file__, "--train"], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    workers = {name: subprocess.Popen(words, env=clean | SETTINGS[name], text=True, **pipes) for name in names}
    for worker in workers.values():
        worker.stdout.readline()
    for busy in BUSY:
        programs = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(9999))"]) for _ in range(busy)]
        steps, seconds = STEPS.get(busy, 2), {name: [] for name in names}
        for number in range(ROUNDS):
            for name in names[:: 1 if number % 2 else -1]:
                workers[name].stdin.write(f"{steps}\n")
                workers[name].stdin.flush()
                seconds[name].append(float(workers[name].stdout.readline()) / steps)
        for program in programs:
            program.kill()
        for name, of in seconds.items():
            ratio = statistics.median(one / other for one, other in zip(of, seconds["default"]))
            print(f"{busy} busy programs, {name}: median {statistics.median(of):.3f} s a step, ", end="")
            print(f"{min(of):.3f} to {max(of):.3f}; {ratio:.3f} times the default", flush=True)
    for worker in workers.values():
        worker.kill()


if __name__ == "__main__":
    train() if sys.argv[1:] == ["--train"] else main(sys.argv[1:] or list(SETTINGS))
