"""Weft under transformers' own tests (see conftest.py)."""

import unittest

from causal_tests import CausalTester, CausalTests, one_sliding_layer
from encoder_tests import EncoderTester, EncoderTests

import weft
from weft.configuration_weft import AUTO_MAP

TASK_HEADS = (
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoModelForQuestionAnswering",
)
ENCODER_HEADS = (
    "AutoModel",
    "AutoModelForMaskedLM",
    "AutoModelForPreTraining",
    *TASK_HEADS,
    "AutoModelForMultipleChoice",
)
ENCODER_CLASSES = {head: getattr(weft, AUTO_MAP[head].split(".")[-1]) for head in ENCODER_HEADS}
# The heads that stock decoders have.
HEADS = ("AutoModel", "AutoModelForCausalLM", *TASK_HEADS)
WEFT_CLASSES = {head: getattr(weft, AUTO_MAP[head].split(".")[-1]) for head in HEADS}


class WeftModelTest(CausalTests, unittest.TestCase):
    """Every layer sees all earlier tokens."""

    def make_tester(self) -> CausalTester:
        return CausalTester(WEFT_CLASSES, weft.WeftConfig)


class WeftSlidingWindowModelTest(CausalTests, unittest.TestCase):
    """One layer of two sees the last few tokens only."""

    def make_tester(self) -> CausalTester:
        return CausalTester(WEFT_CLASSES, weft.WeftConfig, **one_sliding_layer(self._testMethodName))


class WeftEncoderModelTest(EncoderTests, unittest.TestCase):
    """All tokens see each other; the head and the embeddings have all parts that they may have."""

    def make_tester(self) -> EncoderTester:
        arguments = {"type_vocab_size": 2, "lm_head_transform": True, "lm_head_bias": True}
        return EncoderTester(ENCODER_CLASSES, weft.WeftConfig, is_causal=False, **arguments)


class WeftTiedEncoderModelTest(EncoderTests, unittest.TestCase):
    """The plainest encoder, with one matrix for the embedding and the head."""

    def make_tester(self) -> EncoderTester:
        return EncoderTester(ENCODER_CLASSES, weft.WeftConfig, is_causal=False, tie_word_embeddings=True)


class WeftSlidingWindowEncoderModelTest(EncoderTests, unittest.TestCase):
    """One layer of two sees its neighbours only, and masked tokens are predicted from the token before."""

    def make_tester(self) -> EncoderTester:
        sliding = one_sliding_layer(self._testMethodName)
        return EncoderTester(ENCODER_CLASSES, weft.WeftConfig, is_causal=False, masked_next_token=True, **sliding)
