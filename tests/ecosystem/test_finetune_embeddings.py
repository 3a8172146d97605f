"""Embeddings are trained from any rows and any model, resume exactly, and load where the package is not."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import embeddings as rows_of
from helpers import finetuning as ft
from helpers.cards import head_of, scores_of, usage_of
from helpers.elsewhere import succeed
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder, SentenceTransformer

from weft.recipes.finetuning.embeddings.arguments import EmbeddingFiles
from weft.recipes.finetuning.embeddings.evaluation_sets import make_set
from weft.recipes.finetuning.embeddings.reading import read_rows
from weft.recipes.finetuning.embeddings.scoring import judge
from weft.recipes.finetuning.embeddings.sides import WordVectors
from weft.recipes.finetuning.embeddings.trainer import ModuleTrainer

# of a tiny model, which dropout would only slow down
FIELDS = {"hidden_dropout": 0, "learning_rate": 5e-3, "distractors": 20, "per_device_train_batch_size": 16}
TWO_STEPS = {**FIELDS, "max_steps": 2, "evaluations": 1, "baselines": ["none"]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return ft.write_rows(tmp_path / "pairs.jsonl", rows_of.pairs())


def run(folder: Path, **fields: object) -> dict:
    ft.run_here(rows_of.main, output_dir=folder, **fields)
    return ft.metrics(folder)


def load(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu")


def test_pairs_teach_a_model_to_search_and_its_folder_loads_anywhere(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    found = run(folder, train_file=file, **FIELDS, max_steps=40, matryoshka=[8], num_hidden_layers=1)
    assert found["eval_ndcg_at_10"] > 0.6
    beside = {entry["answer"]: entry for entry in found["baselines"]["validation"]}
    assert set(beside) == {"its first 8 numbers", "BM25", "FastText"}
    assert all(0 <= entry["ndcg_at_10"] <= 1 and "recall_at_10" in entry for entry in beside.values())
    assert head_of(folder).library_name == "sentence-transformers"
    assert {"curve.png", "sides.png", "mistakes.csv", "modules.json", "README.md"} <= {
        one.name for one in folder.iterdir()
    }
    expected = load(folder).encode(["where is the red house"])
    assert expected.shape == (1, 32) and np.linalg.norm(expected) == pytest.approx(1, abs=1e-5)
    printed = succeed(
        f"""
        import json
        from sentence_transformers import SentenceTransformer
        from transformers import AutoModel
        model = SentenceTransformer({str(folder)!r}, trust_remote_code=True, device="cpu")
        vector = model.encode("where is the red house")
        assert type(AutoModel.from_pretrained({str(folder)!r}, trust_remote_code=True)).__name__ == "WeftModel"
        print(json.dumps(vector.tolist()))
        """,
        tmp_path,
    )
    np.testing.assert_allclose(json.loads(printed.splitlines()[-1]), expected[0], atol=1e-5)
    assert "tensor" in succeed(usage_of(folder), tmp_path)


def test_a_side_that_tells_no_texts_apart_finds_none(file: Path) -> None:
    asked = make_set("validation", [*read_rows(file, EmbeddingFiles())][:20], [], 0, 0)

    class Blind:
        def index(self, documents):
            return lambda queries: np.zeros((len(queries), len(documents)))

    assert set(judge(Blind(), asked).metrics.values()) == {0.0}


def test_a_reranker_has_a_folder_of_its_own(file: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for reranker in ("true", "false"):
        ft.run_here(rows_of.main, train_file=file, plan="true", reranker=reranker, **TWO_STEPS)
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("plan of")] == [
        "plan of runs/reranker_pairs",
        "plan of runs/embeddings_pairs",
    ]


@pytest.mark.parametrize("name", ["triplets", "scored", "labelled"])
def test_rows_of_each_kind_train(name: str, tmp_path: Path) -> None:
    path = ft.write_rows(tmp_path / "rows.jsonl", getattr(rows_of, name)())
    folder = tmp_path / "run"
    found = run(folder, train_file=path, **{**TWO_STEPS, "max_steps": 30, "evaluations": 2})
    metric = {"scored": "eval_spearmanr", "labelled": "eval_accuracy_at_1"}.get(name, "eval_ndcg_at_10")
    assert found[metric] > 0.4, found[metric]
    assert (folder / ("scatter.png" if name == "scored" else "mistakes.csv")).is_file()


@pytest.mark.parametrize("how", ["title", "simcse", "tsdae"])
def test_text_alone_trains(how: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(rows_of.documents(), encoding="utf-8")
    folder = tmp_path / "run"
    found = run(folder, train_file=path, unsupervised=how, **{**TWO_STEPS, "max_steps": 6})
    assert 0 < found["eval_ndcg_at_10"] <= 1
    losses = ft.losses(folder)
    assert losses[-1] < losses[0] or how == "simcse"
    assert not any("decoder" in name for name in load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("kind", ["pairs", "tsdae"])
def test_a_killed_run_goes_on_bit_for_bit(kind: str, file: Path, tmp_path: Path, monkeypatch) -> None:
    fields = {"train_file": file, **TWO_STEPS, "max_steps": 12, "evaluations": 3}
    if kind == "tsdae":
        (tmp_path / "text.txt").write_text(rows_of.documents(), encoding="utf-8")
        fields |= {"train_file": tmp_path / "text.txt", "unsupervised": "tsdae"}
    run(tmp_path / "whole", **fields)
    step, done = ModuleTrainer.training_step, 0

    def fail(self: ModuleTrainer, *args: object, **kwargs: object) -> torch.Tensor:
        nonlocal done
        done += 1
        if done == 11:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ModuleTrainer, "training_step", fail)
        run(tmp_path / "killed", **fields)
    run(tmp_path / "killed", **fields)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    histories = [[x for x in ft.seed_result(tmp_path / name)["history"] if "loss" in x] for name in ("whole", "killed")]
    assert [x["loss"] for x in histories[0]] == [x["loss"] for x in histories[1]]


def test_a_batch_in_parts_teaches_the_same(file: Path, tmp_path: Path) -> None:
    fields = {"train_file": file, **TWO_STEPS, "max_steps": 4}
    run(tmp_path / "whole", **fields)
    run(tmp_path / "parts", **fields, mini_batch_size=3)
    assert ft.losses(tmp_path / "parts") == pytest.approx(ft.losses(tmp_path / "whole"), rel=1e-3)


def test_a_reranker_is_one_flag(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fields = {**TWO_STEPS, "max_steps": 40, "baselines": ["bm25"], "hard_negatives": 3}
    found = run(folder, train_file=file, reranker="true", **fields)
    assert 0 < found["eval_ndcg_at_10"] <= 1
    assert [entry["answer"] for entry in found["baselines"]["validation"]] == ["BM25"]
    losses = ft.losses(folder)
    assert losses[-1] < losses[0]
    pair = ("where is the red house", "the red house is by the lake now")
    expected = CrossEncoder(str(folder), device="cpu").predict([pair])
    printed = succeed(
        f"""
        from sentence_transformers import CrossEncoder
        print(CrossEncoder({str(folder)!r}, trust_remote_code=True, device="cpu").predict([{pair!r}])[0])
        """,
        tmp_path,
    )
    assert float(printed.splitlines()[-1]) == pytest.approx(float(expected[0]), abs=1e-5)
    assert "red" not in usage_of(folder) and succeed(usage_of(folder), tmp_path)


@pytest.mark.parametrize("role, pooling", [("masked", "mean"), ("causal", "lasttoken")])
def test_an_encoder_is_averaged_and_a_decoder_read_at_its_end(
    role: str, pooling: str, folders: dict[str, Path], file: Path, tmp_path: Path
) -> None:
    fields = {name: value for name, value in TWO_STEPS.items() if name != "hidden_dropout"}
    found = run(tmp_path / "run", train_file=file, model_name_or_path=folders[role], **fields)
    model = load(tmp_path / "run")
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling", "Normalize"]
    assert model[1].pooling_mode == pooling
    assert [entry["answer"] for entry in found["baselines"]["validation"]] == ["before training"]
    if role == "causal":  # what is read is the end token, which follows the text
        ids = model.tokenizer("where is the red house")["input_ids"]
        assert ids[-1] == model.tokenizer.eos_token_id


def test_an_embedding_model_keeps_its_modules_and_is_scored_before(file: Path, tmp_path: Path) -> None:
    run(tmp_path / "first", train_file=file, **TWO_STEPS, normalize="false", pooling="max")
    given = {"train_file": file, "model_name_or_path": tmp_path / "first", **TWO_STEPS}
    del given["hidden_dropout"]
    other = ft.write_rows(tmp_path / "likeness.jsonl", rows_of.scored())
    found = run(tmp_path / "second", **given, evaluation_files=[other])
    model = load(tmp_path / "second")
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling"] and model[1].pooling_mode == "max"
    before = {entry["answer"]: entry for entry in found["baselines"]["validation"]}["before training"]
    first = ft.metrics(tmp_path / "first")
    assert before["ndcg_at_10"] == pytest.approx(first["eval_ndcg_at_10"], abs=1e-6)
    assert -1 <= found["likeness_spearmanr"] <= 1 and (tmp_path / "second" / "likeness" / "scatter.png").is_file()
    assert {split for split, _ in scores_of(head_of(tmp_path / "second"))} == {
        "validation"
    }  # others are other data sets
    assert "pooling cannot be given" in ft.run_error(rows_of.main, **given, pooling="mean", output_dir=tmp_path / "x")


def test_vectors_of_words_are_the_same_every_time() -> None:
    texts = ["the red house", "a blue boat on the river", "蓝色的船"]
    one, other = (WordVectors(texts * 5, seed=1).similarities(texts, texts[::-1]) for _ in range(2))
    assert np.array_equal(one, other) and one[1] == pytest.approx(1, abs=1e-5)
