"""What a model cannot read, since it has no position or its tokenizer no token for it, is said before it computes."""

import pytest
import torch
from helpers import finetuning as ft
from helpers import runs, sequences
from helpers.models import make_model, tiny_config
from helpers.stock_tokenizers import STOCK, train_small
from helpers.text import sentences
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BertConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
)

import weft
from weft.recipes import evaluate_lm, generate
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.positions import position_limit, position_limit_of
from weft.recipes.evaluation.likelihood import Scorer
from weft.tokenizer.encode_as_text import unread_pieces
from weft.tokenizer.special_tokens import for_role
from weft.tokenizer.train import train_tokenizer

LIMIT = 32
LEARNED = {"position_embedding_type": "learned", "max_position_embeddings": LIMIT}
SHAPE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Causal models with LIMIT positions, one whose positions never end, and one that knows few characters."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = train_small("bpe")
    ids = {"vocab_size": 320, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    made = {
        "learned": make_model(tiny_config(**ids, **LEARNED)),
        "sinusoidal": make_model(tiny_config(**ids, **{**LEARNED, "position_embedding_type": "sinusoidal"})),
        "rope": make_model(tiny_config(**ids, max_position_embeddings=LIMIT)),
        "gpt2": GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=4, n_positions=LIMIT, **ids)),
    }
    for name, model in made.items():
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    characters = train_tokenizer(iter(["abc def"]), "char", 40)
    make_model(tiny_config(**{**ids, "vocab_size": 64})).save_pretrained(root / "characters")
    characters.save_pretrained(root / "characters")
    return root


def call(command, monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["command", *map(str, words)])
    command.main()


def refusal(command, monkeypatch, *words):
    with pytest.raises(RecipeError) as error:
        call(command, monkeypatch, *words)
    return str(error.value)


@pytest.mark.parametrize("family", ["learned", "sinusoidal", "gpt2"])
def test_generate_writes_up_to_the_last_position_and_no_further(folders, family, monkeypatch, capsys, tmp_path):
    words = ("--model", folders / family, "--prompt", "the river", "--do_sample", "false", "--max_new_tokens")
    said = refusal(generate, monkeypatch, *words, 100)
    assert f"only {LIMIT} positions (max_position_embeddings)" in said and "max_new_tokens is 100" in said
    most = int(said.split("give max_new_tokens ")[1].split()[0])
    assert "at most" in refusal(generate, monkeypatch, *words, most + 1)
    call(generate, monkeypatch, *words, most)
    assert "the river" in capsys.readouterr().out
    long = " ".join(["river"] * 60)
    said = refusal(generate, monkeypatch, "--model", folders / family, "--prompt", long, "--max_new_tokens", 1)
    assert "give a shorter prompt" in said
    (tmp_path / "prompts.txt").write_text(f"the river\n{long}\n")
    output = tmp_path / "out.jsonl"
    said = refusal(
        generate,
        monkeypatch,
        "--model",
        folders / family,
        "--prompt_file",
        tmp_path / "prompts.txt",
        "--output_file",
        output,
    )
    assert said.startswith("prompt 2 has") and not output.exists()


def test_generate_goes_on_beyond_where_positions_never_end(folders, monkeypatch, capsys):
    call(generate, monkeypatch, "--model", folders / "rope", "--prompt", "the river", "--max_new_tokens", 50)
    assert "the river" in capsys.readouterr().out


