"""The mask of packed documents for sdpa is built directly; transformers' own functions are its reference."""

import pytest
import torch
from helpers.models import FULL, SLIDING, tiny_config
from transformers.masking_utils import and_masks

from weft.masks import MASK_FUNCTIONS, create_masks


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("layer_type", [FULL, SLIDING])
@pytest.mark.parametrize("window", [1, 3, 50])
def test_every_pair_of_places_is_seen_or_not_as_their_functions_say(is_causal, layer_type, window):
    config = tiny_config(is_causal=is_causal, layer_types=[layer_type] * 2, sliding_window=window)
    config._attn_implementation = "sdpa"
    documents = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2, -1], [-1, -1, 0, 0, 0, 0, 0, 0, 1, 1], [0] * 10])
    embeds = torch.zeros(3, 10, 4)

    def same_document(batch, head, query, key):
        return documents[batch, query] == documents[batch, key]

    expected = MASK_FUNCTIONS[layer_type, is_causal](
        config=config,
        inputs_embeds=embeds,
        attention_mask=None,
        past_key_values=None,
        and_mask_function=and_masks(same_document),
    )
    found = create_masks(config, embeds, torch.ones(3, 10), None, documents)[layer_type]
    assert found.dtype == torch.bool and torch.equal(found, expected.expand_as(found))
