"""Small models of several families with one tokenizer, and the definitions of their scores written out by hand."""

import torch
from tokenizers import processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from helpers.models import make_model, shake, tiny_config
from helpers.text import CHINESE, EMOJI, sentences
from weft import WeftForMaskedLM
from weft.tokenizer.train import train_tokenizer

SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CAUSAL = ("gpt2", "llama", "weft")
MASKED = ("bert", "roberta", "weft-masked")
TEXTS = [*sentences(5, words=9), CHINESE, EMOJI, "a b", "x"]


def make_tokenizer(kind="char", encoder=False, vocab_size=320):
    """A tokenizer; an encoder's puts a start and an end token around texts."""
    tokenizer = train_tokenizer(iter([*sentences(60), CHINESE, EMOJI]), kind, vocab_size)
    if encoder:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return tokenizer


def make_scored_model(family, tokenizer, length=256):
    """A model with weights so large that every token of its input matters."""
    size = {"vocab_size": len(tokenizer), **SPECIAL}
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "hidden_size": 32}
    if family == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=length, **size))
    elif family == "llama":
        model = LlamaForCausalLM(LlamaConfig(max_position_embeddings=length, **shape, **size))
    elif family == "bert":
        model = BertForMaskedLM(BertConfig(max_position_embeddings=length, **shape, **size))
    elif family == "roberta":
        model = RobertaForMaskedLM(RobertaConfig(max_position_embeddings=length + 1, **shape, **size))
    else:
        fields = {"max_position_embeddings": length, "masked_next_token": family == "weft-hybrid", **size}
        classes = {} if family == "weft" else {"model_class": WeftForMaskedLM}
        return make_model(tiny_config(**fields), **classes)
    return shake(model).eval()


def text_ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


@torch.no_grad()
def log_probs_at(model, ids, place):
    """Log-probabilities of all tokens at one place of one input, in float64."""
    return model(input_ids=torch.tensor([ids])).logits[0, place].double().log_softmax(-1)


def causal_by_hand(model, tokenizer, text):
    """Log-probability of each token of a text given the start token and those before it, prefix by prefix."""
    ids = [tokenizer.bos_token_id, *text_ids(tokenizer, text)]
    return [log_probs_at(model, ids[:i], -1)[ids[i]].item() for i in range(1, len(ids))]


def masked_by_hand(model, tokenizer, text, words=None):
    """Log-probability of each token given all others; with the number of each token's `words`, without the later ones
    of the same word."""
    ids = [tokenizer.bos_token_id, *text_ids(tokenizer, text), tokenizer.eos_token_id]
    found = []
    for i in range(1, len(ids) - 1):
        hidden = list(ids)
        hidden[i] = tokenizer.mask_token_id
        for j in range(i + 1, len(ids) - 1):
            if words is not None and words[j - 1] == words[i - 1]:
                hidden[j] = tokenizer.mask_token_id
        found.append(log_probs_at(model, hidden, i)[ids[i]].item())
    return found
