"""The yardstick: the same tests on stock classes. What they fail or skip here, Weft need not pass."""

import unittest

import transformers
from causal_tests import CausalTester, CausalTests, one_sliding_layer
from encoder_decoder_tests import EncoderDecoderTester, EncoderDecoderTests
from encoder_tests import EncoderTester, EncoderTests


def classes_of(family: str, *tasks: str) -> dict[str, type[transformers.PreTrainedModel]]:
    """A family's base class and its heads, by their Auto class."""
    heads = {f"AutoModelFor{task}": getattr(transformers, f"{family}For{task}") for task in tasks}
    return {"AutoModel": getattr(transformers, f"{family}Model"), **heads}


DECODER_TASKS = ("CausalLM", "SequenceClassification", "TokenClassification", "QuestionAnswering")
ENCODER_TASKS = ("MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice")


class LlamaModelTest(CausalTests, unittest.TestCase):
    def make_tester(self) -> CausalTester:
        return CausalTester(classes_of("Llama", *DECODER_TASKS), transformers.LlamaConfig)


class Qwen3SlidingWindowModelTest(CausalTests, unittest.TestCase):
    """Llama has no sliding window; Qwen3 is the stock class for that."""

    def make_tester(self) -> CausalTester:
        arguments = {"head_dim": 8, "use_sliding_window": True, **one_sliding_layer(self._testMethodName)}
        return CausalTester(classes_of("Qwen3", *DECODER_TASKS), transformers.Qwen3Config, **arguments)


class EuroBertModelTest(EncoderTests, unittest.TestCase):
    """The encoder that computes what Weft's does."""

    def make_tester(self) -> EncoderTester:
        classes = classes_of("EuroBert", "MaskedLM", "SequenceClassification", "TokenClassification")
        return EncoderTester(classes, transformers.EuroBertConfig, mask_token_id=3)


class ModernBertModelTest(EncoderTests, unittest.TestCase):
    """The encoder with sliding windows."""

    def make_tester(self) -> EncoderTester:
        classes = classes_of("ModernBert", *ENCODER_TASKS)
        arguments = {"hidden_activation": "gelu", "cls_token_id": 1, "sep_token_id": 2, "local_attention": 8}
        return EncoderTester(classes, transformers.ModernBertConfig, tie_word_embeddings=True, **arguments)


class BertModelTest(EncoderTests, unittest.TestCase):
    """The encoder with token types and next-sentence prediction."""

    def make_tester(self) -> EncoderTester:
        classes = classes_of("Bert", "PreTraining", *ENCODER_TASKS)
        return EncoderTester(classes, transformers.BertConfig, type_vocab_size=2, tie_word_embeddings=True)


class BartModelTest(EncoderDecoderTests, unittest.TestCase):
    """The encoder-decoder."""

    # What is to be classified is found by its token ids.
    test_inputs_embeds = None

    def make_tester(self) -> EncoderDecoderTester:
        classes = classes_of("Bart", "SequenceClassification", "QuestionAnswering")
        classes["AutoModelForSeq2SeqLM"] = transformers.BartForConditionalGeneration
        sizes = {"num_key_value_heads": 4, "decoder_attention_heads": 4, "encoder_layers": 2, "decoder_layers": 2}
        sizes |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "forced_eos_token_id": None}
        return EncoderDecoderTester(classes, transformers.BartConfig, tie_word_embeddings=True, **sizes)
