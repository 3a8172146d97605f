"""What every Weft model shares: loading, initial weights, backends."""

from typing import Any

import torch
from torch import nn
from transformers.generation import GenerationMixin
from transformers.modeling_utils import PreTrainedModel

from .attention import WeftAttention
from .backends import check_backend, default_backend
from .configuration_weft import WeftConfig
from .layers import WeftLayer, init_weights

# Weights of heads; a class that has no such head passes over them without a warning.
TASK_HEADS = [r"^score\.", r"^classifier\.", r"^qa_outputs\.", r"^choice_score\.", r"^classifier_transform\."]
LANGUAGE_MODEL_HEADS = [r"^lm_head\.", r"^head_transform\.", r"^pooler\.", r"^seq_relationship\."]


class WeftPreTrainedModel(PreTrainedModel):
    """What every Weft model shares: loading, initial weights, backends. `lora_target_modules` names the linear maps
    that low-rank adapters usually go to: all of the layers."""

    config_class = WeftConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["WeftLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _keys_to_ignore_on_load_unexpected = TASK_HEADS
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": WeftLayer, "attentions": WeftAttention}
    lora_target_modules = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

    def __init__(self, config: WeftConfig, *args: Any, **kwargs: Any) -> None:
        if config._attn_implementation is None:
            config._attn_implementation = default_backend(config)
        super().__init__(config, *args, **kwargs)
        check_backend(self.config, self.config._attn_implementation)
        self._is_stateful = config.has_states  # `generate` refuses what takes tokens back

    def set_attn_implementation(self, attn_implementation: str | dict[str, str], *args: Any, **kwargs: Any) -> None:
        """Change the attention backend; one that cannot compute this config is refused with a ValueError."""
        check_backend(self.config, attn_implementation)
        super().set_attn_implementation(attn_implementation, *args, **kwargs)

    @classmethod
    def maybe_distribute_model(cls, model: PreTrainedModel, distributed_config: Any, *args: Any) -> PreTrainedModel:
        """Shards a model that is loaded; a pipeline that would compute something else is refused with a ValueError."""
        fits = isinstance(model, GenerationMixin) and model.config.fits_pipeline()
        if getattr(distributed_config, "pp_size", 1) > 1 and not fits:
            raise ValueError("A pipeline (pp_size) cannot compute this model: divide its heads (tp_size) instead.")
        return super().maybe_distribute_model(model, distributed_config, *args)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        init_weights(module, self.config)
