"""Which weights are trained and how fast, adapters, search, and models of other families by the same command."""

import csv
import json

import pytest
import torch
from helpers import finetuning as ft
from helpers.models import tiny_config
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

import weft
from weft.recipes.finetuning.adapters import depths, parameter_groups
from weft.recipes.finetuning.trainer import FineTuningTrainer
from weft.tokenizer.special_tokens import for_role
from weft.tokenizer.train import train_tokenizer


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return ft.write_files(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A folder with a new Weft model, its weights and its tokenizer."""
    folder = tmp_path_factory.mktemp("pretrained")
    texts = [text for text, _ in ft.sentences(200)]
    tokenizer = train_tokenizer(texts, "bpe", 300)
    shape = {"vocab_size": 320, "is_causal": False, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    weft.WeftForMaskedLM(tiny_config(**shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def weights(folder):
    return load_file(folder / "model.safetensors")


def changed(folder, start):
    """Names of the parameters that training changed."""
    before, after = weights(start), weights(folder)
    return {name for name in after if name in before and not torch.equal(before[name], after[name])}


def test_frozen_layers_and_embeddings_keep_their_weights(files, pretrained, tmp_path):
    ft.run_here(**files, output_dir=tmp_path / "run", model_name_or_path=pretrained, freeze_layers=1)
    found = changed(tmp_path / "run", pretrained)
    assert found and all(name.startswith(("model.layers.1.", "model.norm")) for name in found)


def test_frozen_embeddings_alone_leave_every_layer_trained(files, pretrained, tmp_path):
    ft.run_here(**files, output_dir=tmp_path / "run", model_name_or_path=pretrained, freeze_embeddings="true")
    found = changed(tmp_path / "run", pretrained)
    assert "model.embed_tokens.weight" not in found
    assert any(name.startswith("model.layers.0.") for name in found)


def test_learning_rates_fall_from_the_head_to_the_embeddings():
    model = weft.WeftForSequenceClassification(tiny_config())
    groups = parameter_groups(model, {"score.weight"}, 1.0, 0.1, 0.5)
    rate_of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    found = {name: rate_of[id(parameter)] for name, parameter in model.named_parameters()}
    assert found["score.weight"] == found["model.norm.weight"] == 1.0
    assert found["model.layers.1.mlp.up_proj.weight"] == 0.5
    assert found["model.layers.0.mlp.up_proj.weight"] == 0.25
    assert found["model.embed_tokens.weight"] == 0.125
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decays[id(model.score.weight)] == 0.1 and decays[id(model.score.bias)] == 0.0


def test_layer_decay_slows_the_lower_layers_of_a_run_down(files, pretrained, tmp_path):
    distance = {}
    for name, decay in (("even", 1.0), ("falling", 0.1)):
        fields = {"model_name_or_path": pretrained, "layer_decay": decay, "max_steps": 4}
        ft.run_here(**files, output_dir=tmp_path / name, **fields)
        after, before = weights(tmp_path / name), weights(pretrained)
        distance[name] = {key: (after[key] - before[key]).norm().item() for key in after if key in before}
    for key, factor in (("model.layers.1.mlp.up_proj.weight", 0.1), ("model.layers.0.mlp.up_proj.weight", 0.01)):
        assert distance["falling"][key] / distance["even"][key] == pytest.approx(factor, rel=0.5)


@pytest.mark.parametrize(
    "model",
    [
        lambda: BertModel(
            BertConfig(vocab_size=99, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16)
        ),
        lambda: DistilBertModel(DistilBertConfig(vocab_size=99, dim=16, n_layers=3, n_heads=2, hidden_dim=16)),
        lambda: GPT2LMHeadModel(GPT2Config(vocab_size=99, n_embd=16, n_layer=3, n_head=2)),
        lambda: LlamaForCausalLM(
            LlamaConfig(vocab_size=99, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16)
        ),
    ],
    ids=["bert", "distilbert", "gpt2", "llama"],
)
def test_the_depth_of_every_parameter_is_known_in_other_families_too(model):
    found = depths(model())
    layers = {name: depth for name, depth in found.items() if any(f".{number}." in name for number in range(3))}
    assert set(layers.values()) == {1, 2, 3}
    assert all(f".{depth - 1}." in name for name, depth in layers.items())
    assert {found[name] for name in found if "embed" in name or "wte" in name or "wpe" in name} <= {0, 4}
    assert 0 in found.values()


def test_adapters_are_merged_into_the_saved_model_and_kept_beside_it(files, pretrained, tmp_path):
    import peft

    folder = tmp_path / "run"
    ft.run_here(
        **files, output_dir=folder, model_name_or_path=pretrained, lora_rank=4, max_steps=40, learning_rate=1e-2
    )
    found = changed(folder, pretrained)
    assert {name.split(".")[-2] for name in found} == {*weft.WeftPreTrainedModel.lora_target_modules}
    merged = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    config = merged.config
    start = AutoModelForSequenceClassification.from_pretrained(pretrained, config=config)
    adapted = peft.PeftModel.from_pretrained(start, folder / "adapter").eval()
    ids = torch.randint(3, 300, (2, 9))
    assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-5)


def test_a_run_with_adapters_that_is_cut_off_goes_on_bit_for_bit(files, pretrained, tmp_path, monkeypatch):
    fields = {**files, "model_name_or_path": pretrained, "lora_rank": 2, "lora_dropout": 0.1, "evaluations": 4}
    ft.run_here(**fields, output_dir=tmp_path / "whole")
    evaluate = FineTuningTrainer.evaluate

    def cut_off(trainer, *args, **kwargs):
        if trainer.state.global_step == 9:  # which is saved already
            raise InterruptedError
        return evaluate(trainer, *args, **kwargs)

    monkeypatch.setattr(FineTuningTrainer, "evaluate", cut_off)
    with pytest.raises(InterruptedError):
        ft.run_here(**fields, output_dir=tmp_path / "cut")
    assert (tmp_path / "cut" / "seed-1" / "checkpoint-9").is_dir()
    monkeypatch.undo()
    ft.run_here(**fields, output_dir=tmp_path / "cut")
    for name, value in weights(tmp_path / "whole").items():
        assert torch.equal(weights(tmp_path / "cut")[name], value), name


def test_search_tries_settings_goes_on_with_the_best_and_can_be_interrupted(files, tmp_path, capsys):
    fields = {**files, "search_trials": 3, "search_space": ["learning_rate=1e-6,1e-2", "hidden_dropout=0.0,0.2"]}
    folder = tmp_path / "run"
    ft.run_here(**fields, output_dir=folder, max_steps=20)
    trials = json.loads((folder / "search" / "trials.json").read_text())
    assert len(trials) == 3
    best = max(trials, key=lambda trial: trial["score"])
    assert (
        f"accuracy {best['score']:.4f} with learning_rate {best['settings']['learning_rate']:g}"
        in capsys.readouterr().out
    )
    assert ft.metrics(folder)["eval_accuracy"] == pytest.approx(best["score"])  # the same seed and settings again
    # as if it had been stopped after the second trial: only the third is run again, with the same settings
    (folder / "metrics.json").unlink()
    (folder / "seed-1" / "result.json").unlink()
    (folder / "search" / "trials.json").write_text(json.dumps(trials[:2]))
    ft.run_here(**fields, output_dir=folder, max_steps=20)
    assert json.loads((folder / "search" / "trials.json").read_text()) == trials
    assert "trial 3 of 3" in (printed := capsys.readouterr().out) and "trial 2 of 3" not in printed


def _save_stock(folder, family, **options):
    """A folder with a random model of another family and a tokenizer that it can use."""
    texts = [text for text, _ in ft.sentences(200)]
    torch.manual_seed(0)
    if family == "bert":
        tokenizer = for_role(train_tokenizer(texts, "wordpiece", 300), "encoder", token_types=True)
        BertModel(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                max_position_embeddings=64,
            ),
            **options,
        ).save_pretrained(folder)
    else:
        tokenizer = train_tokenizer(texts, "bpe", 300)
        tokenizer.pad_token = None  # as GPT-2's has none
        config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=64)
        GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_what_the_checkpoint_lacks_is_trained_beside_the_adapters(files, tmp_path):
    """BERT's pooler, which a checkpoint of masked language modelling does not have, starts from random weights."""
    stock = _save_stock(tmp_path / "bert", "bert", add_pooling_layer=False)
    ft.run_here(**files, output_dir=tmp_path / "start", model_name_or_path=stock, lora_rank=2, learning_rate=1e-12)
    ft.run_here(**files, output_dir=tmp_path / "run", model_name_or_path=stock, lora_rank=2)
    found = changed(tmp_path / "run", tmp_path / "start")
    assert {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight"} <= found
    assert "bert.encoder.layer.0.intermediate.dense.weight" not in found


def test_a_new_model_of_a_family_without_padding_pads_with_its_end_token(files, tmp_path):
    stock = _save_stock(tmp_path / "gpt2", "gpt2")
    given = dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"))
    common = {**files, **given, "config_name": stock, "output_dir": tmp_path / "run", "max_steps": 1}
    assert "takes 64 tokens at most" in ft.run_error(**common, max_length=65)
    ft.run_here(**common)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    assert config["model_type"] == "gpt2" and config["pad_token_id"] == tokenizer.eos_token_id
    assert tokenizer.pad_token == tokenizer.eos_token


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_models_of_other_families_are_trained_by_the_same_command(files, tmp_path, family, capsys):
    stock = _save_stock(tmp_path / family, family)
    fields = {"model_name_or_path": stock, "max_steps": 60, "evaluations": 3, "learning_rate": 5e-3}
    ft.run_here(**files, output_dir=tmp_path / "run", **fields)
    assert "padded, like lengths together" in capsys.readouterr().out
    assert ft.metrics(tmp_path / "run")["eval_accuracy"] > 0.9
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    assert model.config.model_type == family and model.config.id2label == {0: "bad", 1: "good"}


@pytest.mark.parametrize("recipe", ["finetune_tokens", "finetune_qa", "finetune_choice"])
def test_every_recipe_trains_a_model_of_another_family_and_predicts_with_it(recipe, tmp_path):
    stock, main = _save_stock(tmp_path / "bert", "bert"), ft.MAINS[recipe]
    fields = {"model_name_or_path": stock, "max_steps": 60, "evaluations": 3, "learning_rate": 5e-3}
    fields |= {**ft.files_of(recipe, tmp_path), "output_dir": tmp_path / "run"}
    ft.run_here(main, **fields)
    found = ft.metrics(tmp_path / "run")
    assert found["eval_f1"] > 90 if recipe == "finetune_qa" else found["eval_accuracy"] > 0.9
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model_type"] == "bert"
    unlabelled = [{**row, "answers": None, "label": None, "tags": None} for row in ft.rows_of(recipe, 60, seed=2)]
    ft.run_here(main, **fields, predict_file=ft.write_rows(tmp_path / "new.jsonl", unlabelled))
    answers = []
    for file in ("predictions.csv", "predicted.csv"):
        with (tmp_path / "run" / file).open(encoding="utf-8", newline="") as handle:
            answers.append([row["predicted"] for row in csv.DictReader(handle) if row["predicted"]])
    assert answers[0] == answers[1] and len(answers[1]) > 50


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_what_other_families_cannot_do_is_refused(files, tmp_path, family):
    stock = _save_stock(tmp_path / family, family)
    common = {**files, "output_dir": tmp_path / "run", "model_name_or_path": stock}
    assert "for Weft models" in ft.run_error(**common, batching="packed")
    assert "takes 64 tokens at most" in ft.run_error(**common, max_length=65)
    assert "can only be given for Weft models" in ft.run_error(**common, hidden_dropout=0.2)


def test_an_encoder_of_a_family_with_two_stacks_learns_to_tag(tmp_path):
    """T5's refuses a cache, which the stack that writes needs."""
    files = ft.files_of("finetune_tokens", tmp_path)
    texts = [text for text, _ in ft.sentences(200)]
    tokenizer = for_role(train_tokenizer(texts, "bpe", 300), "encoder")
    tokenizer.save_pretrained(tmp_path / "t5")
    shape = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4, "decoder_start_token_id": 0}
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    T5ForConditionalGeneration(T5Config(vocab_size=300, **shape, **ids)).save_pretrained(tmp_path / "t5")
    folder = tmp_path / "run"
    ft.run_here(ft.MAINS["finetune_tokens"], **files, output_dir=folder, model_name_or_path=tmp_path / "t5")
    assert ft.metrics(folder)["steps"] == 12
