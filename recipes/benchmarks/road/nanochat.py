"""nanochat's tokenizer and training loop (https://github.com/karpathy/nanochat), which a user clones; none of its code
is here.

Documents become parquet files in its folder; its scripts train its tokenizer, and its loop makes tokens as it goes.
Settings are those of its own script for a processor (runs/runcpu.sh), at the shape and length of row that all sides
have and with a smaller batch; it neither evaluates nor samples on the way. It has no field for a seed: the order of the
documents is what differs between its runs.
"""

import importlib.util
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch

from weft.recipes.benchmarks.road.foreign import ForeignModel, ForeignTokenizer
from weft.recipes.benchmarks.road.side import LENGTH, VOCABULARY, RoadRun, Side
from weft.recipes.benchmarks.road.text import read_documents

PACKAGES = ("rustbpe", "tiktoken", "wandb")
OWN_PACKAGES = "packages"  # in the folder of peers, where pip may have put them
DOCUMENTS_PER_GROUP, HELD_OUT = 1000, 0.01
ROWS = 32  # of a forward pass, and TOKENS_PER_STEP
TOKENS_PER_STEP = ROWS * LENGTH
SETTINGS = {
    "window-pattern": "L",
    "max-seq-len": LENGTH,
    "device-type": "cpu",
    "device-batch-size": ROWS,
    "total-batch-size": TOKENS_PER_STEP,
    "eval-every": -1,
    "core-metric-every": -1,
    "sample-every": -1,
}
WARM_UP = 40
TAG = "road"


class Nanochat(Side):
    """Its own tokenizer, loader, model and optimizers."""

    NAME = "nanochat"

    def missing(self, peers: Path | None) -> str | None:
        if peers is None or not (peers / "nanochat" / "scripts" / "base_train.py").is_file():
            return "clone https://github.com/karpathy/nanochat into the folder of --peer_folder"
        absent = [name for name in PACKAGES if not _has_package(peers, name)]
        if absent:
            where = peers / OWN_PACKAGES
            return f"install its packages: pip install --target {where} {' '.join(absent)}"
        return None

    def prepare(self, run: RoadRun) -> None:
        """Write the documents as its data, and train its tokenizer."""
        folder = run.work / "base_data_climbmix"
        folder.mkdir()
        documents = read_documents(run.text)
        number = max(1, round(HELD_OUT * len(documents)))  # the last file is what it would validate on
        for place, texts in enumerate((documents[:-number], documents[-number:])):
            table = pyarrow.table({"text": texts})
            path = folder / f"shard_{place:05}.parquet"
            pyarrow.parquet.write_table(table, path, row_group_size=DOCUMENTS_PER_GROUP)
        self._run(run, "scripts.tok_train", {"vocab-size": VOCABULARY})

    def train(self, run: RoadRun, steps: int) -> None:
        shape = run.shape
        own = {
            "depth": shape.layers,
            "aspect-ratio": shape.width // shape.layers,
            "head-dim": shape.width // shape.heads,
            "num-iterations": steps,
            "warmup-steps": min(WARM_UP, max(1, steps // 10)),
            "model-tag": TAG,
        }
        self._run(run, "scripts.base_train", SETTINGS | own)

    def load(self, work: Path, peers: Path | None) -> tuple[Any, Any]:
        """Load its last checkpoint by its own functions."""
        from nanochat.checkpoint_manager import load_model  # of its folder, in which this process runs

        model, tokenizer, _ = load_model("base", torch.device("cpu"), "eval", model_tag=TAG)
        foreign = ForeignModel(model, model.transformer.wte, model)
        return foreign, ForeignTokenizer(tokenizer.encode, tokenizer.get_bos_token_id(), tokenizer.get_vocab_size())

    def surroundings(self, work: Path, peers: Path | None) -> tuple[Path | None, dict[str, str]]:
        return peers / "nanochat", {"PYTHONPATH": str(peers / OWN_PACKAGES), "NANOCHAT_BASE_DIR": str(work)}

    def _run(self, run: RoadRun, module: str, fields: dict[str, Any]) -> None:
        folder, environment = self.surroundings(run.work, run.peers)
        words = ["-m", module, *(f"--{name}={value}" for name, value in fields.items())]
        run.command(f"nanochat's {module}", words, folder, **environment)


def _has_package(peers: Path, name: str) -> bool:
    return (peers / OWN_PACKAGES / name).is_dir() or importlib.util.find_spec(name) is not None
