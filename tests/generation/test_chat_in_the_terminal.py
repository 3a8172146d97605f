"""`recipes/generate.py --chat` answers as one would by hand, remembers what was said, and ends where it should."""

import json

import pytest
import torch
from helpers.models import make_model, shake, tiny_config
from helpers.text import sentences
from transformers import AutoModelForCausalLM, AutoTokenizer

from weft.recipes.common.errors import RecipeError
from weft.recipes.generation import chat
from weft.recipes.generation.answers import write_answers
from weft.tokenizer.chat_templates import give_chat_template
from weft.tokenizer.train import train_tokenizer

GREEDY = ["--do_sample", "false", "--max_new_tokens", "12"]


def make_folder(folder, **fields):
    """A model whose weights are random, and so large that its text varies; a full stop ends its answers."""
    tokenizer = train_tokenizer(iter(sentences(50)), "char", 300)
    give_chat_template(tokenizer, "chatml")
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = make_model(tiny_config(vocab_size=len(tokenizer), tie_word_embeddings=False, **special, **fields))
    model.generation_config.eos_token_id = [tokenizer.convert_tokens_to_ids("e"), 2]
    shake(model, std=0.5).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(folder, monkeypatch, written):
    """Call the command with lines that are typed, and give back what it prints."""

    def call(*words, typed=(), model=folder):
        lines = iter(typed)

        def type_line(prompt):
            print(prompt, end="")
            line = next(lines, EOFError)
            if isinstance(line, type):
                raise line
            print(line)
            return line

        monkeypatch.setattr("builtins.input", type_line)
        return written("--model", model, "--chat", *words)

    return call


