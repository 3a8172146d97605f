"""Writing with a draft, by the loop of recipes/generation/drafts.py and by transformers' assisted generation.

    python results/drafts.py

A model of 12 layers of 384 with random weights, of which the draft is the first three: the layers behind them add the
less, the smaller their share, and the larger the scale of the logits, the surer both are of what they say. Greedy, 64
tokens behind each of 3 prompts of 32, one thread, processor time; sides take turns, backwards in every other round.
"""

import copy
import statistics
import time

import torch
from transformers import PreTrainedModel

from weft import WeftConfig, WeftForCausalLM
from weft.recipes.generation.generate_text import write_ids

PROMPTS, LENGTH, NEW, ROUNDS, OF_DRAFT = 3, 32, 64, 3, 3
CASES = ((0.03, 10), (0.05, 60), (0.15, 60))  # share and scale


def make_pair(share: float, scale: float) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A model and its draft."""
    torch.manual_seed(0)
    shape = {"vocab_size": 8192, "hidden_size": 384, "num_attention_heads": 6, "num_hidden_layers": 12}
    model = WeftForCausalLM(WeftConfig(**shape, tie_word_embeddings=False, eos_token_id=None)).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            for matrix in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                matrix.mul_(30 if layer.self_attn.layer_idx < OF_DRAFT else 30 * share)
        model.lm_head.weight.mul_(scale)
    draft = copy.deepcopy(model)
    draft.model.layers, draft.config.num_hidden_layers = draft.model.layers[:OF_DRAFT], OF_DRAFT
    draft.config.layer_types = draft.config.layer_types[:OF_DRAFT]
    return model, draft


def measure(share: float, scale: float) -> None:
    """Print how many guesses are taken, and how long each way takes."""
    model, draft = make_pair(share, scale)
    prompts = torch.randint(0, 8192, (PROMPTS, 1, LENGTH))
    options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    sides = {
        "alone": lambda ids: write_ids(model, input_ids=ids, **options),
        "ours": lambda ids: write_ids(model, input_ids=ids, draft=draft, **options),
        "transformers": lambda ids: model.generate(ids, assistant_model=draft, **options),
    }
    readings = {"model": 0, "draft": 0}
    for name, each in (("model", model), ("draft", draft)):
        each.register_forward_hook(lambda *_, name=name: readings.update({name: readings[name] + 1}))
    written = {}
    for name, write in sides.items():
        readings.update(model=0, draft=0)
        written[name] = torch.cat([write(ids) for ids in prompts])
        same = bool((written[name] == written["alone"]).all())
        told = f"{NEW * PROMPTS} tokens in {readings['model']} readings of the model, {readings['draft']} of the draft"
        print(f"share {share}, {name}: {told}; {'the same' if same else 'other'} tokens", flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(ROUNDS):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            began = time.process_time()
            for ids in prompts:
                sides[name](ids)
            seconds[name].append(time.process_time() - began)
        print(f"round {number + 1}: {', '.join(f'{name} {found[-1]:.2f} s' for name, found in seconds.items())}")
    for name, found in seconds.items():
        ratios = sorted(alone / each for alone, each in zip(seconds["alone"], found))
        speed = NEW * PROMPTS / statistics.median(found)
        spread = f"{statistics.median(ratios):.2f} times alone (from {ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"share {share}, {name}: {speed:.0f} tokens/s, {spread}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in CASES:
        measure(*case)
