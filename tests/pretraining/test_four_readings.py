"""Causal, masked and diffusion rows make one folder that writes on, fills in, writes by filling in, and embeds."""

import json
from types import SimpleNamespace

import pytest
import torch
from helpers import runs
from helpers.cards import head_of, scores_of
from helpers.elsewhere import succeed
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

from weft.recipes import evaluate_lm, generate
from weft.recipes.generation.diffusion.texts import write_texts
from weft.recipes.generation.generate_text import generate_texts
from weft.recipes.training import hub

FIELDS = {"objective": "hybrid", "causal_share": 0.4, "diffusion_share": 0.3, "learning_rate": 0.01}
FIELDS |= {"max_steps": 12, "save_steps": 12, "eval_steps": 4}
PROMPTS = ["The old cat sees", "It"]
GAPS = "The<mask> sees<mask> dog."

READ_ELSEWHERE = """
import json, torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, pipeline

folder, prompts, gaps = {folder!r}, {prompts!r}, {gaps!r}
tokenizer = AutoTokenizer.from_pretrained(folder)
inputs = tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
causal = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
by_diffusion = {{"custom_generate": folder + "/diffusion", "trust_remote_code": True, "do_sample": False}}
found = {{
    "continued": pipeline("text-generation", model=folder, trust_remote_code=True)(
        prompts[0], max_new_tokens=6, do_sample=False)[0]["generated_text"],
    "filled": pipeline("fill-mask", model=folder, trust_remote_code=True)("The cat<mask> the dog.")[0]["sequence"],
    "written": causal.generate(**inputs, max_new_tokens=6, **by_diffusion).tolist(),
    "gaps": causal.generate(**tokenizer(gaps, return_tensors="pt"), **by_diffusion).tolist(),
}}
with torch.no_grad():
    states = AutoModel.from_pretrained(folder, trust_remote_code=True)(**inputs).last_hidden_state
mask = inputs["attention_mask"][..., None]
found["embedded"] = ((states * mask).sum(1) / mask.sum(1)).tolist()
print("FOUND", json.dumps(found))
"""


@pytest.fixture(scope="module")
def finished(english, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "readings"
    runs.run_here(data=english, output_dir=folder, **FIELDS)
    return folder


@pytest.fixture(scope="module")
def elsewhere(finished, tmp_path_factory):
    """What the four readings give in a process without the package."""
    code = READ_ELSEWHERE.format(folder=str(finished), prompts=PROMPTS, gaps=GAPS)
    return json.loads(succeed(code, tmp_path_factory.mktemp("elsewhere")).split("FOUND ", 1)[1])


@pytest.fixture(scope="module")
def masked(finished):
    return AutoModelForMaskedLM.from_pretrained(finished).eval()


@pytest.fixture(scope="module")
def tokenizer(finished):
    return AutoTokenizer.from_pretrained(finished)


def test_it_learns_every_role_and_tells_of_each(finished):
    logged = [entry for entry in runs.history(finished) if "loss" in entry]
    for part in ("causal", "masked", "diffusion"):
        assert logged[-1][f"loss_{part}"] < logged[0][f"loss_{part}"] - 0.4, part
    first, last = ([entry for entry in runs.history(finished) if "eval_loss" in entry][place] for place in (0, -1))
    for name in ("causal_loss", "masked_loss", "diffusion_loss", "bits_per_byte", "diffusion_bits_per_byte"):
        assert last[f"eval_{name}"] < first[f"eval_{name}"], name
    assert 0 < last["eval_diffusion_bits_per_byte_error"] < 0.2 * last["eval_diffusion_bits_per_byte"]
    shares = {"causal_loss": 0.4, "masked_loss": 0.3, "diffusion_loss": 0.3}
    whole = sum(share * last[f"eval_{name}"] for name, share in shares.items())
    assert last["eval_loss"] == pytest.approx(whole)
    card, head = (finished / "README.md").read_text(), head_of(finished)
    said = ["diffusion bits per byte error", "| diffusion_share | 0.3 |", "| validation_rates | 4 |", "masked: "]
    for words in (*said, 'custom_generate="FOLDER/diffusion"', 'AutoModelForCausalLM.from_pretrained("'):
        assert words in card, words
    assert card.count("```text") == 9  # three texts of each role
    assert {("validation", "bits_per_byte"), ("validation", "diffusion_bits_per_byte")} <= scores_of(head)


def test_the_plan_and_the_end_tell_of_the_rows(english, tmp_path, capsys):
    fields = {"data": english, "output_dir": tmp_path / "run", **FIELDS}
    runs.run_here(**fields, plan="true", validation_rates=6)
    printed = capsys.readouterr().out
    assert "causal rows 40.00%" in printed
    assert "diffusion   30.00% of the rows, each document at a rate of its own; held-out ones at 6 rates" in printed
    runs.run_here(**{**fields, "max_steps": 2})
    assert "; diffusion bits per byte " in capsys.readouterr().out.splitlines()[-1]


def test_without_such_rows_a_hybrid_is_as_it_was(english, tmp_path, capsys):
    fields = {**FIELDS, "diffusion_share": None, "max_steps": 2, "eval_steps": 2, "save_steps": 2}
    runs.run_here(data=english, output_dir=tmp_path / "run", **fields)
    assert "diffusion" not in capsys.readouterr().out and not (tmp_path / "run" / "diffusion").exists()
    assert not [name for name in json.loads((tmp_path / "run" / "metrics.json").read_text()) if "diffusion" in name]
    assert "loss_diffusion" not in {name for entry in runs.history(tmp_path / "run") for name in entry}
    runs.run_here(data=english, output_dir=tmp_path / "zero", **{**fields, "diffusion_share": 0})
    found, expected = runs.weights(tmp_path / "zero"), runs.weights(tmp_path / "run")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_it_writes_on_from_left_to_right(finished, elsewhere, tokenizer):
    """Token after token what the causal class says is the most likely one, the sampler notwithstanding."""
    model = AutoModelForCausalLM.from_pretrained(finished).eval()
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(PROMPTS[0], add_special_tokens=False).input_ids]])
    with torch.no_grad():
        for _ in range(6):
            ids = torch.cat((ids, model(ids, use_cache=False).logits[:, -1:].argmax(-1)), dim=1)
    assert elsewhere["continued"] == tokenizer.decode(ids[0], skip_special_tokens=True)
    assert generate_texts(model, tokenizer, PROMPTS[:1], max_new_tokens=6, do_sample=False) == [elsewhere["continued"]]


