"""sentence-transformers trains, saves and loads Weft encoders: embeddings, cross-encoders and sparse vectors."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from sentence_transformers import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    SparseEncoder,
)
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss
from transformers import AutoModel

ARGUMENTS = {
    **{"max_steps": 12, "per_device_train_batch_size": 64, "learning_rate": 3e-3, "report_to": "none", "use_cpu": True},
    **{"save_strategy": "no", "logging_steps": 1},
}


def pairs(texts: list[str], name: str = "score") -> Dataset:
    """Each text with itself, which is near, and with another, which is far."""
    half = len(texts) // 2
    rows = {"sentence1": texts[:half] * 2, "sentence2": texts[:half] + texts[half : 2 * half]}
    return Dataset.from_dict({**rows, name: [1.0] * half + [0.0] * half})


def losses(trainer: Any) -> list[float]:
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_embeddings_are_trained_and_come_back(
    kind: str, folders: dict[str, Path], texts: list[str], tmp_path: Path
) -> None:
    model = SentenceTransformer(str(folders[kind]), trust_remote_code=True, device="cpu")
    arguments = SentenceTransformerTrainingArguments(tmp_path / "run", **ARGUMENTS)
    trainer = SentenceTransformerTrainer(model, arguments, pairs(texts), loss=CosineSimilarityLoss(model))
    trainer.train()
    found = losses(trainer)
    assert found[-1] < 0.9 * found[0], found
    model.save(str(tmp_path / "model"))
    loaded = SentenceTransformer(str(tmp_path / "model"), trust_remote_code=True, device="cpu")
    expected = model.encode(texts[:3], convert_to_tensor=True)
    torch.testing.assert_close(loaded.encode(texts[:3], convert_to_tensor=True), expected, rtol=1e-4, atol=1e-4)
    one = model.encode(texts[:1], convert_to_tensor=True)
    torch.testing.assert_close(one[0], expected[0], rtol=1e-4, atol=1e-4)


def test_a_model_of_all_roles_is_read_by_the_mean_of_its_states_in_both_directions(
    folders: dict[str, Path], texts: list[str], tmp_path: Path
) -> None:
    """Each text alone, by AutoModel; a folder that is saved so gives the same."""
    model = SentenceTransformer(str(folders["hybrid"]), trust_remote_code=True, device="cpu")
    inner = AutoModel.from_pretrained(folders["hybrid"], trust_remote_code=True).eval()
    model.save(str(tmp_path / "model"))
    loaded = SentenceTransformer(str(tmp_path / "model"), trust_remote_code=True, device="cpu")
    for each in (model, loaded):
        for text, vector in zip(texts[:3], each.encode(texts[:3], convert_to_tensor=True)):
            with torch.no_grad():
                states = inner(**model.tokenizer(text, return_tensors="pt")).last_hidden_state[0]
            torch.testing.assert_close(vector, states.mean(0), rtol=1e-4, atol=1e-4)


def test_a_causal_model_is_read_at_its_last_token_unless_the_mean_is_asked_for(
    folders: dict[str, Path], texts: list[str], tmp_path: Path
) -> None:
    model = SentenceTransformer(str(folders["causal"]), trust_remote_code=True, device="cpu")
    read = model.preprocess(texts[:1])  # by the chat template, which this checkpoint has
    assert model.tokenizer.decode(read["input_ids"][0]) == f"<s>user: {texts[0]}</s>"
    with torch.no_grad():
        states = model[0](read)["token_embeddings"][0]
    torch.testing.assert_close(model.encode(texts[0], convert_to_tensor=True), states[-1], rtol=1e-4, atol=1e-4)
    model[1].pooling_mode = "mean"
    model.save(str(tmp_path / "model"))
    for mean in (model, SentenceTransformer(str(tmp_path / "model"), trust_remote_code=True, device="cpu")):
        found = mean.encode(texts[0], convert_to_tensor=True)
        torch.testing.assert_close(found, states.mean(0), rtol=1e-4, atol=1e-4)


def test_a_classifier_is_a_cross_encoder(folders: dict[str, Path], texts: list[str], tmp_path: Path) -> None:
    model = CrossEncoder(str(folders["classifier"]), trust_remote_code=True, device="cpu")
    given = [(texts[0], texts[1]), (texts[2], texts[2])]
    batch = model.tokenizer([one for one, _ in given], [two for _, two in given], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = torch.sigmoid(model.model(**batch).logits[:, 0])
    torch.testing.assert_close(model.predict(given, convert_to_tensor=True), expected, rtol=1e-4, atol=1e-4)
    arguments = CrossEncoderTrainingArguments(tmp_path / "run", **ARGUMENTS)
    trainer = CrossEncoderTrainer(model, arguments, pairs(texts, "label"))
    trainer.train()
    found = losses(trainer)
    assert found[-1] < 0.95 * found[0], found
    model.save_pretrained(str(tmp_path / "model"))
    loaded = CrossEncoder(str(tmp_path / "model"), trust_remote_code=True, device="cpu")
    torch.testing.assert_close(
        loaded.predict(given, convert_to_tensor=True),
        model.predict(given, convert_to_tensor=True),
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_masked_model_gives_sparse_vectors(folders: dict[str, Path], texts: list[str], tmp_path: Path) -> None:
    """SPLADE: one number for each token of the vocabulary, by the masked head's logits."""
    model = SparseEncoder(str(folders["masked"]), trust_remote_code=True, device="cpu")
    found = model.encode(texts[:2], convert_to_sparse_tensor=False, convert_to_tensor=True)
    inner = model[0].model
    for text, vector in zip(texts, found):
        batch = model.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            logits = inner(**batch).logits[0]
        torch.testing.assert_close(vector, torch.log1p(logits.relu()).amax(0), rtol=1e-4, atol=1e-4)
    model.save_pretrained(str(tmp_path / "model"))
    loaded = SparseEncoder(str(tmp_path / "model"), trust_remote_code=True, device="cpu")
    again = loaded.encode(texts[:2], convert_to_sparse_tensor=False, convert_to_tensor=True)
    torch.testing.assert_close(again, found, rtol=1e-4, atol=1e-4)
