"""The yardstick: the same tests on stock classes. What they fail or skip here, Weft need not pass."""

import unittest

import transformers
from causal_tests import CausalTester, CausalTests, one_sliding_layer
from encoder_tests import EncoderTester, EncoderTests


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


class EuroBertModelTest(EncoderTests, unittest.TestCase):
    """The encoder that computes what Weft's does."""

    def make_tester(self) -> EncoderTester:
        classes = {"AutoModel": transformers.EuroBertModel, "AutoModelForMaskedLM": transformers.EuroBertForMaskedLM}
        return EncoderTester(classes, transformers.EuroBertConfig, mask_token_id=3)


class ModernBertModelTest(EncoderTests, unittest.TestCase):
    """The encoder with sliding windows."""

    def make_tester(self) -> EncoderTester:
        classes = {
            "AutoModel": transformers.ModernBertModel,
            "AutoModelForMaskedLM": transformers.ModernBertForMaskedLM,
        }
        arguments = {"hidden_activation": "gelu", "cls_token_id": 1, "sep_token_id": 2, "local_attention": 8}
        return EncoderTester(classes, transformers.ModernBertConfig, tie_word_embeddings=True, **arguments)


class BertModelTest(EncoderTests, unittest.TestCase):
    """The encoder with token types and next-sentence prediction."""

    def make_tester(self) -> EncoderTester:
        classes = {
            "AutoModel": transformers.BertModel,
            "AutoModelForMaskedLM": transformers.BertForMaskedLM,
            "AutoModelForPreTraining": transformers.BertForPreTraining,
        }
        return EncoderTester(classes, transformers.BertConfig, type_vocab_size=2, tie_word_embeddings=True)
