"""Small pretraining runs for the tests: a corpus that the test writes, a model of a few thousand weights."""

import importlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers.forked import Forked
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.prepare import prepare
from weft.recipes.pretraining.objectives import objectives

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
WORDS = ["the", "a", "cat", "dog", "bird", "sees", "hears", "likes", "old", "new", "red", "small", "house", "tree"]
WORDS += ["river", "and", "but", "while", "it", "she", "they"]
CHINESE_WORDS = ["我们", "今天", "公园", "天气", "很", "好", "去", "看", "一只"]
CHINESE_WORDS += ["狗", "猫", "在", "树", "下", "他", "说", "河边"]

SMALL_MODEL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "sequence_length": 32,
    "tokens_per_step": 256,
    "save_steps": 5,
    "eval_steps": 10,
    "logging_steps": 1,
    "use_cpu": "true",
    "cpu_threads": 1,
}

# Loads each folder (or repository) as a user without Weft would, and prints a fingerprint of its logits.
LOAD_WITHOUT_WEFT = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "weft":
            raise ImportError("weft is not installed here")
sys.meta_path.insert(0, Blocker())
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, pipeline
for folder in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    assert AutoConfig.from_pretrained(folder, trust_remote_code=True).use_cache
    AutoModel.from_pretrained(folder, trust_remote_code=True)
    with torch.no_grad():
        logits = model(**tokenizer("the cat", return_tensors="pt")).logits
    text = pipeline("text-generation", model=folder, trust_remote_code=True)("the cat", max_new_tokens=4)
    assert text[0]["generated_text"].startswith("the cat")
    print("LOGITS", logits.double().sum().item().hex())
"""


def write_text(path: Path, documents: int = 120, seed: int = 0) -> Path:
    """A text of made-up sentences; documents are separated by blank lines."""
    draw = random.Random(seed)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(3, 60))).capitalize() + "." for _ in range(documents)]
    path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return path


def write_sentences(path: Path, chinese: bool = False, documents: int = 60, seed: int = 0) -> Path:
    """A text whose documents are one to eight made-up sentences, English or Chinese."""
    draw = random.Random(seed)

    def sentence() -> str:
        words = draw.choices(CHINESE_WORDS if chinese else WORDS, k=draw.randint(3, 8))
        return "".join(words) + "。" if chinese else " ".join(words).capitalize() + "."

    texts = [("" if chinese else " ").join(sentence() for _ in range(draw.randint(1, 8))) for _ in range(documents)]
    path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return path


def make_corpus_of_sentences(folder: Path, chinese: bool = False) -> Path:
    """A prepared corpus of such a text that knows where words and sentences begin, with a byte-level tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    text = write_sentences(folder / "text.txt", chinese)
    arguments = DataArguments(train_files=[str(text)], vocab_size=300, validation_fraction=0.15, segmenter="characters")
    prepare(arguments, folder / "corpus", quiet=True)
    return folder / "corpus"


def make_corpus(folder: Path) -> Path:
    """A prepared corpus of such a text, with a character tokenizer."""
    text = write_text(folder / "text.txt")
    prepare(
        DataArguments(train_files=[str(text)], tokenizer_type="char", validation_fraction=0.1), folder / "corpus", True
    )
    return folder / "corpus"


def command(**fields: object) -> list[str]:
    """Words of a command line for a small run; `fields` override the small model's (None: not given)."""
    words = []
    for name, value in {**SMALL_MODEL, **fields}.items():
        if value is None:
            continue
        words += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return words


def recipe_of(fields: dict) -> str:
    """The recipe that knows such fields, by the objective; one that nobody knows is asked of pretrain_mlm."""
    if fields.get("objective") is None:
        return "pretrain_clm"
    known = objectives().get(fields["objective"])
    return "pretrain_mlm" if known is None else known.recipe


def run_here(**fields: object) -> None:
    """Carry a run out in this process."""
    importlib.import_module(f"weft.recipes.{recipe_of(fields)}").main(command(**fields))


def run_error(**fields: object) -> str:
    """The sentence with which a run is refused."""
    try:
        run_here(**fields)
    except RecipeError as error:
        return str(error)
    raise AssertionError("the run was not refused")


def start(**fields: object) -> Forked | subprocess.Popen:
    """Start a run in a process of its own."""
    if torch.cuda.is_available():
        return launch(**fields)
    return Forked(RECIPES / f"{recipe_of(fields)}.py", command(**fields))


def launch(processes: int = 1, config: str = "cpu_2.yaml", **fields: object) -> subprocess.Popen:
    """Start a run with `accelerate launch`, as a user would; `config`: its file for several processes."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
    if processes > 1:
        launcher += ["--config_file", str(RECIPES / "configs" / "accelerate" / config), "--main_process_port", "0"]
    else:
        launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [*launcher, str(RECIPES / f"{recipe_of(fields)}.py"), *command(**fields)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: Forked | subprocess.Popen, expected: int = 0) -> str:
    """Wait for a run and return what it printed."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == expected, output
    return output


def weights(folder: Path) -> dict:
    """The weights in a checkpoint or finished run."""
    return load_file(folder / "model.safetensors")


def history(folder: Path) -> list[dict]:
    """The logged steps of a finished run."""
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


def losses(folder: Path) -> list[float]:
    """Training loss of each step."""
    return [entry["loss"] for entry in history(folder) if "loss" in entry]


def assert_only_planned(folder: Path, printed: str, said: list[str]) -> None:
    """A plan says these words, and no run began in the folder."""
    for words in said:
        assert words in printed
    assert not (folder / "run.json").exists()


def assert_equal_ends(folder: Path, reference: Path) -> None:
    """Two runs end with the same weights and scores, but for the order of sums."""
    found, expected = weights(folder), weights(reference)
    for name, value in expected.items():
        assert (found[name] - value).norm() <= 2e-4 * value.norm(), name
    found, expected = ([e for e in history(path) if "eval_loss" in e][-1] for path in (folder, reference))
    for name in [name for name in expected if name.startswith("eval_")]:
        assert found[name] == pytest.approx(expected[name], rel=1e-4), name
