"""The command line and YAML files take every field, refuse what they do not know, and say what was meant."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, TrainingArguments, get_scheduler

from weft import WeftConfig, WeftForCausalLM
from weft.recipes.common.command_line import MANAGED_MODEL_FIELDS, MANAGED_TRAINER_FIELDS, parse_arguments, parse_count
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.arguments import DataArguments
from weft.recipes.pretraining.arguments import RunArguments
from weft.recipes.pretraining.plan import Plan, make_plan
from weft.recipes.training.learning_rate_schedule import schedule_fields
from weft.recipes.training.model_setup import PRESETS, VOCABULARY_UNIT, ModelArguments, make_config, make_model
from weft.tokenizer.train import train_tokenizer

GROUPS = [RunArguments, DataArguments, ModelArguments]
CAUSAL = {"is_causal": True}


def parse(*words):
    return parse_arguments("What it does.", GROUPS, with_model=True, with_trainer=True, argv=list(map(str, words)))


def parse_yaml(tmp_path, text, *words):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return parse(path, *words)


def refusal(call, *arguments, **options):
    with pytest.raises(RecipeError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_given_is_every_default():
    parsed = parse()
    assert parsed.groups == [RunArguments(), DataArguments(), ModelArguments()]
    assert parsed.model == {} and parsed.trainer == {}


def test_values_get_the_type_of_their_field():
    run, data, model = parse(
        *("--max_steps", 7, "--learning_rate", "1e-4", "--plan", "--hub_private_repo", "false"),
        *("--tokens_per_step", 512, "--train_files", "a.txt", "b.txt"),
        *("--preset", "mini"),
    ).groups  # fmt: skip
    assert (run.max_steps, run.learning_rate, run.plan, run.hub_private_repo) == (7, 1e-4, True, False)
    assert run.tokens_per_step == "512"
    assert data.train_files == ["a.txt", "b.txt"]
    assert model.preset == "mini"


@pytest.mark.parametrize(
    "word, near",
    [("learning_rat", "learning_rate"), ("hidden_sise", "hidden_size"), ("train_file", "train_files"),
     ("presett", "preset"), ("max_grad_nrom", "max_grad_norm"), ("tokens-per-stp", "tokens_per_step")],
)  # fmt: skip
def test_a_misspelt_field_suggests_the_near_one(tmp_path, word, near):
    for given in ([f"--{word}", "1"], [f"--{word}=1"]):
        assert f"did you mean {near}?" in refusal(parse, *given)
    message = refusal(parse_yaml, tmp_path, f"seed: 1\n{word.replace('-', '_')}: 1\n")
    assert "run.yaml: unknown field" in message and f"did you mean {near}?" in message


def test_abbreviations_and_stray_words_are_refused(tmp_path):
    assert "--learn" in refusal(parse, "--learn", "1")
    assert "--qwertyuiop" in refusal(parse, "--qwertyuiop", "1")
    assert "'stray' belongs to no field" in refusal(parse_yaml, tmp_path, "seed: 1\n", "stray")


@pytest.mark.parametrize(
    "words", [("--max_steps", "many"), ("--max_steps", "1.5"), ("--learning_rate", "fast"), ("--plan", "perhaps"),
              ("--hidden_size", "wide"), ("--rope_parameters", "{broken"), ("--rope_parameters", "[1]"), ("--seed",)]
)  # fmt: skip
def test_a_value_of_the_wrong_type_names_its_field(words):
    message = refusal(parse, *words)
    assert words[0] in message
    assert "_json_object" not in message


def test_yaml_values_get_the_type_of_their_field(tmp_path):
    parsed = parse_yaml(
        tmp_path,
        "seed: 5\nlearning_rate: 3e-4\nwarmup_steps: 1.0e-1\ntokens: 2e6\nplan: true\nhub_private_repo: no\n"
        "max_steps: null\ntrain_files: [a.txt, with blank.txt]\nvalidation_files: []\ndata: '-dash'\n"
        "sample_prompt: '--seed'\nnorm_eps: 1e-5\nqk_norm: false\n"
        "rope_parameters: {rope_type: linear, factor: 2.0, rope_theta: 1e4}\n"
        "layer_types:\n  - full_attention\n  - sliding_attention\nbf16: true\nmax_grad_norm: 5e-1\n",
    )
    run, data, _ = parsed.groups
    assert (run.seed, run.learning_rate, run.warmup_steps, run.tokens) == (5, 3e-4, 0.1, "2e6")
    assert (run.plan, run.hub_private_repo, run.max_steps) == (True, False, None)
    assert (run.data, run.sample_prompt) == ("-dash", "--seed")
    assert (data.train_files, data.validation_files) == (["a.txt", "with blank.txt"], [])
    assert parsed.model == {
        "norm_eps": 1e-5,
        "qk_norm": False,
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": "1e4"},
        "layer_types": ["full_attention", "sliding_attention"],
    }
    assert parsed.trainer == {"bf16": True, "max_grad_norm": 0.5}


def test_the_command_line_wins_over_the_file(tmp_path):
    text = "seed: 5\nplan: true\nmax_steps: 3\nhidden_size: 64\nmax_grad_norm: 2.0\ntrain_files: [a.txt, b.txt]\n"
    words = ["--seed", 6, "--plan", "false", "--hidden_size", 32, "--max_grad_norm", 1, "--train_files", "c.txt"]
    parsed = parse_yaml(tmp_path, text, *words)
    assert (parsed.groups[0].seed, parsed.groups[0].plan, parsed.groups[0].max_steps) == (6, False, 3)
    assert parsed.groups[1].train_files == ["c.txt"]
    assert (parsed.model, parsed.trainer) == ({"hidden_size": 32}, {"max_grad_norm": 1.0})


@pytest.mark.parametrize("text", ["train_files: [a.txt, b.txt]\n", "seed: 1\nlayer_types: [full_attention]\n"])
def test_a_file_that_ends_with_a_list_keeps_it(tmp_path, text):
    parsed = parse_yaml(tmp_path, text)
    assert parsed.groups[1].train_files in (["a.txt", "b.txt"], [])
    assert parsed.model in ({"layer_types": ["full_attention"]}, {})


@pytest.mark.parametrize(
    "text, expected",
    [("seed: [1\n", "is not YAML"), ("- seed\n", "holds a list"), ("seed\n", "holds a str"), ("", "holds a NoneType")],
)
def test_a_file_that_is_no_table_of_fields_is_named(tmp_path, text, expected):
    assert f"run.yaml {expected}" in refusal(parse_yaml, tmp_path, text)


def test_a_length_on_the_command_line_replaces_the_one_in_the_file(tmp_path):
    (tmp_path / "run.yaml").write_text("tokens: 5M\nseed: 3\n")
    words = [str(tmp_path / "run.yaml"), "--max_steps", "7"]
    parsed = parse_arguments(None, GROUPS, argv=words, alternatives=("tokens", "num_train_epochs", "max_steps"))
    assert (parsed.groups[0].tokens, parsed.groups[0].max_steps, parsed.groups[0].seed) == (None, 7, 3)
    assert parsed.given == {"max_steps", "seed"}
    parsed = parse_arguments(None, GROUPS, argv=words[:1], alternatives=("tokens", "num_train_epochs", "max_steps"))
    assert (parsed.groups[0].tokens, parsed.groups[0].max_steps) == ("5M", None)


def test_a_missing_file_and_one_that_is_not_utf8_are_named(tmp_path):
    assert "no.yaml is missing" in refusal(parse, tmp_path / "no.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"sample_prompt: caf\xe9\n")
    assert "latin.yaml is not YAML" in refusal(parse, tmp_path / "latin.yaml")


@pytest.mark.parametrize("name", MANAGED_TRAINER_FIELDS)
def test_a_field_that_the_recipes_derive_is_refused_with_its_reason(tmp_path, name):
    message = refusal(parse, f"--{name}", "1")
    assert message == f"--{name} cannot be given: {MANAGED_TRAINER_FIELDS[name]}."
    assert refusal(parse_yaml, tmp_path, f"{name}: 1\n") == message


def test_the_fields_that_are_derived_exist_in_transformers():
    assert set(MANAGED_TRAINER_FIELDS) <= {field.name for field in dataclasses.fields(TrainingArguments)}


def test_fields_of_the_trainer_pass_through_only_when_given():
    words = ["--gradient_checkpointing", "--dataloader_num_workers", 3, "--optim", "adafactor", "--max_grad_norm", 1.0]
    assert parse(*words).trainer == {
        "gradient_checkpointing": True,
        "dataloader_num_workers": 3,
        "optim": "adafactor",
        "max_grad_norm": 1.0,  # although it is the default
    }


def test_fields_of_the_model_have_their_types():
    words = [
        *("--hidden_size", 64, "--norm_eps", "1e-5", "--attention_dropout", 0.1, "--qk_norm", "false", "--head_dim", 8),
        *("--hidden_act", "relu", "--layer_types", "full_attention", "sliding_attention", "--sliding_window", 9),
        *("--rope_parameters", json.dumps({"rope_type": "default", "rope_theta": 500.0})),
    ]  # fmt: skip
    fields = parse(*words).model
    assert fields == {
        "hidden_size": 64,
        "norm_eps": 1e-5,
        "attention_dropout": 0.1,
        "qk_norm": False,
        "head_dim": 8,
        "hidden_act": "relu",
        "layer_types": ["full_attention", "sliding_attention"],
        "sliding_window": 9,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    }
    config = WeftConfig(**fields, num_hidden_layers=2)
    assert all(getattr(config, name) == value for name, value in fields.items())


def test_every_field_has_a_text(capsys):
    with pytest.raises(SystemExit) as ended:
        parse("--help_all")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "What it does." in text
    blocks = {block.split()[0].strip(","): " ".join(block.split()) for block in text.split("\n  --")[1:]}
    names = {field.name for group in GROUPS for field in dataclasses.fields(group)}
    names |= set(WeftConfig.__annotations__) - set(MANAGED_MODEL_FIELDS)
    for name in sorted(names):
        block = blocks[name]
        words_of_help = [word for word in block.split() if word.islower() and not word.startswith(("-", "["))]
        assert len(words_of_help) >= 2, f"{name} has no help: {block}"
    assert "max_grad_norm" in blocks
    for name in set(MANAGED_TRAINER_FIELDS) - names:
        assert name not in blocks


@pytest.mark.parametrize(
    "text, number",
    [("2000000", 2_000_000), (4096, 4096), ("2_000_000", 2_000_000), ("2,000", 2000), ("2e6", 2_000_000), ("1", 1),
     ("1e+9", 10**9), ("2M", 2_000_000), ("1.5B", 1_500_000_000), ("500k", 500_000), ("0.5m", 500_000),
     ("1T", 10**12), (" 3K ", 3000), ("2.0", 2), ("1.1k", 1100)],
)  # fmt: skip
def test_a_number_of_tokens_can_be_written_as_people_do(text, number):
    assert parse_count(text) == number


@pytest.mark.parametrize("text", ["", "0", "-5", "many", "1.2.3", "5 x", "M", "1e", "nan", "inf", "0.1", "1e-3"])
def test_what_is_no_number_of_tokens_is_refused(text):
    assert refusal(parse_count, text).startswith(f"{text!r} is not a number of tokens")


def plan_of(rows_per_epoch=100, processes=1, **changes):
    fields = {"sequence_length": 64, "tokens_per_step": "2048", **changes}
    return make_plan(RunArguments(**fields), rows_per_epoch, processes)


@pytest.mark.parametrize(
    "processes, micro_batch, accumulation", [(1, 8, 4), (2, 8, 2), (4, 8, 1), (2, 1, 16), (1, 32, 1)]
)
def test_accumulation_is_derived_so_that_a_step_keeps_its_tokens(processes, micro_batch, accumulation):
    plan = plan_of(processes=processes, per_device_train_batch_size=micro_batch)
    assert (plan.rows_per_step, plan.accumulation, plan.tokens_per_step) == (32, accumulation, 2048)
    assert processes * plan.micro_batch * plan.accumulation == plan.rows_per_step


@pytest.mark.parametrize("tokens_per_step, length, processes", [("6400", 64, 1), ("1M", 125, 8), ("7000", 1000, 7)])
def test_the_default_micro_batch_divides_a_step(tokens_per_step, length, processes):
    plan = plan_of(processes=processes, tokens_per_step=tokens_per_step, sequence_length=length)
    assert processes * plan.micro_batch * plan.accumulation * length == parse_count(tokens_per_step)


def test_a_step_that_does_not_divide_suggests_numbers_that_do():
    message = refusal(plan_of, processes=3, tokens_per_step="1000")
    assert "64 x 3" in message and "give 960 or 1152." in message
    for number in (960, 1152):
        assert plan_of(processes=3, tokens_per_step=str(number)).tokens_per_step == number
    assert "give 64." in refusal(plan_of, tokens_per_step="10")
    assert "give 2048 or 2304." in refusal(plan_of, tokens_per_step="2112", processes=4)


def test_a_micro_batch_that_does_not_divide_suggests_numbers_that_do():
    message = refusal(plan_of, per_device_train_batch_size=5, processes=2)
    assert "does not divide the 16 rows" in message and "give one of 1, 2, 4, 8, 16," in message


def test_the_length_is_given_in_tokens_epochs_or_steps():
    assert plan_of(max_steps=7).max_steps == 7
    assert plan_of(tokens="1M").max_steps == -(-1_000_000 // 2048)
    assert plan_of(tokens="2048").max_steps == 1
    assert plan_of(tokens="2049").max_steps == 2
    assert plan_of(num_train_epochs=3.0, rows_per_epoch=320).max_steps == 30
    assert plan_of(num_train_epochs=0.5, rows_per_epoch=320).max_steps == 5
    assert plan_of(rows_per_epoch=321).max_steps == 21
    assert plan_of(rows_per_epoch=1).max_steps == 1
    plan = plan_of(max_steps=20, rows_per_epoch=320)
    assert (plan.epochs, plan.total_tokens) == (2.0, 20 * 2048)


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"tokens": "1M", "max_steps": 5}, "given by tokens and max_steps"),
        ({"num_train_epochs": 1.0, "max_steps": 5}, "given by num_train_epochs and max_steps"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"max_steps": -1}, "max_steps is -1"),
        ({"num_train_epochs": 0.0}, "num_train_epochs is 0.0"),
        ({"sequence_length": 0}, "sequence_length is 0"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size is 0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"warmup_steps": -1.0}, "warmup_steps is -1.0"),
        ({"decay_steps": -0.5}, "decay_steps is -0.5"),
        ({"lr_scheduler_type": "polynomial"}, "choose one of warmup_stable_decay, cosine, linear, constant"),
        ({"decay_type": "steep"}, "decay_type is 'steep': choose one of linear, cosine, 1-sqrt"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd': choose one of adamw, muon"),
        ({"min_lr_ratio": 1.5}, "min_lr_ratio is 1.5"),
        ({"min_lr_ratio": 0.1, "lr_scheduler_type": "linear"}, "min_lr_ratio has no effect"),
        ({"tokens_per_step": "lots"}, "'lots' is not a number of tokens"),
        ({"tokens": "lots"}, "'lots' is not a number of tokens"),
    ],
)  # fmt: skip
def test_a_run_that_contradicts_itself_is_refused(changes, expected):
    assert expected in refusal(plan_of, **changes)


def test_a_plan_is_in_numbers_that_fit():
    plan = Plan(64, rows_per_step=32, rows_per_epoch=320, micro_batch=8, accumulation=4, processes=1, max_steps=5)
    assert (plan.tokens_per_step, plan.total_tokens, plan.epochs) == (2048, 10240, 0.5)


def rates(max_steps, **changes):
    """The learning rate of each step, from transformers' own schedule with the derived fields."""
    fields = schedule_fields(RunArguments(learning_rate=2.0, **changes), max_steps)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=fields["learning_rate"])
    scheduler = get_scheduler(
        fields["lr_scheduler_type"],
        optimizer,
        num_warmup_steps=fields["warmup_steps"],
        num_training_steps=max_steps,
        scheduler_specific_kwargs=fields.get("lr_scheduler_kwargs"),
    )
    values = []
    for _ in range(max_steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    TrainingArguments(output_dir="unused", report_to=[], **fields)  # it knows these names
    return values


def test_a_warmup_longer_than_the_run_is_refused():
    assert "warmup_steps=11 is longer than the whole run of 10 steps" in refusal(
        schedule_fields, RunArguments(warmup_steps=11), 10
    )


def test_warmup_stable_decay_rises_stays_and_falls():
    expected = [0.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.5, 1.0, 0.5]
    assert rates(10, warmup_steps=2, decay_steps=4) == pytest.approx(expected)
    assert rates(10, warmup_steps=0.2, decay_steps=0.4) == pytest.approx(expected)
    rooted = [*expected[:6], *(2 * (1 - (step / 4) ** 0.5) for step in range(4))]
    assert rates(10, warmup_steps=2, decay_steps=4, decay_type="1-sqrt") == pytest.approx(rooted)
    lowest = [1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0, 1.75, 1.5, 1.25]  # from half of it and to half of it
    assert rates(10, warmup_steps=2, decay_steps=4, min_lr_ratio=0.5) == pytest.approx(lowest)


def test_a_decay_longer_than_the_run_begins_after_the_warmup():
    assert rates(5, warmup_steps=1, decay_steps=100) == pytest.approx([0.0, 2.0, 1.5, 1.0, 0.5])


def test_the_other_schedules():
    assert rates(6, lr_scheduler_type="constant", warmup_steps=2) == pytest.approx([0.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    assert rates(6, lr_scheduler_type="linear", warmup_steps=2) == pytest.approx([0.0, 1.0, 2.0, 1.5, 1.0, 0.5])
    half = 2**0.5 / 2
    cosine = [2.0, 1 + half, 1.0, 1 - half]
    assert rates(4, lr_scheduler_type="cosine", warmup_steps=0) == pytest.approx(cosine)
    raised = [0.5 * 2.0 + 0.5 * value for value in cosine]
    assert rates(4, lr_scheduler_type="cosine", warmup_steps=0, min_lr_ratio=0.5) == pytest.approx(raised)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(iter(["some text to learn from"]), "char", 40)


def test_the_model_gets_its_shape_from_the_preset_and_its_ids_from_the_tokenizer(tokenizer):
    for name, shape in PRESETS.items():
        config = make_config(ModelArguments(preset=name), {"norm_eps": 1e-4}, tokenizer, 96, CAUSAL)
        assert {field: getattr(config, field) for field in shape} == shape
        assert (config.vocab_size, config.norm_eps, config.max_position_embeddings) == (VOCABULARY_UNIT, 1e-4, 96)
        assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 2)
    config = make_config(
        ModelArguments(), {"max_position_embeddings": 500, "hidden_size": 64}, tokenizer, 96, {"is_causal": False}
    )
    assert (config.max_position_embeddings, config.hidden_size, config.is_causal) == (500, 64, False)


def test_the_shape_can_come_from_a_config(tmp_path, tokenizer):
    WeftConfig(hidden_size=48, num_attention_heads=4, num_hidden_layers=3, norm_eps=1e-3).save_pretrained(tmp_path)
    for name in (tmp_path, tmp_path / "config.json"):
        arguments = ModelArguments(config_name=str(name))
        arguments.check({})
        config = make_config(
            arguments, {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}, tokenizer, 96, CAUSAL
        )
        assert (config.hidden_size, config.num_hidden_layers, config.norm_eps) == (48, 2, 1e-3)
        assert config.vocab_size == VOCABULARY_UNIT > len(tokenizer)


def test_models_that_contradict_themselves_are_refused(tmp_path):
    assert "choose one of tiny, mini" in refusal(ModelArguments(preset="huge").check, {})
    both = ModelArguments(config_name="a", model_name_or_path="b")
    assert "both config_name and model_name_or_path" in refusal(both.check, {})
    message = refusal(ModelArguments(model_name_or_path="b").check, {"hidden_size": 8, "hidden_dropout": 0.1})
    assert message.startswith("hidden_size cannot be changed on b")
    ModelArguments(model_name_or_path="b").check({"hidden_dropout": 0.1, "rope_parameters": {}})
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "torn.json").write_text('{"hidden_size": ')
    (tmp_path / "bert.json").write_text('{"model_type": "bert", "hidden_size": 8}')
    for name in ("list.json", "torn.json", "bert.json", "missing.json", "."):
        assert name in refusal(ModelArguments(config_name=str(tmp_path) + "/" + name).check, {})


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"hidden_size": 33}, "hidden_size=33"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3"),
        ({"attention_dropout": 2.0}, "attention_dropout=2.0"),
        ({"hidden_act": "nonsense"}, "'nonsense'"),
        ({"rope_parameters": {"rope_type": "nonsense"}}, "'nonsense'"),
        ({"rope_parameters": {"rope_type": "linear"}}, "factor"),
        ({"layer_types": ["nonsense"]}, "nonsense"),
        ({"hidden_size": "wide"}, "hidden_size"),
    ],
)
def test_a_shape_that_is_not_possible_is_refused_in_a_sentence(tokenizer, fields, expected):
    message = refusal(make_config, ModelArguments(), fields, tokenizer, 64, CAUSAL)
    assert message.startswith("no such model: ") and expected in message


