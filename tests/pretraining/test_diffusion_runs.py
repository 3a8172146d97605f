"""Runs of masked diffusion learn, go on exactly, take budgets and streams, and make a folder that loads and writes."""

import json
from types import SimpleNamespace

import pytest
import torch
from helpers import runs
from helpers.cards import head_of, scores_of
from helpers.elsewhere import succeed
from helpers.launched import run_together

from weft import WeftForMaskedLM
from weft.recipes.common.command_line import Parsed
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.arguments import RunArguments
from weft.recipes.pretraining.datasets.diffusion import DiffusionArguments
from weft.recipes.pretraining.objectives import make_objective
from weft.recipes.pretraining.plan import make_plan
from weft.recipes.training import hub

FIELDS = {"objective": "diffusion", "max_steps": 9, "save_steps": 9, "eval_steps": 3, "learning_rate": 0.01}

USE_ELSEWHERE = """
import json
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, pipeline

folder = {folder!r}
tokenizer = AutoTokenizer.from_pretrained(folder)
_, info = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
fills = pipeline("fill-mask", model=folder, trust_remote_code=True)("The cat<mask> the dog.")
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
inputs = tokenizer("The cat", return_tensors="pt")
drawn = [model.generate(**inputs, max_new_tokens=5, steps=3)[0].tolist() for _ in range(2)]
gaps = model.generate(**tokenizer("The<mask> sees<mask> dog.", return_tensors="pt"))
write = pipeline("text-generation", model=folder, trust_remote_code=True)
print("FOUND", json.dumps({{
    "keys": [sorted(info["missing_keys"]), sorted(info["unexpected_keys"])],
    "fills": [fill["sequence"] for fill in fills],
    "prompt": inputs["input_ids"][0].tolist(),
    "drawn": drawn,
    "gaps": tokenizer.decode(gaps[0], skip_special_tokens=True),
    "special": tokenizer.all_special_ids,
    "written": write("The cat", max_new_tokens=6)[0]["generated_text"],
}}))
"""


@pytest.fixture(scope="module")
def finished(english, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "diffusion"
    runs.run_here(data=english, output_dir=folder, **FIELDS)
    return folder


def test_it_learns_and_tells_its_bound(finished, capsys):
    losses = runs.losses(finished)
    assert losses[-1] < losses[0] - 0.5, losses
    metrics = json.loads((finished / "metrics.json").read_text())
    bound, error = metrics["eval_bits_per_byte"], metrics["eval_bits_per_byte_error"]
    assert 0 < error < 0.2 * bound
    first = next(entry for entry in runs.history(finished) if "eval_loss" in entry)
    assert bound < first["eval_bits_per_byte"]
    card = (finished / "README.md").read_text()
    for words in ("masked diffusion language model", "bits per byte error", "| validation_rates | 4 |", "## Samples"):
        assert words in card, words
    assert 'AutoModelForMaskedLM.from_pretrained("' in card and "| masking |" not in card
    head = head_of(finished)
    assert head.pipeline_tag == "fill-mask" and scores_of(head) == {("validation", "bits_per_byte")}


def test_the_folder_fills_masks_and_writes_without_the_package(finished, tmp_path):
    printed = succeed(USE_ELSEWHERE.format(folder=str(finished)), tmp_path)
    found = json.loads(printed.split("FOUND ", 1)[1])
    assert found["keys"] == [[], []]
    assert all(text.startswith("The cat") and text.endswith("the dog.") for text in found["fills"])
    prompt, one = found["prompt"], found["drawn"][0]
    assert found["drawn"][1] == one  # the most probable tokens
    assert one[: len(prompt) - 1] == prompt[:-1] and one[-1] == prompt[-1] and len(one) == len(prompt) + 5
    assert not set(one[len(prompt) - 1 : -1]) & set(found["special"])
    assert found["gaps"].startswith("The") and " sees" in found["gaps"] and found["gaps"].endswith(" dog.")
    assert found["written"].startswith("The cat") and len(found["written"]) > len("The cat")


def test_the_sampler_is_published_with_the_model(finished):
    sent = {}
    hub._upload(SimpleNamespace(upload_folder=lambda **fields: sent.update(fields)), finished, "me/model", None, "")
    assert "custom_generate/generate.py" in sent["allow_patterns"]


def test_the_plan_and_the_validation_line_tell_of_it(english, tmp_path, capsys):
    fields = {"data": english, "output_dir": tmp_path / "run", **FIELDS}
    runs.run_here(**fields, plan="true", validation_rates=6)
    printed = capsys.readouterr().out
    assert "masking     each document at a rate of its own, weight 1/rate; held-out ones at 6 rates" in printed


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mask_rate": 0.3}, "mask_rate has no effect without --objective masked or next-sentence or"),
        ({"masking": "word"}, "masking has no effect without --objective masked"),
        ({"mask_token_share": 1.0}, "mask_token_share has no effect without --objective masked"),
        ({"target_share": 0.5}, "target_share has no effect without --objective masked"),
        ({"causal_share": 0.5}, "causal_share has no effect without --objective hybrid"),
        ({"validation_rates": 3}, "validation_rates is 3: give an even number"),
        (
            {"objective": "masked", "validation_rates": 4},
            "validation_rates has no effect without --objective diffusion or hybrid",
        ),
    ],
    ids=str,
)
def test_fields_that_do_nothing_are_refused(english, tmp_path, fields, said):
    assert said in runs.run_error(data=english, output_dir=tmp_path / "run", **{**FIELDS, **fields})
    assert not (tmp_path / "run" / "run.json").exists()