def test_it_fills_a_mask_by_the_state_before_it(elsewhere, masked, tokenizer):
    ids = tokenizer("The cat<mask> the dog.", return_tensors="pt").input_ids
    place = int((ids[0] == tokenizer.mask_token_id).nonzero())
    with torch.no_grad():
        state = masked.model(ids, is_causal=False).last_hidden_state[0, place - 1]
        ids[0, place] = masked.get_logits(state).argmax()
    assert elsewhere["filled"] == tokenizer.decode(ids[0], skip_special_tokens=True)


def test_it_writes_by_filling_in_as_the_masked_class_does(elsewhere, masked, tokenizer):
    found = tokenizer.batch_decode(elsewhere["written"], skip_special_tokens=True)
    assert found == write_texts(masked, tokenizer, PROMPTS, 6)
    for row in elsewhere["written"]:
        assert row[-1] == tokenizer.eos_token_id and tokenizer.mask_token_id not in row
    (filled,) = tokenizer.batch_decode(elsewhere["gaps"], skip_special_tokens=True)
    assert filled == write_texts(masked, tokenizer, [GAPS], 0)[0]
    assert filled.startswith("The") and " sees" in filled and filled.endswith(" dog.")


def test_it_embeds_by_the_mean_of_the_last_states(finished, elsewhere, tokenizer):
    """Of each text alone, in both directions, whatever stands beside it in a batch."""
    model = AutoModel.from_pretrained(finished).eval()
    for text, vector in zip(PROMPTS, elsewhere["embedded"]):
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            states = model(ids).last_hidden_state[0]
            changed = model(torch.cat((ids[:, :-2], ids[:, -1:]), dim=1)).last_hidden_state[0]
        torch.testing.assert_close(torch.tensor(vector), states.mean(0), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(states[0], changed[0])  # the first token sees the last


def test_the_commands_read_the_folder_in_every_way(finished, tmp_path, monkeypatch, capsys):
    def printed(command, *words):
        monkeypatch.setattr("sys.argv", ["command.py", "--model", *map(str, (finished, *words))])
        capsys.readouterr()
        command.main()
        return capsys.readouterr().out

    greedy = ("--prompt", PROMPTS[0], "--max_new_tokens", 6, "--do_sample", "false")
    texts = [printed(generate, *greedy, *words) for words in ((), ("--mode", "diffusion"))]
    assert all(text.startswith(PROMPTS[0]) for text in texts)
    text = runs.write_sentences(tmp_path / "text.txt", documents=3, seed=7)
    for scoring, name in (("causal", "causal"), ("masked", "masked-next-token"), ("diffusion", "diffusion-next-token")):
        said = printed(evaluate_lm, "--files", text, "--scoring", scoring)
        assert f"{name} scoring" in said and ("bits_per_byte_error" in said) == (scoring == "diffusion")


def test_the_sampler_is_published_in_its_folder(finished):
    sent = {}
    hub._upload(SimpleNamespace(upload_folder=lambda **fields: sent.update(fields)), finished, "me/model", None, "")
    assert "diffusion/custom_generate/generate.py" in sent["allow_patterns"]
    assert not (finished / "custom_generate").exists()  # which would take the place of writing from left to right


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"causal_share": 0.8}, "causal_share and diffusion_share are 0.8 and 0.3: give shares that sum to 1 at most"),
        ({"target_share": 0.9}, "target_share cannot be given with diffusion_share"),
        ({"validation_rates": 3}, "validation_rates is 3: give an even number"),
        ({"diffusion_share": 0, "validation_rates": 4}, "validation_rates has no effect without --diffusion_share"),
        ({"objective": "masked", "causal_share": None}, "diffusion_share has no effect without --objective hybrid"),
    ],
    ids=str,
)
def test_fields_that_contradict_or_do_nothing_are_refused(english, tmp_path, fields, said):
    assert said in runs.run_error(data=english, output_dir=tmp_path / "run", **{**FIELDS, **fields})
    assert not (tmp_path / "run" / "run.json").exists()
