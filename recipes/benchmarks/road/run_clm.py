"""transformers' own example run_clm.py (in its repository), with a Llama of the same shape; none of its code is here.

It takes a tokenizer that is there: Weft's command trains it, which counts. The learning rate is 1e-3, falling along a
cosine after a rise in the first twentieth: its default, 5e-5 without a rise, is meant for fine-tuning, and teaches new
weights next to nothing in minutes.
"""

import shutil
from pathlib import Path
from typing import Any

from weft.recipes.benchmarks.road.side import CACHE, LENGTH, RECIPES, VOCABULARY, RoadRun, Side
from weft.recipes.evaluation.model_loading import load_model

SCRIPT = Path("transformers/examples/pytorch/language-modeling/run_clm.py")
SETTINGS = {
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.05,
    "block_size": LENGTH,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": "true",
    "do_train": "true",
    "validation_split_percentage": 1,
    "disable_tqdm": "true",
}


class RunClm(Side):
    """The example on the documents, with a tokenizer that Weft has trained for it."""

    NAME = "run_clm"

    def missing(self, peers: Path | None) -> str | None:
        if peers is None or not (peers / SCRIPT).is_file():
            return "clone https://github.com/huggingface/transformers into the folder of --peer_folder"
        return None

    def prepare(self, run: RoadRun) -> None:
        """Train the tokenizer; the example prepares the text in the same process as it trains."""
        words = ["--train_files", str(run.text), "--vocab_size", str(VOCABULARY)]
        tokenizer = str(run.work / "tokenizer")
        run.command("train_tokenizer.py", [str(RECIPES / "train_tokenizer.py"), *words, "--output_dir", tokenizer])
        (run.work / "train.json").symlink_to(run.text.resolve())

    def train(self, run: RoadRun, steps: int) -> None:
        shutil.rmtree(run.work / CACHE, ignore_errors=True)  # prepared text, which each run has to pay for
        shape = run.shape
        config = {
            "hidden_size": shape.width,
            "intermediate_size": shape.inner,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.key_value_heads,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": LENGTH,
            "tie_word_embeddings": "true",
        }
        fields = SETTINGS | {
            "model_type": "llama",
            "config_overrides": ",".join(f"{name}={value}" for name, value in config.items()),
            "tokenizer_name": str(run.work / "tokenizer"),
            "train_file": str(run.work / "train.json"),
            "max_steps": steps,
            "seed": run.seed,
            "output_dir": str(run.work / "out"),
        }
        words = [word for name, value in fields.items() for word in (f"--{name}", str(value))]
        run.command("run_clm.py", [str(run.peers / SCRIPT), *words])

    def load(self, work: Path, peers: Path | None) -> tuple[Any, Any]:
        return load_model(str(work / "out"), "causal", "cpu")[:2]
