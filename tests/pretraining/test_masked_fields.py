"""Runs of pretrain_mlm: what is planned, continued and refused, before any work is done."""

import contextlib
import json

import pytest
import torch
from helpers import runs
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from weft import WeftForCausalLM
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.prepare import prepare

FIELDS = {"max_steps": 4, "save_steps": 4, "eval_steps": 4, "learning_rate": 0.01}
SHAPE = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
OBJECTIVES = ("masked", "next-sentence", "sentence-order", "hybrid")


def continued(folder, **fields) -> dict:
    """Fields that train a finished run's model further: its shape is not given again."""
    return {**dict.fromkeys(SHAPE), **FIELDS, "model_name_or_path": folder, **fields}


@pytest.fixture(scope="module")
def causal(english, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "causal"
    runs.run_here(data=english, output_dir=folder, **FIELDS)
    return folder


@pytest.fixture(scope="module")
def masked(english, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "masked"
    runs.run_here(data=english, output_dir=folder, objective="masked", **FIELDS)
    return folder


@pytest.fixture(scope="module")
def without_mask(tmp_path_factory):
    """A corpus whose tokenizer has no mask token and puts nothing around a text, as GPT-2's."""
    folder = tmp_path_factory.mktemp("gpt2")
    text = runs.write_sentences(folder / "text.txt")
    letters = {token: i for i, token in enumerate(["<|endoftext|>", " ", ".", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ".lower()])}
    letters |= {letter.upper(): len(letters) + i for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    backend = Tokenizer(models.BPE(letters, []))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=end, eos_token=end).save_pretrained(folder / "tok")
    data = DataArguments(train_files=[str(text)], tokenizer_name=str(folder / "tok"), validation_fraction=0.15)
    prepare(data, folder / "corpus", quiet=True)
    return folder / "corpus"


@pytest.mark.parametrize(
    ("objective", "fields", "said"),
    [
        ("masked", {"masking": "word"}, ["masking     word, 30% to 15% of the tokens"]),
        ("masked", {"mask_rate": 0.15}, ["masking     token, 15% of the tokens"]),
        ("masked", {"mask_rate": 0.1, "mask_rate_end": 0.4}, ["masking     token, 10% to 40% of the tokens"]),
        ("masked", {"mask_rate_end": 0.2}, ["masking     token, 30% to 20% of the tokens"]),
        ("hybrid", {"causal_share": 0.0625}, ["masking     token, 30% to 15%", "causal rows 6.25%"]),
        ("hybrid", {"causal_steps": 2}, ["causal rows 100.00% until step 2, then 50.00%"]),
        ("next-sentence", {}, ["pairs       half of them segments of other documents"]),
        ("sentence-order", {}, ["pairs       half of them swapped segments"]),
    ],
    ids=str,
)
def test_the_plan_tells_the_objective(english, tmp_path, capsys, objective, fields, said):
    runs.run_here(data=english, output_dir=tmp_path / "run", objective=objective, plan="true", **FIELDS, **fields)
    runs.assert_only_planned(tmp_path / "run", capsys.readouterr().out, said)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"objective": "elektra"},
            "objective is 'elektra': choose one of masked, diffusion, next-sentence, sentence-or",
        ),
        ({"objective": "masked", "causal_share": 0.5}, "causal_share has no effect without --objective hybrid"),
        ({"objective": "next-sentence", "causal_steps": 3}, "causal_steps has no effect without --objective hybrid"),
        ({"objective": "masked", "span_success": 0.3}, "span_success has no effect without --masking span"),
        ({"objective": "hybrid", "masking": "ngram", "max_span": 3}, "max_span has no effect without --masking span"),
        ({"objective": "masked", "masking": "span", "max_ngram": 2}, "max_ngram has no effect without --masking ngram"),
        ({"objective": "masked", "segmenter": "characters"}, "segmenter cannot be given together with data"),
        (
            {"objective": "masked", "masking": "words"},
            "masking is 'words' (did you mean word?): choose one of token, word",
        ),
        ({"objective": "masked", "mask_rate": 0}, "mask_rate is 0.0"),
        ({"objective": "hybrid", "causal_share": 1.5}, "causal_share is 1.5"),
        ({"objective": "masked", "target_share": 0}, "target_share is 0.0: give a number above 0 and at most 1"),
        ({"objective": "masked", "mask_token_share": 0.9, "random_token_share": 0.2}, "sum to 1 at most"),
        ({"objective": "masked", "mask_rat": 0.2}, "did you mean mask_rate?"),
        ({"objective": "masked", "type_vocab_size": 2}, "type_vocab_size"),
        ({"objective": "next-sentence", "sequence_length": 4, "tokens_per_step": 32}, "at least 8 tokens"),
        ({"objective": "next-sentence", "target_share": 0.5}, "target_share cannot fix the shapes of sentence pairs"),
        ({"objective": "hybrid", "attn_implementation": "flash_attention_2"}, "hybrid rows in both"),
        ({"objective": "hybrid", "causal_steps": 1000}, "as long as the whole run"),
    ],
    ids=str,
)
def test_fields_that_contradict_or_do_nothing_are_refused(english, tmp_path, fields, said):
    assert said in runs.run_error(data=english, output_dir=tmp_path / "run", **{**FIELDS, **fields})
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"objective": "masked", "masking": "word"}, "does not know where words begin, which masking=word needs"),
        ({"objective": "next-sentence"}, "does not know where sentences begin"),
    ],
    ids=str,
)
def test_a_corpus_without_boundaries_is_refused_with_what_to_do(corpus, tmp_path, fields, said):
    message = runs.run_error(data=corpus, output_dir=tmp_path / "run", **FIELDS, **fields)
    assert said in message and "--segmenter characters" in message


