"""What a finished model answers: files, and a table for its card."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from weft.recipes.common.files import write_text
from weft.recipes.common.markdown import table
from weft.recipes.data.conversations import ASSISTANT, Message, text_message
from weft.recipes.finetuning.report_files import place_of

ANSWERS = "answers.jsonl"
LONGEST = 300  # characters of a text in the card


@dataclass(frozen=True)
class SampleAnswer:
    """What was said until the last answer of a held-out conversation, that answer, and the model's instead."""

    where: str
    messages: list[Message]
    reference: str
    answer: str


def write_samples(folder: Path, split: str, samples: Sequence[SampleAnswer]) -> str:
    """Write answers.jsonl; returns Markdown."""
    if not samples:
        return ""
    lines = [
        {"where": each.where, "messages": each.messages, "reference": each.reference, "answer": each.answer}
        for each in samples
    ]
    write_lines(folder / ANSWERS, lines)
    rows = [(each.messages[-1].get("content", ""), each.reference, each.answer) for each in samples]
    return "\n".join(
        [
            f"What the model answers to held-out conversations, greedily; `{place_of(folder, split)}{ANSWERS}` holds "
            "them whole.",
            "",
            table(("the last message", "the answer in the data", "the model's"), rows, LONGEST),
        ]
    )


def write_answered(path: Path, conversations: Sequence[Sequence[Message]], answers: Sequence[str]) -> None:
    """Write conversations, each with the answer that a model gave at its end, in the form that they are read in."""
    lines = [
        {"messages": [*messages, text_message(ASSISTANT, answer)]}
        for messages, answer in zip(conversations, answers, strict=True)
    ]
    write_lines(path, lines)


def write_lines(path: Path, values: Sequence[dict]) -> None:
    """Write JSON lines, whole or not at all."""
    write_text(path, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))
