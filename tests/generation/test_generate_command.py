"""`recipes/generate.py` continues one prompt as it is written, and a file of prompts as it would one by one."""

import json

import pytest
import torch
from helpers.models import make_model, shake, tiny_config
from helpers.text import CHINESE, sentences
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from weft.recipes.common.errors import RecipeError
from weft.recipes.generation import run as generation_run
from weft.recipes.generation.generate_text import generate_texts, start_ids
from weft.tokenizer.special_tokens import for_role
from weft.tokenizer.train import train_tokenizer

PROMPTS = ["the river", "Number 3: of a stone", "s", "  two blanks before", CHINESE[:4], "seven light stones quietly"]
GREEDY = ["--do_sample", "false", "--max_new_tokens", "12"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model with its tokenizer; its weights are random, and so large that its text varies."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(iter([*sentences(50), CHINESE]), "char", 300, model_max_length=64)
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = make_model(tiny_config(vocab_size=len(tokenizer), tie_word_embeddings=False, **special))
    shake(model, std=0.5).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def stock_folder(folder, tmp_path_factory):
    """A stock class with the same tokenizer."""
    stock, tokenizer = tmp_path_factory.mktemp("stock"), AutoTokenizer.from_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(stock)
    tokenizer.save_pretrained(stock)
    return stock


@pytest.fixture
def run(folder, written):
    """Call the command and give back what it prints."""
    return lambda *words: written("--model", folder, *words)


@torch.no_grad()
def continue_by_hand(folder, prompt, length=12):
    """Greedy text, with the whole prefix computed anew for every token."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False).input_ids]
    for _ in range(length):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--prompt", "a"], True),
        (["--prompt", "a", "--int8", "true"], False),
        (["--prompt", "a", "--num_beams", 2], True),
        (["--prompt", "a", "--num_beams", 3], False),
        (["--prompt_file", "FILE"], False),
        (["--prompt_file", "FILE", "--batch_size", 2], True),
    ],
)
def test_weights_of_a_stock_class_are_stored_for_a_few_rows(run, tmp_path, monkeypatch, stock_folder, words, expected):
    """Weft's own maps multiply a few rows faster than that."""
    (tmp_path / "prompts").write_text("\n".join(PROMPTS))
    stored, words = [], [tmp_path / "prompts" if word == "FILE" else word for word in words]
    monkeypatch.setattr(generation_run, "store_by_column", stored.append)
    run(*words, *GREEDY)
    assert not stored
    run(*words, *GREEDY, "--model", stock_folder)
    assert bool(stored) == expected


def test_the_model_of_these_tests_says_something_else_to_each_prompt(folder):
    continuations = {continue_by_hand(folder, prompt)[len(prompt) :] for prompt in PROMPTS}
    assert len(continuations) == len(PROMPTS)
    assert sum(len(set(text)) >= 4 for text in continuations) >= 3, continuations


@pytest.mark.parametrize("prompt", ["", *PROMPTS])
def test_one_prompt_is_continued_and_printed(folder, run, prompt):
    assert run("--prompt", prompt, *GREEDY) == continue_by_hand(folder, prompt) + "\n"


def test_text_appears_while_it_is_written(folder, run, monkeypatch):
    pieces = []

    class Watching(generation_run.TextStreamer):
        def on_finalized_text(self, text, stream_end=False):
            pieces.append(text)
            super().on_finalized_text(text, stream_end)

    monkeypatch.setattr(generation_run, "TextStreamer", Watching)
    printed = run("--prompt", "the stone is", "--max_new_tokens", "60", "--temperature", "2")
    assert len([piece for piece in pieces if piece]) > 3
    assert "".join(pieces) + "\n" == printed


@pytest.mark.parametrize("batch_size", [1, 2, 4, 16])
def test_a_file_of_prompts_in_batches_gives_the_text_of_each_alone(folder, run, tmp_path, batch_size):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join([*PROMPTS[:2], "", *PROMPTS[2:]]) + "\n", encoding="utf-8")
    printed = run("--prompt_file", path, "--batch_size", batch_size, *GREEDY)
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [line["prompt"] for line in lines] == PROMPTS
    assert [line["text"] for line in lines] == [continue_by_hand(folder, prompt) for prompt in PROMPTS]


def test_results_go_to_a_file_of_json_lines(folder, run, tmp_path):
    path, out = tmp_path / "prompts.txt", tmp_path / "new" / "texts.jsonl"
    path.write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    assert run("--prompt_file", path, "--output_file", out, *GREEDY) == ""
    content = out.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in content.splitlines()]
    assert lines == [{"prompt": prompt, "text": continue_by_hand(folder, prompt)} for prompt in PROMPTS]
    assert CHINESE[:4] in content  # readable, not escaped


