"""An embedding model of another family is imported with its pooling, and gives the same vectors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import embeddings as rows_of
from helpers import finetuning as ft
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import BertConfig, BertModel, PreTrainedTokenizerBase

from weft.recipes.common.errors import RecipeError
from weft.recipes.conversion.run import convert


@pytest.fixture
def stock(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Path:
    """A small BERT under a mean and a normalisation, as sentence-transformers saves it."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=96, pad_token_id=tokenizer.pad_token_id, **shape
    )
    BertModel(config).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    first = Transformer(str(tmp_path / "bert"))
    model = SentenceTransformer(modules=[first, Pooling(32, "mean"), Normalize()], prompts={"query": "find: "})
    model.save(str(tmp_path / "stock"), create_model_card=False)
    return tmp_path / "stock"


def test_its_vectors_are_the_same_and_training_goes_on(stock: Path, texts: list[str], tmp_path: Path) -> None:
    convert("import", str(stock), tmp_path / "weft", None)
    ours, theirs = (SentenceTransformer(str(folder), device="cpu") for folder in (tmp_path / "weft", stock))
    assert [type(module) for module in ours] == [type(module) for module in theirs]
    assert type(ours[0].model).__name__ == "WeftModel" and ours.prompts["query"] == "find: "
    np.testing.assert_allclose(ours.encode(texts), theirs.encode(texts), atol=1e-5)
    np.testing.assert_allclose(ours.encode_query(texts), theirs.encode_query(texts), atol=1e-5)
    file = ft.write_rows(tmp_path / "pairs.jsonl", rows_of.pairs())
    fields = {"train_file": file, "model_name_or_path": tmp_path / "weft", "output_dir": tmp_path / "run"}
    ft.run_here(rows_of.main, **fields, max_steps=2, evaluations=1, baselines=["none"])
    assert {entry["answer"] for entry in ft.metrics(tmp_path / "run")["baselines"]["validation"]} == {"before training"}
    convert("export", str(tmp_path / "weft"), tmp_path / "back", "bert")
    back = SentenceTransformer(str(tmp_path / "back"), device="cpu")
    np.testing.assert_allclose(back.encode(texts), theirs.encode(texts), atol=1e-5)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"type": "own_code.Pooling"}, "has the module own_code.Pooling, which is no part of sentence-transformers"),
        ({"path": "../elsewhere"}, "has the module '../elsewhere', which is no folder of its own"),
        ({"path": ".."}, r"has the module '\.\.', which is no folder of its own"),
        (None, "modules.json of .* cannot be read"),
    ],
)
def test_modules_that_cannot_be_kept_are_refused(
    stock: Path, change: dict | None, sentence: str, tmp_path: Path
) -> None:
    modules = json.loads((stock / "modules.json").read_text())
    modules[1] = None if change is None else modules[1] | change
    (stock / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(RecipeError, match=sentence):
        convert("import", str(stock), tmp_path / "weft", None)
    assert not (tmp_path / "weft").exists()
