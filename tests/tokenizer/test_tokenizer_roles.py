"""A tokenizer puts around a text what its role needs, whoever made it, and keeps doing so when it is saved."""

import pytest
from helpers.stock_tokenizers import STOCK, bert, gpt2, roberta, train_small
from transformers import AutoTokenizer

from weft.tokenizer.special_tokens import add_mask_token, for_role, without_start_and_end

TYPES = ("bpe", "wordpiece", "unigram", "char")


def reloaded(tokenizer, folder):
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def plain(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("token_types", [False, True])
def test_encoders_close_each_text(tmp_path, kind, token_types):
    source = train_small(kind)
    tokenizer = reloaded(for_role(source, "encoder", token_types), tmp_path)
    a, b = plain(tokenizer, "the river"), plain(tokenizer, "stone")
    assert tokenizer("the river").input_ids == [1, *a, 2]
    pair = tokenizer("the river", "stone")
    assert pair.input_ids == [1, *a, 2, *b, 2]
    assert ("token_type_ids" in pair) == token_types
    if token_types:
        assert pair.token_type_ids == [0] * (len(a) + 2) + [1] * (len(b) + 1)
    assert (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id) == (1, 2, 4)
    assert source("the river").input_ids == [1, *a]  # the one that was given is left as it was


@pytest.mark.parametrize("kind", TYPES)
def test_decoders_open_a_text_and_close_only_the_first_of_two(tmp_path, kind):
    tokenizer = reloaded(for_role(for_role(train_small(kind), "encoder"), "decoder"), tmp_path)
    a, b = plain(tokenizer, "the river"), plain(tokenizer, "stone")
    assert tokenizer("the river").input_ids == [1, *a]
    assert tokenizer("the river", "stone").input_ids == [1, *a, 2, *b]


def test_padding_and_truncation_keep_the_frame():
    tokenizer = for_role(train_small("bpe"), "encoder", token_types=True)
    batch = tokenizer(["the river", "the river is made of light"], padding=True)
    short, long = batch.input_ids
    assert len(short) == len(long) and short[-1] == tokenizer.pad_token_id
    assert batch.attention_mask[0].count(1) == len(plain(tokenizer, "the river")) + 2
    cut = tokenizer("the river is made of light", truncation=True, max_length=4).input_ids
    assert cut == [1, *plain(tokenizer, "the river is made of light")[:2], 2]
    a, b = plain(tokenizer, "the river"), plain(tokenizer, "stone is light")
    pair = tokenizer("the river", "stone is light", truncation="only_second", max_length=len(a) + 3 + 2)
    assert pair.input_ids == [1, *a, 2, *b[:2], 2]
    assert pair.token_type_ids == [0] * (len(a) + 2) + [1] * 3


def test_bert_keeps_its_own_frame(tmp_path):
    source = bert()
    tokenizer = reloaded(for_role(source, "encoder", token_types=True), tmp_path)
    for texts in (("the river",), ("the river", "stone")):
        assert dict(tokenizer(*texts)) == dict(source(*texts))
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("[CLS]", "[SEP]")
    assert "token_type_ids" not in for_role(source, "encoder")("the river")
    assert for_role(source, "decoder")("the river").input_ids == source("the river").input_ids[:-1]


def test_roberta_keeps_its_own_frame_unless_token_types_are_asked_for():
    source = roberta()
    assert for_role(source, "encoder")("the", "river").input_ids == source("the", "river").input_ids
    tokenizer = for_role(source, "encoder", token_types=True)
    first, second = plain(tokenizer, "the"), plain(tokenizer, "river")
    assert tokenizer("the", "river").input_ids == [1, *first, 2, *second, 2]
    assert tokenizer("the", "river").token_type_ids == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    text = "the river"
    assert tokenizer(text, return_offsets_mapping=True).offset_mapping == (
        source(text, return_offsets_mapping=True).offset_mapping
    )


def test_gpt2_gets_a_frame_from_its_only_special_token(tmp_path):
    source = gpt2()
    end = source.eos_token_id
    a, b = plain(source, "the river"), plain(source, "stone")
    assert source("the river").input_ids == a
    encoder = reloaded(for_role(source, "encoder"), tmp_path / "encoder")
    assert encoder("the river", "stone").input_ids == [end, *a, end, *b, end]
    decoder = reloaded(for_role(source, "decoder"), tmp_path / "decoder")
    assert decoder("the river").input_ids == [end, *a]


def test_a_mask_token_is_added_once_and_takes_the_blank_before_it(tmp_path):
    source = gpt2()
    size = len(source)
    assert add_mask_token(source) and not add_mask_token(source)
    assert len(source) == size + 1
    assert not add_mask_token(train_small("char"))
    for number, kept in enumerate((source, for_role(source, "encoder"), for_role(train_small("bpe"), "encoder"))):
        tokenizer = reloaded(kept, tmp_path / str(number))
        ids = plain(tokenizer, "the <mask> is")
        assert ids == [*plain(tokenizer, "the"), tokenizer.mask_token_id, *plain(tokenizer, " is")]


def test_roles_that_cannot_be_had_are_refused():
    with pytest.raises(ValueError, match="role 'seq2seq' is unknown: choose one of decoder, encoder"):
        for_role(train_small("bpe"), "seq2seq")
    without_end = train_small("bpe")
    without_end.eos_token = None
    with pytest.raises(ValueError, match="no end token, which the role encoder needs: set its eos_token"):
        for_role(without_end, "encoder")


@pytest.mark.parametrize("kind", list(STOCK))
def test_a_tokenizer_can_be_had_that_puts_nothing_around_a_text(tmp_path, kind):
    source = STOCK[kind]()
    tokenizer = reloaded(without_start_and_end(source), tmp_path)
    assert tokenizer("the river").input_ids == plain(source, "the river")
    assert tokenizer("the", "river").input_ids == plain(source, "the") + plain(source, "river")
    assert [tokenizer.bos_token, tokenizer.eos_token, tokenizer.cls_token, tokenizer.sep_token] == [None] * 4
    assert tokenizer.get_vocab() == source.get_vocab()
    places = {"return_offsets_mapping": True, "add_special_tokens": False}
    assert tokenizer("the river", **places).offset_mapping == source("the river", **places).offset_mapping
