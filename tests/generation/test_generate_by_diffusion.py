"""`recipes/generate.py --mode diffusion` fills in masks, and so does `generate` of transformers with its sampler."""

import functools
import io
import json
import math
import re
import shutil

import pytest
import torch
from helpers import runs
from helpers.models import make_model, shake, tiny_config
from helpers.text import sentences
from transformers import AutoModelForMaskedLM, AutoTokenizer, GenerationConfig

from weft import WeftForCausalLM, WeftForMaskedLM
from weft.recipes import generate
from weft.recipes.common.errors import RecipeError
from weft.recipes.generation.diffusion import arguments
from weft.recipes.generation.diffusion.canvas import GAP, Canvas, wrapped
from weft.recipes.generation.diffusion.custom_generate import generate as sampler
from weft.recipes.generation.diffusion.texts import canvas_ids, write_texts
from weft.tokenizer.special_tokens import for_role
from weft.tokenizer.train import train_tokenizer

PROMPTS = ["the river", "Number 3: of a st<mask>ne", "s", "seven <mask><mask><mask> stones quietly"]
GREEDY = ["--do_sample", "false", "--max_new_tokens", "6"]
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def save(folder, **fields):
    """A saved masked model with its tokenizer; its weights are random, and so large that its text varies."""
    tokenizer = for_role(train_tokenizer(iter(sentences(50)), "char", 300, model_max_length=64), "encoder")
    config = tiny_config(vocab_size=len(tokenizer), is_causal=False, tie_word_embeddings=False, **SPECIAL, **fields)
    shake(make_model(config, model_class=WeftForMaskedLM), std=0.5).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(folder, written):
    """What the command prints, called with this model."""
    return functools.partial(written, "--mode", "diffusion", "--model", folder)


@pytest.fixture(scope="module")
def loaded(folder):
    return AutoModelForMaskedLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def fill_by_hand(model, tokenizer, prompt, length=6):
    """The most certain mask first, one after another."""
    mask, text = tokenizer.mask_token_id, tokenizer(prompt).input_ids
    row = text if mask in text else [*text[:-1], *[mask] * length, text[-1]]
    never = sampler.never_written(tokenizer, model.config.vocab_size)
    while mask in row:
        scores = model(torch.tensor([row])).logits[0]
        scores[:, never] = -math.inf
        shares = scores.softmax(-1)
        place = max((i for i, token in enumerate(row) if token == mask), key=lambda i: shares[i].max())
        row = [*row[:place], int(shares[place].argmax()), *row[place + 1 :]]
    return tokenizer.decode(row, skip_special_tokens=True)


@pytest.mark.parametrize("prompt", ["", *PROMPTS])
def test_a_prompt_is_filled_in_or_written_on_and_printed(loaded, run, prompt):
    assert run("--prompt", prompt, *GREEDY) == fill_by_hand(*loaded, prompt) + "\n"


def test_only_the_gaps_change(run):
    printed = run("--prompt", PROMPTS[3], *GREEDY)
    assert re.fullmatch(r"seven.{0,1}... ?stones quietly\n", printed), printed


def test_the_model_of_these_tests_says_something_else_to_each_prompt(loaded):
    assert len({fill_by_hand(*loaded, prompt)[-6:] for prompt in ("the river", "s", "quietly", "")}) >= 3


