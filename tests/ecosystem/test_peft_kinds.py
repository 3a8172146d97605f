"""PEFT's kinds of adapters train a Weft model, and come back from a folder as they were."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import PeftConfig, PeftModel, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

ALL = {"target_modules": "all-linear"}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("LoraConfig", {"r": 4, **ALL}),
    "DoRA": ("LoraConfig", {"r": 4, "use_dora": True, **ALL}),
    "AdaLoRA": ("AdaLoraConfig", {"init_r": 4, "target_r": 2, "total_step": 50, **ALL}),
    "IA3": ("IA3Config", {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
    "VeRA": ("VeraConfig", {"r": 8, "target_modules": ["q_proj"]}),
    "LoHa": ("LoHaConfig", {"r": 4, **ALL}),
    "LoKr": ("LoKrConfig", {"r": 4, **ALL}),
    "OFT": ("OFTConfig", {"oft_block_size": 4, "target_modules": ["q_proj", "v_proj"]}),
    "prefix": ("PrefixTuningConfig", {"num_virtual_tokens": 4}),
    "prompt": ("PromptTuningConfig", {"num_virtual_tokens": 4}),
    "p-tuning": ("PromptEncoderConfig", {"num_virtual_tokens": 4, "encoder_hidden_size": 16}),
    "norms": ("LNTuningConfig", {"target_modules": ["input_layernorm", "post_attention_layernorm"]}),
}


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_of_every_kind(
    kind: str, folders: dict[str, Path], tokenizer: Any, texts: list[str], tmp_path: Path
) -> None:
    """Loss falls, the base stays, the folder gives the same logits, and text is written."""
    name, fields = KINDS[kind]
    config: PeftConfig = getattr(peft, name)(task_type=TaskType.CAUSAL_LM, **fields)
    model = get_peft_model(load(folders["causal"]), config)
    batch = tokenizer(texts[:8], return_tensors="pt", padding=True, return_token_type_ids=False)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=3e-2), []
    for _ in range(8):
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05, losses
    model.save_pretrained(tmp_path)
    loaded, model = PeftModel.from_pretrained(load(folders["causal"]), tmp_path).eval(), model.eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-4)
        prompt = {name: tensor[:1, :5] for name, tensor in batch.items()}
        written = [each.generate(**prompt, max_new_tokens=5, do_sample=False) for each in (loaded, model)]
    assert torch.equal(*written) and written[0].shape[1] >= 6


def test_merged_adapters_are_the_model(folders: dict[str, Path], tokenizer: Any, texts: list[str]) -> None:
    config = peft.LoraConfig(r=4, init_lora_weights=False, task_type=TaskType.CAUSAL_LM, **ALL)
    model = get_peft_model(load(folders["causal"]), config).eval()
    batch = tokenizer(texts[:2], return_tensors="pt", padding=True, return_token_type_ids=False)
    with torch.no_grad():
        expected, plain = model(**batch).logits, load(folders["causal"])(**batch).logits
        merged = model.merge_and_unload()(**batch).logits
    assert (plain - expected).abs().max() > 1e-2
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-4)
