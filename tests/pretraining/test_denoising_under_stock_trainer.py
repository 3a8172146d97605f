"""The denoisers work alone: a data collator for transformers' own Trainer, T5 and BART."""

import json

import numpy as np
import pytest
import torch
from helpers.denoised import restored
from helpers.models import tiny_config
from helpers.stock_tokenizers import TEXTS, roberta, train_small
from tokenizers import Tokenizer, models, processors
from torch.utils.data import Dataset
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
)

from weft import WeftForConditionalGeneration
from weft.losses import IGNORE_INDEX
from weft.recipes.pretraining.datasets.denoising.collator import DenoisingCollator
from weft.recipes.pretraining.datasets.denoising.frame import Frame
from weft.recipes.pretraining.datasets.denoising.infilling import InfillDenoiser
from weft.recipes.pretraining.datasets.denoising.mixture import MixtureDenoiser
from weft.recipes.pretraining.datasets.denoising.prefix import PrefixDenoiser
from weft.recipes.pretraining.datasets.denoising.spans import SpanDenoiser
from weft.tokenizer.denoising_tokens import MODES, give_tokens, ids_of, sentinel_names
from weft.tokenizer.special_tokens import decoder_start, for_role
from weft.tokenizer.vocabulary import number_of_ids

NAMES = [*sentinel_names(100), *MODES.values()]
BEGINS = "sentence_begins"


def as_t5():
    """A tokenizer that closes texts and does not open them."""
    tokenizer = for_role(train_small("bpe"), "encoder")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", tokenizer.eos_token_id)]
    )
    return tokenizer


def make(family):
    """A tokenizer with all tokens, and a small model with random weights, as the family frames texts."""
    tokenizer = {"t5": as_t5, "bart": roberta, "weft": lambda: for_role(train_small("bpe"), "encoder")}[family]()
    give_tokens(tokenizer, NAMES)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": number_of_ids(tokenizer)}
    if family == "t5":
        sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4, "decoder_start_token_id": 0}
        return tokenizer, T5ForConditionalGeneration(T5Config(**sizes, **ids))
    if family == "bart":
        heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "decoder_start_token_id": 2}
        layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
        return tokenizer, BartForConditionalGeneration(BartConfig(d_model=32, **heads, **layers, **ids))
    start = decoder_start(tokenizer)
    config = tiny_config(is_encoder_decoder=True, decoder_start_token_id=start, **ids)
    return tokenizer, WeftForConditionalGeneration(config)


DENOISERS = {
    "span": SpanDenoiser.of,
    "infill": InfillDenoiser.of,
    "prefix": lambda tokenizer: PrefixDenoiser(),
    "mixture": MixtureDenoiser.of,
}


class Texts(Dataset):
    """Tokenised texts, with start and end tokens or without."""

    def __init__(self, tokenizer, framed):
        self.ids = [tokenizer(text, add_special_tokens=framed).input_ids for text in TEXTS[:6]]
        self.bare = [tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS[:6]]

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        begins = [place % 4 == 0 for place in range(len(self.bare[index]))]
        return {"input_ids": self.ids[index], BEGINS: begins, "document": index}


@pytest.mark.parametrize("kind", DENOISERS)
@pytest.mark.parametrize("family", ["t5", "bart", "weft"])
def test_one_step_of_the_stock_trainer(family, kind, tmp_path):
    tokenizer, model = make(family)
    collator = DenoisingCollator(tokenizer, DENOISERS[kind](tokenizer), model.config.decoder_start_token_id)
    options = {"max_steps": 1, "per_device_train_batch_size": 6, "report_to": "none", "use_cpu": True}
    options |= {"remove_unused_columns": False, "save_strategy": "no", "logging_steps": 1, "learning_rate": 0.01}
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    trainer = Trainer(
        model, TrainingArguments(str(tmp_path), **options), train_dataset=Texts(tokenizer, True), data_collator=collator
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 1 and 4 < losses[0] < 9
    assert any(not torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("family", ["t5", "bart", "weft"])
def test_padding_is_no_target_and_the_model_shifts_what_the_decoder_reads(family):
    tokenizer, model = make(family)
    texts = Texts(tokenizer, True)
    collator = DenoisingCollator(tokenizer, SpanDenoiser.of(tokenizer), model.config.decoder_start_token_id)
    batch = collator([texts[index] for index in range(6)])
    labels, pad = batch["labels"], tokenizer.pad_token_id
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert torch.equal(batch["attention_mask"] == 0, batch["input_ids"] == pad) and (labels == IGNORE_INDEX).any()
    for row in labels.tolist():
        text = [token for token in row if token != IGNORE_INDEX]
        assert row == text + [IGNORE_INDEX] * (len(row) - len(text)) and text[-1] == tokenizer.eos_token_id
    start = torch.full((6, 1), model.config.decoder_start_token_id)
    shifted = torch.cat((start, labels[:, :-1]), dim=1).masked_fill(torch.cat((start, labels), 1)[:, :-1] == -100, pad)
    model.eval()
    with torch.no_grad():
        found = model(**batch)
        logits = model(batch["input_ids"], batch["attention_mask"], decoder_input_ids=shifted).logits
    assert torch.equal(found.logits, logits)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(found.loss, expected)


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "bare"])
@pytest.mark.parametrize("family", ["t5", "bart", "weft"])
def test_a_text_is_framed_as_the_tokenizer_does_it_and_comes_back(family, framed):
    tokenizer, model = make(family)
    texts = Texts(tokenizer, framed)
    collator = DenoisingCollator(tokenizer, SpanDenoiser.of(tokenizer), model.config.decoder_start_token_id)
    for index in range(6):
        batch = {name: tensor[0].tolist() for name, tensor in collator([texts[index]]).items()}
        source, target = batch["input_ids"], batch["labels"]
        opening = {"t5": [], "bart": [1], "weft": [1]}[family]
        assert source[: len(opening)] == opening and source[-1] == target[-1] == 2
        assert target[:1] == [1] if family == "bart" else target[0] in ids_of(tokenizer, sentinel_names(1))
        inner = [np.array(side[first:-1]) for side, first in ((source, len(opening)), (target, family == "bart"))]
        pair = collator.denoiser(collator._piece(texts[index]))
        assert [each.tolist() for each in inner] == [pair.source.tolist(), pair.target.tolist()]
        assert restored(pair, ids_of(tokenizer, sentinel_names(100))) == texts.bare[index]


