"""The yardstick: the same tests on stock classes. What they fail or skip here, Weft need not pass."""

import unittest

import transformers
from causal_tests import CausalTester, CausalTests, one_sliding_layer


class LlamaModelTest(CausalTests, unittest.TestCase):
    def make_tester(self) -> CausalTester:
        classes = {"AutoModel": transformers.LlamaModel, "AutoModelForCausalLM": transformers.LlamaForCausalLM}
        return CausalTester(classes, transformers.LlamaConfig)


class Qwen3SlidingWindowModelTest(CausalTests, unittest.TestCase):
    """Llama has no sliding window; Qwen3 is the stock class for that."""

    def make_tester(self) -> CausalTester:
        classes = {"AutoModel": transformers.Qwen3Model, "AutoModelForCausalLM": transformers.Qwen3ForCausalLM}
        arguments = {"head_dim": 8, "use_sliding_window": True, **one_sliding_layer(self._testMethodName)}
        return CausalTester(classes, transformers.Qwen3Config, **arguments)
