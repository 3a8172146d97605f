"""The road: the same text and the same score for all sides, runs that go on, and refusals before any work."""

import json
import math
import pickle
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.text import sentences
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from weft.recipes import benchmark
from weft.recipes.benchmarks.road import run as road
from weft.recipes.benchmarks.road import scoring
from weft.recipes.benchmarks.road import side as own_side
from weft.recipes.benchmarks.road.foreign import ForeignModel, ForeignTokenizer
from weft.recipes.benchmarks.road.nanogpt import write_tokens
from weft.recipes.benchmarks.road.report import as_table, minutes_to_reach
from weft.recipes.benchmarks.road.run_clm import SCRIPT, RunClm
from weft.recipes.benchmarks.road.side import Pace, RoadRun, Side
from weft.recipes.benchmarks.road.text import RoadText, read_documents, write_documents
from weft.recipes.benchmarks.road.weft import Weft
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.prepare import prepare
from weft.tokenizer.encode_as_text import encode_as_text
from weft.tokenizer.train import train_tokenizer

TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
# Takes the fields that transformers' run_clm.py is given, and trains as it does.
STAND_IN = """
import json
from dataclasses import dataclass
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, HfArgumentParser, Trainer, TrainingArguments
@dataclass
class Fields:
    model_type: str
    config_overrides: str
    tokenizer_name: str
    train_file: str
    block_size: int
    validation_split_percentage: int
fields, arguments = HfArgumentParser((Fields, TrainingArguments)).parse_args_into_dataclasses()
config = AutoConfig.for_model(fields.model_type)
config.update_from_string(fields.config_overrides)
tokenizer = AutoTokenizer.from_pretrained(fields.tokenizer_name)
ids = [i for line in open(fields.train_file) for i in tokenizer(json.loads(line)["text"])["input_ids"]]
size = fields.block_size
rows = [{"input_ids": ids[i : i + size], "labels": ids[i : i + size]} for i in range(0, len(ids) - size, size)]
trainer = Trainer(AutoModelForCausalLM.from_config(config), arguments, train_dataset=rows, processing_class=tokenizer)
trainer.train()
trainer.save_model()
"""


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(iter(sentences(80)), "bpe", 300)


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(sentences(120)), encoding="utf-8")
    return path


def tiny_model(size: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=size, max_position_embeddings=64, **TINY)
    return LlamaForCausalLM(config).eval().double()


def command_line(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    words = []
    for name, value in {"subject": "road", **fields}.items():
        words += [f"--{name}", *(map(str, value) if isinstance(value, (list, tuple)) else [str(value)])]
    monkeypatch.setattr("sys.argv", ["benchmark.py", *words])
    benchmark.main()


class Quick(Side):
    """A side that knows its score: the more steps, the better."""

    NAME = "weft"
    broken, step_seconds, now = False, 0.5, 0.0

    def prepare(self, run: RoadRun) -> None:
        Quick.now += 1

    def train(self, run: RoadRun, steps: int) -> None:
        if self.broken:
            raise RecipeError("the loop broke.")
        Quick.now += 2 + self.step_seconds * steps
        (run.work / "steps").write_text(str(steps))

    def measure_pace(self, run: RoadRun) -> Pace:
        return Pace(2.0, 0.5)

    def load(self, work: Path, peers: Path | None) -> Any:
        raise AssertionError("it is scored without a model")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> type[Quick]:
    def score(road_folder: Any, side: Side, run: RoadRun) -> scoring.Score:
        nats = 100 + 1000 / int((run.work / "steps").read_text()) + run.seed
        return scoring.Score(nats, 50, 200)

    monkeypatch.setattr(Quick, "broken", False)
    other = type("Other", (Quick,), {"NAME": "run_clm"})
    monkeypatch.setattr(road, "ALL", {"weft": Quick(), "run_clm": other()})
    monkeypatch.setattr(road._Road, "_score", score)
    for module in (road, own_side):
        monkeypatch.setattr(module, "clock", lambda: Quick.now)
    return Quick


def test_the_score_is_what_the_loss_is_defined_as(tokenizer: PreTrainedTokenizerFast) -> None:
    """The nats of each token after the start token, of all texts, in float64; the end of a text counts nothing."""
    model, texts = tiny_model(len(tokenizer)), [*sentences(12, seed=3), "a"]
    nats, tokens = 0.0, 0
    for encoding in encode_as_text(tokenizer, texts):
        ids = torch.tensor([[tokenizer.bos_token_id, *encoding.ids]])
        with torch.no_grad():
            log_probs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        nats -= log_probs.gather(-1, ids[0, 1:, None]).sum().item()
        tokens += len(encoding.ids)
    found = scoring.score_texts(model, tokenizer, texts, length=64)
    size = sum(len(text.encode()) for text in texts)
    assert (found.tokens, found.bytes) == (tokens, size)
    assert found.nats == pytest.approx(nats, rel=1e-12)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / size, rel=1e-12)


