"""The command learns to answer, and its folder answers the same where the package is not."""

import json

import pytest
import torch
from helpers import finetuning as ft
from helpers.cards import head_of, usage_of
from helpers.elsewhere import succeed
from helpers.models import make_model, tiny_config
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, pipeline

from weft.recipes import finetune, finetune_chat
from weft.tokenizer.train import train_tokenizer

CHAT = {"main": finetune_chat.main}
SHORT = {"max_steps": 4, "evaluations": 1}
LEARNT = {"max_steps": 120, "evaluations": 4, "samples": 3, "max_new_tokens": 24, "hidden_dropout": 0.0}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return ft.files_of("finetune_chat", tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(files, tmp_path_factory):
    """A run from nothing that learns the form of its little conversations."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    ft.run_here(**CHAT, **files, **LEARNT, output_dir=folder)
    return folder


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A decoder of which the tokenizer fills all rows, and has no chat template."""
    folder = tmp_path_factory.mktemp("pretrained")
    tokenizer = train_tokenizer((text for text, _ in ft.sentences(200)), "bpe", 300)
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    make_model(tiny_config(vocab_size=len(tokenizer), is_causal=True, **ids)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def asked(number, seed=5):
    return [row["messages"][:1] for row in ft.rows_of("finetune_chat", number, seed)]


def test_small_conversations_are_learnt_from_nothing(finished):
    found = ft.metrics(finished)
    first = next(entry for entry in ft.seed_result(finished)["history"] if "loss" in entry)
    assert found["eval_loss"] < 1 < first["loss"] and found["eval_token_accuracy"] > 0.6
    assert found["eval_perplexity"] == pytest.approx(torch.tensor(found["eval_loss"]).exp().item(), rel=1e-5)


def test_the_folder_says_how_conversations_are_written_and_where_answers_end(finished):
    tokenizer = AutoTokenizer.from_pretrained(finished)
    generation = json.loads((finished / "generation_config.json").read_text())
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert generation["eos_token_id"] == [end, tokenizer.eos_token_id]
    assert generation["pad_token_id"] == tokenizer.pad_token_id
    assert tokenizer("a house").input_ids[0] == tokenizer.bos_token_id  # as a decoder reads texts: no end
    assert tokenizer("a house").input_ids[-1] != tokenizer.eos_token_id
    assert json.loads((finished / "config.json").read_text())["vocab_size"] > end


def test_the_card_shows_answers_to_held_out_conversations(finished):
    answers = lines(finished / "answers.jsonl")
    assert len(answers) == 3 and all(one["messages"][-1]["role"] == "user" for one in answers)
    held_out = [row["messages"] for row in ft.rows_of("finetune_chat", 60, seed=2)]
    assert all([*one["messages"], {"role": "assistant", "content": one["reference"]}] in held_out for one in answers)
    assert {one["answer"].split()[0] for one in answers} <= {"good", "bad", "it"}
    card = (finished / "README.md").read_text(encoding="utf-8")
    assert "held-out conversations, greedily; `answers.jsonl`" in card and "| the last message |" in card
    assert head_of(finished).pipeline_tag == "text-generation"


def test_elsewhere_the_folder_answers_as_the_finished_run_does(files, finished, tmp_path, capsys):
    """The card's own lines and the pipeline, in a process that has transformers only."""
    first = ft.rows_of("finetune_chat", 200, seed=1)[0]["messages"][:1]
    talks = ft.write_rows(tmp_path / "new.jsonl", [{"messages": each} for each in [first, *asked(5)]])
    ft.run_here(**CHAT, **files, **LEARNT, output_dir=finished, predict_file=talks)
    assert "is finished: nothing to train" in capsys.readouterr().out
    answered = [row["messages"] for row in lines(finished / "predicted.jsonl")]
    assert [messages[:-1] for messages in answered] == [first, *asked(5)]
    assert succeed(usage_of(finished), tmp_path).splitlines() == [answered[0][-1]["content"]]
    chat = pipeline("text-generation", model=str(finished))
    for messages in answered:
        found = chat(messages[:-1], max_new_tokens=24, do_sample=False)[0]["generated_text"]
        assert found[-1]["content"].strip() == messages[-1]["content"]


def test_rows_for_new_tokens_are_added_and_trained(files, pretrained, tmp_path):
    ft.run_here(**CHAT, **files, **SHORT, model_name_or_path=pretrained, output_dir=tmp_path / "run")
    before, after = (AutoModelForCausalLM.from_pretrained(folder) for folder in (pretrained, tmp_path / "run"))
    rows = len(before.get_input_embeddings().weight)
    new = AutoTokenizer.from_pretrained(tmp_path / "run").convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert new == [rows, rows + 1] and after.config.vocab_size == len(after.get_input_embeddings().weight) > rows + 1
    mean = before.get_input_embeddings().weight.mean(0)
    for number in new:
        row = after.get_input_embeddings().weight[number]
        assert 0 < (row - mean).norm() < (before.get_input_embeddings().weight[5] - mean).norm()
    assert not torch.equal(*after.get_input_embeddings().weight[new])


@pytest.mark.parametrize("tied", [True, False])
def test_adapters_come_with_the_rows_of_new_tokens(tied, files, pretrained, tmp_path):
    start = pretrained
    if not tied:
        start = tmp_path / "untied"
        tokenizer = AutoTokenizer.from_pretrained(pretrained)
        ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        config = tiny_config(vocab_size=len(tokenizer), is_causal=True, tie_word_embeddings=False, **ids)
        make_model(config).save_pretrained(start)
        tokenizer.save_pretrained(start)
    fields = {**files, **SHORT, "model_name_or_path": start, "lora_rank": 2, "output_dir": tmp_path / "run"}
    ft.run_here(**CHAT, **fields)
    before, after = (AutoModelForCausalLM.from_pretrained(folder) for folder in (start, tmp_path / "run"))
    for table in ("get_input_embeddings", "get_output_embeddings"):
        old, new = getattr(before, table)().weight, getattr(after, table)().weight
        assert torch.equal(new[: len(old)], old)
        mean = old.mean(0)
        assert all(not torch.equal(new[number], mean) for number in (len(old), len(old) + 1))
    assert (tmp_path / "run" / "adapter" / "adapter_config.json").is_file()


def test_a_template_that_is_there_is_kept_and_one_that_is_asked_for_replaces_it(files, finished, tmp_path, capsys):
    kept, fields = (finished / "chat_template.jinja").read_text(), {**files, **SHORT, "model_name_or_path": finished}
    ft.run_here(**CHAT, **fields, output_dir=tmp_path / "kept")
    assert "template    the tokenizer's own; an answer ends with <|im_end|>" in capsys.readouterr().out
    assert (tmp_path / "kept" / "chat_template.jinja").read_text() == kept
    ft.run_here(**CHAT, **fields, output_dir=tmp_path / "plain", chat_template="plain")
    assert "template    plain instead of the tokenizer's own; an answer ends with </s>" in capsys.readouterr().out
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    assert tokenizer.apply_chat_template(asked(1)[0], tokenize=False).startswith("<s>User: ")
    generation = json.loads((tmp_path / "plain" / "generation_config.json").read_text())
    assert generation["eos_token_id"][0] == tokenizer.eos_token_id


def test_a_file_with_a_template_is_read_and_not_published(files, pretrained, tmp_path, capsys):
    template = tmp_path / "mine.jinja"
    template.write_text(
        "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    fields = {**files, **SHORT, "model_name_or_path": pretrained, "chat_template": template}
    ft.run_here(**CHAT, **fields, output_dir=tmp_path / "run")
    assert "template    mine.jinja, with 3 new tokens <|system|> <|user|> <|assistant|>" in capsys.readouterr().out
    assert (tmp_path / "run" / "chat_template.jinja").read_text() == template.read_text()
    assert str(tmp_path) not in (tmp_path / "run" / "README.md").read_text()
    (tmp_path / "run" / "metrics.json").unlink()
    template.write_text(template.read_text().replace("m.role", "m['role']"))
    assert "files" in ft.run_error(**CHAT, **fields, output_dir=tmp_path / "run")


def test_a_stock_model_goes_through_the_same_command(files, pretrained, tmp_path, capsys):
    stock, tokenizer = tmp_path / "stock", AutoTokenizer.from_pretrained(pretrained)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, **ids)).save_pretrained(stock)
    tokenizer.save_pretrained(stock)
    ft.run_here(**CHAT, **files, **SHORT, model_name_or_path=stock, output_dir=tmp_path / "run")
    assert "padded, like lengths together" in capsys.readouterr().out
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run")
    assert model.config.model_type == "llama" and model.config.vocab_size > len(tokenizer)


@pytest.mark.parametrize("batching", ["padded", "grouped"])
def test_how_conversations_are_laid_out_changes_little(batching, files, finished, tmp_path):
    fields = {**files, "max_steps": 6, "evaluations": 1, "learning_rate": 1e-3, "hidden_dropout": 0.0, "samples": 0}
    for name in ("packed", batching):
        ft.run_here(**CHAT, **fields, output_dir=tmp_path / name, batching=name)
    packed, other = (ft.losses(tmp_path / name) for name in ("packed", batching))
    assert other == pytest.approx(packed, rel=1e-3 if batching == "padded" else 0.2)


@pytest.mark.parametrize("fields", [{"gradient_accumulation_steps": 4, "per_device_train_batch_size": 4}])
def test_accumulating_gradients_changes_nothing(fields, files, tmp_path):
    common = {**files, "max_steps": 6, "evaluations": 1, "learning_rate": 1e-3, "hidden_dropout": 0.0, "samples": 0}
    ft.run_here(**CHAT, **common, output_dir=tmp_path / "whole")
    ft.run_here(**CHAT, **{**common, **fields}, output_dir=tmp_path / "cut")
    assert ft.losses(tmp_path / "cut") == pytest.approx(ft.losses(tmp_path / "whole"), rel=1e-4)
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.allclose(cut[name], value, rtol=1e-3, atol=2e-4) for name, value in whole.items())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"causal": "true"}, "causal is given: a model that answers always is"),
        ({"chat_template": "nowhere.jinja"}, "nowhere.jinja is missing"),
        ({"loss_on": "user"}, "choose one of assistant, all"),
        ({"broken": "mend"}, "choose one of refuse, skip"),
        ({"samples": -1}, "samples is -1: give at least 0"),
        ({"prompt_column": "a", "messages_column": "b"}, "give messages_column, or the two others"),
        ({"train_file": None, "validation_file": None, "prompt_column": "a"}, "nothing has columns"),
        ({"task": "pydoc_chat"}, "task and train_file are given: give one source of examples"),
        ({"max_length": 3}, "no conversation of train is left: none has an answer within max_length 3"),
        ({"predict_file": "nowhere.jsonl"}, "nowhere.jsonl is missing"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(fields, words, files, tmp_path):
    message = ft.run_error(**CHAT, **{**files, "output_dir": tmp_path / "run", **fields})
    assert words in message and "\n" not in message
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_template_that_cannot_be_used_is_refused_before_training(files, pretrained, tmp_path):
    template = tmp_path / "mine.jinja"
    fields = {**files, "model_name_or_path": pretrained, "chat_template": template, "output_dir": tmp_path / "run"}
    for text, words in (
        ("{% if", "chat_template"),
        (
            "{% for m in messages %}{{ m.content }}{% endfor %}",
            "line 1: the chat template ends an answer with no special",
        ),
    ):
        template.write_text(text)
        message = ft.run_error(**CHAT, **fields)
        assert words in message and "\n" not in message
    message = ft.run_error(**CHAT, **{**fields, "chat_template": None}, freeze_embeddings="true")
    assert "2 new tokens of the chat template would stay without a meaning" in message
    assert not (tmp_path / "run" / "run.json").exists()


def test_models_that_do_not_write_are_refused(files, tmp_path):
    labels = ft.write_files(tmp_path / "labels", 40, 10)
    ft.run_here(**labels, output_dir=tmp_path / "classifier", max_steps=1, evaluations=1)
    message = ft.run_error(**CHAT, **files, model_name_or_path=tmp_path / "classifier", output_dir=tmp_path / "run")
    assert "the model is an encoder, which fills gaps: give a causal one" in message


def test_broken_conversations_are_refused_by_line_or_skipped_and_counted(files, tmp_path, capsys):
    rows = ft.rows_of("finetune_chat", 30, seed=1)
    rows[4]["messages"].append(rows[4]["messages"][-1])
    rows[7]["messages"][0]["content"] = "what is </s>"
    path = ft.write_rows(tmp_path / "broken.jsonl", rows)
    fields = {**files, **SHORT, "train_file": path, "output_dir": tmp_path / "run"}
    assert f"{path}, line 5, message 3: two answers in a row" in ft.run_error(**CHAT, **fields)
    ft.run_here(**CHAT, **fields, broken="skip", plan="true")
    assert f"2 broken conversations, the first: {path}, line 5, message 3" in capsys.readouterr().out


def test_the_embedded_conversations_are_found_by_their_name(tmp_path, capsys):
    for fields in ({}, {"task": "pydoc_chat"}):
        main = finetune.main if fields else finetune_chat.main
        ft.run_here(main, **fields, max_train_examples=40, plan="true", output_dir=tmp_path / "run")
        printed = capsys.readouterr().out
        assert "examples    train 40, validation " in printed and "{+" in printed
