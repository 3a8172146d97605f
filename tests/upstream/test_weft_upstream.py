"""Weft under transformers' own tests (see conftest.py)."""

import unittest

from causal_tests import CausalTester, CausalTests, one_sliding_layer

import weft
from weft.configuration_weft import AUTO_MAP

# Heads whose inputs and labels are those of a decoder.
HEADS = (
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoModelForQuestionAnswering",
)
WEFT_CLASSES = {head: getattr(weft, AUTO_MAP[head].split(".")[-1]) for head in HEADS if head in AUTO_MAP}


class WeftModelTest(CausalTests, unittest.TestCase):
    """Every layer sees all earlier tokens."""

    def make_tester(self) -> CausalTester:
        return CausalTester(WEFT_CLASSES, weft.WeftConfig)


class WeftSlidingWindowModelTest(CausalTests, unittest.TestCase):
    """One layer of two sees the last few tokens only."""

    def make_tester(self) -> CausalTester:
        return CausalTester(WEFT_CLASSES, weft.WeftConfig, **one_sliding_layer(self._testMethodName))