def test_models_and_tokenizers_of_others_are_scored_alike(tokenizer: PreTrainedTokenizerFast) -> None:
    """Also in windows of a few tokens, of which a text has several."""
    model, texts = tiny_model(len(tokenizer)), [*sentences(12, seed=3), "a"]
    embedding = model.get_input_embeddings()
    foreign = ForeignModel(model, embedding, lambda ids: model(input_ids=ids).logits)

    def encode(batch: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in encode_as_text(tokenizer, batch)]

    other = ForeignTokenizer(encode, tokenizer.bos_token_id, len(tokenizer))
    for length in (8, 64):
        ours = scoring.score_texts(model, tokenizer, texts, length)
        assert scoring.score_texts(foreign, other, texts, length) == ours
        assert scoring.score_texts(foreign, tokenizer, texts, length) == ours


def test_no_text_is_both_learnt_and_scored_and_the_seed_only_orders_it(text_file: Path, tmp_path: Path) -> None:
    text = RoadText.read([str(text_file)])
    assert sorted([*text.training, *text.held_out]) == sorted(sentences(120))
    share = sum(map(len, text.held_out)) / sum(map(len, sentences(120)))
    assert 0.1 <= share < 0.13
    assert text.shuffled(1) == text.shuffled(1) != text.shuffled(2) and sorted(text.shuffled(2)) == sorted(
        text.training
    )
    assert RoadText.read([str(text_file)]) == text
    texts = ["two\nlines\n\nand more", 'a "quote" \u2028 日本']
    write_documents(tmp_path / "texts.jsonl", texts)
    assert read_documents(tmp_path / "texts.jsonl") == texts


def test_a_text_that_cannot_be_divided_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text.txt"
    path.write_text("the only document")
    with pytest.raises(RecipeError, match="fewer than two documents in train_files"):
        command_line(monkeypatch, train_files=path, sides="weft", road_dir=tmp_path / "road")


def test_nanogpt_is_given_the_tokens_of_the_corpus(text_file: Path, tmp_path: Path) -> None:
    corpus = prepare(DataArguments(train_files=[str(text_file)], vocab_size=300), tmp_path / "corpus", quiet=True)
    write_tokens(corpus, tmp_path / "data")
    for name, held_out in (("train", False), ("val", True)):
        found = np.fromfile(tmp_path / "data" / f"{name}.bin", dtype=np.uint16).tolist()
        places = np.flatnonzero(corpus.is_validation == held_out)
        parts = [corpus.tokens[corpus.offsets[i] : corpus.offsets[i + 1]].tolist() for i in places]
        assert found == [token for part in parts for token in part] and found
    assert pickle.loads((tmp_path / "data" / "meta.pkl").read_bytes()) == {"vocab_size": 320}