def test_a_special_token_stays_text_where_there_is_no_gap(loaded):
    _, tokenizer = loaded
    ids = canvas_ids(tokenizer, "a</s>b", 3)
    assert ids[0] == 1 and ids[-4:] == [tokenizer.mask_token_id] * 3 + [2]
    assert not {*ids[1:-4]} & {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_a_file_of_prompts_in_batches_gives_the_text_of_each_alone(loaded, run, tmp_path, batch_size):
    path, out = tmp_path / "prompts.txt", tmp_path / "texts.jsonl"
    path.write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    words = ("--prompt_file", path, "--batch_size", batch_size, *GREEDY)
    lines = [json.loads(line) for line in run(*words).splitlines()]
    assert lines == [{"prompt": prompt, "text": fill_by_hand(*loaded, prompt)} for prompt in PROMPTS]
    assert run(*words, "--output_file", out) == ""
    assert [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] == lines


def test_the_seed_decides_what_is_drawn_and_steps_and_order_have_an_effect(run):
    def draw(*words):
        return run("--prompt", "the", "--max_new_tokens", 20, "--temperature", 2.0, *words)

    assert draw("--seed", 1) == draw("--seed", 1)
    found = [draw("--seed", seed, *words) for seed in (1, 2) for words in ((), ("--steps", 2), ("--order", "random"))]
    assert len(set(found)) == 6
    assert len(draw("--block_length", 4)) > 4 and draw("--int8", "true")


class Terminal(io.StringIO):
    """What is written to a terminal, and what its screen then shows."""

    def isatty(self):
        return True

    def screen(self, columns):
        lines, row, column = [""], 0, 0
        for up, code, character in re.findall(r"\x1b\[(\d*)([AJ])|(.|\n)", self.getvalue()):
            if code == "A":
                row -= int(up)
            elif code == "J":
                lines = [*lines[:row], lines[row][:column]]
            elif character == "\r":
                column = 0
            elif character == "\n" or column == columns:
                row, column = row + 1, 0
                lines += [""] * (row == len(lines))
            if not code and character not in "\r\n":
                lines[row] = lines[row][:column] + character
                column += 1
        return lines


@pytest.mark.parametrize(("columns", "height"), [(80, 24), (10, 24), (9, 3)])
def test_a_terminal_shows_the_text_in_the_making_and_then_the_text(folder, loaded, monkeypatch, columns, height):
    terminal = Terminal()
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: shutil.os.terminal_size((columns, height)))
    monkeypatch.setattr("sys.stdout", terminal)
    words = ["--mode", "diffusion", "--model", str(folder), "--prompt", "the river", *GREEDY]
    monkeypatch.setattr("sys.argv", ["generate.py", *words])
    generate.main()
    written = terminal.getvalue()
    assert GAP in written and written.count("\x1b[J") == 6  # six masks one after another, and the end over the last
    text = fill_by_hand(*loaded, "the river")
    assert terminal.screen(columns) == [*wrapped(text, columns), ""]


def test_wide_signs_and_line_ends_are_counted_as_a_terminal_does():
    assert wrapped("ab\nc", 3) == ["ab", "c"]
    assert wrapped("abcd", 3) == ["abc", "d"]
    assert wrapped("今天天", 5) == ["今天", "天"]
    assert wrapped("e\u0301e\u0301e\u0301", 3) == ["e\u0301e\u0301e\u0301"]
    assert wrapped("", 3) == [""]


