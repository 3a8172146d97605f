"""Runs with a teacher: each batch's loss is the written-out one, the text gets its tokenizer, and what is no teacher is
refused before any work."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers import runs
from helpers.float64 import models_in_float64
from helpers.launched import run_together
from helpers.models import shake
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from weft.recipes.common.checkpoint_files import load_tokenizer
from weft.recipes.pretraining.trainer import PretrainingTrainer

FIELDS = {"max_steps": 6, "save_steps": 3, "eval_steps": 6, "learning_rate": 0.01}
STUDENT = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "causal": {},
    "masked": {"objective": "masked", "masking": "token"},
    "hybrid": {"objective": "hybrid", "masking": "token", "causal_share": 0.5},
    "diffusion": {"objective": "diffusion"},
    "span": {"objective": "span"},
}
STOCK = {
    "gpt2": ("AutoModelForCausalLM", {"n_embd": 24, "n_layer": 2, "n_head": 2, "n_positions": 64}),
    "bert": (
        "AutoModelForMaskedLM",
        {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    ),
    "bart": ("AutoModelForSeq2SeqLM", {"d_model": 24, "encoder_layers": 1, "decoder_layers": 2}),
}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
STOCK["bart"][1].update(HEADS, max_position_embeddings=64)
SEEN = {"gpt2": "causal", "bert": "masked", "bart": "span"}  # what such a teacher is asked about


@pytest.fixture(scope="module")
def teachers(english: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained Weft model of each objective, and stock models with random weights."""
    folder = tmp_path_factory.mktemp("teachers")
    for name, fields in OBJECTIVES.items():
        runs.run_here(data=english, output_dir=folder / name, **{**FIELDS, **fields, "max_steps": 2})
    for name, (auto_class, fields) in STOCK.items():
        tokenizer = load_tokenizer(str(folder / SEEN[name]))
        ids = {key: getattr(tokenizer, key) for key in ("pad_token_id", "bos_token_id", "eos_token_id")}
        config = transformers.CONFIG_MAPPING[name](vocab_size=len(tokenizer) + 5, **ids, **fields)
        shake(getattr(transformers, auto_class).from_config(config)).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def run_with(teacher: Path, english: Path, folder: Path, objective: str = "causal", **fields: Any) -> None:
    """Train a small student of that teacher."""
    given = {**FIELDS, **STUDENT, **OBJECTIVES[objective], **fields}
    runs.run_here(data=english, output_dir=folder, teacher=teacher, **given)


def documents_of(batch: dict[str, torch.Tensor], row: int, side: str = "") -> list[tuple[int, int]]:
    """Where each document of a row begins and ends, found one place after another."""
    positions = batch[f"{side}position_ids"][row].tolist()
    mask = batch.get(f"{side}attention_mask")
    length = len(positions) if mask is None else int(mask[row].sum())
    begins = [place for place in range(length) if place == 0 or positions[place] != positions[place - 1] + 1]
    return list(zip(begins, [*begins[1:], length]))


