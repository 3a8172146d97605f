"""How a model that tags words is used, for its card."""

import json


def usage_of(
    name: str, text: str, *, is_plain: bool, strategy: str = "simple", stride: int | None = None, trims: bool = True
) -> str:
    """Python that tags a text with a published model.

    Args:
        text: an example.
        is_plain: every word has a tag of its own, and there are no entities to put together.
        strategy: by which a pipeline puts the pieces of entities together.
        stride: tokens that windows of longer texts share; None: texts are read in one piece.
        trims: the places of tokens leave out the blanks before them.
    """
    options = "" if is_plain else f", aggregation_strategy={json.dumps(strategy)}"
    options += "" if is_plain or stride is None else f", stride={stride}"
    blank = "" if trims else "\n# A token's place begins with the blank before it: strip what the places cut out."
    tag = "entity" if is_plain else "entity_group"
    return (
        "from transformers import pipeline\n\n"
        f'tag = pipeline("token-classification", model={json.dumps(name)}, trust_remote_code=True{options})\n'
        f"text = {json.dumps(text, ensure_ascii=False)}{blank}\n"
        "for found in tag(text):\n"
        f'    print(text[found["start"] : found["end"]], found["{tag}"], found["score"])'
    )
