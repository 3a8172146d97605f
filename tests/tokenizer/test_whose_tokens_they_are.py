"""Which tokens of a conversation are the assistant's is decided exactly, beside a naive reference, or refused."""

import pytest
from helpers.stock_tokenizers import STOCK, TEXTS, train_small
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from weft.tokenizer import conversation_tokens
from weft.tokenizer.chat_templates import give_chat_template, render_chat
from weft.tokenizer.conversation_tokens import encode_conversations

LLAMA_2 = (
    "{% for message in messages %}{% if message.role == 'user' %}{{ bos_token + '[INST] ' "
    "+ message.content + ' [/INST]' }}{% else %}{{ ' ' + message.content + eos_token }}{% endif %}{% endfor %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header|>' + message.role + '<|end_header|>\n\n' "
    "+ message.content + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header|>assistant<|end_header|>\n\n' }}{% endif %}"
)
NO_LAST_LINE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' }}"
    "{{ '' if loop.last and message.role == 'assistant' else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
UNMARKED = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
CLOSED = UNMARKED.replace("{% if add_gen", "{{ '' if add_generation_prompt else eos_token }}{% if add_gen")
TEMPLATES = {
    **{"chatml": "chatml", "plain": "plain", "llama 2": LLAMA_2, "llama 3": LLAMA_3, "no last line": NO_LAST_LINE},
    "closed at its end": CLOSED,
    **{"marked": MARKED, "unmarked": UNMARKED},
}
KINDS = ("bpe", "wordpiece", "unigram", "char", "sentencepiece", "gpt2", "bert", "roberta")


def said(*texts):
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]


TALKS = [
    said("the river of light", "a stone"),
    said("why", "it is made of light", "the stone", "under the river, seven\n\nlines", "and", "quietly"),
    said("x", "y"),
]