def test_a_fixed_number_of_targets_that_is_too_small_names_one_that_is_not(english, tmp_path):
    fields = {**FIELDS, "objective": "masked", "mask_rate": 0.3, "target_share": 0.05}
    message = runs.run_error(data=english, output_dir=tmp_path / "run", **fields)
    assert "target_share is 0.05" in message and "give at least 0.3" in message


def test_raw_text_for_words_keeps_their_boundaries(tmp_path):
    text = runs.write_sentences(tmp_path / "text.txt", chinese=True)
    fields = {**FIELDS, "train_files": [text], "tokenizer_type": "char", "plan": "true"}
    runs.run_here(output_dir=tmp_path / "run", objective="masked", masking="word", **fields)
    description = json.loads((tmp_path / "run" / "data" / "corpus.json").read_text())
    assert description["made_from"]["settings"]["segmenter"] == "characters"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"objective": "masked", "masking": "word", "segmenter": "none"}, "segmenter none keeps no boundaries"),
        ({"objective": "sentence-order", "segmenter": "none"}, "segmenter none keeps no boundaries"),
        ({"objective": "next-sentence", "document_tokens": "none"}, "leave document_tokens at both"),
    ],
    ids=str,
)
def test_text_is_not_prepared_in_a_way_the_objective_cannot_use(tmp_path, fields, said):
    text = runs.write_sentences(tmp_path / "text.txt")
    assert said in runs.run_error(train_files=[text], output_dir=tmp_path / "run", **{**FIELDS, **fields})
    assert not (tmp_path / "run" / "data").exists()


def test_help_names_the_new_fields(capsys):
    from weft.recipes import pretrain_mlm

    with contextlib.suppress(SystemExit):
        pretrain_mlm.main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for name in ("objective", "masking", "mask_rate", "mask_rate_end", "causal_share", "causal_steps", "target_share"):
        assert f"--{name} " in printed
    assert "one of masked, diffusion, next-sentence, sentence-order, replaced-tokens, hybrid" in printed