def test_masks_are_shown_as_gaps_and_other_special_tokens_not_at_all(loaded):
    _, tokenizer = loaded
    text = Canvas(tokenizer, io.StringIO()).text_of([1, *tokenizer("ab", add_special_tokens=False).input_ids, 4, 4, 2])
    assert text.replace(" ", "") == f"ab{GAP}{GAP}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mode", "difusion"], "mode is 'difusion' (did you mean diffusion?)"),
        (["--order", "left"], "order is 'left': choose one of confidence, random"),
        (["--steps", "0"], "steps is 0: give at least 1"),
        (["--num_beams", "2"], "mode diffusion fills in masks in any order: leave num_beams out"),
        (["--repetition_penalty", "1.2", "--compile", "true"], "leave repetition_penalty, compile out"),
        (["--chat", "true"], "leave chat out"),
        (["--draft", "x"], "leave draft out"),
        (["--mode", "causal", "--steps", "3"], "steps has no effect without --mode diffusion"),
        (["--mode", "causal", "--order", "random"], "order has no effect without --mode diffusion"),
        (["--mode", "causal"], "fills in masks: give --mode diffusion, or a causal model"),
        (["--temperature", "0"], "temperature is 0.0"),
        (["--model", "runs/none"], "model is 'runs/none': there is no such folder"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused_in_a_sentence(run, words, said):
    with pytest.raises(RecipeError) as caught:
        run("--prompt", "a", *words)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_knows_the_orders_of_the_sampler():
    assert arguments.ORDERS == sampler.ORDERS


def test_the_model_is_the_one_of_make_pretrain_diffusion_unless_another_is_given(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["generate.py", "--mode", "diffusion", "--prompt", "a"])
    with pytest.raises(RecipeError, match="model is 'runs/pretrain_diffusion': there is no such folder"):
        generate.main()


def test_texts_longer_than_the_positions_are_refused_before_anything_is_computed(tmp_path, run):
    limited = save(tmp_path / "limited", position_embedding_type="learned", max_position_embeddings=16)
    assert run("--model", limited, "--prompt", "the", "--max_new_tokens", 11).startswith("the")
    for words, said in (
        (("--prompt", "the", "--max_new_tokens", 12), "the text has 17 tokens, but the model has only 16 positions"),
        (("--prompt", "the", "--max_new_tokens", 12), "give a shorter prompt or max_new_tokens"),
        (("--prompt", "the river and a <mask> stone"), "give a shorter prompt."),
    ):
        with pytest.raises(RecipeError, match=re.escape(said)):
            run("--model", limited, *words)


# `generate` of transformers.


@pytest.fixture(scope="module")
def causal(folder):
    return WeftForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("closed", [True, False])
def test_a_causal_class_writes_as_the_masked_one_does_by_the_sampler(causal, loaded, closed):
    masked, tokenizer = loaded
    inputs = tokenizer(["the river", "s"], padding=True, padding_side="left", return_tensors="pt")
    if not closed:
        inputs = {name: each[:, :-1] for name, each in inputs.items()}
    written = sampler.generate(model=causal, tokenizer=tokenizer, **inputs, max_new_tokens=6, do_sample=False)
    assert written.shape[1] == inputs["input_ids"].shape[1] + 6
    assert (written == 2).sum() == (2 if closed else 0)
    if closed:
        found = tokenizer.batch_decode(written, skip_special_tokens=True)
        assert found == write_texts(masked, tokenizer, ["the river", "s"], 6)
        gaps = sampler.generate(**tokenizer(PROMPTS[3], return_tensors="pt"), model=causal)
        assert tokenizer.decode(gaps[0], skip_special_tokens=True) == fill_by_hand(masked, tokenizer, PROMPTS[3])


def test_generate_finds_the_sampler_in_a_folder(causal, loaded, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path))
    _, tokenizer = loaded
    ids, place = tokenizer("the river", return_tensors="pt").input_ids, runs.RECIPES / "generation" / "diffusion"
    config = GenerationConfig(max_new_tokens=5, do_sample=False)
    options = {"generation_config": config, "trust_remote_code": True, "tokenizer": tokenizer, "steps": 2}
    found = causal.generate(ids, custom_generate=str(place), **options)
    expected = sampler.generate(ids, model=causal, tokenizer=tokenizer, max_new_tokens=5, do_sample=False, steps=2)
    assert torch.equal(found, expected) and found.shape[1] == ids.shape[1] + 5


def test_fields_of_generation_are_obeyed_or_refused(causal, loaded):
    _, tokenizer = loaded
    inputs = tokenizer("the river", return_tensors="pt")
    fixed = {"model": causal, "tokenizer": tokenizer, "order": "random", "do_sample": True}
    drawn = sampler.generate(**inputs, **fixed, temperature=3.0, generator=torch.Generator().manual_seed(1))
    assert drawn.shape[1] == inputs["input_ids"].shape[1] + 20
    again = sampler.generate(**inputs, **fixed, temperature=3.0, generator=torch.Generator().manual_seed(1))
    narrow = sampler.generate(**inputs, **fixed, top_k=1, generator=torch.Generator().manual_seed(1))
    assert torch.equal(drawn, again) and not torch.equal(drawn, narrow)
    length = inputs["input_ids"].shape[1] + 3
    assert sampler.generate(**inputs, model=causal, max_length=length).shape[1] == length
    ends = {"use_cache": True, "pad_token_id": 0, "eos_token_id": 2, "num_beams": 1, "streamer": None}
    assert sampler.generate(**inputs, model=causal, max_new_tokens=1, **ends).shape[1] == length - 2
    for options, said in (
        ({"num_beams": 2}, "it knows no num_beams"),
        ({"repetition_penalty": 1.2, "penalty_alpha": 0.5}, "it knows no penalty_alpha, repetition_penalty"),
        ({"streamer": object()}, "it knows no streamer"),
        ({"token_type_ids": torch.zeros(1, 3)}, "it knows no token_type_ids"),
        ({"return_dict_in_generate": True}, "it knows no return_dict_in_generate"),
    ):
        with pytest.raises(ValueError, match=said):
            sampler.generate(**inputs, model=causal, tokenizer=tokenizer, **options)
    padded = tokenizer(["the river", "s"], padding=True, padding_side="right", return_tensors="pt")
    with pytest.raises(ValueError, match="padded on the left"):
        sampler.generate(**padded, model=causal, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="it needs input_ids"):
        sampler.generate(model=causal, tokenizer=tokenizer)