def make_tokenizer(kind):
    if kind in STOCK:
        tokenizer = STOCK[kind]()
        if tokenizer.bos_token is None:
            tokenizer.bos_token, tokenizer.eos_token = tokenizer.cls_token, tokenizer.sep_token
        return tokenizer
    if kind != "sentencepiece":
        return train_small(kind)
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    backend.decoder = decoders.Metaspace()
    special = ["<pad>", "<s>", "</s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=600, special_tokens=special[:4], show_progress=False)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def naive(tokenizer, messages):
    """Ids to the last stop token, and for each whether it is an answer's: every beginning of the talk is tokenised."""

    def ids_of(count, prompt=False):
        text = render_chat(tokenizer, messages[:count], add_generation_prompt=prompt)
        return tokenizer(text, add_special_tokens=False).input_ids

    whole, learnt = ids_of(len(messages)), set()
    unknown = {tokenizer.unk_token_id} - {tokenizer.eos_token_id}  # of some tokenizers the end of a line
    special = set(tokenizer.all_special_ids) - unknown
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            first = len(ids_of(number, prompt=True))
            end = next(place for place in range(first, len(whole)) if whole[place] in special)
            learnt |= set(range(first, end + 1))
    return whole[: max(learnt) + 1], [place in learnt for place in range(max(learnt) + 1)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_tokens_of_answers_are_those_of_a_naive_reference(kind, template):
    tokenizer = make_tokenizer(kind)
    give_chat_template(tokenizer, TEMPLATES[template])
    for messages, found in zip(TALKS, encode_conversations(tokenizer, TALKS), strict=True):
        ids, learnt = naive(tokenizer, messages)
        assert found.ids == ids
        assert [any(first <= place < end for first, end in found.answers) for place in range(len(ids))] == learnt
        assert len(found.answers) == len(messages) // 2
        for first, end in found.answers:
            prompt = messages[: 2 * found.answers.index((first, end)) + 1]
            text = render_chat(tokenizer, prompt, add_generation_prompt=True)
            assert found.ids[:first] == tokenizer(text, add_special_tokens=False).input_ids
            assert found.ids[end - 1] in tokenizer.all_special_ids


@pytest.mark.parametrize("template", ["chatml", "plain"])
def test_our_own_templates_are_rendered_once_and_say_the_same_as_prompts_do(template, monkeypatch):
    tokenizer = train_small("bpe")
    give_chat_template(tokenizer, template)
    talks = [*TALKS, [{"role": "system", "content": "be short"}, *said("the river ", " a stone ") * 20]]
    tools, call = None, {"function": {"name": "add", "arguments": {"a": 1}}}
    if template == "chatml":
        tools, calls = [{"name": "add"}], {"role": "assistant", "tool_calls": [call, call]}
        talks.append([*said("the river"), calls, {"role": "tool", "content": "2"}, *said("", "a stone")[1:]])
        talks.append([*said("the river"), {**calls, "content": "why "}])
    rendered = []

    def counted(*given, **options):
        rendered.append(given)
        return render_chat(*given, **options)

    monkeypatch.setattr(conversation_tokens, "render_chat", counted)
    found = encode_conversations(tokenizer, talks, [tools] * len(talks))
    assert len(rendered) == len(talks)
    monkeypatch.setattr(conversation_tokens, "MARKED", {})
    assert found == encode_conversations(tokenizer, talks, [tools] * len(talks))
    assert all(not isinstance(one, str) for one in found) and len(rendered) > 40


def test_marks_say_the_same_as_prompts_do():
    marked, unmarked = train_small("bpe"), train_small("bpe")
    give_chat_template(marked, MARKED)
    give_chat_template(unmarked, UNMARKED)
    assert encode_conversations(marked, TALKS) == encode_conversations(unmarked, TALKS)


def test_transformers_own_mask_is_the_same():
    tokenizer = train_small("bpe")
    give_chat_template(tokenizer, MARKED)
    for messages, found in zip(TALKS, encode_conversations(tokenizer, TALKS), strict=True):
        theirs = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
        places = {place for first, end in found.answers for place in range(first, end)}
        assert {place for place, is_learnt in enumerate(theirs["assistant_masks"]) if is_learnt} == places
        assert theirs["input_ids"][: len(found.ids)] == found.ids


def test_a_conversation_is_cut_at_whole_turns_only():
    tokenizer = train_small("bpe")
    give_chat_template(tokenizer, "chatml")
    whole = encode_conversations(tokenizer, TALKS)[1]
    for longest in range(len(whole.ids) + 2):
        cut, ends = whole.cut_to(longest), [end for _, end in whole.answers if end <= longest]
        assert (cut is None) == (not ends)
        if cut is not None:
            assert cut.ids == whole.ids[: ends[-1]] and len(cut.answers) == len(ends)
            shorter = encode_conversations(tokenizer, [TALKS[1][: 2 * len(ends)]])[0]
            assert cut == shorter


STRIPS = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{% if message.role == 'assistant' and not "
    "loop.last %}{{ message.content.split('</think>')[-1] }}{% else %}{{ message.content }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "messages", "sentence"),
    [
        (
            UNMARKED[: UNMARKED.index("{% if add_gen")] + "{% if add_generation_prompt %}bot: {% endif %}",
            TALKS[0],
            "the prompt for it",
        ),
        (STRIPS, said("a", "<think>x</think>b", "c", "d"), "messages anew for later ones"),
        (
            "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
            "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
            TALKS[0],
            "a token reaches over the place in",
        ),
        (
            "{% for m in messages %}{{ m.role + ':\n' + m.content + '\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}",
            TALKS[0],
            "with no special token",
        ),
        (
            MARKED.replace("'<|im_end|>' }}{% endgeneration %}", "'' }}{% endgeneration %}<|im_end|>"),
            TALKS[0],
            "special token",
        ),
        (MARKED, said("only asked"), "marks nothing"),
        ("chatml", said("what is <s>", "a mark"), "spells the special token '<s>'"),
        (LLAMA_3 + "{{ raise_exception('enough') if messages | length > 2 else '' }}", TALKS[1], "enough"),
    ],
)
def test_what_cannot_be_decided_is_said_and_not_guessed(template, messages, sentence):
    tokenizer = train_small("bpe")
    give_chat_template(tokenizer, template)
    found, other = encode_conversations(tokenizer, [messages, said("x", "y")])
    assert isinstance(found, str) and sentence in found and "\n" not in found
    assert isinstance(other, str) or other.ids


def test_earlier_answers_that_stay_as_they_are_can_be_decided_by_the_same_template():
    tokenizer = train_small("bpe")
    give_chat_template(tokenizer, STRIPS)
    assert len(encode_conversations(tokenizer, [said("a", "b", "c", "<think>x</think>d")])[0].answers) == 2
