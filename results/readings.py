"""What each role of a model of all roles loses against a model that was trained for it alone, at equal tokens.

    python results/readings.py runs/readings-beside --seeds 1 2 3 --tokens 700k

The text that Python carries, prepared once; one thread, everything else as the commands have it. A hybrid model (40% of
the rows causal, 30% of diffusion, 30% masked) beside a causal, a masked and a diffusion model of as many tokens, and of
as many as the hybrid one had in rows of that kind. All are scored by their own runs on the same held-out text, masks at
8 rates for the bound. One line of JSON for each run, then a table with the mean and each seed. A run that is finished
is not run again.
"""

import argparse
import contextlib
import json
import statistics
from pathlib import Path

from weft.recipes import pretrain_clm, pretrain_mlm
from weft.recipes.common.command_line import parse_count
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.prepare import prepare

SHARES = {"causal": 0.4, "masked": 0.3, "diffusion": 0.3}
RATES = {"validation_rates": 8}
HYBRID = {"objective": "hybrid", "causal_share": SHARES["causal"], "diffusion_share": SHARES["diffusion"], **RATES}
ALONE = {"causal": {}, "masked": {"objective": "masked"}, "diffusion": {"objective": "diffusion", **RATES}}
FIGURES = {  # what of a run's metrics.json is told, by role
    "causal": ("causal, bits/byte", "eval_bits_per_byte"),
    "masked": ("masked loss, nats", "eval_masked_loss"),
    "accuracy": ("masked accuracy", "eval_masked_accuracy"),
    "diffusion": ("diffusion, bits/byte at most", "eval_diffusion_bits_per_byte"),
}


def carry_out(main: object, folder: Path, **fields: object) -> dict[str, float]:
    """Train, unless that was done before, and read the metrics."""
    if not (folder / "metrics.json").is_file():
        words = [word for name, value in {**fields, "output_dir": folder}.items() for word in (f"--{name}", str(value))]
        with (folder.with_suffix(".log")).open("w") as log, contextlib.redirect_stdout(log):
            main(words)
    return json.loads((folder / "metrics.json").read_text())


def figures_of(name: str, metrics: dict[str, float]) -> dict[str, float]:
    """What a run says of each role that it has."""
    if "diffusion" in name:  # which calls its bound bits_per_byte
        return {"diffusion": metrics["eval_bits_per_byte"]}
    return {role: metrics[key] for role, (_, key) in FIGURES.items() if key in metrics}


def main() -> None:
    """Prepare, train, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--tokens", default="700k")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    data, tokens = given.folder / "data", parse_count(given.tokens)
    prepare(DataArguments(), data, quiet=True)
    runs = {"all roles": (tokens, HYBRID)}
    runs |= {f"{role} alone": (tokens, fields) for role, fields in ALONE.items()}
    for role, share in SHARES.items():
        runs[f"{role} alone, {share:.0%} of the tokens"] = (int(tokens * share), ALONE[role])
    found: dict[str, list[dict[str, float]]] = {}
    for seed in given.seeds:
        for number, (name, (size, fields)) in enumerate(runs.items()):
            recipe = pretrain_mlm if "objective" in fields else pretrain_clm
            common = {"data": data, "tokens": size, "seed": seed, "cpu_threads": 1, "use_cpu": "true"}
            metrics = carry_out(recipe.main, given.folder / f"{number}-{seed}", **common, **fields)
            found.setdefault(name, []).append(figures_of(name, metrics))
            line = {"run": name, "seed": seed, "steps": metrics["steps"], **found[name][-1]}
            print(json.dumps(line), flush=True)
    print(f"| | {' | '.join(title for title, _ in FIGURES.values())} |\n|{' --- |' * (1 + len(FIGURES))}")
    for name, scores in found.items():
        cells = [[score[role] for score in scores if role in score] for role in FIGURES]
        told = [
            f"{statistics.fmean(one):.4f} ({', '.join(f'{each:.4f}' for each in one)})" if one else "" for one in cells
        ]
        print(f"| {name} | {' | '.join(told)} |")


if __name__ == "__main__":
    main()
