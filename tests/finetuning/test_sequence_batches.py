"""A pair is learnt alike whether it stands alone, among padding, or packed with others; what is cut is counted."""

import pytest
import torch
from helpers.models import make_model, tiny_config

from weft import WeftForConditionalGeneration
from weft.losses import IGNORE_INDEX
from weft.recipes.finetuning.collation import EncodedExample
from weft.recipes.finetuning.tasks.seq2seq.batches import PairCollator, decoder_batch
from weft.recipes.finetuning.tasks.seq2seq.encoding import PairCounts, encode_sources, encode_targets
from weft.tokenizer.special_tokens import for_role
from weft.tokenizer.train import train_tokenizer

START, PAD = 1, 0
LENGTHS = ((5, 9), (40, 3), (1, 1), (17, 30), (33, 33), (8, 70), (70, 2), (2, 8))


@pytest.fixture(scope="module")
def tokenizer():
    return for_role(train_tokenizer(iter(["abc def"]), "char", 60), "encoder")


def items():
    generator = torch.Generator().manual_seed(0)

    def draw(number):
        return torch.randint(3, 61, (number,), generator=generator).tolist()

    return [EncodedExample([draw(source)], number, draw(target)) for number, (source, target) in enumerate(LENGTHS)]


def model(**changes):
    ids = {"pad_token_id": PAD, "bos_token_id": START, "eos_token_id": 2, "decoder_start_token_id": START}
    config = tiny_config(is_encoder_decoder=True, is_causal=True, **ids, **changes)
    return make_model(config, model_class=WeftForConditionalGeneration).double()


@pytest.mark.parametrize("changes", [{}, {"num_decoder_layers": 1}, {"sliding_window": 4}])
def test_packed_and_padded_pairs_get_the_logits_of_each_alone(changes, tokenizer):
    network = model(**changes)
    alone = {}
    for item in items():
        decoder_input_ids = torch.tensor([[START, *item.target[:-1]]])
        alone[item.example] = network(torch.tensor(item.sequences), decoder_input_ids=decoder_input_ids).logits[0]
    for packed in (True, False):
        inputs, layout = PairCollator(tokenizer, packed).lay_out(items())
        batch = decoder_batch(layout, START, PAD)
        labels = batch.pop("labels")
        logits = network(**inputs, **batch).logits
        assert logits[labels != IGNORE_INDEX].shape[0] == sum(target for _, target in LENGTHS)
        found, expected = logits[labels != IGNORE_INDEX], torch.cat([alone[item.example] for item in layout.items])
        assert torch.allclose(found, expected, atol=1e-12)
        assert labels[labels != IGNORE_INDEX].tolist() == [token for item in layout.items for token in item.target]


def test_a_source_keeps_what_stands_around_it_and_loses_its_end(tokenizer):
    counts = PairCounts()
    whole, cut = encode_sources(["abc", "abcdef"], tokenizer, 5, counts)
    assert tokenizer.convert_ids_to_tokens(whole) == ["<s>", "a", "b", "c", "</s>"]
    assert cut == whole
    assert tokenizer.backend_tokenizer.truncation is None  # which a saved tokenizer would keep
    assert (counts.sources, counts.cut_sources) == (2, 1)


def test_a_target_begins_behind_the_start_token_and_is_cut_with_its_end_token(tokenizer):
    counts = PairCounts()
    start = tokenizer.bos_token_id
    found = encode_targets(["abc", "abcdef"], tokenizer, start, 4, counts)
    assert [tokenizer.convert_ids_to_tokens(ids) for ids in found] == [["a", "b", "c", "</s>"], ["a", "b", "c", "d"]]
    assert (counts.targets, counts.cut_targets, counts.target_tokens, counts.longest_target) == (2, 1, 8, 4)
    (bart,) = encode_targets(["abc"], tokenizer, tokenizer.eos_token_id, 9, counts)
    assert tokenizer.convert_ids_to_tokens(bart) == ["<s>", "a", "b", "c", "</s>"]