@torch.no_grad()
def answer_by_hand(folder, messages, length=12):
    """Greedy tokens behind the rendered messages, with the whole prefix computed anew for every token."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    written = []
    while len(written) < length and (not written or written[-1] not in model.generation_config.eos_token_id):
        written.append(int(model(torch.tensor([[*ids, *written]])).logits[0, -1].argmax()))
    return tokenizer.decode(written, skip_special_tokens=True).lstrip()


def user(text):
    return {"role": "user", "content": text}


@pytest.mark.parametrize("text", ["the river", "s", "seven light stones quietly"])
def test_one_question_is_answered_and_nothing_else_is_printed(text, folder, run):
    assert run("--prompt", text, *GREEDY) == answer_by_hand(folder, [user(text)]) + "\n"


def test_the_systems_message_comes_first(folder, run):
    messages = [{"role": "system", "content": "be made of stone"}, user("the river")]
    assert run("--prompt", "the river", "--system", "be made of stone", *GREEDY) == (
        answer_by_hand(folder, messages) + "\n"
    )


def test_what_was_said_is_remembered_until_reset(folder, run):
    first = answer_by_hand(folder, [user("the river")])
    second = answer_by_hand(folder, [user("the river"), {"role": "assistant", "content": first.strip()}, user("stone")])
    alone = answer_by_hand(folder, [user("stone")])
    assert second != alone
    printed = run(*GREEDY, typed=["the river", "", "stone", "/reset", "stone", "/quit", "never read"])
    assert printed == (
        f"{chat.COMMANDS}\nyou: the river\nmodel: {first}\nyou: \nyou: stone\nmodel: {second}\n"
        f"you: /reset\n(begun anew)\nyou: stone\nmodel: {alone}\nyou: /quit\n"
    )


def test_the_end_of_the_input_ends_it_and_unknown_commands_are_explained(run):
    printed = run(*GREEDY, typed=["/help"])
    assert printed == f"{chat.COMMANDS}\nyou: /help\n{chat.COMMANDS}\nyou: \n"
    assert run(*GREEDY, typed=[KeyboardInterrupt]) == f"{chat.COMMANDS}\nyou: \n"


def test_an_answer_that_is_stopped_is_forgotten(folder, run, monkeypatch):
    write, stops = chat.write_ids, iter([True, False])

    def interrupted(*arguments, **options):
        if next(stops):
            raise KeyboardInterrupt
        return write(*arguments, **options)

    monkeypatch.setattr(chat, "write_ids", interrupted)
    printed = run(*GREEDY, typed=["the river", "stone"])
    assert "(stopped, and forgotten)" in printed
    assert f"model: {answer_by_hand(folder, [user('stone')])}\n" in printed


def test_answers_appear_as_they_are_written(run, monkeypatch):
    pieces = []

    class Watching(chat.AnswerStreamer):
        def on_finalized_text(self, text, stream_end=False):
            pieces.append(text)
            super().on_finalized_text(text, stream_end)

    monkeypatch.setattr(chat, "AnswerStreamer", Watching)
    most = 0
    for seed in range(8):  # some draw no blank, at which a piece is shown
        printed = run("--prompt", "the stone", "--max_new_tokens", "60", "--temperature", "2", "--seed", seed)
        assert "".join(pieces).lstrip() + "\n" == printed
        most = max(most, len([piece for piece in pieces if piece]))
        pieces.clear()
    assert most > 1


def test_special_tokens_are_not_typed(run):
    with pytest.raises(RecipeError, match=r"'<\|im_end\|>' is a special token"):
        run("--prompt", "a<|im_end|>b", *GREEDY)
    with pytest.raises(RecipeError, match=r"'</s>' is a special token"):
        run("--prompt", "a", "--system", "be </s> brief", *GREEDY)
    assert "('</s>' is a special token of the model: write it otherwise.)" in run(*GREEDY, typed=["a</s>"])


def test_the_oldest_messages_are_forgotten_where_positions_end(tmp_path, run):
    folder = make_folder(tmp_path / "model", position_embedding_type="learned", max_position_embeddings=80)
    printed = run(*GREEDY, typed=["the river is light", "the stone"], model=folder)
    assert "(2 messages at the beginning forgotten: the model has 80 positions)" in printed
    assert answer_by_hand(folder, [user("the stone")]) in printed
    with pytest.raises(RecipeError, match="but the model has 80 positions: write less"):
        run(*GREEDY, "--prompt", "stone " * 20, model=folder)


def test_a_model_without_a_template_is_not_talked_with(folder, run, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="has no chat template"):
        run("--prompt", "a", model=tmp_path)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--prompt_file", "x"], "leave prompt_file out"),
        (["--compile", "true"], "leave compile out"),
        (["--num_beams", "2", "--do_sample", "false"], "leave num_beams out"),
        (["--chat", "false", "--system", "x"], "system is given without chat"),
    ],
)
def test_what_does_not_go_together_is_refused(run, words, sentence):
    with pytest.raises(RecipeError, match=sentence):
        run(*words)


def test_without_a_name_the_model_is_that_of_make_chat(monkeypatch, tmp_path, written):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="runs/chat"):
        written("--chat", "--prompt", "a")


def test_answers_of_a_batch_are_those_of_each_alone(folder):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    talks = [[user(text)] for text in ("the river", "s", "seven light stones quietly", "of", "a stone is made") * 5]
    prompts = [tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=False) for talk in talks]
    assert write_answers(model, tokenizer, prompts, 12) == [answer_by_hand(folder, talk).strip() for talk in talks]


def test_the_generation_config_of_the_folder_says_where_answers_end(folder):
    """What these tests rely on: an answer may end before it is as long as it may be."""
    ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert len(ends) == 2


def test_a_long_prompt_beside_it_does_not_shorten_an_answer(tmp_path):
    folder = make_folder(tmp_path / "model", position_embedding_type="learned", max_position_embeddings=80)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    model.generation_config.eos_token_id = None
    talks = [[user("s" * length)] for length in (1, 52, 52, 55, 2, 60, 300)]
    prompts = [tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=False) for talk in talks]
    lengths = [len(prompt) for prompt in prompts]
    assert min(lengths) + 12 < 80 < max(lengths) and any(80 - 12 < length < 80 for length in lengths)
    together = write_answers(model, tokenizer, prompts, 12)
    assert together == [write_answers(model, tokenizer, [prompt], 12)[0] for prompt in prompts]
    assert together[-1] == "" and len(together[0]) > len(together[3])


def test_a_line_that_is_not_utf_8_ends_nothing(folder, run):
    printed = run(*GREEDY, typed=[UnicodeError, "stone"])
    assert "(that is not UTF-8: write it again)" in printed
    assert f"model: {answer_by_hand(folder, [user('stone')])}\n" in printed