@pytest.mark.parametrize("error, left", [(OSError(28, "full"), []), (KeyboardInterrupt(), ["texts.jsonl.partial"])])
def test_results_cut_short_do_not_bear_the_name_of_whole_ones(run, tmp_path, monkeypatch, error, left):
    path, out = tmp_path / "prompts.txt", tmp_path / "new" / "texts.jsonl"
    path.write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    batches, real = [], generation_run.generate_texts

    def cut_short(*args, **kwargs):
        batches.append(None)
        if len(batches) == 2:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(generation_run, "generate_texts", cut_short)
    words = ("--prompt_file", path, "--output_file", out, "--batch_size", 1, *GREEDY)
    with pytest.raises(type(error)):
        run(*words)
    assert [file.name for file in out.parent.iterdir()] == left
    monkeypatch.setattr(generation_run, "generate_texts", real)
    run(*words)
    assert [file.name for file in out.parent.iterdir()] == ["texts.jsonl"]
    assert len(out.read_text(encoding="utf-8").splitlines()) == len(PROMPTS)


def test_only_line_ends_part_prompts(folder, run, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("the\u2028river\r\nlight\x0cstone".encode())
    prompts = [json.loads(line)["prompt"] for line in run("--prompt_file", path, *GREEDY).split("\n") if line]
    assert prompts == ["the\u2028river", "light\x0cstone"]


def test_the_seed_decides_what_is_drawn(run):
    def draw(seed):
        return run("--prompt", "the", "--seed", seed, "--max_new_tokens", 30, "--temperature", 2.0)

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_top_k_of_one_is_the_most_likely_text(folder, run):
    words = ["--prompt", "the river", "--top_k", 1, "--max_new_tokens", 12]
    assert run(*words) == continue_by_hand(folder, "the river") + "\n"


def test_a_beam_search_is_printed_at_its_end(folder, run):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    expected = generate_texts(model, tokenizer, ["the"], num_beams=3, do_sample=False, max_new_tokens=12)
    assert run("--prompt", "the", "--num_beams", 3, *GREEDY) == expected[0] + "\n"


@pytest.mark.parametrize("tokenizer_type", ["bpe", "wordpiece", "char"])
def test_a_special_token_that_a_prompt_spells_out_stays_text(tokenizer_type):
    """As in training, which sees no markup of its own in a text."""
    texts = ["the <s>red</s> cat [MASK]"] * 3
    tokenizer = for_role(train_tokenizer(iter(texts), tokenizer_type, 300), "decoder")
    ids = start_ids(tokenizer, texts[0])
    assert ids[0] == tokenizer.bos_token_id and not {*tokenizer.all_special_ids} & {*ids[1:]}
    assert "".join(tokenizer.decode(ids[1:]).split()) == "".join(texts[0].split())
    assert tokenizer("<s>", add_special_tokens=False).input_ids == [tokenizer.bos_token_id]  # as before for others


def test_a_prompt_begins_as_documents_did_in_training(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert start_ids(tokenizer, "") == [tokenizer.bos_token_id]
    assert start_ids(tokenizer, "the") == [
        tokenizer.bos_token_id,
        *tokenizer("the", add_special_tokens=False).input_ids,
    ]
    tokenizer.bos_token = None  # as in a tokenizer for text without start tokens
    assert start_ids(tokenizer, "the") == tokenizer("the", add_special_tokens=False).input_ids
    assert len(start_ids(tokenizer, "")) == 1


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--prompt", "a", "--prompt_file", "b"], "both prompt and prompt_file are given"),
        (["--prompt_file", "missing.txt"], "missing.txt is missing"),
        (["--seed", "1764381234567"], "seed is 1764381234567: give at least 0 and below 4294967296"),
        (["--prompt_file", "blank.txt"], "blank.txt holds no prompt"),
        (["--prompt_file", "latin.txt"], "latin.txt is not UTF-8 (byte 4)"),
        (["--prompt", "a", "--output_file", "texts.jsonl"], "output_file is given without a prompt_file"),
        (["--temperature", "0"], "temperature is 0.0"),
        (["--batch_size", "0"], "batch_size is 0"),
        (["--max_new_tokens", "0"], "max_new_tokens is 0"),
        (["--num_beams", "0"], "num_beams is 0"),
        (["--temprature", "1"], "did you mean temperature?"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(run, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(RecipeError) as caught:
        run(*words)
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "texts.jsonl").exists()


@pytest.mark.parametrize("content", [None, {}, {"config.json": "{torn"}, {"config.json": '{"model_type": "weft"}'}])
def test_a_model_that_cannot_be_loaded_is_named(folder, run, tmp_path, content):
    path = tmp_path / "broken"
    if content is not None:
        path.mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (path / name).write_bytes((folder / name).read_bytes())
        for name, text in content.items():
            (path / name).write_text(text)
    with pytest.raises(RecipeError) as caught:
        run("--model", path, *GREEDY)
    said = f"model is {str(path)!r}: there is no" if content is None else f"model {str(path)!r} cannot be loaded: "
    assert str(caught.value).startswith(said)
