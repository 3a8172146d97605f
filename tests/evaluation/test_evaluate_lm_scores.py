"""The score of every token is the one that its definition gives, one text and one token at a time."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.scored import (
    CAUSAL,
    MASKED,
    TEXTS,
    causal_by_hand,
    log_probs_at,
    make_scored_model,
    make_tokenizer,
    masked_by_hand,
    text_ids,
)
from helpers.text import CHINESE

from weft.recipes.common.errors import RecipeError
from weft.recipes.evaluation import likelihood
from weft.recipes.evaluation.likelihood import Scorer, TokenSpan

CLOSE = {"rel": 2e-5, "abs": 2e-5}  # the models compute in float32


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def encoder_tokenizer():
    return make_tokenizer(encoder=True)


@pytest.fixture(scope="module")
def pieces_tokenizer():
    """Of pieces of words, so that words have several tokens."""
    return make_tokenizer("bpe", encoder=True, vocab_size=300)


def scores(model, tokenizer, scoring, texts=TEXTS, **options):
    return [s.log_probs.tolist() for s in Scorer(model, tokenizer, scoring, quiet=True, **options).score_texts(texts)]


def assert_close(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert one == pytest.approx(other, **CLOSE)


@pytest.mark.parametrize("family", [CAUSAL[0], MASKED[0]])
def test_probabilities_are_read_a_few_at_a_time(tokenizer, encoder_tokenizer, family, monkeypatch):
    """Of long texts those of all tokens never lie side by side; the scores are the same numbers."""
    scoring, own = ("causal", tokenizer) if family in CAUSAL else ("masked", encoder_tokenizer)
    model = make_scored_model(family, own)
    expected, seen = scores(model, own, scoring), []
    score_logits = likelihood._score_logits

    def watched(logits, wanted):
        seen.append(len(logits))
        return score_logits(logits, wanted)

    monkeypatch.setattr(likelihood, "LOGITS_READ_AT_ONCE", 3)
    monkeypatch.setattr(likelihood, "_score_logits", watched)
    assert scores(model, own, scoring) == expected
    assert max(seen) == 3 and len(seen) > 3


@pytest.mark.parametrize("tokens_per_batch", [1, 100, 4096])
@pytest.mark.parametrize("family", CAUSAL)
def test_causal_scores_are_those_of_each_prefix_alone(tokenizer, family, tokens_per_batch):
    model = make_scored_model(family, tokenizer)
    expected = [causal_by_hand(model, tokenizer, text) for text in TEXTS]
    assert_close(scores(model, tokenizer, "causal", tokens_per_batch=tokens_per_batch), expected)


@pytest.mark.parametrize("tokens_per_batch", [1, 300, 4096])
@pytest.mark.parametrize("family", MASKED)
def test_masked_scores_are_those_of_each_token_masked_alone(encoder_tokenizer, family, tokens_per_batch):
    model = make_scored_model(family, encoder_tokenizer)
    texts = TEXTS[3:]
    expected = [masked_by_hand(model, encoder_tokenizer, text) for text in texts]
    assert_close(scores(model, encoder_tokenizer, "masked", texts, tokens_per_batch=tokens_per_batch), expected)


@pytest.mark.parametrize("family", MASKED)
def test_within_word_scores_hide_the_rest_of_the_word(pieces_tokenizer, family):
    model, texts = make_scored_model(family, pieces_tokenizer), ["quietly the seven stones.", "a river"]
    expected = []
    for text in texts:
        offsets = pieces_tokenizer(text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
        begins = [match.start() for match in re.finditer(r" ?[a-z]+|\.", text)]
        words = [sum(begin <= first for begin in begins) for first, _ in offsets]
        assert max(words) < len(words)  # some word has several tokens
        expected.append(masked_by_hand(model, pieces_tokenizer, text, words))
    found = scores(model, pieces_tokenizer, "within-word", texts)
    assert_close(found, expected)
    assert found != scores(model, pieces_tokenizer, "masked", texts)


def test_characters_are_the_words_of_chinese_unless_a_segmenter_says_otherwise(encoder_tokenizer):
    model = make_scored_model("bert", encoder_tokenizer)
    plain = scores(model, encoder_tokenizer, "masked", [CHINESE])
    assert_close(scores(model, encoder_tokenizer, "within-word", [CHINESE]), plain)
    whole = scores(model, encoder_tokenizer, "within-word", [CHINESE], segment=lambda run: [run])
    end = CHINESE.index("。")
    expected = masked_by_hand(model, encoder_tokenizer, CHINESE, [0] * end + list(range(1, len(CHINESE) - end + 1)))
    assert whole[0][:end] == pytest.approx(expected[:end], **CLOSE)


def test_a_hybrid_predicts_masked_tokens_from_the_place_before_them(encoder_tokenizer):
    model, texts = make_scored_model("weft-hybrid", encoder_tokenizer), TEXTS[3:6]
    scorer = Scorer(model, encoder_tokenizer, "masked", quiet=True)
    assert scorer.name == "masked-next-token"
    assert Scorer(model, encoder_tokenizer, "within-word", quiet=True).name == "within-word-next-token"
    found = [score.log_probs.tolist() for score in scorer.score_texts(texts)]
    assert_close(found, [masked_by_hand(model, encoder_tokenizer, text) for text in texts])


def test_a_causal_model_read_as_a_hybrid_gives_its_causal_scores(tokenizer):
    model = make_scored_model("llama", tokenizer)

    class ReadOneBefore(torch.nn.Module):
        """Aligns a causal model's logits with the tokens they predict: the mask behind them cannot be seen."""

        def __init__(self):
            super().__init__()
            self.model, self.config = (
                model,
                model.config.__class__(**{**model.config.to_dict(), "masked_next_token": True}),
            )
            self.device, self.get_input_embeddings = model.device, model.get_input_embeddings

        def forward(self, input_ids, attention_mask):
            logits = model(input_ids=input_ids, attention_mask=attention_mask).logits
            return SimpleNamespace(logits=torch.cat([logits[:, :1] * float("nan"), logits[:, :-1]], dim=1))

    for long_text in ({}, {"window": 16, "stride": 16}):
        with_start = scores(ReadOneBefore(), tokenizer, "masked", **long_text)
        assert [len(one) for one in with_start] == [len(text) for text in TEXTS]
        if not long_text:
            assert_close(with_start, scores(model, tokenizer, "causal"))
    bare = make_tokenizer()
    bare.backend_tokenizer.post_processor = None
    bare.bos_token = None
    for long_text in ({}, {"window": 16, "stride": 16}):  # no window asks for a token with nothing before it
        without_start = scores(ReadOneBefore(), bare, "masked", **long_text)
        assert [len(one) for one in without_start] == [len(text) - 1 for text in TEXTS]
    assert_close(scores(ReadOneBefore(), bare, "masked"), scores(model, bare, "causal"))


