"""Every objective of pretrain_seq2seq makes a folder that loads anywhere, and that fine-tuning goes on from."""

import json
import shutil

import pytest
import torch
from helpers import finetuning as ft
from helpers import runs
from helpers import sequences as seq
from helpers.cards import head_of, scores_of
from helpers.elsewhere import succeed
from helpers.launched import run_together
from transformers import AutoConfig, AutoTokenizer

from weft.tokenizer.denoising_tokens import MODES, sentinel_names

FIELDS = {"max_steps": 9, "save_steps": 9, "eval_steps": 3, "learning_rate": 0.01}
OBJECTIVES = {"span": {}, "infill": {}, "prefix": {}, "mixture": {}}
TOKENS = {"span": sentinel_names(100), "mixture": [*sentinel_names(100), *MODES.values()]}
SHAPE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
LOSSES = ["regular_loss", "sequential_loss", "extreme_loss"]

USE_EVERYWHERE = """
import json, pathlib
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer

found = {{}}
for folder in sorted(path for path in pathlib.Path({folder!r}).iterdir() if path.is_dir()):
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model, info = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    assert AutoConfig.from_pretrained(folder, trust_remote_code=True).use_cache
    AutoModel.from_pretrained(folder, trust_remote_code=True)
    inputs = tokenizer(["The cat sees", "A dog"], padding=True, return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    found[folder.name] = {{
        "keys": [sorted(info["missing_keys"]), sorted(info["unexpected_keys"])],
        "tokens": tokenizer("The cat").tokens(),
        "first": written[:, 0].tolist(),
        "extra": tokenizer.extra_special_tokens,
        "rows": model.get_input_embeddings().weight.shape[0] - len(tokenizer),
        "start": model.generation_config.decoder_start_token_id,
        "end": model.generation_config.eos_token_id == tokenizer.eos_token_id,
    }}
print("FOUND", json.dumps(found))
"""


@pytest.fixture(scope="module")
def finished(english, tmp_path_factory):
    """The folder of all runs, by objective."""
    folder = tmp_path_factory.mktemp("runs")
    for objective, fields in OBJECTIVES.items():
        runs.run_here(data=english, output_dir=folder / objective, objective=objective, **FIELDS, **fields)
    return folder


@pytest.fixture(scope="module")
def elsewhere(finished, tmp_path_factory):
    """What a process without the package makes of these folders."""
    printed = succeed(USE_EVERYWHERE.format(folder=str(finished)), tmp_path_factory.mktemp("elsewhere"))
    return json.loads(printed.split("FOUND ", 1)[1])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_learns(finished, objective):
    losses = runs.losses(finished / objective)
    assert losses[-1] < losses[0] - 0.5, losses


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_finished_run_writes_without_the_package(elsewhere, objective):
    found = elsewhere[objective]
    assert found["keys"] == [[], []] and found["end"] and 0 <= found["rows"] < 64
    assert found["tokens"][0] == "<s>" and found["tokens"][-1] == "</s>"
    assert found["start"] == 1 and set(found["first"]) == {1}
    assert found["extra"] == TOKENS.get(objective, [])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_metrics_curve_and_card_tell_of_every_part(finished, objective):
    folder = finished / objective
    metrics, card = json.loads((folder / "metrics.json").read_text()), (folder / "README.md").read_text()
    head = head_of(folder)
    assert (head.library_name, head.pipeline_tag) == ("transformers", "text2text-generation")
    said = [
        "AutoModelForSeq2SeqLM.from_pretrained(",
        "source: ",
        "target: ",
        "written:",
        f"| objective | {objective} |",
    ]
    if objective == "prefix":
        assert scores_of(head) == {("validation", "bits_per_byte")}
        assert metrics["eval_bits_per_byte"] > 0 and "eval_denoising_loss" not in metrics
    else:
        assert {("validation", "denoising_loss"), ("validation", "target_accuracy")} <= scores_of(head)
        assert metrics["eval_denoising_loss"] == metrics["eval_loss"] and 0 < metrics["eval_target_accuracy"] < 1
        said.append("| target accuracy | ")
    if objective == "mixture":
        assert metrics["eval_bits_per_byte"] > 0
        values = [metrics[f"eval_{name}"] for name in LOSSES]
        assert min(values) <= metrics["eval_loss"] <= max(values)
        logged = [entry for entry in runs.history(folder) if "loss" in entry]
        assert {key for entry in logged for key in entry if key.startswith("loss_")} == {
            "loss_regular",
            "loss_sequential",
            "loss_extreme",
        }
        said += ["| regular loss |", "| bits per byte |"]
    for words in said:
        assert words in card, words
    for name, owners in {"noise_rate": ("span",), "denoisers": ("mixture",), "infill_rate": ("infill",)}.items():
        assert (f"| {name} |" in card) == (objective in owners), name


