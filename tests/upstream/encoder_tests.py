"""The mixins that an encoder has to pass, put together once for every family that is tested.

transformers' tests of FSDP start from AutoModelForCausalLM and know no other class, so they are part of the causal
tests only.
"""

from typing import Any

import torch
from causal_tests import CausalTester
from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin, ids_tensor
from tests.test_training_mixin import TrainingTesterMixin
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.testing_utils import torch_device
from upstream import optional_mixin

from tests import test_tensor_parallel_mixin

PipelineTesterMixin = optional_mixin("test_pipeline_mixin", "PipelineTesterMixin")


class EncoderTester(CausalTester):
    """As `CausalTester`, for classes that look both ways.

    Args:
        model_classes: the classes to test, by their Auto class: the base and the masked head, and others.
        config_class: their config.
        config_arguments: what differs from the small model that all families share.
    """

    def __init__(
        self,
        model_classes: dict[str, type[PreTrainedModel]],
        config_class: type[PreTrainedConfig],
        **config_arguments: Any,
    ) -> None:
        super().__init__(model_classes, config_class, **config_arguments)
        # What training and tensor parallelism are tested with; the mixins have no other name for it.
        self.causal_lm_class = model_classes["AutoModelForMaskedLM"]

    def prepare_config_and_inputs_for_common(self) -> tuple[PreTrainedConfig, dict[str, torch.Tensor]]:
        """A config and a padded batch, with token types where the config has such."""
        config, inputs = super().prepare_config_and_inputs_for_common()
        if getattr(config, "type_vocab_size", 0):
            inputs["token_type_ids"] = ids_tensor([self.batch_size, self.seq_length], config.type_vocab_size)
        return config, inputs


class EncoderTests(
    ModelTesterMixin,
    PipelineTesterMixin,
    TrainingTesterMixin,
    test_tensor_parallel_mixin.TensorParallelTesterMixin,
):
    """All mixins; a test class adds `unittest.TestCase` and `make_tester`."""

    model_tester = None
    all_model_classes = ()
    # Otherwise asked of files only that bear a copyright year.
    test_can_init_all_missing_weights_before_2023 = True
    model_split_percents = [0.5, 0.7, 0.8]
    # Encoders do not generate.
    test_tp_generation = None
    test_tp_generation_quantized = None

    def make_tester(self) -> EncoderTester:
        raise NotImplementedError

    def setUp(self) -> None:
        self.model_tester = self.make_tester()
        self.all_model_classes = tuple(self.model_tester.model_classes.values())
        self.pipeline_model_mapping = {
            "feature-extraction": self.model_tester.base_model_class,
            "fill-mask": self.model_tester.causal_lm_class,
        }
        self._torch_compile_train_cls = self.model_tester.causal_lm_class

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

    def test_config(self) -> None:
        ConfigTester(self, config_class=self.model_tester.config_class).run_common_tests()