def test_without_a_start_token_the_first_token_is_not_scored(tokenizer):
    bare = make_tokenizer()
    bare.bos_token = None
    model = make_scored_model("gpt2", tokenizer)
    text = TEXTS[0]
    ids = text_ids(bare, text)
    expected = [log_probs_at(model, ids[:i], -1)[ids[i]].item() for i in range(1, len(ids))]
    found = scores(model, bare, "causal", [text, "x"])
    assert_close(found, [expected, []])


@pytest.mark.parametrize("family, scoring", [("gpt2", "causal"), ("bert", "masked")])
def test_a_special_token_spelt_out_in_a_text_is_text(tokenizer, encoder_tokenizer, family, scoring):
    tokenizer = tokenizer if scoring == "causal" else encoder_tokenizer
    model = make_scored_model(family, tokenizer)
    (found,) = scores(model, tokenizer, scoring, ["a</s>b"])
    assert len(found) == len("a</s>b")
    assert tokenizer.backend_tokenizer.encode_special_tokens is False  # as it was


def test_end_tokens_are_not_scored_and_the_most_likely_tokens_are_told(tokenizer, encoder_tokenizer):
    model = make_scored_model("llama", tokenizer)
    (score,) = Scorer(model, tokenizer, "causal", quiet=True).score_texts([TEXTS[0]])
    ids = [1, *text_ids(tokenizer, TEXTS[0])]
    tops = [int(log_probs_at(model, ids[:i], -1).argmax()) for i in range(1, len(ids))]
    assert score.is_top.tolist() == [top == token for top, token in zip(tops, ids[1:])]
    masked = scores(make_scored_model("bert", encoder_tokenizer), encoder_tokenizer, "masked")
    assert [len(one) for one in masked] == [len(text) for text in TEXTS]


@pytest.mark.parametrize("window, stride", [(12, 1), (12, 5), (12, 12), (100, 50), (7, 3)])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_long_text_is_scored_through_a_sliding_window(tokenizer, family, window, stride):
    model, text = make_scored_model(family, tokenizer), TEXTS[2]
    ids = [1, *text_ids(tokenizer, text)]
    assert len(ids) > 30
    expected = []
    for i in range(1, len(ids)):
        begin = 0
        if i > window:  # scored with others that share its window, which ends before the last of them
            block = (i - window - 1) // stride
            begin = min(len(ids), window + 1 + (block + 1) * stride) - 1 - window
        assert i - begin > window - stride or begin == 0
        expected.append(log_probs_at(model, ids[begin:i], -1)[ids[i]].item())
    assert_close(scores(model, tokenizer, "causal", [text], window=window, stride=stride), [expected])