@pytest.mark.parametrize("family", ["learned", "gpt2"])
def test_evaluate_lm_takes_windows_of_all_positions_and_no_more(folders, family, monkeypatch, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("\n\n".join(sentences(4)))
    words = ("--model", folders / family, "--files", tmp_path / "text.txt", "--window")
    said = refusal(evaluate_lm, monkeypatch, *words, 64)
    assert (
        said
        == f"window is 64, but the model has only {LIMIT} positions (max_position_embeddings): give {LIMIT} at most."
    )
    call(evaluate_lm, monkeypatch, *words, LIMIT)
    assert "perplexity" in capsys.readouterr().out


def test_a_window_leaves_out_the_positions_that_padding_takes():
    config = RobertaConfig(vocab_size=320, max_position_embeddings=34, pad_token_id=1, **SHAPE)
    tokenizer = STOCK["roberta"]()
    scorer = Scorer(RobertaForMaskedLM(config).eval(), tokenizer, "masked", quiet=True)
    assert scorer.window == 32
    scorer.score_texts([" ".join(["river"] * 60)])


def test_a_table_of_positions_is_found_in_every_family():
    wanted = [
        (BertConfig(max_position_embeddings=40, **SHAPE), 40),
        (RobertaConfig(max_position_embeddings=40, **SHAPE), 38),
        (GPT2Config(n_positions=40), 40),
        (OPTConfig(max_position_embeddings=40), 40),
        (BartConfig(max_position_embeddings=40), 40),
        (LlamaConfig(max_position_embeddings=40), None),
        (tiny_config(max_position_embeddings=40), None),
        (tiny_config(position_embedding_type="learned", max_position_embeddings=40, position_offset=2), 40),
    ]
    for config, limit in wanted:
        assert position_limit_of(config) == limit


def test_pretraining_goes_on_with_no_longer_rows_than_positions(folders, tmp_path):
    text = runs.write_text(tmp_path / "text.txt", 20)
    shape = dict.fromkeys(runs.SMALL_MODEL.keys() - {"use_cpu", "cpu_threads", "sequence_length"})
    fields = {**shape, "train_files": text, "output_dir": tmp_path / "run", "max_steps": 1, "tokens_per_step": 64}
    said = runs.run_error(**fields, model_name_or_path=folders / "learned", sequence_length=64)
    assert (
        "sequence_length is 64" in said
        and "has learned 32 positions (max_position_embeddings): give 32 at most" in said
    )
    changed = {"sequence_length": 64, "max_position_embeddings": 64}
    said = runs.run_error(**fields, model_name_or_path=folders / "learned", **changed)
    assert "max_position_embeddings cannot be changed" in said
    assert not (tmp_path / "run").exists()  # no text was prepared
    runs.run_here(**fields, model_name_or_path=folders / "rope", **changed)


@pytest.mark.parametrize("fields", [{}, {"objective": "masked"}, {"objective": "hybrid"}])
def test_the_samples_of_a_card_stay_within_the_positions(tmp_path, fields):
    text = runs.write_text(tmp_path / "text.txt", 40)
    fields = {**fields, "train_files": text, "vocab_size": 300, "position_embedding_type": "learned", "max_steps": 1}
    runs.run_here(**fields, output_dir=tmp_path / "run")
    prompt = " ".join(["river"] * 60)
    said = runs.run_error(**fields, output_dir=tmp_path / "other", sample_prompt=prompt)
    assert "sample_prompt has" in said and "only 32 positions (max_position_embeddings)" in said


def test_fine_tuning_takes_no_longer_texts_than_positions(folders, tmp_path):
    files = ft.write_files(tmp_path / "data", 24, 8)
    said = ft.run_error(**files, model_name_or_path=folders / "learned", max_length=64, output_dir=tmp_path / "run")
    assert "max_length is 64" in said and "32 tokens at most" in said
    fields = {"position_embedding_type": "learned", "max_position_embeddings": 16}
    said = ft.run_error(**files, **fields, max_length=64, output_dir=tmp_path / "run")
    assert said.startswith("max_length=64 is longer than the model's max_position_embeddings=16")
    roberta = tmp_path / "roberta"
    RobertaModel(RobertaConfig(vocab_size=320, max_position_embeddings=20, **SHAPE)).save_pretrained(roberta)
    STOCK["roberta"]().save_pretrained(roberta)  # without a limit of its own
    said = ft.run_error(**files, model_name_or_path=roberta, max_length=20, output_dir=tmp_path / "run")
    assert "18 tokens at most" in said
    ft.run_here(**files, model_name_or_path=roberta, max_steps=1, output_dir=tmp_path / "run")


def test_text_to_text_takes_no_longer_targets_than_positions(tmp_path):
    tokenizer = for_role(train_small("bpe"), "encoder")
    ids = {"vocab_size": 320, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = tiny_config(is_encoder_decoder=True, **ids, **LEARNED)
    torch.manual_seed(0)
    weft.WeftForConditionalGeneration(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    files = sequences.write_files(tmp_path / "data")
    for name in ("max_source_length", "max_target_length", "max_new_tokens"):
        fields = {"model_name_or_path": tmp_path / "model", name: 40, "output_dir": tmp_path / "run"}
        assert f"{name} is 40" in sequences.error(**files, **fields)


def test_generate_says_which_characters_the_model_does_not_read(folders, monkeypatch, capsys, tmp_path):
    words = ("--model", folders / "characters", "--max_new_tokens", 2)
    call(generate, monkeypatch, *words, "--prompt", "abc d\u00e9 \u6f22!")
    said = capsys.readouterr().err
    assert "no token for '\u00e9', '\u6f22', '!' of the prompt: the model does not read that" in said
    (tmp_path / "prompts.txt").write_text("abc\nabz\nzab\n")
    call(generate, monkeypatch, *words, "--prompt_file", tmp_path / "prompts.txt")
    assert "no token for 'z' of 2 of 3 prompts (first: 2)" in capsys.readouterr().err
    call(generate, monkeypatch, *words, "--prompt", "abc fed")
    assert "no token" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "kind, pieces",
    [("bpe", []), ("unigram", []), ("char", ["\u00fc", "\U0001f600"]), ("wordpiece", ["the\u00fc", "\U0001f600"])],
)
def test_what_is_not_read_is_found_in_every_type(kind, pieces):
    assert unread_pieces(train_small(kind), "the river the\u00fc \U0001f600") == pieces


def test_characters_that_become_no_token_at_all_are_found():
    dropping = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    assert unread_pieces(PreTrainedTokenizerFast(tokenizer_object=dropping), "abc ac") == ["c"]


def test_a_loaded_model_has_the_limit_of_its_config(folders):
    assert position_limit(AutoModelForCausalLM.from_pretrained(folders / "learned")) == LIMIT