@torch.no_grad()
def stock_logits(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits [targets, classes] of a model that is given one document after another."""
    is_pair = model.config.is_encoder_decoder
    grid = batch["labels"] if is_pair else batch["input_ids"]
    found = torch.zeros(*grid.shape, model.config.vocab_size, dtype=model.dtype)
    for row in range(len(grid)):
        if not is_pair:
            for start, end in documents_of(batch, row):
                found[row, start:end] = model(input_ids=batch["input_ids"][row, start:end][None]).logits[0]
            continue
        for source, (start, end) in zip(documents_of(batch, row), documents_of(batch, row, "decoder_"), strict=True):
            labels, ids = batch["labels"][row, start:end][None], batch["input_ids"][row, slice(*source)][None]
            read = model.prepare_decoder_input_ids_from_labels(labels=labels)
            found[row, start:end] = model(input_ids=ids, decoder_input_ids=read).logits[0]
    found = found.flatten(0, 1)
    return found[batch["predict_from"]] if "predict_from" in batch else found


@torch.no_grad()
def weft_logits(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**batch).logits.flatten(0, -2)


def check_each_batch(patch: pytest.MonkeyPatch, teacher_logits: Callable, weight: float, heat: float) -> list[float]:
    """Have each batch of a run compared with the written-out loss, which the run then goes on with; its losses."""
    losses, compute_loss = [], PretrainingTrainer.compute_loss

    def compare(trainer, model, inputs, return_outputs=False, num_items_in_batch=None):
        found = compute_loss(trainer, model, inputs, False, num_items_in_batch)
        weights = list(model.parameters())
        gradients = torch.autograd.grad(found, weights)
        given = {name: value for name, value in inputs.items() if name not in trainer.objective.kept_back}
        logits, labels = model(**given, use_cache=False).logits.flatten(0, -2), inputs["labels"].flatten()
        own, others = logits.log_softmax(-1), (logits / heat).log_softmax(-1)
        shares = (teacher_logits(given)[:, : logits.shape[-1]] / heat).softmax(-1)
        divergence = (shares * (shares.log() - others[:, : shares.shape[-1]])).sum(-1)
        right = own.gather(-1, labels.clamp(min=0)[:, None])[:, 0]
        counts = (labels != -100) * inputs.get("loss_weights", torch.ones(len(labels)))
        expected = (((weight - 1) * right + weight * heat**2 * divergence) * counts).sum() / num_items_in_batch
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=0, check_dtype=False)
        for one, other in zip(gradients, torch.autograd.grad(expected, weights, retain_graph=True), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-11 * max(1.0, other.abs().max().item()))
        losses.append(expected.item())
        return expected

    patch.setattr(PretrainingTrainer, "compute_loss", compare)
    return losses


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_batch_has_the_written_out_loss(objective, teachers, english, tmp_path, monkeypatch) -> None:
    """In float64, over micro-batches of a step; the held-out loss is that of the text alone."""
    folder, auto_class = teachers / objective, json.loads((teachers / objective / "config.json").read_text())
    kind = "Seq2SeqLM" if objective == "span" else "CausalLM" if objective == "causal" else "MaskedLM"
    with models_in_float64():
        teacher = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(folder).eval()
        losses = check_each_batch(monkeypatch, lambda batch: weft_logits(teacher, batch), 0.3, 2.0)
        fields = {"teacher_weight": 0.3, "teacher_temperature": 2.0, "per_device_train_batch_size": 2}
        run_with(folder, english, tmp_path / "run", objective, **{**fields, "max_steps": 2})
    assert len(losses) == 8 and auto_class["model_type"] == "weft"


@pytest.mark.parametrize("name", STOCK)
def test_each_batch_has_the_written_out_loss_of_a_stock_teacher(name, teachers, english, tmp_path, monkeypatch) -> None:
    with models_in_float64():
        teacher = getattr(transformers, STOCK[name][0]).from_pretrained(teachers / name).eval()
        losses = check_each_batch(monkeypatch, lambda batch: stock_logits(teacher, batch), 0.5, 1.0)
        run_with(teachers / name, english, tmp_path / "run", SEEN[name], max_steps=2)
    assert len(losses) == 2


def test_a_weight_of_zero_is_a_run_without_a_teacher(teachers, english, tmp_path) -> None:
    run_with(teachers / "causal", english, tmp_path / "zero", teacher_weight=0)
    runs.run_here(data=english, output_dir=tmp_path / "none", **FIELDS, **STUDENT)
    found, expected = runs.weights(tmp_path / "zero"), runs.weights(tmp_path / "none")
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert runs.losses(tmp_path / "zero") == runs.losses(tmp_path / "none")


@pytest.fixture(scope="module")
def whole(teachers, english, tmp_path_factory) -> Path:
    """A finished run with a teacher, whose steps are one batch each."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run_with(teachers / "gpt2", english, folder, per_device_train_batch_size=8, teacher_weight=0.7)
    return folder


@pytest.mark.parametrize("way", [{"gradient_checkpointing": "true"}, {"torch_compile": "true"}, {}])
def test_the_cut_of_a_batch_and_how_it_is_computed_change_nothing(way, teachers, english, whole, tmp_path) -> None:
    if "torch_compile" in way:
        way |= {"torch_compile_backend": "aot_eager"}
    fields = {"per_device_train_batch_size": 2, "teacher_weight": 0.7, **way}
    run_with(teachers / "gpt2", english, tmp_path / "run", **fields)
    runs.assert_equal_ends(tmp_path / "run", whole)


def test_two_processes_follow_the_curve_of_one(teachers, english, whole, tmp_path) -> None:
    fields = {**FIELDS, **STUDENT, "teacher": teachers / "gpt2", "teacher_weight": 0.7}
    run_together("cpu_2.yaml", runs.run_here, data=english, output_dir=tmp_path / "run", **fields)
    runs.assert_equal_ends(tmp_path / "run", whole)


def test_half_precision_trains(teachers, english, whole, tmp_path) -> None:
    run_with(teachers / "gpt2", english, tmp_path / "run", teacher_weight=0.7, bf16="true")
    assert runs.losses(tmp_path / "run") == pytest.approx(runs.losses(whole), rel=0.02)


def test_plan_and_card_name_the_teacher_and_what_it_costs(teachers, english, whole, tmp_path, capsys) -> None:
    run_with(teachers / "gpt2", english, tmp_path / "run", plan="true", teacher_temperature=2)
    numbers = sum(value.numel() for value in load_file(teachers / "gpt2" / "model.safetensors").values())
    said = f"{teachers / 'gpt2'} ({numbers:,} parameters), 0.5 of the loss, temperature 2; a step computes about 1."
    runs.assert_only_planned(tmp_path / "run", capsys.readouterr().out, [f"  teacher     {said}"])
    card = (whole / "README.md").read_text()
    assert f"| teacher | {teachers / 'gpt2'} ({numbers:,} parameters), 0.7 of the loss |" in card
    assert "| teacher_weight | 0.7 |" in card


def test_new_text_gets_the_tokenizer_of_the_teacher(teachers, tmp_path) -> None:
    text = runs.write_sentences(tmp_path / "text.txt", seed=1)
    given = {"train_files": text, "validation_fraction": 0.2, "teacher": teachers / "causal"}
    runs.run_here(**given, output_dir=tmp_path / "run", **FIELDS, **STUDENT)
    vocabularies = [load_tokenizer(str(each)).get_vocab() for each in (tmp_path / "run", teachers / "causal")]
    assert vocabularies[0] == vocabularies[1]


def test_a_run_may_learn_from_an_average_of_an_earlier_ones_weights(english, tmp_path) -> None:
    fields = {**STUDENT, **FIELDS, "max_steps": 2}
    runs.run_here(data=english, output_dir=tmp_path / "first", average_decay=0.9, **fields)
    run_with(tmp_path / "first", english, tmp_path / "second", max_steps=2, seed=1)
    assert (tmp_path / "second" / "metrics.json").is_file()


def test_a_teacher_with_other_weights_cannot_take_the_place_of_the_first(teachers, english, tmp_path) -> None:
    teacher, folder = tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(teachers / "causal", teacher)
    run_with(teacher, english, folder)
    (folder / "metrics.json").unlink()  # as a run that was stopped at its end
    weights = load_file(teacher / "model.safetensors")
    weights["model.norm.weight"][3] += 1e-6
    save_file(weights, teacher / "model.safetensors", {"format": "pt"})
    fields = {**FIELDS, **STUDENT, "data": english, "output_dir": folder, "teacher": teacher}
    assert runs.run_error(**fields) == (
        f"teacher {str(teacher)!r} has other weights than when this run began: give those back, or another "
        "--output_dir."
    )
    said = runs.run_error(**fields | {"teacher": teachers / "causal"})
    assert f"teacher was {str(teacher)!r}, now {str(teachers / 'causal')!r}" in said


def refused(english: Path, folder: Path, **fields: Any) -> str:
    """Why a run with a teacher is refused; nothing of it is left behind."""
    said = runs.run_error(**{**FIELDS, **STUDENT, "data": english, "output_dir": folder, **fields})
    assert not list(folder.glob("*"))
    return said


@pytest.mark.parametrize(
    "objective, teacher, said",
    [
        ("causal", "masked", "is a masked model, and a causal model is needed here"),
        ("causal", "span", "is an encoder-decoder, and a causal model is needed here"),
        ("causal", "bert", "(BertLMHeadModel) sees what comes after a token, which it is to predict"),
        ("masked", "causal", "is a causal model, and a masked model is needed here"),
        ("masked", "gpt2", "is a gpt2 (GPT2LMHeadModel), and a masked model is needed here"),
        ("masked", "hybrid", "is a hybrid model, and a masked model that is no hybrid is needed here"),
        ("hybrid", "masked", "is a masked model, and a hybrid model of Weft is needed here"),
        ("hybrid", "bert", "is a bert (BertForMaskedLM), and a hybrid model of Weft is needed here"),
        ("span", "causal", "is a causal model, and an encoder-decoder is needed here"),
        ("span", "gpt2", "is a gpt2 (GPT2LMHeadModel), and an encoder-decoder is needed here"),
    ],
)
def test_a_model_of_another_kind_is_refused(objective, teacher, said, teachers, english, tmp_path) -> None:
    found = refused(english, tmp_path / "run", teacher=teachers / teacher, **OBJECTIVES[objective])
    assert said in found and found.startswith(f"teacher {str(teachers / teacher)!r}") and found.endswith(".")


def test_a_causal_run_learns_from_a_hybrid_model_too(teachers, english, tmp_path) -> None:
    run_with(teachers / "hybrid", english, tmp_path / "run", max_steps=1)


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"teacher": "runs/nowhere"}, "teacher is 'runs/nowhere': there is no such folder"),
        ({"teacher_weight": 0.5}, "teacher_weight has no effect without teacher"),
        ({"teacher": "any", "teacher_weight": 1.5}, "teacher_weight is 1.5: give at least 0 and at most 1"),
        ({"teacher": "any", "teacher_temperature": 0}, "teacher_temperature is 0.0: give a number above 0"),
        ({"teacher": "any", "objective": "next-sentence"}, "this objective has no teacher: leave teacher out"),
        ({"teacher": "any", "data": None, "vocab_size": 300}, "vocab_size cannot be given together with teacher"),
    ],
)
def test_fields_that_make_no_sense_are_refused(fields, said, english, tmp_path) -> None:
    assert said in refused(english, tmp_path / "run", **fields)


def test_other_tokens_or_too_few_positions_are_refused(teachers, english, corpus, tmp_path) -> None:
    said = refused(corpus, tmp_path / "run", teacher=teachers / "causal")
    assert "and the text have different tokenizers (" in said and f"(--tokenizer_name {teachers / 'causal'})" in said
    said = refused(english, tmp_path / "run", teacher=teachers / "causal", sequence_length=64)
    assert said.endswith(
        "reads 32 tokens at most, and rows here have up to 64: give a smaller sequence_length, or another teacher."
    )


def test_sharded_weights_are_refused(teachers, english, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    said = refused(english, tmp_path / "run", teacher=teachers / "causal", optimizer="adamw")
    assert "teacher is for whole weights, and the launcher shards them" in said
