"""What Weft takes for an assistant's tokens is what TRL does, with its own templates and with its trainer."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from weft.tokenizer.chat_templates import give_chat_template
from weft.tokenizer.conversation_tokens import ConversationTokens, encode_conversations

# Families of which TRL has the template and another one that marks the assistant's tokens, and how a talk ends there.
FAMILIES = {"qwen2_5": "<|im_end|>", "llama3": "<|eot_id|>", "phi3": "<|end|>", "qwen3_instruct_2507": "<|im_end|>"}
TALKS = [
    [("user", "the river"), ("assistant", "a stone")],
    [("user", "why"), ("assistant", "it is made of light"), ("user", "and then"), ("assistant", "seven stones")],
]
MESSAGES = [[{"role": role, "content": text} for role, text in talk] for talk in TALKS]


def template_of(name: str) -> str:
    path = files("trl") / "chat_templates" / f"{name}.jinja"
    return path.read_text(encoding="utf-8") if path.is_file() else pytest.skip(f"TRL has no {name}")


def learnt(tokenizer: PreTrainedTokenizerBase, found: ConversationTokens) -> list[str]:
    return [tokenizer.decode(found.ids[first:end]).strip() for first, end in found.answers]


@pytest.mark.parametrize("family", FAMILIES)
def test_templates_of_other_families_give_the_tokens_that_trl_marks(family: str, folders: dict[str, Path]) -> None:
    plain, marked = (AutoTokenizer.from_pretrained(folders["causal"]) for _ in range(2))
    give_chat_template(plain, template_of(family))
    give_chat_template(marked, template_of(f"{family}_training"))
    ours, theirs = encode_conversations(plain, MESSAGES), encode_conversations(marked, MESSAGES)
    for talk, one, other in zip(TALKS, ours, theirs, strict=True):
        assert one.ids == other.ids[: len(one.ids)]  # behind the last answer Phi's has the end token learnt too
        answers = [f"{text}{FAMILIES[family]}" for role, text in talk if role == "assistant"]
        assert [answer[-len(text) :] for answer, text in zip(learnt(plain, one), answers)] == answers
        assert learnt(marked, other)[: len(answers)] == learnt(plain, one)


def test_trls_trainer_learns_the_same_tokens(folders: dict[str, Path], tmp_path: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(folders["causal"])
    marked = (
        "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{% if message.role == 'assistant' %}"
        "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ message.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    give_chat_template(tokenizer, marked)
    ours = encode_conversations(tokenizer, MESSAGES)
    config = SFTConfig(
        tmp_path / "run", assistant_only_loss=True, report_to="none", use_cpu=True, bf16=False, max_length=None
    )
    data = Dataset.from_dict({"messages": MESSAGES})
    model = AutoModelForCausalLM.from_pretrained(folders["causal"])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    trainer = SFTTrainer(model, args=config, train_dataset=data, processing_class=tokenizer)
    batch = trainer.data_collator([trainer.train_dataset[number] for number in range(len(MESSAGES))])
    for row, found in zip(batch["labels"].tolist(), ours, strict=True):
        places = {place for first, end in found.answers for place in range(first, end)}
        assert {place for place, label in enumerate(row) if label != -100} == places