def test_an_existing_model_must_load_and_have_room_for_the_vocabulary(tmp_path, tokenizer):
    missing = ModelArguments(model_name_or_path=str(tmp_path / "missing"))
    assert "missing' cannot be loaded" in refusal(make_config, missing, {}, tokenizer, 64, CAUSAL)
    existing = ModelArguments(model_name_or_path=str(tmp_path))
    WeftConfig(vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    save_file({"weights": torch.zeros(1)}, tmp_path / "model.safetensors")
    train_tokenizer(iter(["another text"]), "char", 50).save_pretrained(tmp_path)
    message = refusal(make_config, existing, {}, tokenizer, 64, CAUSAL)
    assert "different tokenizers" in message and f"--tokenizer_name {tmp_path}" in message
    tokenizer.save_pretrained(tmp_path)
    WeftConfig(vocab_size=len(tokenizer) - 1).save_pretrained(tmp_path)
    assert f"{len(tokenizer) - 1} token ids" in refusal(make_config, existing, {}, tokenizer, 64, CAUSAL)
    LlamaConfig(vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    assert "only Weft models" in refusal(make_config, existing, {}, tokenizer, 64, CAUSAL)
    WeftConfig(vocab_size=len(tokenizer) + 5).save_pretrained(tmp_path)
    assert make_config(existing, {"hidden_dropout": 0.25}, tokenizer, 64, CAUSAL).hidden_dropout == 0.25
    config = make_config(existing, {}, tokenizer, 64, CAUSAL)  # it has none of its weights
    assert "lacks lm_head.weight" in refusal(make_model, existing, config, WeftForCausalLM)


def test_an_unknown_attention_backend_is_refused(tokenizer):
    arguments = ModelArguments(attn_implementation="nonsense")
    config = make_config(arguments, {}, tokenizer, 64, CAUSAL)
    assert "nonsense" in refusal(make_model, arguments, config, WeftForCausalLM)
