"""Small text-to-text runs for the tests: words of one made-up language, and the same in another."""

import json
import random
from pathlib import Path

from transformers import AutoModelForSeq2SeqLM, BartConfig, T5Config

from helpers import finetuning as ft
from weft.recipes import finetune_seq2seq
from weft.tokenizer.special_tokens import for_role
from weft.tokenizer.train import train_tokenizer

WORDS = {"red": "rot", "dog": "hund", "tree": "baum", "house": "haus", "green": "grün", "bird": "vogel"}
SMALL = {"num_hidden_layers": 1, "hidden_dropout": 0.0, "learning_rate": 5e-3, "per_device_train_batch_size": 32}


def pairs(number: int, seed: int) -> list[tuple[str, str]]:
    """Texts of two to five words and their translation, word by word."""
    draw = random.Random(seed)
    chosen = [draw.choices(list(WORDS), k=draw.randint(2, 5)) for _ in range(number)]
    return [(" ".join(words), " ".join(WORDS[word] for word in words)) for words in chosen]


def write_lines(folder: Path, split: str, examples: list[tuple[str, str]]) -> dict[str, Path]:
    """Two files whose lines belong together, as fields of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {}
    for side, texts in zip(("source", "target"), zip(*examples)):
        fields[f"{split}_{side}"] = path = folder / f"{split}.{side}"
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return fields


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_files(folder: Path) -> dict[str, Path]:
    return {**write_lines(folder, "train", pairs(400, 1)), **write_lines(folder, "validation", pairs(30, 2))}


def run(**fields: object) -> None:
    """Carry a run out in this process."""
    ft.run_here(finetune_seq2seq.main, **small(**fields))


def error(**fields: object) -> str:
    """The sentence with which a run is refused."""
    return ft.run_error(finetune_seq2seq.main, **small(**fields))


def small(**fields: object) -> dict[str, object]:
    """Fields of a small run; of a model that exists only those that it can be given."""
    chosen = dict(SMALL)
    if "model_name_or_path" in fields or "config_name" in fields:
        chosen |= dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_dropout"))
    return {**chosen, **fields}


def stock_folder(family: str, folder: Path) -> Path:
    """A small T5 or BART with random weights and the tokenizer that it needs."""
    texts = [text for pair in pairs(200, 1) for text in pair]
    tokenizer = for_role(train_tokenizer(iter(texts), "bpe", 300), "encoder")
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": 320}
    shapes = {
        "t5": T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4, decoder_start_token_id=0, **ids),
        "bart": BartConfig(
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            max_position_embeddings=64,
            decoder_start_token_id=2,
            **ids,
        ),
    }
    AutoModelForSeq2SeqLM.from_config(shapes[family]).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
