"""Weft under transformers' own tests (see conftest.py): every role, every kind of position."""

import unittest
from typing import Any

from causal_tests import CausalTester, CausalTests, one_sliding_layer
from encoder_decoder_tests import EncoderDecoderTester, EncoderDecoderTests
from encoder_tests import EncoderTester, EncoderTests

import weft
from weft.configuration_weft import AUTO_MAP

TASKS = ("SequenceClassification", "TokenClassification", "QuestionAnswering")
# The heads of each role; of a decoder those that stock decoders have.
ROLES = {
    CausalTests: (CausalTester, ("CausalLM", *TASKS)),
    EncoderTests: (EncoderTester, ("MaskedLM", "PreTraining", *TASKS, "MultipleChoice")),
    EncoderDecoderTests: (EncoderDecoderTester, ("Seq2SeqLM", *TASKS, "MultipleChoice")),
}

# What stock families with these positions also have.
GPT2 = {"norm_type": "layernorm", "mlp_gated": False, "qk_norm": False, "attention_bias": True, "mlp_bias": True}
BERT = {**GPT2, "norm_position": "post", "embedding_norm": True}
BERT_HEADS = {"type_vocab_size": 2, "lm_head_transform": True, "lm_head_bias": True, "classifier_transform": "tanh"}
DEBERTA = {**BERT, "position_embedding_type": "disentangled", "num_key_value_heads": 4, "position_buckets": 4}
ONE_FOR_EACH = {"rope_type": "default", "rope_theta": 10000.0}
MODERN_BERT = {
    "first_norm": False,
    "embedding_norm": True,
    "rope_parameters": {"sliding_attention": ONE_FOR_EACH, "full_attention": {**ONE_FOR_EACH, "rope_theta": 160000.0}},
}
# What starts processes, a minute each.
DISTRIBUTED = ("test_tp_forward", "test_tp_backward", "test_tp_generation", "test_fsdp2", "test_hsdp")


def weft_case(tests: type, is_sliding: bool = False, **arguments: Any) -> type[unittest.TestCase]:
    """A test class for one config.

    Args:
        tests: the mixins of its role.
        is_sliding: one layer of two sees its neighbours only.
        arguments: of the config.
    """
    tester, tasks = ROLES[tests]
    heads = ("AutoModel", *(f"AutoModelFor{task}" for task in tasks))
    classes = {head: getattr(weft, AUTO_MAP[head].split(".")[-1].replace("WeftAuto", "WeftFor")) for head in heads}

    class WeftTest(tests, unittest.TestCase):
        def make_tester(self) -> CausalTester:
            sliding = one_sliding_layer(self._testMethodName) if is_sliding else {}
            return tester(classes, weft.WeftConfig, **arguments, **sliding)

    left_out: tuple[str, ...] = ()
    if arguments.get("position_embedding_type", "rope") != "rope":
        # rope_parameters are there, but not read; processes share the work as they do without, or not at all (biases)
        left_out = ("test_model_rope_scaling", *DISTRIBUTED)
    elif "rope_parameters" in arguments:  # asks for one module with buffers of every set; Weft has one for each set
        left_out = ("test_model_rope_scaling_frequencies",)
    for name in dir(WeftTest):
        if name.startswith(left_out):
            setattr(WeftTest, name, None)
    return WeftTest


WeftModelTest = weft_case(CausalTests)
WeftSlidingWindowModelTest = weft_case(CausalTests, is_sliding=True)
WeftLearnedModelTest = weft_case(CausalTests, position_embedding_type="learned", **GPT2)
WeftSinusoidalModelTest = weft_case(CausalTests, position_embedding_type="sinusoidal")
WeftAlibiModelTest = weft_case(CausalTests, position_embedding_type="alibi", embedding_norm=True)
WeftT5ModelTest = weft_case(CausalTests, position_embedding_type="t5")
WeftDisentangledModelTest = weft_case(CausalTests, **DEBERTA)
WeftNoPositionsModelTest = weft_case(CausalTests, position_embedding_type="none")
WeftLowestLossModelTest = weft_case(CausalTests, attention_gate=True, value_residual=True)
# Layers without keys: what looks for keys and values of every layer, or takes tokens back, is not for these.
STATES = {"layer_types": ["linear_attention", "full_attention"]}
WeftLinearAttentionModelTest = weft_case(CausalTests, **STATES)
WeftRecurrentModelTest = weft_case(CausalTests, layer_types=["recurrent", "full_attention"])

# All parts that the head and the embeddings may have; the plainest encoder, with one matrix for both; and one that
# predicts masked tokens from the token before.
WeftEncoderModelTest = weft_case(EncoderTests, is_causal=False, **BERT_HEADS)
WeftTiedEncoderModelTest = weft_case(EncoderTests, is_causal=False, tie_word_embeddings=True)
WeftSlidingWindowEncoderModelTest = weft_case(EncoderTests, is_sliding=True, is_causal=False, masked_next_token=True)
WeftBertModelTest = weft_case(
    EncoderTests,
    **{"is_causal": False, "position_embedding_type": "learned", "classifier_pooling": "cls", **BERT, **BERT_HEADS},
)
WeftModernBertModelTest = weft_case(EncoderTests, is_sliding=True, is_causal=False, **MODERN_BERT)
WeftAlibiEncoderModelTest = weft_case(EncoderTests, is_causal=False, position_embedding_type="alibi")
WeftT5EncoderModelTest = weft_case(EncoderTests, is_causal=False, position_embedding_type="t5")
WeftDebertaModelTest = weft_case(EncoderTests, is_causal=False, **DEBERTA)

WeftEncoderDecoderModelTest = weft_case(EncoderDecoderTests)
WeftBartModelTest = weft_case(
    EncoderDecoderTests, position_embedding_type="learned", position_offset=2, tie_word_embeddings=True, **BERT
)
WeftLowestLossEncoderDecoderModelTest = weft_case(EncoderDecoderTests, attention_gate=True, value_residual=True)
WeftT5EncoderDecoderModelTest = weft_case(EncoderDecoderTests, position_embedding_type="t5")
