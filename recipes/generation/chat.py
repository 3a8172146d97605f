"""Talking with a model in the terminal: its chat template, what was said so far, and answers as they are written."""

import contextlib
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TextStreamer

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.positions import position_limit
from weft.recipes.common.wording import counted
from weft.recipes.generation.arguments import GenerateArguments
from weft.recipes.generation.generate_text import write_ids
from weft.tokenizer.chat_templates import Message, render_chat, special_tokens_of, spelt_tokens

COMMANDS = "/reset begins anew, /quit (or Ctrl-D) ends, Ctrl-C stops an answer"
_YOU, _MODEL = "you: ", "model: "


class AnswerStreamer(TextStreamer):
    """Prints an answer as it is written, without the special tokens around it and the blanks before it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.has_begun = False

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Print a piece of the text."""
        text = text if self.has_begun else text.lstrip()
        self.has_begun = self.has_begun or bool(text)
        super().on_finalized_text(text, stream_end)


class Conversation:
    """What was said so far, and the model that answers it."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, options: dict[str, Any], system: str | None
    ) -> None:
        """Args:
        options: of `write_ids`, max_new_tokens among them.
        system: the first message, which tells the model what to be like; it outlives `reset`.

        Raises:
            RecipeError: the tokenizer has no chat template, or `system` spells a special token.
        """
        if tokenizer.chat_template is None:
            raise RecipeError(
                "the tokenizer has no chat template, so the model was not trained to answer: give a model of "
                "finetune_chat.py, or leave chat out and let it continue a text."
            )
        self.model, self.tokenizer, self.options = model, tokenizer, options
        self.special = special_tokens_of(tokenizer)
        self._refuse_special(system or "")
        self.opening: list[Message] = [{"role": "system", "content": system}] if system else []
        self.messages = [*self.opening]

    def reset(self) -> None:
        """Forget all but the system's message."""
        self.messages = [*self.opening]

    @torch.no_grad()
    def ask(self, text: str) -> str:
        """Print the answer to a text as it is written, and remember both.

        Raises:
            RecipeError: the text spells a special token, is too long, or is refused by the template.
        """
        self._refuse_special(text)
        messages = [*self.messages, {"role": "user", "content": text.strip()}]
        ids, messages = self._fitting(messages)
        rows = torch.tensor([ids], device=self.model.device)
        given = {"attention_mask": torch.ones_like(rows), "pad_token_id": self.tokenizer.pad_token_id, **self.options}
        out = write_ids(self.model, input_ids=rows, stream_to=AnswerStreamer(self.tokenizer), **given)
        answer = self.tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True).strip()
        self.messages = [*messages, {"role": "assistant", "content": answer}]
        return answer

    def _refuse_special(self, text: str) -> None:
        if spelt := spelt_tokens(self.special, text):
            raise RecipeError(f"{spelt[0]!r} is a special token of the model: write it otherwise.")

    def _fitting(self, messages: list[Message]) -> tuple[list[int], list[Message]]:
        """The prompt's tokens, without the oldest messages where the model has no positions for all."""
        limit, room, dropped = position_limit(self.model), self.options["max_new_tokens"], 0
        while True:
            try:
                text = render_chat(self.tokenizer, messages, add_generation_prompt=True)
            except ValueError as error:
                raise RecipeError(f"{error}.") from error
            ids = self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
            first = len(self.opening)
            if limit is None or len(ids) + room - 1 <= limit:
                break
            if len(messages) <= first + 1:
                raise RecipeError(
                    f"{len(ids):,} tokens and {room:,} to answer, but the model has {limit:,} positions: write less, "
                    "or give a smaller max_new_tokens."
                )
            messages, dropped = messages[:first] + messages[first + 2 :], dropped + 2
        if dropped:
            print(f"({counted(dropped, 'message')} at the beginning forgotten: the model has {limit:,} positions)")
        return ids, messages


def talk(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, arguments: GenerateArguments, options: dict[str, Any]
) -> None:
    """Answer `prompt`, or where there is none what is typed, line by line.

    Raises:
        RecipeError: the model cannot be talked with, or the prompt not be answered.
    """
    conversation = Conversation(model, tokenizer, options, arguments.system)
    if arguments.prompt:
        conversation.ask(arguments.prompt)
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # lines can be edited, and called back
    print(COMMANDS)
    while True:
        try:
            text = input(_YOU).strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        except UnicodeError:
            print("(that is not UTF-8: write it again)")
            continue
        if text == "/quit":
            return
        if text == "/reset":
            conversation.reset()
            print("(begun anew)")
        elif text.startswith("/") and " " not in text:
            print(COMMANDS)
        elif text:
            _answer(conversation, text)


def _answer(conversation: Conversation, text: str) -> None:
    print(_MODEL, end="", flush=True)
    try:
        conversation.ask(text)
    except KeyboardInterrupt:
        print("\n(stopped, and forgotten)")
    except RecipeError as error:
        print(f"({error})")
