"""`recipes/generate.py --infill` writes what is missing in a text, with the tokens of any model that has some."""

import functools
import json
import re

import pytest
import torch
from helpers.models import make_model, shake, tiny_config
from helpers.text import sentences
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
)

from weft import WeftForConditionalGeneration, WeftForMaskedLM
from weft.recipes.common.errors import RecipeError
from weft.recipes.generation.infilling import run as infilling_run
from weft.recipes.generation.infilling import texts
from weft.recipes.generation.infilling.texts import fill_by_sentinels, fill_gaps, ids_inside, prompt_of, source_of
from weft.tokenizer.denoising_tokens import MODES, give_tokens, sentinel_names
from weft.tokenizer.fill_in_the_middle import NAMES, MiddleTokens, end_ids
from weft.tokenizer.special_tokens import for_role
from weft.tokenizer.train import train_tokenizer

GREEDY = ["--do_sample", "false", "--max_new_tokens", "9"]
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
SIDES = [("the river", " made of stone"), ("", "seven"), ("Number 3: of a st", "ne."), ("quietly ", "")]


def make_tokenizer(kind="bpe", names=NAMES[0], **fields):
    tokenizer = train_tokenizer(iter(sentences(50)), kind, 300, model_max_length=64, **fields)
    give_tokens(tokenizer, names)
    return tokenizer


