"""Conversations that every Python carries: what is asked about its standard library, and what its docstrings say."""

from weft.recipes.data.builtin_text import Definition, embedded_definitions
from weft.recipes.data.conversations import ASSISTANT, USER, Conversation, text_message
from weft.recipes.finetuning.validation_split import split_off

QUESTIONS = {
    "module": "What is the module `{}` for?",
    "class": "What is `{}`?",
    "function": "What does `{}` do?",
    "method": "What does `{}` do?",
}
CALLED = "How is it called?"
SHORTEST, LONGEST = 20, 300  # characters of an answer: shorter ones say too little
# Packages that are about Python's own tools, whose docstrings are many and of no use to most.
PASSED_BY = {"idlelib", "lib2to3", "distutils", "turtledemo", "encodings", "ensurepip"}
HELD_OUT, SEED = 0.05, 0


def pydoc_conversations() -> dict[str, list[Conversation]]:
    """Conversations of the splits train and validation: what a thing is or does, and how it is called.

    An answer is the first paragraph of a docstring. Names that have the same one stay on one side. Which ones are held
    out depends on nothing but the library itself.
    """
    found: dict[str, list[Conversation]] = {}
    first = {each.name: each for each in reversed(embedded_definitions())}  # of names that are defined twice
    for each in reversed(first.values()):
        answer = " ".join(each.docstring.strip().split("\n\n", 1)[0].split())
        if each.name.partition(".")[0] not in PASSED_BY and SHORTEST <= len(answer) <= LONGEST:
            found.setdefault(answer, []).append(_conversation(each, answer))
    groups = list(found.values())
    learnt, held_out = split_off(len(groups), HELD_OUT, SEED)
    return {
        split: [conversation for number in numbers for conversation in groups[number]]
        for split, numbers in (("train", learnt), ("validation", held_out))
    }


def _conversation(each: Definition, answer: str) -> Conversation:
    messages = [text_message(USER, QUESTIONS[each.kind].format(each.name)), text_message(ASSISTANT, answer)]
    if each.call is not None:
        messages += [text_message(USER, CALLED), text_message(ASSISTANT, f"`{each.call}`")]
    return Conversation(messages, f"docstring of {each.name}")