def test_an_interrupted_measurement_goes_on(
    quick: type[Quick], text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "road"
    fields = {"train_files": text_file, "sides": ("weft", "run_clm"), "road_dir": folder, "cpu_threads": 1}
    command_line(monkeypatch, **fields, minutes=1, seeds=1)
    first = json.loads((folder / "results.json").read_text())
    assert [run["steps"] for run in first["runs"]] == [114, 114]  # of the 58 s that the start leaves
    monkeypatch.setattr(quick, "measure_pace", None)  # it would be called
    command_line(monkeypatch, **fields, minutes=(1, 2), seeds=(1, 2))
    found = json.loads((folder / "results.json").read_text())
    assert found["runs"][:2] == first["runs"]
    places = [(run["side"], run["minutes"], run["seed"]) for run in found["runs"]]
    assert sorted(places) == [(s, m, seed) for s in ("run_clm", "weft") for m in (1, 2) for seed in (1, 2)]
    assert (folder / "curve.png").stat().st_size > 5000 and not list((folder / "work").iterdir())
    table = (folder / "table.md").read_text()
    assert table.strip() in capsys.readouterr().out and table.count("\n") == 6
    with pytest.raises(RecipeError, match=r"runs with other settings \(threads differ\): give another --road_dir"):
        command_line(monkeypatch, **{**fields, "cpu_threads": 2})


def test_a_run_that_misses_its_minutes_is_repeated_at_the_pace_it_went_at(
    quick: type[Quick], text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(quick, "step_seconds", 1.0)
    fields = {"train_files": text_file, "sides": "weft", "road_dir": tmp_path / "road", "minutes": 1, "seeds": 1}
    command_line(monkeypatch, **fields)
    content = json.loads((tmp_path / "road" / "results.json").read_text())
    assert content["paces"]["weft"]["step"] == 1
    assert [(run["steps"], run["seconds"]) for run in content["runs"]] == [(57, 60)]
    assert "took 1.95 minutes: once more" in capsys.readouterr().out


def test_a_side_that_fails_stops_no_other_and_is_told_in_the_end(
    quick: type[Quick], text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(road.ALL["run_clm"], "broken", True, raising=False)
    fields = {"train_files": text_file, "sides": ("run_clm", "weft"), "road_dir": tmp_path / "road"}
    with pytest.raises(RecipeError, match=r"not all was measured: the loop broke\."):
        command_line(monkeypatch, **fields, minutes=1, seeds=(1, 2))
    runs = json.loads((tmp_path / "road" / "results.json").read_text())["runs"]
    assert [(run["side"], run["seed"]) for run in runs] == [("weft", 1), ("weft", 2)]


def test_the_table_tells_in_how_many_minutes_the_best_of_the_others_is_reached() -> None:
    def run(side: str, minutes: float, seed: int, score: float) -> dict[str, Any]:
        rest = {"seconds": 60 * minutes, "preparation": 3.0, "steps": 10}
        return {"side": side, "minutes": minutes, "seed": seed, "bits_per_byte": score, **rest}

    runs = [run("nanogpt", 20, 1, 2.0), run("nanogpt", 20, 2, 2.2), run("run_clm", 20, 1, 2.5)]
    assert minutes_to_reach(runs) is None
    runs += [run("weft", 20, 1, 1.8), run("weft", 8, 1, 2.2), run("weft", 8, 2, 2.0), run("weft", 5, 1, 2.3)]
    assert minutes_to_reach(runs) == (
        "the best of the others is nanogpt with 2.1000 bits/byte in 20 minutes; weft is there in 8"
    )
    assert "| nanogpt | 20 | 2.1000 | 2.0000 to 2.2000 | 2 | 20.00 |" in " ".join(as_table(runs).split())
    assert "weft does not reach it" in minutes_to_reach(runs[:3] + runs[-1:])


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"sides": "gpt5"}, "sides has 'gpt5': choose one of weft, nanogpt"),
        ({"minutes": 0}, "minutes has 0"),
        ({"preset": "huge"}, "preset is 'huge': choose one of"),
        ({"peer_folder": "nowhere"}, "peer_folder 'nowhere' is no folder: clone the others into one"),
        ({"train_files": "missing.txt"}, "train_files 'missing.txt' is no file"),
        ({"sides": ("nanogpt", "run_clm")}, "none of the sides nanogpt, run_clm can run"),
        ({"subject": "step", "minutes": 3}, "minutes is for --subject road: leave it out"),
        ({"family": "bert"}, "family is for --subject"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_work(
    fields: dict[str, Any], sentence: str, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = {} if fields.get("subject") == "step" else {"train_files": text_file, "road_dir": tmp_path / "road"}
    with pytest.raises(RecipeError, match=sentence):
        command_line(monkeypatch, **{**text, **fields})
    assert not (tmp_path / "road").exists()


def test_others_that_are_not_there_are_left_out_with_what_they_need(
    quick: type[Quick], text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from weft.recipes.benchmarks.road.sides import ALL

    monkeypatch.setattr(road, "ALL", {**ALL, "weft": Quick()})
    (tmp_path / "peers" / "nanochat" / "scripts").mkdir(parents=True)
    (tmp_path / "peers" / "nanochat" / "scripts" / "base_train.py").touch()
    monkeypatch.setattr("weft.recipes.benchmarks.road.nanochat.PACKAGES", ("rustbpe_of_nobody",))
    fields = {"train_files": text_file, "road_dir": tmp_path / "road", "peer_folder": tmp_path / "peers"}
    command_line(monkeypatch, **fields, minutes=1, seeds=1)
    printed = capsys.readouterr().out
    assert "nanogpt is left out: clone https://github.com/karpathy/nanoGPT into the folder of --peer_folder" in printed
    assert "nanochat is left out: install its packages: pip install --target" in printed
    assert "run_clm is left out: clone https://github.com/huggingface/transformers" in printed


@pytest.mark.parametrize("side", [Weft(), RunClm()], ids=lambda side: side.NAME)
def test_a_side_goes_from_the_text_to_a_score(side: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two steps, in this process; run_clm.py is one of the test's own that takes the same fields."""

    def here(run: RoadRun, what: str, words: list[str], folder: Path | None = None, **environment: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", list(words))
            runpy.run_path(words[0], run_name="__main__")

    monkeypatch.setattr(RoadRun, "command", here)
    monkeypatch.setattr("weft.recipes.benchmarks.road.run_clm.LENGTH", 32)
    script = tmp_path / SCRIPT
    script.parent.mkdir(parents=True)
    script.write_text(STAND_IN)
    write_documents(tmp_path / "train.jsonl", sentences(60))
    work = tmp_path / "work"
    work.mkdir()
    run = RoadRun(tmp_path / "train.jsonl", work, tmp_path / "log", 3, torch.get_num_threads(), "tiny", tmp_path)
    assert side.missing(tmp_path) is None
    side.prepare(run)
    side.train(run, 2)
    model, tokenizer = side.load(work, tmp_path)
    score = scoring.score_texts(model, tokenizer, sentences(4, seed=9))
    assert model.config.num_hidden_layers == 4 and model.config.hidden_size == 128
    assert 0 < score.bits_per_byte < 10


def test_a_command_that_fails_says_what_it_wrote_last(tmp_path: Path) -> None:
    run = RoadRun(tmp_path / "text", tmp_path, tmp_path / "log", 1, 1, "tiny")
    with pytest.raises(RecipeError, match=r"the loop ended with status 3 \(no more steps\): see .*log"):
        run.command("the loop", ["-c", "print('no more steps'); raise SystemExit(3)"])
    run.command("the loop", ["-c", "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['OTHER'])"], OTHER="yes")
    assert (tmp_path / "log").read_text().splitlines()[-1] == "1 yes"