def rows_of_run(folder, steps):
    """The rows that a run of one process trains on, in order."""
    objective = make_objective("diffusion", ["diffusion"], Parsed([DiffusionArguments()], {}, {}))
    corpus = Corpus.open(folder)
    packed = objective.pack(corpus, 32, 42, objective.prepare_tokenizer(corpus.tokenizer()))
    plan = make_plan(RunArguments(sequence_length=32, tokens_per_step="256", max_steps=steps), packed.rows_per_epoch, 1)
    rows = objective.make_rows(packed, plan)
    return [rows[index] for index in range(steps * 8)]


@torch.no_grad()
def naive_loss(folder, rows):
    """Weighted nats over the tokens of the text, a row at a time, with logits at every place."""
    model, total, tokens = WeftForMaskedLM.from_pretrained(folder).eval(), 0.0, 0
    for row in rows:
        ids, positions = (torch.from_numpy(row[name])[None] for name in ("input_ids", "position_ids"))
        log_probs = model(ids, position_ids=positions).logits[0].double().log_softmax(-1)
        for place in (row["targets"] != -100).nonzero()[0].tolist():
            total -= float(row["weights"][place]) * log_probs[place, row["targets"][place]].item()
        tokens += int(row["is_text"].sum())
    return total / tokens


def test_the_cut_of_a_batch_changes_nothing_and_what_is_logged_is_what_a_plain_loop_computes(english, tmp_path, capfd):
    """Over micro-batches and over two processes."""
    fields = {**FIELDS, "data": english, "max_steps": 4, "save_steps": 1, "eval_steps": 4, "save_total_limit": 4}
    whole, cut, shared = (tmp_path / name for name in ("whole", "cut", "shared"))
    for micro_batch, folder in ((8, whole), (1, cut)):
        runs.run_here(output_dir=folder, per_device_train_batch_size=micro_batch, **fields)
    capfd.readouterr()
    run_together("cpu_2.yaml", runs.run_here, output_dir=shared, per_device_train_batch_size=2, **fields)
    assert "2 processes x 2 micro-batches x 2 rows" in capfd.readouterr().out
    for folder in (cut, shared):
        assert runs.losses(folder) == pytest.approx(runs.losses(whole), rel=2e-5)
        runs.assert_equal_ends(folder, whole)
    rows = rows_of_run(english, 4)
    for step in range(2, 5):  # the weights at a step are those of the checkpoint before it
        expected = naive_loss(whole / f"checkpoint-{step - 1}", rows[8 * (step - 1) : 8 * step])
        assert runs.losses(whole)[step - 1] == pytest.approx(expected, rel=1e-5)


def test_a_masked_model_goes_on_as_one_of_diffusion_and_a_diffusion_model_as_a_causal_one(english, finished, tmp_path):
    shape = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
    fields = {**dict.fromkeys(shape), "max_steps": 2, "save_steps": 2, "eval_steps": 2, "data": english}
    runs.run_here(**fields, model_name_or_path=finished, output_dir=tmp_path / "causal")
    assert not (tmp_path / "causal" / "custom_generate").exists()
    runs.run_here(**fields, model_name_or_path=tmp_path / "causal", output_dir=tmp_path / "back", objective="diffusion")
    assert (tmp_path / "back" / "custom_generate" / "generate.py").is_file()


def test_a_stream_and_files_of_validation_are_taken(tmp_path):
    text = runs.write_text(tmp_path / "text.txt")
    held_out = [
        runs.write_text(tmp_path / f"{name}.txt", 20, seed=seed) for seed, name in enumerate(("news", "law"), 1)
    ]
    stream = {"train_files": [text], "validation_files": held_out, "tokenizer_type": "char", "stream": "true"}
    runs.run_here(output_dir=tmp_path / "run", block_size=4000, **stream, **{**FIELDS, "max_steps": 30})
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {"eval_bits_per_byte_on_news", "eval_loss_on_law", "eval_bits_per_byte_error"} <= metrics.keys()
