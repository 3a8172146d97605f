"""Search by meaning over sentence-transformers, on Weft and stock models; faiss finds the same."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from weft.recipes import search
from weft.recipes.common.errors import RecipeError
from weft.recipes.searching.embedder import Embedder
from weft.recipes.searching.index import SearchIndex
from weft.recipes.searching.vectors import nearest


def run(*words: Any) -> None:
    search.main([str(word) for word in words])


@pytest.fixture
def written(texts: list[str], tmp_path: Path) -> Path:
    """The texts in two files."""
    (tmp_path / "texts").mkdir()
    for number, name in enumerate(("a.txt", "b.txt")):
        (tmp_path / "texts" / name).write_text("\n\n".join(texts[number::2]))
    return tmp_path / "texts"


@pytest.fixture
def stock(tokenizer, tmp_path: Path) -> Path:
    """A BERT of random weights, as transformers saves it."""
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(tmp_path / "stock")
    tokenizer.save_pretrained(tmp_path / "stock")
    return tmp_path / "stock"


def mean_of_states(folder: Path, texts: list[str]) -> np.ndarray:
    """By hand: the mean over a text's last states, of length 1."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    vectors = []
    for text in texts:
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False))[0][0]
        vectors.append(torch.nn.functional.normalize(states.mean(0), dim=0).numpy())
    return np.stack(vectors)


@pytest.mark.parametrize("kind", ["masked", "causal", "stock"])
def test_a_plain_checkpoint_gives_the_mean_of_its_last_states(
    kind: str, folders: dict[str, Path], stock: Path, written: Path, tmp_path: Path
) -> None:
    folder = stock if kind == "stock" else folders[kind]
    run("build", written, tmp_path / "index", "--model", folder, "--passage_tokens", 30, "--device", "cpu")
    index = SearchIndex(tmp_path / "index")
    texts = index.passages.column("text").to_pylist()
    np.testing.assert_allclose(index.vectors, mean_of_states(folder, texts), atol=2e-5)
    hits = index.search([texts[3]], top=1, by="meaning")[0]
    assert hits[0].text == texts[3] and hits[0].score == pytest.approx(1, abs=1e-4)


def test_no_passage_is_cut_short_by_the_model(folders: dict[str, Path], written: Path, tmp_path: Path) -> None:
    run("build", written, tmp_path / "index", "--model", folders["masked"], "--passage_tokens", 5000, "--device", "cpu")
    model = Embedder(str(folders["masked"]), "cpu")
    tokenizer = AutoTokenizer.from_pretrained(folders["masked"])
    texts = SearchIndex(tmp_path / "index").passages["text"].to_pylist()
    lengths = [len(tokenizer(text)["input_ids"]) for text in texts]
    assert model.longest // 2 < max(lengths) <= model.model.max_seq_length


def test_a_folder_of_sentence_transformers_is_used_as_it_says(
    folders: dict[str, Path], written: Path, tmp_path: Path
) -> None:
    """With prompts of its own for questions and passages, and a length that is shorter than the stack's."""
    stack = Transformer(str(folders["masked"]), max_seq_length=24)
    pooling = Pooling(stack.get_embedding_dimension(), "cls")
    prompts = {"query": "the river: ", "document": "a stone: "}
    SentenceTransformer(modules=[stack, pooling, Normalize()], prompts=prompts, device="cpu").save(str(tmp_path / "st"))
    run("build", written, tmp_path / "index", "--model", tmp_path / "st", "--device", "cpu")
    index, model = SearchIndex(tmp_path / "index"), SentenceTransformer(str(tmp_path / "st"), device="cpu")
    texts = index.passages.column("text").to_pylist()
    assert max(len(model.tokenizer(prompts["document"] + text)["input_ids"]) for text in texts) <= 24
    expected = model.encode_document(texts, normalize_embeddings=True)
    np.testing.assert_allclose(index.vectors, expected, atol=2e-5)
    question = model.encode_query(["quietly made"], normalize_embeddings=True)[0]
    assert np.abs(question - model.encode_document(["quietly made"])[0]).max() > 1e-3
    best = np.argsort(-(expected @ question))[:4]
    hits = index.search(["quietly made"], top=4, by="meaning")[0]
    np.testing.assert_allclose([hit.score for hit in hits], (expected @ question)[best], atol=1e-4)
    assert index.by == "both"


def test_a_model_that_reads_next_to_nothing_is_refused(folders: dict[str, Path], written: Path, tmp_path: Path) -> None:
    stack = Transformer(str(folders["masked"]), max_seq_length=8)
    pooling = Pooling(stack.get_embedding_dimension(), "mean")
    SentenceTransformer(modules=[stack, pooling], device="cpu").save(str(tmp_path / "st"))
    with pytest.raises(RecipeError, match=r"reads 8 tokens, of which \d are left beside its prompt"):
        run("build", written, tmp_path / "index", "--model", tmp_path / "st", "--device", "cpu")
    assert not (tmp_path / "index").exists()


def test_an_index_keeps_its_model(folders: dict[str, Path], written: Path, tmp_path: Path) -> None:
    run("build", written, tmp_path / "index", "--model", folders["masked"], "--device", "cpu")
    with pytest.raises(RecipeError, match="was built with another model"):
        run("build", written, tmp_path / "index", "--model", folders["causal"])
    with pytest.raises(RecipeError, match="was built with another model"):
        run("ask", tmp_path / "index", "a", "--by", "meaning", "--model", folders["causal"])


def test_what_gives_no_vectors_is_refused(tokenizer, written: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(RecipeError, match="cannot be loaded"):
        run("build", written, tmp_path / "index", "--model", tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text(json.dumps({"model_type": "t5", "is_encoder_decoder": True}))
    with pytest.raises(RecipeError, match="it is an encoder-decoder: give an encoder"):
        run("build", written, tmp_path / "index", "--model", tmp_path / "empty")
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("number", [1, 30])
def test_faiss_finds_the_same(number: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((5000, 48), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    questions = rows[:number] + 0.1 * draw.standard_normal((number, 48), np.float32)
    ours, theirs = nearest(mapped, questions, 20), nearest(mapped, questions, 20, faiss=True)
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5)
    np.testing.assert_array_equal(ours[1], theirs[1])


def test_the_command_takes_faiss(folders: dict[str, Path], written: Path, tmp_path: Path, capsys) -> None:
    run("build", written, tmp_path / "index", "--model", folders["masked"], "--device", "cpu")
    found = []
    for flag in ("--faiss", "--no-faiss"):
        capsys.readouterr()
        run("ask", tmp_path / "index", "river", "--by", "meaning", "--json", flag)
        found.append([hit["text"] for hit in json.loads(capsys.readouterr().out)["hits"]])
    assert found[0] == found[1] and len(found[0]) == 5
