"""A tokenizer without a chat template gets one with its special tokens, and keeps both in its folder."""

import pytest
from helpers.stock_tokenizers import train_small
from tokenizers import AddedToken
from transformers import AutoTokenizer

from weft.tokenizer.chat_templates import give_chat_template, render_chat, special_tokens_of, spelt_tokens
from weft.tokenizer.special_tokens import for_role

TALK = [
    {"role": "system", "content": "be short"},
    {"role": "user", "content": " the river? "},
    {"role": "assistant", "content": "a stone"},
    {"role": "user", "content": "why"},
]
RENDERED = {
    "chatml": "<s><|im_start|>system\nbe short<|im_end|>\n<|im_start|>user\nthe river?<|im_end|>\n"
    "<|im_start|>assistant\na stone<|im_end|>\n<|im_start|>user\nwhy<|im_end|>\n<|im_start|>assistant\n",
    "plain": "<s>be short\nUser: the river?\nAssistant: a stone</s>\nUser: why\nAssistant:",
}
ZEPHYR = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


@pytest.mark.parametrize("template", RENDERED)
def test_messages_are_written_as_the_template_is_known(template):
    tokenizer = train_small("bpe")
    new = give_chat_template(tokenizer, template)
    assert new == (["<|im_start|>", "<|im_end|>"] if template == "chatml" else [])
    assert render_chat(tokenizer, TALK, add_generation_prompt=True) == RENDERED[template]
    assert render_chat(tokenizer, TALK[1:]) == RENDERED[template].replace("be short\n", "").replace(
        "<|im_start|>system\nbe short<|im_end|>\n", ""
    ).removesuffix("<|im_start|>assistant\n").removesuffix("Assistant:")


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram", "char"])
@pytest.mark.parametrize("role", ["decoder", "encoder"])
def test_new_tokens_get_ids_of_their_own_and_stay_in_the_folder(kind, role, tmp_path):
    tokenizer = for_role(train_small(kind), role)
    before = tokenizer.get_vocab()
    new = tokenizer.convert_tokens_to_ids(give_chat_template(tokenizer, "chatml"))
    assert not set(new) & set(before.values()) and len(set(new)) == 2
    tokenizer.save_pretrained(tmp_path)
    for each in (tokenizer, AutoTokenizer.from_pretrained(tmp_path), for_role(tokenizer, "decoder")):
        assert {token: each.get_vocab()[token] for token in before} == before
        ids = each("<|im_start|>a river<|im_end|>", add_special_tokens=False).input_ids
        assert [ids[0], ids[-1]] == new and set(new) <= set(each.all_special_ids)
        assert each.chat_template == tokenizer.chat_template
        assert "<|im" not in each.decode(ids, skip_special_tokens=True)


def test_a_token_that_is_there_is_made_special_but_not_added():
    tokenizer = train_small("bpe")
    tokenizer.add_tokens(["<|im_end|>"])
    assert give_chat_template(tokenizer, "chatml") == ["<|im_start|>"]
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in tokenizer.all_special_ids
    assert give_chat_template(tokenizer, "chatml") == []


def test_a_template_of_ones_own_names_its_tokens_also_where_it_puts_them_together():
    tokenizer = train_small("bpe")
    assert give_chat_template(tokenizer, ZEPHYR) == ["<|system|>", "<|user|>", "<|assistant|>"]
    assert render_chat(tokenizer, TALK[1:2]) == "<|user|>\n the river? </s>\n"


OF_TOOLS = (
    "{% if tools %}{{ '<|tools|>' ~ (tools | tojson) }}{% endif %}{% for message in messages %}"
    "{% if message.tool_calls %}{{ '<|call|>' ~ (message.tool_calls | tojson) ~ eos_token }}"
    "{% elif message.role == 'tool' %}{{ '<|result|>' ~ message.content }}"
    "{% else %}{{ '<|' ~ message.role ~ '|>' ~ message.content }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("refuses", ["", "{{ raise_exception('x') if messages[0].role == 'system' and tools }}"])
def test_tokens_that_only_tools_need_are_special_too(refuses):
    tokenizer = train_small("bpe")
    new = give_chat_template(tokenizer, refuses + OF_TOOLS)
    assert new == ["<|system|>", "<|user|>", "<|assistant|>", "<|tools|>", "<|call|>", "<|result|>"]
    assert set(new) <= set(special_tokens_of(tokenizer))


def test_tools_and_calls_are_written_by_chatml_and_refused_by_plain():
    tokenizer, plain = train_small("bpe"), train_small("bpe")
    give_chat_template(tokenizer, "chatml")
    give_chat_template(plain, "plain")
    talk = [TALK[1], {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "2"}]
    text = render_chat(tokenizer, talk, tools=[{"name": "add"}])
    assert text.startswith('<s><|im_start|>system\nTools that can be called:\n{"name": "add"}\n')
    assert '<|im_start|>assistant\n<tool_call>{"name": "add", "arguments": ' in text
    assert text.endswith("</tool_call><|im_end|>\n<|im_start|>tool\n2<|im_end|>\n")
    for fields in ({"messages": talk}, {"messages": TALK, "tools": [{"name": "add"}]}):
        with pytest.raises(ValueError, match="has no place for tool"):
            render_chat(plain, **fields)


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{% for message in messages %}", "cannot write it"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages.nothing.there }}", "has no attribute"),
    ],
)
def test_a_template_that_cannot_be_used_leaves_the_tokenizer_as_it_was(template, sentence):
    tokenizer = train_small("bpe")
    with pytest.raises(ValueError, match=sentence):
        give_chat_template(tokenizer, template)
    assert tokenizer.chat_template is None


def test_plain_needs_an_end_token():
    tokenizer = train_small("bpe")
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="end token"):
        give_chat_template(tokenizer, "plain")


def test_special_tokens_in_a_text_are_found_wherever_they_hide():
    tokenizer = train_small("bpe")
    tokenizer.add_tokens(["ordinary", AddedToken("<|x|>", special=True)])
    special = special_tokens_of(tokenizer)
    assert "<|x|>" in special and "ordinary" not in special
    message = {"role": "user", "content": "ordinary", "tool_calls": [{"arguments": {"a": ["</s>", "<|x|>", "</s>"]}}]}
    assert spelt_tokens(special, [message]) == ["</s>", "<|x|>"]