def save(folder, tokenizer, model=None):
    if model is None:
        model = make_model(tiny_config(vocab_size=len(tokenizer), tie_word_embeddings=False, **SPECIAL))
    shake(model, std=0.5).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model with its tokenizer; its weights are random, and so large that its text varies."""
    return save(tmp_path_factory.mktemp("model"), make_tokenizer())


@pytest.fixture(scope="module")
def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def run(folder, written):
    """What the command prints, called with this model."""
    return functools.partial(written, "--model", folder)


def fill_by_hand(model, tokenizer, before, after, suffix_first=False, length=9):
    """The whole text, greedily, with everything computed anew for each token."""
    prefix, suffix, middle = (tokenizer.convert_tokens_to_ids(name) for name in NAMES[0])
    first, last = (tokenizer(side, add_special_tokens=False).input_ids for side in (before, after))
    kept, dropped = first[:-1], first[-1:]
    row = [tokenizer.bos_token_id, prefix, *kept, suffix, *last, middle]
    if suffix_first:
        row = [tokenizer.bos_token_id, prefix, suffix, *last, middle, *kept]
    found = []
    for step in range(length):
        with torch.no_grad():
            scores = model(torch.tensor([[*row, *found]])).logits[0, -1]
        order = scores.argsort(descending=True).tolist()
        if step == 0 and dropped:
            (piece,) = tokenizer.convert_ids_to_tokens(dropped)
            names = tokenizer.convert_ids_to_tokens(order)
            order = [number for number, name in zip(order, names) if name.startswith(piece) and name not in NAMES[0]]
        if order[0] in (tokenizer.eos_token_id, prefix, suffix, middle):
            break
        found.append(order[0])
    return tokenizer.decode([*kept, *found]) + after


@pytest.mark.parametrize("suffix_first", [False, True])
@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_the_gap_of_a_text_is_written_and_the_whole_is_printed(loaded, run, sides, suffix_first):
    words = ("--prompt", "", "--infill", "<fill>".join(sides), *GREEDY)  # as make generate gives them
    printed = run(*words, "--suffix_first", suffix_first)
    assert printed == fill_by_hand(*loaded, *sides, suffix_first) + "\n"
    assert printed.startswith(sides[0]) and printed.endswith(sides[1] + "\n")


def test_the_model_of_these_tests_writes_something_else_into_each_gap(loaded):
    found = [
        fill_by_hand(*loaded, *sides, suffix_first)[len(sides[0]) :].removesuffix(sides[1])
        for sides in SIDES
        for suffix_first in (False, True)
    ]
    assert len(set(found)) >= 6, found


def test_texts_in_one_batch_are_filled_as_each_alone(loaded):
    options = {"max_new_tokens": 9, "do_sample": False}
    together = fill_gaps(*loaded, SIDES, **options)
    assert together == [fill_gaps(*loaded, [sides], **options)[0] for sides in SIDES]
    assert [filled.text for filled in together] == [fill_by_hand(*loaded, *sides) for sides in SIDES]
    beams = fill_gaps(*loaded, SIDES[:2], num_beams=3, **options)
    assert all(filled.text.startswith(before) for filled, (before, _) in zip(beams, SIDES))


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char", "wordpiece"])
@pytest.mark.parametrize("before", ["seven sto", "the river ", "quietly"])
def test_the_first_token_goes_on_with_the_word_that_is_begun(kind, before, tmp_path):
    tokenizer = make_tokenizer(kind)
    prompt = prompt_of(tokenizer, before, " light")
    model = make_model(tiny_config(vocab_size=len(tokenizer), **SPECIAL))
    (opening,) = tokenizer.convert_ids_to_tokens(prompt.opening)
    torch.manual_seed(0)
    openings = texts._Openings(tokenizer, [prompt.opening], len(prompt.ids))
    options = {"max_new_tokens": 3, "do_sample": True, "logits_processor": LogitsProcessorList([openings])}
    for _ in range(8):
        rows = texts.write_rows(model, tokenizer, [prompt.ids], **options)
        first = tokenizer.convert_ids_to_tokens(rows[0].tolist())[len(prompt.ids)]
        assert first.startswith(opening) and first not in tokenizer.all_special_tokens
    if kind != "wordpiece":  # which keeps no blanks
        (filled,) = fill_gaps(model, tokenizer, [(before, " light")], max_new_tokens=4, do_sample=True)
        written = tokenizer.decode(rows[0, len(prompt.ids) :], skip_special_tokens=True)
        assert (tokenizer.decode(prompt.prefix) + written).startswith(before) and filled.text.startswith(before)


def test_a_blank_before_the_first_word_belongs_to_beginnings_only():
    tokenizer = make_tokenizer("bpe", add_prefix_space=True)
    begun = tokenizer("river stone", add_special_tokens=False).input_ids
    inside = ids_inside(tokenizer, "river stone")
    assert tokenizer.decode(begun).startswith(" river") and tokenizer.decode(inside) == "river stone"
    assert tokenizer.decode(ids_inside(tokenizer, " stone")) == " stone"
    assert ids_inside(tokenizer, "") == []
    plain = make_tokenizer("bpe")
    for text in ("river", " river", "\nriver", "\n\n"):
        assert plain.decode(ids_inside(plain, text)) == text


@pytest.mark.parametrize("names", NAMES, ids=lambda names: names[0])
def test_models_of_others_are_given_their_own_tokens(names, tmp_path, written):
    """Their tokenizers may name no start token, and more tokens at which a middle ends."""
    source = make_tokenizer(names=[*names, "<|endoftext|>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=source.backend_tokenizer, eos_token="</s>", extra_special_tokens=[*names, "<|endoftext|>"]
    )
    tokenizer.backend_tokenizer.post_processor = None
    save(tmp_path, tokenizer, LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), eos_token_id=2, **SIZES)))
    prefix, suffix, middle = tokenizer.convert_tokens_to_ids(list(names))
    before, after = (tokenizer(text).input_ids for text in ("the river", " stone"))
    assert prompt_of(tokenizer, "the river", " stone").ids == [prefix, *before[:-1], suffix, *after, middle]
    assert {*end_ids(tokenizer)} == {prefix, suffix, middle, tokenizer.convert_tokens_to_ids("<|endoftext|>")}
    printed = written("--model", tmp_path, "--infill", "the river<fill> stone", *GREEDY)
    assert printed.startswith("the river") and printed.endswith(" stone\n")


def test_tokens_that_are_there_are_not_given_again():
    tokenizer = make_tokenizer(names=NAMES[1])
    size = len(tokenizer)
    assert MiddleTokens.give(tokenizer).ids == tokenizer.convert_tokens_to_ids(list(NAMES[1]))
    assert len(tokenizer) == size
    fresh = train_tokenizer(iter(sentences(50)), "bpe", 300)
    size = len(fresh)
    assert MiddleTokens.find(fresh) is None
    assert MiddleTokens.give(fresh).ids == [size, size + 1, size + 2] == fresh.convert_tokens_to_ids(list(NAMES[0]))
    assert MiddleTokens.give(fresh) == MiddleTokens.find(fresh) and len(fresh) == size + 3


class Writer:
    """Stands in for a model, and writes given tokens."""

    def __init__(self, config, *tokens):
        self.config, self.generation_config, self.device = config, config, torch.device("cpu")
        self.tokens, self.asked = tokens, {}

    def generate(self, input_ids, **options):
        self.asked = {"input_ids": input_ids, **options}
        return torch.tensor([self.tokens])


@pytest.mark.parametrize("end", ["</s>", "<|endoftext|>", "<|fim_prefix|>", None])
def test_a_middle_ends_at_any_token_that_says_so(loaded, monkeypatch, end):
    tokenizer = make_tokenizer(names=[*NAMES[0], "<|endoftext|>"])
    ids = tokenizer(" light", add_special_tokens=False).input_ids
    (opening,) = prompt_of(tokenizer, "the river", " x").opening
    written = [opening, *ids, *([] if end is None else [tokenizer.convert_tokens_to_ids(end), *ids])]

    def write_rows(model, tokenizer, rows, **options):
        assert tokenizer.eos_token_id in options["eos_token_id"]
        return torch.tensor([[*row, *written] for row in rows])

    monkeypatch.setattr(texts, "write_rows", write_rows)
    (filled,) = fill_gaps(loaded[0], tokenizer, [("the river", " x")], max_new_tokens=9)
    assert filled.text == "the river light x" and filled.middle == " light"
    assert filled.is_finished == (end is not None)


def test_a_middle_that_was_cut_short_is_told_and_a_terminal_shows_it_in_bold(run, capsys, monkeypatch):
    run("--infill", "the<fill> stone", "--max_new_tokens", 1)
    monkeypatch.setattr(infilling_run.sys.stdout, "isatty", lambda: True, raising=False)
    infilling_run._show(texts.Filled("the ", "river", " stone", False))
    said = capsys.readouterr()
    assert said.out == "the \x1b[1mriver\x1b[0m stone\n"
    assert said.err == "note: max_new_tokens ended what is written in the gap: give more\n"
    infilling_run._show(texts.Filled("the ", "river", " stone", True))
    assert not capsys.readouterr().err


# Encoder-decoders, and models that fill masks in.


@pytest.mark.parametrize("modes", [False, True])
def test_an_encoder_decoder_fills_a_gap_by_its_sentinels(tmp_path, written, modes):
    tokenizer = for_role(train_tokenizer(iter(sentences(50)), "bpe", 300, model_max_length=64), "encoder")
    give_tokens(tokenizer, [*sentinel_names(3), *(MODES.values() if modes else ())])
    first, second = tokenizer.convert_tokens_to_ids(sentinel_names(2))
    before, light, after = (tokenizer(text, add_special_tokens=False).input_ids for text in ("the", " light", " stone"))
    prompt, prefix = source_of(tokenizer, "the ", " stone")
    mode = [tokenizer.convert_tokens_to_ids(MODES["R"])] if modes else []
    assert prompt == [1, *mode, *before, first, *after, 2] and prefix == before
    config = tiny_config(vocab_size=len(tokenizer), is_encoder_decoder=True, decoder_start_token_id=1, **SPECIAL)
    for ending, is_finished in (([second, *light, 2], True), ([2], True), ([], False)):
        model = Writer(config, 1, first, *light, *ending)
        filled = fill_by_sentinels(model, tokenizer, "the ", " stone", max_new_tokens=5)
        assert filled.text == "the light stone" and filled.is_finished == is_finished
        assert model.asked["input_ids"].tolist() == [prompt] and second in model.asked["eos_token_id"]
    save(tmp_path, tokenizer, make_model(config, model_class=WeftForConditionalGeneration))
    printed = written("--model", tmp_path, "--infill", "the <fill> stone", *GREEDY)
    assert printed.startswith("the ") and printed.endswith(" stone\n")


def test_models_without_tokens_for_it_are_refused(tmp_path, written):
    plain = train_tokenizer(iter(sentences(50)), "bpe", 300)
    words = ("--infill", "a<fill>b")
    save(tmp_path / "causal", plain)
    with pytest.raises(
        RecipeError, match=r"has no tokens for infilling \(<\|fim_prefix\|>.*pretrain_clm.py --infill_rate"
    ):
        written("--model", tmp_path / "causal", *words)
    masked = make_model(tiny_config(vocab_size=len(plain) + 3, is_causal=False, **SPECIAL), model_class=WeftForMaskedLM)
    save(tmp_path / "masked", make_tokenizer(), masked)
    with pytest.raises(RecipeError, match="fills in masks: give --mode diffusion"):
        written("--model", tmp_path / "masked", *words)
    fields = {"is_encoder_decoder": True, "decoder_start_token_id": 1, **SPECIAL}
    pair = make_model(tiny_config(vocab_size=len(plain), **fields), model_class=WeftForConditionalGeneration)
    save(tmp_path / "pair", plain, pair)
    with pytest.raises(RecipeError, match=r"has no sentinels \(<extra_id_0>, <extra_id_1>\)"):
        written("--model", tmp_path / "pair", *words)
    small = make_model(tiny_config(vocab_size=len(plain), tie_word_embeddings=False, **SPECIAL))
    save(tmp_path / "small", make_tokenizer(), small)
    with pytest.raises(RecipeError, match=r"ids up to \d+, but the model only \d+ rows"):
        written("--model", tmp_path / "small", *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--infill", "no gap"], "infill has <fill> 0 times: give a text with it once"),
        (["--infill", "<fill> <fill>"], "infill has <fill> 2 times"),
        (
            ["--infill", "a<fill>", "--prompt", "b"],
            "infill is the whole text, of which one gap is written: leave prompt",
        ),
        (["--infill", "a<fill>", "--chat", "true", "--draft", "x"], "leave chat, draft out"),
        (["--infill", "a<fill>", "--mode", "diffusion"], "mode diffusion fills in the mask tokens of a prompt"),
        (["--infill", "a<fill>", "--temperature", "0"], "temperature is 0.0"),
        (["--prompt", "a", "--suffix_first", "true"], "suffix_first has no effect without infill"),
        (["--prompt", "a", "--prefix", "true", "--compile", "true"], "prefix is for prompts that are read at once"),
        (["--prompt", "a", "--prefix", "true", "--mode", "diffusion"], "leave prefix out"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused_in_a_sentence(run, words, said):
    with pytest.raises(RecipeError) as caught:
        run(*words)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_texts_longer_than_the_positions_are_refused_before_anything_is_computed(tmp_path, run):
    tokenizer = make_tokenizer("char")
    config = tiny_config(
        vocab_size=len(tokenizer), position_embedding_type="learned", max_position_embeddings=16, **SPECIAL
    )
    limited = save(tmp_path, tokenizer, make_model(config))
    assert run("--model", limited, "--infill", "abc<fill>def", "--max_new_tokens", 8).startswith("abc")
    with pytest.raises(
        RecipeError, match=re.escape("the prompt has 9 tokens and max_new_tokens is 9, but the model has")
    ):
        run("--model", limited, "--infill", "abc<fill>def", "--max_new_tokens", 9)


# Prompts that are seen in both directions.


@torch.no_grad()
def continue_by_hand(model, ids, length=9):
    ids, prefix = list(ids), len(ids)
    for _ in range(length):
        seen = torch.arange(len(ids))[None] < prefix
        ids.append(int(model(torch.tensor([ids]), prefix_mask=seen).logits[0, -1].argmax()))
        if ids[-1] == 2:
            break
    return ids


@pytest.mark.parametrize("prompt", ["the river", "Number 3: of a stone"])
def test_a_prefix_is_seen_in_both_directions(loaded, run, prompt):
    model, tokenizer = loaded
    ids = tokenizer(prompt).input_ids
    expected = continue_by_hand(model, ids)
    assert (
        run("--prompt", prompt, "--prefix", "true", *GREEDY)
        == tokenizer.decode(expected, skip_special_tokens=True) + "\n"
    )
    inputs, seen = torch.tensor([ids]), torch.ones(1, len(ids)).bool()
    for options in ({}, {"use_cache": False}, {"num_beams": 1, "cache_implementation": "dynamic"}):
        written = model.generate(inputs, prefix_mask=seen, max_new_tokens=9, do_sample=False, **options)
        assert written[0].tolist() == expected
    assert model.generate(inputs, prefix_mask=seen, max_new_tokens=9, num_beams=2, do_sample=False).shape[0] == 1
    with pytest.raises(ValueError, match="prefix_mask cannot change a ready-made attention_mask"):
        model.generate(inputs, prefix_mask=seen, max_new_tokens=9, cache_implementation="static")


def test_prompts_of_a_file_are_seen_so_too_and_stock_models_see_none(loaded, run, tmp_path):
    model, tokenizer = loaded
    prompts = ["the river", "s", "seven light stones"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    printed = run("--prompt_file", tmp_path / "prompts.txt", "--prefix", "true", *GREEDY)
    expected = [continue_by_hand(model, tokenizer(prompt).input_ids) for prompt in prompts]
    for line, ids in zip(printed.splitlines(), expected, strict=True):
        assert json.loads(line)["text"] == tokenizer.decode(ids, skip_special_tokens=True)
    stock = save(tmp_path / "stock", tokenizer, LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SIZES)))
    with pytest.raises(RecipeError, match="sees a prompt in one direction only"):
        run("--model", stock, "--prompt", "a", "--prefix", "true", *GREEDY)
