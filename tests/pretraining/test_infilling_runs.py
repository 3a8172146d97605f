"""Runs with rearranged documents and prefixes learn, go on, are published, and are scored from left to right."""

import json
import math

import pytest
from helpers import runs
from helpers.elsewhere import succeed
from helpers.launched import run_together
from helpers.text import pieces
from transformers import AutoTokenizer

from weft.recipes.data.corpus import Corpus
from weft.recipes.evaluation.likelihood import Scorer
from weft.recipes.evaluation.model_loading import load_model
from weft.tokenizer.fill_in_the_middle import NAMES, MiddleTokens

FIELDS = {"max_steps": 12, "save_steps": 12, "eval_steps": 4, "learning_rate": 0.01}
LONG = 2048
BOTH = {"infill_rate": 0.5, "prefix_share": 0.3}
SHAPE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")

WRITE_ELSEWHERE = """
import json
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({folder!r})
model = AutoModelForCausalLM.from_pretrained({folder!r}, trust_remote_code=True).eval()
marks = tokenizer.convert_tokens_to_ids({names!r})
text = "<|fim_prefix|>The old cat<|fim_suffix|> the dog.<|fim_middle|>"
inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
written = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs.input_ids.shape[1]:]
prompt = tokenizer("The old cat", return_tensors="pt", return_token_type_ids=False)
seen = torch.ones_like(prompt.input_ids).bool()
with_prefix = model.generate(**prompt, prefix_mask=seen, max_new_tokens=8, do_sample=False)
print("FOUND", json.dumps({{
    "ids": inputs.input_ids[0].tolist(),
    "marks": marks,
    "special": [token in tokenizer.all_special_ids for token in marks],
    "rows": model.get_input_embeddings().weight.shape[0] - len(tokenizer),
    "written": written.tolist(),
    "prefix": with_prefix[0].tolist(),
}}))
"""