@pytest.mark.parametrize("objective", ["masked", "hybrid"])
def test_a_causal_model_is_trained_on_as_an_encoder(causal, english, tmp_path, objective):
    folder = tmp_path / objective
    nothing_moves = {"learning_rate": 1e-12, "weight_decay": 0}
    runs.run_here(data=english, output_dir=folder, objective=objective, **continued(causal, **nothing_moves))
    config = AutoConfig.from_pretrained(folder)
    assert (config.is_causal, config.masked_next_token) == (False, objective == "hybrid")
    found, expected = runs.weights(folder), runs.weights(causal)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-9)
    assert "| preset |" not in (folder / "README.md").read_text()


def test_an_encoder_is_trained_on_as_a_causal_model_that_continues_text(masked, english, tmp_path):
    runs.run_here(data=english, output_dir=tmp_path / "run", **continued(masked))
    assert AutoConfig.from_pretrained(tmp_path / "run").is_causal
    assert runs.losses(tmp_path / "run")[0] < 5.5  # of 5.7 at random
    text = runs.write_sentences(tmp_path / "text.txt", seed=1)
    raw = {"train_files": [text], "validation_fraction": 0.15}  # prepared with the encoder's own tokenizer
    runs.run_here(output_dir=tmp_path / "raw", **raw, **continued(masked))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "raw")
    assert tokenizer("the cat").tokens()[0] == "<s>" and tokenizer("the cat").tokens()[-1] != "</s>"


def test_a_model_without_token_types_cannot_learn_sentence_pairs(masked, english, tmp_path):
    message = runs.run_error(data=english, output_dir=tmp_path / "run", objective="next-sentence", **continued(masked))
    assert "has no token types, which sentence pairs need: train a new one" in message


def test_a_model_of_sentence_pairs_is_trained_on_without_them(english, tmp_path):
    runs.run_here(data=english, output_dir=tmp_path / "pairs", objective="sentence-order", **FIELDS)
    fields = continued(tmp_path / "pairs", objective="masked")
    runs.run_here(data=english, output_dir=tmp_path / "run", **fields)
    assert AutoConfig.from_pretrained(tmp_path / "run").type_vocab_size == 2
    assert not [name for name in runs.weights(tmp_path / "run") if "pooler" in name]


def test_a_tokenizer_without_mask_token_gets_one_that_all_runs_on_its_corpus_share(without_mask, tmp_path):
    runs.run_here(data=without_mask, output_dir=tmp_path / "causal", **FIELDS)
    runs.run_here(
        data=without_mask, output_dir=tmp_path / "masked", objective="masked", **continued(tmp_path / "causal")
    )
    before, after = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("causal", "masked"))
    assert before.mask_token is None and after.mask_token == "<mask>"
    assert after.mask_token_id == len(before) == len(after) - 1
    assert AutoConfig.from_pretrained(tmp_path / "masked").vocab_size == 64
    runs.run_here(data=without_mask, output_dir=tmp_path / "back", **continued(tmp_path / "masked"))


def test_a_model_without_room_for_the_mask_token_gets_a_row_for_it(without_mask, tmp_path):
    runs.run_here(data=without_mask, output_dir=tmp_path / "causal", **FIELDS)
    model = WeftForCausalLM.from_pretrained(tmp_path / "causal")
    model.resize_token_embeddings(len(AutoTokenizer.from_pretrained(tmp_path / "causal")))
    model.save_pretrained(tmp_path / "causal")
    fields = continued(tmp_path / "causal", objective="masked", learning_rate=1e-9, max_steps=1)
    runs.run_here(data=without_mask, output_dir=tmp_path / "run", **fields)
    before, after = (runs.weights(tmp_path / name)["model.embed_tokens.weight"] for name in ("causal", "run"))
    mask = AutoTokenizer.from_pretrained(tmp_path / "run").mask_token_id
    assert (len(before), mask, len(after)) == (55, 55, 64)
    torch.testing.assert_close(after[:55], before, rtol=0, atol=1e-6)
    torch.testing.assert_close(after[mask], before.mean(0), rtol=0, atol=1e-6)
