"""The mixins that a causal language model has to pass, put together once for every family that is tested."""

from collections.abc import Callable
from typing import Any

import torch
from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import GenerationTesterMixin, ModelTesterMixin, ids_tensor
from tests.test_training_mixin import TrainingTesterMixin
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.testing_utils import torch_device
from upstream import optional_mixin

from tests import test_fsdp_mixin, test_tensor_parallel_mixin

PipelineTesterMixin = optional_mixin("test_pipeline_mixin", "PipelineTesterMixin")

# The distributed tests run for a few model types only: run them for all.
test_tensor_parallel_mixin.TP_DISTRIBUTED_TEST_MODEL_TYPES = None
test_fsdp_mixin.FSDP_DISTRIBUTED_TEST_MODEL_TYPES = None

# These expect caches and attention weights to be as long as the text on every layer, of stock classes too.
EXPECT_FULL_LENGTH = (
    "test_assisted_decoding_matches_greedy_search_0_random",
    "test_assisted_decoding_matches_greedy_search_1_same",
    "test_assisted_decoding_sample",
    "test_beam_search_generate_dict_outputs_use_cache",
    "test_generate_compilation_all_outputs",
    "test_generate_from_inputs_embeds_with_static_cache",
    "test_generate_with_static_cache",
    "test_greedy_generate_dict_outputs_use_cache",
    "test_past_key_values_format",
)


def one_sliding_layer(test_name: str) -> dict[str, Any]:
    """Config arguments; the window is shorter than the text, so that it hides something, where the test allows."""
    window = 64 if test_name in EXPECT_FULL_LENGTH else 4
    return {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": window}


class CausalTester:
    """A small model and a batch for it, in the form in which the mixins ask for them; sizes as in stock testers, but
    with grouped queries.

    Args:
        model_classes: the classes to test, by their Auto class.
        config_class: their config.
        config_arguments: what differs from the small model that all families share.
    """

    batch_size = 13
    seq_length = 7
    num_choices = 4
    is_training = True
    # What training and tensor parallelism are tested with; the mixins call it `causal_lm_class` in every role.
    trained_head = "AutoModelForCausalLM"
    role_arguments: dict[str, Any] = {}

    def __init__(
        self,
        model_classes: dict[str, type[PreTrainedModel]],
        config_class: type[PreTrainedConfig],
        **config_arguments: Any,
    ) -> None:
        self.model_classes = model_classes
        self.config_class = config_class
        self.config_arguments = {
            "vocab_size": 99,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "hidden_act": "gelu",
            "max_position_embeddings": 512,
            "tie_word_embeddings": False,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            **self.role_arguments,
            **config_arguments,
        }
        self.base_model_class = model_classes["AutoModel"]
        self.causal_lm_class = model_classes[self.trained_head]

    def __getattr__(self, name: str) -> Any:
        """Sizes such as `vocab_size`, which the mixins read off the tester."""
        if name != "config_arguments" and name in self.config_arguments:
            return self.config_arguments[name]
        raise AttributeError(name)

    def get_config(self) -> PreTrainedConfig:
        return self.config_class(**self.config_arguments)

    def prepare_config_and_inputs_for_common(self) -> tuple[PreTrainedConfig, dict[str, torch.Tensor]]:
        """A config and a batch whose rows are padded on the right, each to another length."""
        input_ids = ids_tensor([self.batch_size, self.seq_length], self.vocab_size)
        attention_mask = torch.ones_like(input_ids).tril().to(torch_device)
        return self.get_config(), {"input_ids": input_ids, "attention_mask": attention_mask}


class CommonTests(
    ModelTesterMixin, PipelineTesterMixin, TrainingTesterMixin, test_tensor_parallel_mixin.TensorParallelTesterMixin
):
    """The mixins that every family has to pass; a test class adds `unittest.TestCase` and `make_tester`."""

    model_tester = None
    all_model_classes = ()
    # Otherwise asked of files only that bear a copyright year.
    test_can_init_all_missing_weights_before_2023 = True
    # The smallest share is below that of the embeddings, which offloading cannot cut.
    model_split_percents = [0.5, 0.7, 0.8]
    # The pipeline for the head that is trained.
    pipeline_task = "text-generation"

    make_tester: Callable[..., CausalTester]

    def setUp(self) -> None:
        self.model_tester = self.make_tester()
        self.all_model_classes = tuple(self.model_tester.model_classes.values())
        self.pipeline_model_mapping = {
            "feature-extraction": self.model_tester.base_model_class,
            self.pipeline_task: self.model_tester.causal_lm_class,
        }
        self._torch_compile_train_cls = self.model_tester.causal_lm_class

    def test_config(self) -> None:
        ConfigTester(self, config_class=self.model_tester.config_class).run_common_tests()


class CausalTests(CommonTests, GenerationTesterMixin, test_fsdp_mixin.FSDPTesterMixin):
    """All mixins. Those of FSDP start from AutoModelForCausalLM and know no other class."""
