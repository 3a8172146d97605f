"""Few-shot classifiers, with the loss of sentence-transformers: from any start to a folder that loads anywhere."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import finetuning as ft
from helpers.elsewhere import succeed
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from weft.recipes.finetuning.embeddings.start import pooling_of
from weft.recipes.finetuning.tasks.text_classification.contrast import Contrast
from weft.tokenizer.special_tokens import for_role

TEXTS = ["the lovely house", "they sees the awful river while"]


def few(folder: Path, start: Path, **fields: object) -> dict[str, object]:
    """Fields of a run at the rate of `SMALL_RUN`, with which so small and untrained a model learns."""
    usual = {"few_shot": "true", "max_steps": None, "evaluations": None, "per_device_train_batch_size": None}
    files = ft.write_files(folder, 24, 20)
    return {**files, "model_name_or_path": start, "output_dir": folder / "run", **usual, **fields}


@pytest.mark.parametrize("causal", [False, True])
def test_a_few_examples_make_a_classifier_that_loads_without_this_package(causal: bool, tmp_path: Path) -> None:
    ft.run_here(**few(tmp_path, ft.make_start(tmp_path / "start", causal)))
    folder = tmp_path / "run"
    losses = ft.losses(folder)
    assert ft.metrics(folder)["eval_accuracy"] >= 0.9 and losses[-1] < losses[0]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    expected = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    printed = succeed(
        f"""
        import json
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
        tokenizer = AutoTokenizer.from_pretrained({str(folder)!r}, trust_remote_code=True)
        model = AutoModelForSequenceClassification.from_pretrained({str(folder)!r}, trust_remote_code=True).eval()
        print(json.dumps(model(**tokenizer({TEXTS!r}, padding=True, return_tensors="pt")).logits.tolist()))
        """,
        tmp_path,
    )
    torch.testing.assert_close(torch.tensor(json.loads(printed.splitlines()[-1])), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_an_embedding_model_is_trained_by_its_own_vectors(
    pooling: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    """At a learning rate of nearly 0 the classifier's head reads what the embedding model gives for a text."""
    shutil.copytree(folders["masked"], tmp_path / "masked")
    for_role(AutoTokenizer.from_pretrained(folders["masked"]), "encoder").save_pretrained(tmp_path / "masked")
    modules = [Transformer(str(tmp_path / "masked")), Pooling(32, pooling)]
    start = SentenceTransformer(modules=modules, device="cpu")
    SentenceTransformer(modules=[*modules, Normalize()]).save(str(tmp_path / "start"), create_model_card=False)
    ft.run_here(**few(tmp_path, tmp_path / "start", learning_rate=1e-12, max_steps=1))
    folder = tmp_path / "run"
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert model.config.classifier_pooling == pooling
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    vectors = Contrast().forward(model, batch).detach().numpy()
    np.testing.assert_allclose(vectors, start.encode(TEXTS), atol=1e-5)


def test_another_pooling_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    for modes in ("max", ("mean", "max")):
        model = SentenceTransformer(modules=[Transformer(str(folders["masked"])), Pooling(32, modes)])
        model.save(str(tmp_path / "start"), create_model_card=False)
        assert "pools" in ft.run_error(**few(tmp_path, tmp_path / "start"))
    assert pooling_of(str(folders["masked"])) is None