@pytest.mark.parametrize(
    ("objective", "fields", "said"),
    [
        ("span", {}, ["denoising   sentinels for 15% of the tokens, in spans of 3 on average"]),
        ("span", {}, ["sides       about 90 tokens of sources and 20 of targets for 100 of the text"]),
        ("span", {"noise_rate": 0.5, "mean_span_length": 8}, ["sentinels for 50% of the tokens, in spans of 8"]),
        ("infill", {}, ["masks for 30% of the tokens, in spans of 3 on average, sentences permuted"]),
        (
            "infill",
            {"permute_sentences": "false"},
            ["in spans of 3 on average\n", "about 80 tokens of sources and 100"],
        ),
        (
            "span",
            {"noise_rate": 0.9, "mean_span_length": 1, "sentinels": 3},
            ["about 20 tokens of sources and 100 of targets for 100 of the text"],
        ),
        ("span", {"num_decoder_layers": 1}, ["parameters (2 and 1 layers of 32, "]),
        ("prefix", {}, ["denoising   each text is written from a prefix of it, of any length"]),
        ("mixture", {}, ["denoising   a mixture of R:3:0.15, R:8:0.15, S, X:3:0.5, X:8:0.5, X:64:0.15, X:64:0.5"]),
    ],
    ids=str,
)
def test_the_plan_tells_the_objective(english, tmp_path, capsys, objective, fields, said):
    runs.run_here(data=english, output_dir=tmp_path / "run", objective=objective, plan="true", **FIELDS, **fields)
    runs.assert_only_planned(tmp_path / "run", capsys.readouterr().out, said)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"objective": "span", "infill_rate": 0.3}, "infill_rate has no effect without --objective infill"),
        ({"objective": "prefix", "sentinels": 9}, "sentinels has no effect without --objective mixture or span"),
        ({"objective": "infill", "denoisers": ["S"]}, "denoisers has no effect without --objective mixture"),
        ({"objective": "span", "noise_rate": 1}, "noise_rate is 1.0: give a number above 0 and below 1"),
        ({"objective": "span", "mean_span_length": 0.5}, "mean_span_length is 0.5: give at least 1"),
        (
            {"objective": "span", "sentinels": 1},
            "of 32 tokens (sequence_length) has 2 spans: give 2 or more",
        ),
        ({"objective": "mixture", "denoisers": ["R"]}, "denoisers has 'R': give MODE:MEAN_SPAN_LENGTH:NOISE_RATE"),
        (
            {"objective": "mixture", "sentinels": 3},
            "sentinels is 3, but a text of 32 tokens",
        ),
        ({"objective": "span", "sequence_length": 4, "tokens_per_step": 32}, "text to text needs at least 8 tokens"),
        ({"objective": "span", "attn_implementation": "flash_attention_2"}, "cannot keep the documents of an encoder"),
        ({"objective": "span", "max_position_embeddings": 32}, "what stands around a text=35 is longer than the model"),
        ({"objective": "span", "num_decoder_layer": 3}, "did you mean num_decoder_layers?"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(english, tmp_path, fields, said):
    assert said in runs.run_error(data=english, output_dir=tmp_path / "run", **FIELDS, **fields)
    assert not (tmp_path / "run" / "run.json").exists()


def test_sentences_are_permuted_where_the_corpus_knows_them(corpus, tmp_path):
    text, fields = runs.write_sentences(tmp_path / "text.txt"), {"objective": "infill", **FIELDS}
    message = runs.run_error(data=corpus, output_dir=tmp_path / "run", **fields)
    assert "does not know where sentences begin: prepare it again with --segmenter characters, or give" in message
    runs.run_here(data=corpus, output_dir=tmp_path / "run", permute_sentences="false", **fields)
    raw = {"train_files": [text], "vocab_size": 300, "validation_fraction": 0.15}
    assert "permuting sentences needs" in runs.run_error(output_dir=tmp_path / "no", segmenter="none", **raw, **fields)
    message = runs.run_error(output_dir=tmp_path / "no", document_tokens="none", **raw, **fields)
    assert "text to text needs start and end tokens: leave document_tokens at both" in message
    runs.run_here(output_dir=tmp_path / "raw", **raw, **fields)
    assert (tmp_path / "raw" / "data" / "sentences.bits").is_file()


def continued(folder, **fields):
    """Fields that train a finished run's model further: its shape is not given again."""
    return {**dict.fromkeys(SHAPE), **FIELDS, "model_name_or_path": folder, **fields}


def test_a_model_that_lacks_tokens_gets_rows_for_them(english, finished, tmp_path):
    fields = continued(finished / "prefix", objective="mixture", learning_rate=1e-9, max_steps=1)
    runs.run_here(data=english, output_dir=tmp_path / "run", **fields)
    before, after = runs.weights(finished / "prefix"), runs.weights(tmp_path / "run")
    name = next(name for name in before if name.endswith("embed_tokens.weight"))
    old, new = AutoTokenizer.from_pretrained(finished / "prefix"), AutoTokenizer.from_pretrained(tmp_path / "run")
    assert len(new) == len(old) + 103 and AutoConfig.from_pretrained(tmp_path / "run").vocab_size == len(after[name])
    assert len(after[name]) % 64 == 0 and len(before[name]) < len(new) <= len(after[name])
    ids = sorted(old.get_vocab().values())
    torch.testing.assert_close(after[name][ids], before[name][ids], rtol=0, atol=1e-6)
    mean = before[name][ids].mean(0)
    added = after[name][new.convert_tokens_to_ids(TOKENS["mixture"])]
    torch.testing.assert_close(added, mean.expand_as(added), rtol=0, atol=1e-6)
    others = [key for key in before if before[key].shape != after[key].shape]
    assert all(key.endswith(("embed_tokens.weight", "lm_head.weight")) for key in others)


def test_a_model_that_does_not_say_what_its_decoder_begins_with_is_trained_further(english, finished, tmp_path):
    before = tmp_path / "before"
    shutil.copytree(finished / "span", before, ignore=shutil.ignore_patterns("checkpoint-*"))
    config = json.loads((before / "config.json").read_text())
    (before / "config.json").write_text(json.dumps({**config, "decoder_start_token_id": None}))
    runs.run_here(data=english, output_dir=tmp_path / "run", **continued(before, objective="span", max_steps=1))
    assert AutoConfig.from_pretrained(tmp_path / "run").decoder_start_token_id == 1


def test_fine_tuning_goes_on_from_it(finished, tmp_path):
    files = seq.write_files(tmp_path / "data")
    seq.run(**files, model_name_or_path=finished / "span", max_steps=3, evaluations=1, output_dir=tmp_path / "run")
    assert ft.metrics(tmp_path / "run")["eval_loss"] > 0
    found = AutoTokenizer.from_pretrained(tmp_path / "run")
    assert found.extra_special_tokens == TOKENS["span"]


def test_a_model_of_another_number_of_stacks_is_refused(english, finished, tmp_path):
    runs.run_here(data=english, output_dir=tmp_path / "causal", **{**FIELDS, "max_steps": 1})
    message = runs.run_error(
        data=english, output_dir=tmp_path / "run", **continued(tmp_path / "causal", objective="span")
    )
    assert "is one stack, and an encoder-decoder is trained here: give another, or leave model_name_or_path" in message
    message = runs.run_error(data=english, output_dir=tmp_path / "run", **continued(finished / "span"))
    assert "is an encoder-decoder, and one stack is trained here" in message
    assert not (tmp_path / "run").exists()


def assert_equal_runs(folder, reference):
    assert runs.losses(folder) == pytest.approx(runs.losses(reference), rel=2e-5)
    runs.assert_equal_ends(folder, reference)


@pytest.mark.parametrize("objective", ["span", "mixture"])
def test_the_cut_of_a_batch_changes_nothing(english, finished, tmp_path, objective):
    fields = {"data": english, "objective": objective, **FIELDS}
    runs.run_here(output_dir=tmp_path / "run", per_device_train_batch_size=1, **fields)
    assert_equal_runs(tmp_path / "run", finished / objective)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_processes_follow_the_curve_of_one(english, finished, tmp_path, capfd, objective):
    """Their rows hold other pairs together than those of one process, but each step has the same pairs."""
    capfd.readouterr()
    fields = {"data": english, "objective": objective, **FIELDS, "per_device_train_batch_size": 2}
    run_together("cpu_2.yaml", runs.run_here, output_dir=tmp_path / "run", **fields)
    assert "2 processes x 2 micro-batches x 2 rows" in capfd.readouterr().out
    assert_equal_runs(tmp_path / "run", finished / objective)


def test_documents_of_one_token_are_passed_over(tmp_path):
    """Some rows have nothing else, and whole steps; the card shows documents of which something is written."""
    letters, words = list("abcdefgh"), ["the old house", "a red river"]
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join([*letters, *words] * 12) + "\n", encoding="utf-8")
    fields = {"train_files": [text], "tokenizer_type": "char", "validation_fraction": 0.3, "sequence_length": 8}
    fields |= {"tokens_per_step": 16, "per_device_train_batch_size": 1, "sentinels": 5, "dedup": "off"}
    runs.run_here(output_dir=tmp_path / "run", objective="span", **{**FIELDS, **fields})
    losses = runs.losses(tmp_path / "run")
    assert losses.count(0) in range(1, 8) and all(0 <= loss < 10 for loss in losses)
    card = (tmp_path / "run" / "README.md").read_text()
    assert card.count("source: ") == card.count("target: <extra_id_0>") == 3


def test_text_streams(tmp_path):
    texts = [runs.write_text(tmp_path / f"{number}.txt", 40, seed=number) for number in range(2)]
    fields = {"stream": "true", "block_size": 4000, "tokenizer_type": "char", "max_steps": 60, "save_steps": 20}
    runs.run_here(output_dir=tmp_path / "run", train_files=texts, objective="span", eval_steps=60, **fields)
    losses = runs.losses(tmp_path / "run")
    assert len(losses) == 60 and losses[-1] < losses[0]


def test_a_budget_is_planned(english, tmp_path, capsys):
    fields = {"data": english, "objective": "span", "budget": "20s", "eval_steps": None, "save_steps": None}
    runs.run_here(output_dir=tmp_path / "run", plan="true", **fields, tokens_per_step=None)
    assert "  budget      20s: " in capsys.readouterr().out
