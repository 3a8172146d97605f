"""An encoder-decoder's score of every token is the one that its definition gives, one stretch of a text at a time."""

import json

import numpy as np
import pytest
import torch
from helpers.models import make_model, shake, tiny_config
from helpers.scored import SPECIAL, TEXTS, make_tokenizer, text_ids
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

from weft import WeftForConditionalGeneration
from weft.recipes import evaluate_lm
from weft.recipes.common.errors import RecipeError
from weft.recipes.evaluation.continuations import ContinuationScorer

CLOSE = {"rel": 2e-5, "abs": 2e-5}  # the models compute in float32
FAMILIES = ("weft", "t5", "bart")


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(encoder=True)


def make(family, tokenizer):
    size = {"vocab_size": len(tokenizer), **SPECIAL}
    if family == "weft":
        config = tiny_config(is_encoder_decoder=True, decoder_start_token_id=1, **size)
        return make_model(config, model_class=WeftForConditionalGeneration)
    if family == "t5":
        shape = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
        return shake(T5ForConditionalGeneration(T5Config(**shape, **size))).eval()
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "decoder_start_token_id": 2}
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    config = BartConfig(d_model=32, max_position_embeddings=256, **heads, **layers, **size)
    return shake(BartForConditionalGeneration(config)).eval()


@torch.no_grad()
def by_hand(model, source, written):
    """Log-probability of each token that is written, prefix by prefix."""
    found, start = [], model.config.decoder_start_token_id
    for i, token in enumerate(written):
        inputs = {"input_ids": torch.tensor([source]), "decoder_input_ids": torch.tensor([[start, *written[:i]]])}
        found.append(model(**inputs).logits[0, -1].double().log_softmax(-1)[token].item())
    return found


@pytest.mark.parametrize("tokens_per_batch", [1, 4096])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_each_stretch_given_what_is_before_it(tokenizer, family, tokens_per_batch):
    model, window, stride = make(family, tokenizer), 12, 5
    scorer = ContinuationScorer(model, tokenizer, "continuation", window, stride, tokens_per_batch, quiet=True)
    for text, scores in zip(TEXTS, scorer.score_texts(TEXTS), strict=True):
        ids, expected = text_ids(tokenizer, text), []
        for first in range(0, len(ids), stride):
            before = ids[max(0, first - (window - 2)) : first]
            expected += by_hand(model, [1, *before, 2], ids[first : first + stride])
        assert scores.log_probs.tolist() == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_context_is_the_source_and_its_continuation_is_written(tokenizer, family):
    model = make(family, tokenizer)
    pairs = [("the river", " is made"), ("a stone", " of light"), ("", "seven")]
    scorer = ContinuationScorer(model, tokenizer, "continuation", quiet=True, source_prefix="<mask>")
    for (context, continuation), scores in zip(pairs, scorer.score_continuations(pairs), strict=True):
        whole = text_ids(tokenizer, context + continuation)
        first = len(text_ids(tokenizer, context)) + (len(continuation) - len(continuation.lstrip()))
        source = [1, tokenizer.mask_token_id, *whole[:first], 2]
        assert scores.log_probs.tolist() == pytest.approx(by_hand(model, source, whole[first:]), **CLOSE)
        best = scores.is_top
        assert best.dtype == bool and len(best) == len(whole) - first


def test_the_command_scores_an_encoder_decoder_as_it_was_saved(tokenizer, tmp_path, capsys):
    model = make("weft", tokenizer)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "text.txt").write_text("\n\n".join(TEXTS), encoding="utf-8")
    words = ["--model", str(tmp_path / "model"), "--files", str(tmp_path / "text.txt"), "--device", "cpu"]
    evaluate_lm.main([*words, "--output_file", str(tmp_path / "found.json")])
    assert "continuation scoring" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    scorer = ContinuationScorer(model, tokenizer, "continuation", quiet=True)
    nats = -sum(np.sum(scores.log_probs) for scores in scorer.score_texts(TEXTS))
    results = found["results"][str(tmp_path / "text.txt")]
    assert found["scoring"] == "continuation" and results["nats"] == pytest.approx(nats, rel=1e-5)
    assert results["bits_per_byte"] == pytest.approx(nats / np.log(2) / sum(len(text.encode()) for text in TEXTS))
    evaluate_lm.main([*words, "--source_prefix", "<mask>"])
    assert "continuation scoring" in capsys.readouterr().out


def test_what_has_no_source_or_no_start_is_refused(tokenizer, tmp_path):
    model = make_model(tiny_config(vocab_size=len(tokenizer), **SPECIAL))
    model.save_pretrained(tmp_path / "causal")
    tokenizer.save_pretrained(tmp_path / "causal")
    (tmp_path / "text.txt").write_text("the river")
    words = ["--model", str(tmp_path / "causal"), "--files", str(tmp_path / "text.txt"), "--device", "cpu"]
    with pytest.raises(RecipeError, match="source_prefix has no effect on causal scoring, which knows no source"):
        evaluate_lm.main([*words, "--source_prefix", "x"])
    model = make("weft", tokenizer)
    model.config.decoder_start_token_id = None
    with pytest.raises(RecipeError, match="has no decoder_start_token_id, which its decoder begins with: set it"):
        ContinuationScorer(model, tokenizer, "continuation")
