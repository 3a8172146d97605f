"""captum says which tokens a prediction is due to, and bertviz draws the weights that eager attention returns."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bertviz import head_view, model_view
from captum.attr import LayerIntegratedGradients
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification


def test_captum_shares_a_score_among_the_tokens(folders: dict[str, Path], tokenizer: Any, texts: list[str]) -> None:
    """The shares add up to what the score differs by from that of padding."""
    model = AutoModelForSequenceClassification.from_pretrained(folders["classifier"]).eval()
    ids = tokenizer(texts[0], return_tensors="pt")["input_ids"]
    nothing = torch.full_like(ids, tokenizer.pad_token_id)

    def score(input_ids: torch.Tensor) -> torch.Tensor:
        return model(input_ids, attention_mask=torch.ones_like(input_ids)).logits[:, 0]

    method = LayerIntegratedGradients(score, model.get_input_embeddings())
    shares, error = method.attribute(ids, baselines=nothing, n_steps=200, return_convergence_delta=True)
    difference = (score(ids) - score(nothing)).item()
    assert abs(shares.sum().item() - difference) < 0.05 * abs(difference) + 1e-3
    assert abs(error.item()) < 0.05 * abs(difference) + 1e-3 and shares.abs().sum() > 0


@pytest.mark.parametrize("kind, auto", [("masked", AutoModel), ("causal", AutoModelForCausalLM)])
def test_bertviz_draws_the_weights_of_eager_attention(
    kind: str, auto: Any, folders: dict[str, Path], tokenizer: Any, texts: list[str]
) -> None:
    model = auto.from_pretrained(folders[kind], attn_implementation="eager", output_attentions=True).eval()
    ids = tokenizer(texts[0], return_tensors="pt")["input_ids"]
    attentions = model(ids).attentions
    assert len(attentions) == 2 and attentions[0].shape == (1, 4, ids.shape[1], ids.shape[1])
    torch.testing.assert_close(attentions[0].sum(-1), torch.ones(1, 4, ids.shape[1]))
    tokens = tokenizer.convert_ids_to_tokens(ids[0])
    for draw in (head_view, model_view):
        page = draw(attentions, tokens, html_action="return")
        assert "attention" in page.data and len(page.data) > 1000