def test_a_number_makes_masks_pure_and_without_one_torch_draws_them():
    tokenizer, _ = make("t5")
    texts, collator = Texts(tokenizer, True), DenoisingCollator(tokenizer, SpanDenoiser.of(tokenizer))
    text = max((texts[index] for index in range(6)), key=lambda each: len(each["input_ids"]))
    numbered = [collator([text])["input_ids"] for _ in range(2)]
    assert torch.equal(*numbered)
    other = DenoisingCollator(tokenizer, SpanDenoiser.of(tokenizer), seed=1)([text])["input_ids"]
    passed = collator([{**text, "pass_number": 1}])["input_ids"]
    assert not torch.equal(numbered[0], other) and not torch.equal(numbered[0], passed)
    unnumbered = {"input_ids": text["input_ids"]}
    torch.manual_seed(5)
    drawn = [collator([unnumbered])["input_ids"] for _ in range(6)]
    torch.manual_seed(5)
    assert torch.equal(drawn[0], collator([unnumbered])["input_ids"])
    assert len({tuple(each[0].tolist()) for each in drawn}) > 1


def test_rows_can_be_padded_to_round_lengths():
    tokenizer, _ = make("t5")
    collator = DenoisingCollator(tokenizer, SpanDenoiser.of(tokenizer), pad_to_multiple_of=16)
    batch = collator([Texts(tokenizer, True)[0]])
    assert all(tensor.shape[1] % 16 == 0 for tensor in batch.values())


def test_what_cannot_be_denoised_is_refused():
    tokenizer = train_small("bpe")
    with pytest.raises(ValueError, match="has no token <extra_id_0>: add it with `give_tokens`"):
        SpanDenoiser.of(tokenizer)
    give_tokens(tokenizer, NAMES)
    collator = DenoisingCollator(tokenizer, InfillDenoiser.of(tokenizer))
    with pytest.raises(ValueError, match="a text has no token: leave empty texts out"):
        collator([{"input_ids": []}])
    with pytest.raises(ValueError, match="sentence_begins has 2 values for a text of 3 tokens"):
        collator([{"input_ids": [7, 8, 9], BEGINS: [True, False]}])
    with pytest.raises(ValueError, match="permuting sentences needs to know where they begin"):
        collator([{"input_ids": [7, 8, 9]}])
    tokenizer.mask_token = None
    with pytest.raises(ValueError, match="has no mask token, which infilling needs"):
        InfillDenoiser.of(tokenizer)
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="has no padding token"):
        DenoisingCollator(tokenizer, PrefixDenoiser())
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="has no end token, by which a decoder would know when to stop"):
        Frame.of(tokenizer)


def test_ordinary_tokens_of_these_names_become_special():
    """A vocabulary may hold the names without anything of a text becoming them: a source could not be typed."""
    tokenizer = train_small("bpe")
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["vocab"] |= {"<extra_id_0>": 320, "<extra_id_1>": 321}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), pad_token="<pad>")
    assert len(tokenizer("<extra_id_0>", add_special_tokens=False).input_ids) > 1
    assert give_tokens(tokenizer, sentinel_names(3)) == ["<extra_id_2>"]
    assert ids_of(tokenizer, sentinel_names(3)) == [320, 321, 322]
    assert tokenizer("the<extra_id_1>", add_special_tokens=False).input_ids[-1] == 321
    assert tokenizer.decode([321], skip_special_tokens=True) == ""


def test_texts_are_framed_by_a_tokenizer_without_latin_letters():
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "我": 3, "们": 4}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    assert tokenizer("a").input_ids == [1, 2]
    assert {Frame.of(tokenizer, 1) for _ in range(20)} == {Frame((1,), (2,), (), (2,))}


def test_tokens_are_given_once_and_get_the_last_ids():
    tokenizer = train_small("bpe")
    before = number_of_ids(tokenizer)
    assert give_tokens(tokenizer, NAMES) == NAMES and give_tokens(tokenizer, NAMES) == []
    assert ids_of(tokenizer, NAMES) == list(range(before, before + len(NAMES)))
    assert set(NAMES) <= set(tokenizer.all_special_tokens)
    assert tokenizer.decode([*tokenizer("the", add_special_tokens=False).input_ids, before], True) == "the"