@pytest.fixture(scope="module")
def finished(english, tmp_path_factory):
    """A run whose held-out text is one row, so that no document of it is cut."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    fields = {**FIELDS, "max_steps": 20, "save_steps": 20, "sequence_length": LONG, "tokens_per_step": LONG}
    runs.run_here(data=english, output_dir=folder, **fields, **BOTH)
    return folder


def test_it_learns_and_says_what_it_does(finished, english, tmp_path, capsys):
    losses = runs.losses(finished)
    assert losses[-1] < losses[0] - 0.5, losses
    card = (finished / "README.md").read_text()
    for words in ("| infill_rate | 0.5 |", "| prefix_share | 0.3 |", "with a gap: ", "filled: "):
        assert words in card, words
    runs.run_here(data=english, output_dir=tmp_path / "plan", **FIELDS, **BOTH, infill_spm_share=0.25, plan="true")
    printed = capsys.readouterr().out
    assert "infilling   50% of the documents, 25% of these with the suffix first" in printed
    assert "prefixes    seen in both directions, in 30% of the documents" in printed


def test_held_out_text_is_scored_from_left_to_right(finished, english):
    """As the published folder is scored by another program."""
    corpus = Corpus.open(english)
    texts = [corpus.tokenizer().decode(ids, skip_special_tokens=True) for ids in pieces(corpus, "validation")]
    scorer = Scorer(*load_model(str(finished), "causal", "cpu"), quiet=True)
    nats = -sum(scores.total for scores in scorer.score_texts(texts))
    expected = nats / math.log(2) / sum(len(text.encode()) for text in texts)
    said = [entry["eval_bits_per_byte"] for entry in runs.history(finished) if "eval_loss" in entry]
    assert sum(len(ids) for ids in pieces(corpus, "validation")) < LONG
    assert said[-1] == pytest.approx(expected, rel=1e-4)


def test_the_folder_writes_middles_and_reads_prefixes_without_the_package(finished, tmp_path):
    printed = succeed(WRITE_ELSEWHERE.format(folder=str(finished), names=list(NAMES[0])), tmp_path)
    found = json.loads(printed.split("FOUND ", 1)[1])
    assert all(found["special"]) and found["rows"] >= 0
    prefix, suffix, middle = found["marks"]
    ids = found["ids"]
    assert ids[1] == prefix and ids[-1] == middle and ids.count(suffix) == 1
    assert 0 < len(found["written"]) <= 8 and not set(found["written"]) & {prefix, suffix, middle}
    assert len(found["prefix"]) > 4


def test_a_model_that_knows_neither_goes_on_with_both(english, tmp_path):
    runs.run_here(data=english, output_dir=tmp_path / "plain", **{**FIELDS, "max_steps": 2})
    runs.run_here(
        data=english,
        output_dir=tmp_path / "further",
        model_name_or_path=tmp_path / "plain",
        **{**FIELDS, **BOTH, **dict.fromkeys(SHAPE), "max_steps": 2},
    )
    tokens = [MiddleTokens.find(AutoTokenizer.from_pretrained(tmp_path / name)) for name in ("plain", "further")]
    assert tokens[0] is None
    embedding = runs.weights(tmp_path / "further")["model.embed_tokens.weight"]
    assert max(tokens[1].ids) < len(embedding)


def test_two_processes_and_other_micro_batches_follow_the_curve_of_one(english, tmp_path):
    fields = {"data": english, **BOTH, **FIELDS, "max_steps": 6, "save_steps": 6}
    runs.run_here(output_dir=tmp_path / "1x8", per_device_train_batch_size=8, **fields)
    run_together("cpu_2.yaml", runs.run_here, output_dir=tmp_path / "2x2", per_device_train_batch_size=2, **fields)
    assert runs.losses(tmp_path / "2x2") == pytest.approx(runs.losses(tmp_path / "1x8"), rel=2e-5)
    runs.assert_equal_ends(tmp_path / "2x2", tmp_path / "1x8")


def test_a_stream_is_taken_for_serving_too(tmp_path):
    stream = {"train_files": [runs.write_text(tmp_path / "text.txt")], "stream": "true", "block_size": 4000}
    runs.run_here(output_dir=tmp_path / "run", vocab_size=300, **stream, **BOTH, **FIELDS, **{"for": "serving"})
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert not config.get("attention_gate") and not config.get("value_residual")
    assert MiddleTokens.find(AutoTokenizer.from_pretrained(tmp_path / "run")) is not None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"infill_rate": 1.5}, "infill_rate is 1.5: give at least 0 and at most 1, or leave it out."),
        ({"infill_spm_share": 0.3}, "infill_spm_share has no effect without infill_rate above 0: give that too"),
        ({"infill_rate": 0, "infill_spm_share": 0.3}, "infill_spm_share has no effect without infill_rate above 0"),
        ({"prefix_share": -1}, "prefix_share is -1.0: give at least 0 and at most 1"),
        (
            {"prefix_share": 0.5, "attn_implementation": "flash_attention_2"},
            "attn_implementation flash_attention_2 attends in one direction, and prefixes in both",
        ),
        ({"infill_rate": 0.5, "objective": "masked"}, "infill_rate"),
    ],
    ids=str,
)
def test_fields_that_make_no_sense_are_refused(english, tmp_path, fields, said):
    assert said in runs.run_error(data=english, output_dir=tmp_path / "run", **{**FIELDS, **fields})
    assert not (tmp_path / "run").exists()


def test_a_run_of_before_there_were_these_fields_goes_on(english, tmp_path, capsys):
    folder = tmp_path / "run"
    runs.run_here(data=english, output_dir=folder, **{**FIELDS, "max_steps": 2})
    noted = json.loads((folder / "run.json").read_text())
    for name in ("infill_rate", "infill_spm_share", "prefix_share"):
        del noted[name]
    (folder / "run.json").write_text(json.dumps(noted))
    capsys.readouterr()
    runs.run_here(data=english, output_dir=folder, **{**FIELDS, "max_steps": 2})
    assert "is finished: nothing to train" in capsys.readouterr().out
