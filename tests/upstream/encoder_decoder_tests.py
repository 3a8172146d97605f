"""The mixins that an encoder-decoder has to pass, put together once for every family that is tested."""

import torch
from causal_tests import CausalTester, CommonTests
from tests.test_modeling_common import GenerationTesterMixin, ids_tensor
from transformers import PreTrainedConfig


class EncoderDecoderTester(CausalTester):
    """As `CausalTester`, for classes that read one text and write another."""

    trained_head = "AutoModelForSeq2SeqLM"
    role_arguments = {"is_encoder_decoder": True, "decoder_start_token_id": 1}

    def prepare_config_and_inputs_for_common(self) -> tuple[PreTrainedConfig, dict[str, torch.Tensor]]:
        """A config and a batch for both sides. Every row of input ends in the one end-of-text token that it has, which
        is where BART reads what it classifies."""
        config, inputs = super().prepare_config_and_inputs_for_common()
        inputs["input_ids"] = inputs["input_ids"].clamp(min=3)
        inputs["input_ids"][:, -1] = self.eos_token_id
        decoder_input_ids = ids_tensor([self.batch_size, self.seq_length], self.vocab_size).clamp(min=3)
        decoder_mask = torch.ones_like(decoder_input_ids)  # generation goes on behind it, so there is no padding
        return config, {**inputs, "decoder_input_ids": decoder_input_ids, "decoder_attention_mask": decoder_mask}


class EncoderDecoderTests(CommonTests, GenerationTesterMixin):
    """All mixins; a test class adds `unittest.TestCase` and `make_tester`."""

    is_encoder_decoder = True
    pipeline_task = "text2text-generation"

    def _create_text_training_batch(self, **sizes: int) -> dict[str, torch.Tensor]:
        """A text to write out, of which the encoder sees the first token only, as it does when the test generates. The
        decoder starts with that token too, so that what it writes is the whole text."""
        batch = super()._create_text_training_batch(**sizes)
        mask = torch.zeros_like(batch["input_ids"])
        mask[:, 0] = 1
        return {**batch, "attention_mask": mask, "labels": batch["labels"][:, 1:].contiguous()}
