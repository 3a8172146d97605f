"""How a model that answers questions is used, for its card."""

from weft.recipes.finetuning.tasks.question_answering.scoring import log_odds_at

_EXAMPLE = {
    "en": ("Who wrote the letter?", "The letter was written by Anna in May."),
    "zh": ("信是谁写的", "这封信是安娜在五月写的。"),
}


def usage_of(
    name: str, language: str, causal: bool, max_length: int, max_answer_length: int, threshold: float | None
) -> str:
    """Python that asks a published model a question.

    Args:
        causal: "no answer" is the last token, not the first.
        threshold: where there may be no answer, the probability of that above which none is given; None: there is one.
    """
    question, context = _EXAMPLE.get(language, _EXAMPLE["en"])
    lines = [
        "import torch",
        "from transformers import AutoModelForQuestionAnswering, AutoTokenizer",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{name}", trust_remote_code=True)',
        f'model = AutoModelForQuestionAnswering.from_pretrained("{name}", trust_remote_code=True)',
        "",
        f'question = "{question}"',
        f'context = "{context}"',
        "inputs = tokenizer(  # what is longer is cut off here",
        f'    question, context, truncation="only_second", max_length={max_length},',
        '    return_offsets_mapping=True, return_tensors="pt",',
        ")",
        'offsets = inputs.pop("offset_mapping")[0].tolist()',
        "in_context = torch.tensor([part == 1 for part in inputs.sequence_ids()])",
        "with torch.no_grad():",
        "    outputs = model(**inputs)",
        "# a score for each first (rows) and last token (columns)",
        "scores = outputs.start_logits[0][:, None] + outputs.end_logits[0]",
        f"possible = torch.ones_like(scores).triu().tril({max_answer_length - 1}).bool()",
        "possible &= in_context[:, None] & in_context",
        'best = scores.masked_fill(~possible, float("-inf")).argmax().item()',
        "first, last = divmod(best, len(scores))",
        "answer = context[offsets[first][0] : offsets[last][1]].strip()",
    ]
    if threshold is not None:
        nothing = -1 if causal else 0
        lines += [
            f"if scores[first, last] - scores[{nothing}, {nothing}] < {log_odds_at(threshold)}:",
            '    answer = ""  # the text does not hold the answer',
        ]
    return "\n".join([*lines, "print(answer)"])
