"""Conversations are read in the forms that there are, and a broken one is named by file and line."""

import json

import pytest
from helpers.finetuning import write_rows

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.conversations import ConversationColumns, conversations_of, read_conversations
from weft.recipes.data.tables import Record

USUAL = ConversationColumns()
ASKED = {"role": "user", "content": "q"}
ANSWERED = {"role": "assistant", "content": "a"}
BRIEF = {"role": "system", "content": "s"}
CALL = [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]
FORMS = {
    "openai": ({"messages": [ASKED, ANSWERED]}, [ASKED, ANSWERED]),
    "openai with a system": ({"messages": [BRIEF, ASKED, ANSWERED]}, [BRIEF, ASKED, ANSWERED]),
    "openai as text": ({"messages": json.dumps([ASKED, ANSWERED])}, [ASKED, ANSWERED]),
    "openai in parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": " q"}]}, ANSWERED]},
        [ASKED, ANSWERED],
    ),
    "an empty system": ({"messages": [{"role": "system", "content": " "}, ASKED, ANSWERED]}, [ASKED, ANSWERED]),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "q\n"}, {"from": "gpt", "value": "a"}]},
        [ASKED, ANSWERED],
    ),
    "sharegpt with a system": (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"},
        [BRIEF, ASKED, ANSWERED],
    ),
    "alpaca": ({"instruction": "q", "input": "", "output": "a"}, [ASKED, ANSWERED]),
    "alpaca with an input": (
        {"instruction": "q", "input": "of this", "output": "a"},
        [{"role": "user", "content": "q\n\nof this"}, ANSWERED],
    ),
    "dolly": (
        {"instruction": "q", "context": "of this", "response": "a", "category": "x"},
        [{"role": "user", "content": "q\n\nof this"}, ANSWERED],
    ),
    "prompt and completion": ({"prompt": "q", "completion": " a"}, [ASKED, ANSWERED]),
    "prompt and completion as messages": (
        {"prompt": [BRIEF, ASKED], "completion": [ANSWERED]},
        [BRIEF, ASKED, ANSWERED],
    ),
    "prompt and response": ({"prompt": "q", "response": "a"}, [ASKED, ANSWERED]),
    "question and answer": ({"question": "q", "answer": "a", "system": "s"}, [BRIEF, ASKED, ANSWERED]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_messages(form, tmp_path):
    row, expected = FORMS[form]
    path = write_rows(tmp_path / "talks.jsonl", [row, row])
    found = read_conversations(path, USUAL)
    assert [one.messages for one in found] == [expected, expected]
    assert [one.where for one in found] == [f"{path}, line 1", f"{path}, line 2"]


def test_a_table_has_prompts_and_completions_too(tmp_path):
    path = tmp_path / "talks.csv"
    path.write_text('ask,say\nq,"a"\n', encoding="utf-8")
    assert read_conversations(path, ConversationColumns(None, "ask", "say"))[0].messages == [ASKED, ANSWERED]


def test_an_instruction_keeps_what_it_is_about_where_the_answers_column_is_named():
    for about in ("input", "context"):
        row = {"instruction": "q", about: "of this", "output": "b", "better": "a"}
        (one,) = conversations_of([Record(row, "row 1")], ConversationColumns(completion="better"))
        assert one.messages == [{"role": "user", "content": "q\n\nof this"}, ANSWERED]
    (one,) = conversations_of([Record(row, "row 1")], ConversationColumns(None, "instruction", "better"))
    assert one.messages == [ASKED, ANSWERED]


def test_tools_and_what_else_a_message_holds_are_passed_through():
    talk = [
        ASKED,
        {"role": "assistant", "content": None, "tool_calls": CALL, "name": None},
        {"role": "tool", "content": "", "tool_call_id": "7"},
        {"role": "assistant", "content": "a", "reasoning_content": "r"},
    ]
    for tools in ([{"name": "f"}], json.dumps([{"name": "f"}])):
        (one,) = conversations_of([Record({"messages": talk, "tools": tools}, "row 1")], USUAL)
        assert one.messages[1] == {"role": "assistant", "tool_calls": CALL}
        assert one.messages[2:] == talk[2:] and one.tools == [{"name": "f"}]


BROKEN = {
    "two answers": ([ASKED, ANSWERED, ANSWERED], "message 3: two answers in a row"),
    "an empty answer": ([ASKED, {"role": "assistant", "content": " "}], "message 2: an empty answer"),
    "an answer without a text": ([ASKED, {"role": "assistant"}], "message 2: an empty answer"),
    "an empty question": ([{"role": "user", "content": ""}, ANSWERED], "message 1: an empty user message"),
    "no answer": ([ASKED], "no answer to the last message (user)"),
    "no answer at the end": ([ASKED, ANSWERED, ASKED], "no answer to the last message (user)"),
    "no message": ([], "no message"),
    "an answer to nothing": ([BRIEF, ANSWERED], "message 2: an answer to nothing"),
    "a late system": ([ASKED, BRIEF, ANSWERED], "message 2: a system message behind others"),
    "no role": ([{"content": "q"}, ANSWERED], "message 1: no role: an object with role and content is needed"),
    "no object": (["q", ANSWERED], "message 1: a str, where an object"),
    "a picture": ([{"role": "user", "content": [{"type": "image"}]}, ANSWERED], "content of type image"),
    "half a weight": ([ASKED, {**ANSWERED, "weight": 0.5}], "message 2: its weight is 0.5: give 1, or 0 to not learn"),
    "no weight at all": ([ASKED, {**ANSWERED, "weight": 0}], "all its answers have weight 0"),
    "a number": ([{"role": "user", "content": 3}, ANSWERED], "content of type int, where text is needed"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_conversation_is_named_by_file_and_line_or_left_out(fault, tmp_path):
    messages, sentence = BROKEN[fault]
    path = write_rows(tmp_path / "talks.jsonl", [{"messages": [ASKED, ANSWERED]}, {"messages": messages}])
    with pytest.raises(RecipeError) as error:
        read_conversations(path, USUAL)
    assert str(error.value).startswith(f"{path}, line 2") and sentence in str(error.value)
    faults = []
    assert len(read_conversations(path, USUAL, faults)) == 1
    assert faults == [str(error.value)]


@pytest.mark.parametrize(
    ("row", "columns", "sentence"),
    [
        ({"text": "q"}, USUAL, "the columns are text, where messages, conversations"),
        ({"prompt": "q"}, USUAL, "no column 'completion': there are prompt; name it with --completion_column"),
        ({"messages": "q"}, USUAL, "not JSON"),
        ({"messages": {"a": 1}}, USUAL, "a dict, where a list of messages is needed"),
        ({"messages": [ASKED, ANSWERED]}, ConversationColumns("talk"), "no column 'talk'"),
        ({"instruction": "q", "output": 3}, USUAL, "column 'output' holds int, where text is needed"),
    ],
)
def test_rows_that_hold_no_conversation_say_what_is_needed(row, columns, sentence):
    with pytest.raises(RecipeError) as error:
        conversations_of([Record(row, "talks.jsonl, line 1")], columns)
    assert str(error.value).startswith("talks.jsonl, line 1") and sentence in str(error.value)


def test_tools_that_are_none_are_refused():
    with pytest.raises(RecipeError, match="row 1: column 'tools' holds no list of objects"):
        conversations_of([Record({"messages": [ASKED, ANSWERED], "tools": ["f"]}, "row 1")], USUAL)
    with pytest.raises(RecipeError, match="row 1: column 'tools' holds half of a surrogate pair"):
        conversations_of([Record({"messages": [ASKED, ANSWERED], "tools": [{"name": "\ud800"}]}, "row 1")], USUAL)


def test_conversations_to_answer_end_with_a_question():
    rows = [{"messages": [ASKED, ANSWERED, ASKED]}, {"prompt": "q"}, {"instruction": "q", "output": "a"}]
    records = [Record(row, f"row {number}") for number, row in enumerate(rows)]
    found = conversations_of(records, USUAL, answered=False)
    assert [one.messages[-1] for one in found] == [ASKED] * 3
    with pytest.raises(RecipeError, match="row 9: nothing to answer at its end"):
        conversations_of([Record({"messages": [ASKED, ANSWERED]}, "row 9")], USUAL, answered=False)
