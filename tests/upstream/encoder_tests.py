"""The mixins that an encoder has to pass, put together once for every family that is tested."""

import torch
from causal_tests import CausalTester, CommonTests
from tests.test_modeling_common import ids_tensor
from transformers import PreTrainedConfig
from transformers.testing_utils import torch_device


class EncoderTester(CausalTester):
    """As `CausalTester`, for classes that look both ways."""

    trained_head = "AutoModelForMaskedLM"

    def prepare_config_and_inputs_for_common(self) -> tuple[PreTrainedConfig, dict[str, torch.Tensor]]:
        """A config and a padded batch, with token types where the config has such."""
        config, inputs = super().prepare_config_and_inputs_for_common()
        if getattr(config, "type_vocab_size", 0):
            inputs["token_type_ids"] = ids_tensor([self.batch_size, self.seq_length], config.type_vocab_size)
        return config, inputs


class EncoderTests(CommonTests):
    """All mixins but those of generation; a test class adds `unittest.TestCase` and `make_tester`."""

    pipeline_task = "fill-mask"
    # Encoders do not generate.
    test_tp_generation = None
    test_tp_generation_quantized = None

    def _prepare_for_class(
        self, inputs_dict: dict[str, torch.Tensor], model_class: type, return_labels: bool = False
    ) -> dict[str, torch.Tensor]:
        """The labels of pretraining, which the mixin leaves to each family."""
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels and model_class is self.model_tester.model_classes.get("AutoModelForPreTraining"):
            shape = (self.model_tester.batch_size, self.model_tester.seq_length)
            inputs["labels"] = torch.zeros(shape, dtype=torch.long, device=torch_device)
            inputs["next_sentence_label"] = torch.zeros(shape[0], dtype=torch.long, device=torch_device)
        return inputs