@pytest.mark.parametrize("window, stride", [(12, 1), (12, 4), (12, 12), (60, 20), (7, 3)])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_long_text_is_masked_in_windows_that_reach_to_both_sides(encoder_tokenizer, family, window, stride):
    tokenizer, model = encoder_tokenizer, make_scored_model(family, encoder_tokenizer)
    text = TEXTS[2][:50]
    ids, room = text_ids(tokenizer, text), window - 2
    stride_of_text = min(stride, room) if len(ids) > room else len(ids)
    expected = []
    for i in range(len(ids)):
        first = i // stride_of_text * stride_of_text
        last = min(len(ids), first + stride_of_text)
        begin = min(max(0, first - (room - (last - first)) // 2), max(0, len(ids) - room))
        inputs = [1, *ids[begin : begin + room], 2]
        assert len(inputs) <= window
        inputs[1 + i - begin] = tokenizer.mask_token_id
        expected.append(log_probs_at(model, inputs, 1 + i - begin)[ids[i]].item())
    assert_close(scores(model, tokenizer, "masked", [text], window=window, stride=stride), [expected])


@pytest.mark.parametrize("family, scoring", [("gpt2", "causal"), ("bert", "masked")])
def test_a_part_of_a_text_has_the_scores_it_has_in_the_whole(tokenizer, encoder_tokenizer, family, scoring):
    tokenizer = tokenizer if scoring == "causal" else encoder_tokenizer
    scorer = Scorer(make_scored_model(family, tokenizer), tokenizer, scoring, quiet=True)
    (text,) = scorer.encode([TEXTS[1]])
    (whole,) = scorer.score([TokenSpan(text, 0, len(text.ids))])
    parts = scorer.score(
        [TokenSpan(text, 0, 4), TokenSpan(text, 4, 5), TokenSpan(text, 5, 5), TokenSpan(text, 5, len(text.ids))]
    )
    joined = np.concatenate([part.log_probs for part in parts])
    assert joined == pytest.approx(whole.log_probs, **CLOSE)


def test_a_continuation_begins_with_its_first_visible_character(pieces_tokenizer):
    model = make_scored_model("llama", pieces_tokenizer)
    scorer = Scorer(model, pieces_tokenizer, "causal", quiet=True)
    context, continuation = "the river made", " quietly seven"
    whole = causal_by_hand(model, pieces_tokenizer, context + continuation)
    offsets = pieces_tokenizer(context + continuation, add_special_tokens=False, return_offsets_mapping=True)
    belongs = [last > len(context) + 1 for _, last in offsets.offset_mapping]
    expected = [score for score, own in zip(whole, belongs) if own]
    for pair in ((context, continuation), (context + " ", continuation[1:])):
        (score,) = scorer.score_continuations([pair])
        assert score.log_probs.tolist() == pytest.approx(expected, **CLOSE)
    (score,) = scorer.score_continuations([("", context)])
    assert score.total == pytest.approx(sum(causal_by_hand(model, pieces_tokenizer, context)), **CLOSE)


def test_from_left_to_right_a_masked_model_sees_nothing_behind(encoder_tokenizer):
    model = make_scored_model("bert", encoder_tokenizer)
    scorer = Scorer(model, encoder_tokenizer, "masked", quiet=True)
    (score,) = scorer.score_continuations([("the river", " is")], left_to_right=True)
    ids, mask = text_ids(encoder_tokenizer, "the river is"), encoder_tokenizer.mask_token_id
    first = log_probs_at(model, [1, *ids[:-2], mask, mask], -2)[ids[-2]].item()
    second = log_probs_at(model, [1, *ids[:-1], mask], -1)[ids[-1]].item()
    assert score.log_probs.tolist() == pytest.approx([first, second], **CLOSE)


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"window": 1}, "window is 1: give at least"),
        ({"window": 8, "stride": 9}, "stride is 9: give from 1 token to a whole window (8)"),
    ],
)
def test_windows_that_cannot_be_are_refused(tokenizer, options, expected):
    with pytest.raises(RecipeError, match=re.escape(expected)):
        Scorer(make_scored_model("gpt2", tokenizer), tokenizer, "causal", **options)


def test_a_model_that_cannot_be_scored_is_refused(tokenizer, encoder_tokenizer):
    model = make_scored_model("gpt2", tokenizer, length=16)
    with pytest.raises(RecipeError, match="window is 17, but the model has only 16 positions"):
        scores(model, tokenizer, "causal", window=17)
    model.transformer.ln_f.weight.data.fill_(float("nan"))
    with pytest.raises(RecipeError, match="not numbers"):
        scores(model, tokenizer, "causal")
    without_mask = make_tokenizer()
    without_mask.mask_token = None
    with pytest.raises(RecipeError, match="no mask token"):
        Scorer(make_scored_model("bert", tokenizer), without_mask, "masked")
    small = make_scored_model("bert", tokenizer)
    small.resize_token_embeddings(20)
    with pytest.raises(RecipeError, match="do not belong together"):
        Scorer(small, encoder_tokenizer, "masked")
