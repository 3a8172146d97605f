"""nanoGPT's training loop (https://github.com/karpathy/nanoGPT), which a user clones; none of its code is here.

Its scripts that cut text into parts of words need the network for their tokenizer. It is given Weft's tokenizer and
preparation instead, as the files of tokens that its loop reads. Its settings are those of its README for a processor,
on top of its config for a small text, at the length of row that all sides have, and compiled, which made its steps 1.07
times as fast. It looks at its validation text at the first and the last step only, where it writes its weights. It has
no field for a seed: the order of the documents is what differs between its runs.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from weft.recipes.benchmarks.road.foreign import ForeignModel
from weft.recipes.benchmarks.road.side import LENGTH, RECIPES, RoadRun, Side
from weft.recipes.common.checkpoint_files import load_tokenizer
from weft.recipes.data.corpus import Corpus

CONFIG = "config/train_shakespeare_char.py"
WARM_UP, ROWS = 100, 12
SETTINGS = {
    "device": "cpu",
    "dtype": "float32",
    "compile": True,
    "batch_size": ROWS,
    "block_size": LENGTH,
    "gradient_accumulation_steps": 1,
    "dropout": 0.0,
    "eval_iters": 1,
    "always_save_checkpoint": True,
}


class NanoGPT(Side):
    """Its loop on tokens that Weft has prepared for it."""

    NAME = "nanogpt"

    def missing(self, peers: Path | None) -> str | None:
        if peers is None or not (peers / "nanoGPT" / "train.py").is_file():
            return "clone https://github.com/karpathy/nanoGPT into the folder of --peer_folder"
        return None

    def prepare(self, run: RoadRun) -> None:
        """Prepare a corpus as `prepare_data.py` does, and write its tokens as nanoGPT's loop reads them."""
        corpus = run.work / "corpus"
        words = ["--train_files", str(run.text), "--output_dir", str(corpus)]
        run.command("prepare_data.py", [str(RECIPES / "prepare_data.py"), *words])
        write_tokens(Corpus.open(corpus), run.work / "data")

    def train(self, run: RoadRun, steps: int) -> None:
        shape = run.shape
        fields = SETTINGS | {
            "n_layer": shape.layers,
            "n_head": shape.heads,
            "n_embd": shape.width,
            "max_iters": steps,
            "lr_decay_iters": steps,
            "eval_interval": steps,
            "warmup_iters": min(WARM_UP, steps // 10),
            "dataset": str(run.work / "data"),
            "out_dir": str(run.work / "out"),
        }
        words = ["train.py", CONFIG, *(f"--{name}={value}" for name, value in fields.items())]
        run.command("nanoGPT's train.py", words, run.peers / "nanoGPT")

    def load(self, work: Path, peers: Path | None) -> tuple[Any, Any]:
        """Load its checkpoint into its own class."""
        from model import GPT, GPTConfig  # of its folder, in which this process runs

        checkpoint = torch.load(work / "out" / "ckpt.pt", map_location="cpu", weights_only=True)
        model = GPT(GPTConfig(**checkpoint["model_args"]))
        state = {name.removeprefix("_orig_mod."): value for name, value in checkpoint["model"].items()}
        model.load_state_dict(state)
        model.eval()
        foreign = ForeignModel(model, model.transformer.wte, lambda ids: model(ids, ids)[0])
        return foreign, load_tokenizer(str(work / "corpus" / "tokenizer"))

    def surroundings(self, work: Path, peers: Path | None) -> tuple[Path | None, dict[str, str]]:
        return peers / "nanoGPT", {}


def write_tokens(corpus: Corpus, folder: Path) -> None:
    """Write train.bin and val.bin (uint16, documents one after another), and meta.pkl with the number of ids."""
    folder.mkdir()
    for name, held_out in (("train", False), ("val", True)):
        with (folder / f"{name}.bin").open("wb") as handle:
            for document in np.flatnonzero(corpus.is_validation == held_out):
                ids = corpus.tokens[corpus.offsets[document] : corpus.offsets[document + 1]]
                handle.write(ids.astype(np.uint16).tobytes())
    rows = -(-corpus.description["vocab_size"] // 64) * 64
    (folder / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": rows}))
