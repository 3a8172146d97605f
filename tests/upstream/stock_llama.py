"""The yardstick: the same tests on the stock Llama. What it fails or skips here, Weft need not pass."""

import unittest

import transformers
from causal_tests import CausalTester, CausalTests


class LlamaModelTest(CausalTests, unittest.TestCase):
    def make_tester(self) -> CausalTester:
        classes = {"AutoModel": transformers.LlamaModel, "AutoModelForCausalLM": transformers.LlamaForCausalLM}
        return CausalTester(classes, transformers.LlamaConfig)
