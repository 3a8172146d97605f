"""Replaced-token detection against its definition: draws, labels, losses and gradients, embeddings, scores."""

import copy

import numpy as np
import pytest
import torch
from helpers.chi_square import assert_fits
from helpers.evaluation import StandInTrainer, evaluate_on
from helpers.masks import VOCABULARY, random_text, write_marked
from helpers.models import FULL, SLIDING, tiny_config
from helpers.replaced import SHARING, judge_by_hand, make_pair
from safetensors.torch import load_file

from weft import WeftForTokenClassification, WeftModel
from weft.losses import IGNORE_INDEX
from weft.recipes.pretraining.datasets.counter_rng import make_key, uniform
from weft.recipes.pretraining.datasets.masked import MaskedRows
from weft.recipes.pretraining.datasets.masking import DRAWN_TOKEN, Masker, MaskingArguments
from weft.recipes.pretraining.datasets.packed import TrainingRows, ValidationRows
from weft.recipes.pretraining.datasets.replaced_tokens import (
    ReplacedTokenCollator,
    ReplacedTokenRows,
    ReplacedTokenValidationRows,
)
from weft.recipes.pretraining.objectives.replaced_tokens import (
    ReplacedTokenArguments,
    ReplacedTokenEvaluator,
    ReplacedTokenObjective,
)
from weft.recipes.pretraining.replaced_tokens import generator_config, sample_tokens
from weft.recipes.training.batch_schedule import Steps
from weft.recipes.training.model_setup import count_parameters

ROW, SEED, RATE = 24, 3, 0.3
OF_GENERATOR = ("input_ids", "position_ids", "predict_from", "labels")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    lengths = np.random.default_rng(0).integers(1, 40, 40)
    folder = tmp_path_factory.mktemp("replaced") / "ids"
    return write_marked(folder, *random_text(lengths), held_out=lambda i: i % 4 == 3)


def make_rows(corpus, seed=SEED, kind=ReplacedTokenRows, number=120):
    masker = Masker(corpus, MaskingArguments(mask_rate=RATE), VOCABULARY, seed)
    return kind(TrainingRows(corpus, ROW, number, seed=1, overlap=0), masker, Steps(4, number // 4))


def make_batch(corpus, number=6, target_share=None):
    rows = make_rows(corpus)
    return ReplacedTokenCollator(target_share)([rows[index] for index in range(number)])


def test_rows_are_masked_ones_with_the_text_and_a_number_for_each_of_its_tokens(corpus):
    rows, masked = make_rows(corpus), make_rows(corpus, kind=MaskedRows)
    assert rows.rows.rows_per_epoch < 60  # two passes
    for index in range(0, 120, 3):
        row, spans = rows[index], rows.rows.spans(index)
        for name, value in masked[index].items():
            assert np.array_equal(row[name], value)
        tokens = [(span, place, int(token)) for span in spans for place, token in enumerate(span.tokens, span.first)]
        assert row["original_ids"].tolist() == [token for *_, token in tokens]
        assert row["is_text"].tolist() == [token not in VOCABULARY.special for *_, token in tokens]
        for draw, (span, place, _) in zip(row["draws"], tokens, strict=True):
            expected = float(uniform(make_key(SEED, span.pass_number, span.document), place, DRAWN_TOKEN))
            assert draw.dtype == np.float32 and 0 <= draw < 1 and 0 <= expected - float(draw) < 2**-24


def test_rows_depend_on_their_number_and_the_seed_only(corpus):
    """Whatever was read before: any number of processes, workers and rows of a micro-batch."""
    expected, rows = [make_rows(corpus)[index] for index in range(80)], make_rows(corpus)
    for index in (i * 7 % 80 for i in range(80)):
        for name, value in expected[index].items():
            assert np.array_equal(rows[index][name], value)
    other = make_rows(corpus, seed=SEED + 1)[0]
    assert np.array_equal(other["original_ids"], expected[0]["original_ids"])
    assert not (other["draws"] == expected[0]["draws"]).any()


def test_a_token_has_another_number_in_another_pass_and_none_of_its_mask(corpus):
    rows, found = make_rows(corpus), {}
    for index in range(120):
        row = rows[index]
        places = [(span.document, span.first + i) for span in rows.rows.spans(index) for i in range(len(span.tokens))]
        for place, draw in zip(places, row["draws"].tolist(), strict=True):
            found.setdefault(place, set()).add(draw)
    assert max(map(len, found.values())) > 1
    key = make_key(SEED, 0, 5)
    streams = np.array([uniform(key, np.arange(4000), stream) for stream in range(DRAWN_TOKEN + 1)])
    assert np.abs(np.corrcoef(streams) - np.eye(len(streams))).max() < 5 / 4000**0.5


def test_held_out_rows_are_the_same_in_every_run_and_padding_is_no_text(corpus):
    first, again = (make_evaluator(corpus).rows for _ in range(2))
    for index in range(len(first) + 2):
        row = first[index]
        for name, value in row.items():
            assert np.array_equal(again[index][name], value)
        length = sum(len(span.tokens) for span in first.rows.spans(index))
        assert not row["is_text"][length:].any() and not row["draws"][length:].any()
        assert {len(row[name]) for name in ("input_ids", "original_ids", "is_text", "draws")} == {ROW}
    assert not first[len(first) + 1]["is_text"].any()


# The generator's tokens.


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_numbers_spread_evenly_draw_each_token_as_often_as_it_is_probable(dtype):
    logits = torch.tensor([1.5, -float("inf"), 0.0, -2.0, 1.0, -float("inf")], dtype=dtype)
    number = 10_000
    draws = (torch.arange(number, dtype=torch.float64) + 0.5) / number
    drawn = sample_tokens(logits.expand(number, -1), draws)
    counts = torch.bincount(drawn, minlength=len(logits))
    assert (counts - number * logits.double().softmax(-1)).abs().max() < 1.1
    assert counts[[1, 5]].tolist() == [0, 0] and (drawn.diff() >= 0).all()


def test_the_least_and_the_largest_number_draw_tokens_that_are_possible():
    logits = torch.randn(2000, 1000, generator=torch.Generator().manual_seed(0)) * 4
    logits[:, :3] = logits[:, -3:] = -float("inf")
    for draw, token in ((0.0, 3), (1 - 2**-24, 996)):
        drawn = sample_tokens(logits, torch.full((2000,), draw))
        assert logits.gather(1, drawn[:, None]).isfinite().all()
        assert draw or (drawn == token).all()
    assert sample_tokens(logits[:0], torch.zeros(0)).shape == (0,)


def test_the_numbers_of_rows_draw_by_the_generators_distribution(corpus):
    """Over seeds: every token of a small vocabulary as often as it is probable, at one place of the text."""
    logits = torch.tensor([0.5, -1.0, 1.2, 0.0, -0.3])
    draws = torch.tensor([float(make_rows(corpus, seed=seed)[5]["draws"][7]) for seed in range(3000)])
    counts = torch.bincount(sample_tokens(logits.expand(3000, -1), draws), minlength=5)
    assert_fits(counts.numpy(), logits.double().softmax(-1).numpy())


# The losses.


@pytest.mark.parametrize("sharing", SHARING)
def test_the_loss_and_its_gradients_are_those_of_the_formula(corpus, sharing):
    pair = make_pair(sharing)
    other, batch, rows = copy.deepcopy(pair), make_batch(corpus), make_rows(corpus)
    outputs = pair(**batch)
    outputs.loss.backward()
    judged = [judge_by_hand(other, rows[index]) for index in range(6)]
    of_generator, of_discriminator = (
        torch.stack([nats for each in judged for nats in getattr(each, name)]) for name in ("target_nats", "nats")
    )
    expected = of_generator.mean() + 50 * of_discriminator.mean()
    expected.backward()
    torch.testing.assert_close(outputs.loss, expected, rtol=1e-9, atol=1e-9)
    for (name, weight), same in zip(pair.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, same.grad, rtol=1e-7, atol=1e-9, msg=name)
    assert outputs.read_ids.tolist() == [each.read_ids for each in judged]
    found = outputs.is_replaced[batch["is_text"]]
    assert found.tolist() == [replaced for each in judged for replaced in each.is_replaced]
    assert (outputs.is_replaced[~batch["is_text"]] == IGNORE_INDEX).all() and (~batch["is_text"]).any()
    assert 0 < found.double().mean() < 1
    parts = ReplacedTokenObjective(MaskingArguments(), ReplacedTokenArguments()).loss_parts(batch, outputs)
    for name, nats in (("generator", of_generator), ("discriminator", of_discriminator)):
        values, is_target = parts[name]
        torch.testing.assert_close(values[is_target], nats.detach(), rtol=1e-9, atol=1e-9)
        assert not values.requires_grad and not values[~is_target].any()


def test_what_a_step_divides_by_is_counted_over_all_of_it(corpus):
    """Micro-batches add up to the loss of the whole."""
    pair, objective = make_pair(), ReplacedTokenObjective(MaskingArguments(), ReplacedTokenArguments())
    rows, whole = make_rows(corpus), make_batch(corpus)
    parts = [ReplacedTokenCollator()([rows[index] for index in places]) for places in ((0,), (1, 2), (3, 4, 5))]
    counted = [objective.loss_divisors(part) for part in parts]
    divisors = {name: sum(each[name] for each in counted) for name in counted[0]}
    assert divisors == objective.loss_divisors(whole)
    assert divisors == {
        "num_items_in_batch": (whole["labels"] != IGNORE_INDEX).sum(),
        "num_tokens_in_batch": whole["is_text"].sum(),
    }
    total = sum(pair(**part, **divisors).loss for part in parts)
    torch.testing.assert_close(total, pair(**whole).loss, rtol=1e-10, atol=1e-10)


def test_a_token_that_is_drawn_as_it_was_is_the_texts_own(corpus):
    pair, batch = make_pair(), make_batch(corpus)
    logits = pair.generator(**{name: batch[name] for name in OF_GENERATOR}).logits
    below = logits.softmax(-1).cumsum(-1).gather(1, batch["labels"][:, None])[:, 0]
    share = logits.softmax(-1).gather(1, batch["labels"][:, None])[:, 0]
    batch["draws"] = below - share / 2  # the middle of what draws the token itself
    outputs = pair(**batch)
    assert torch.equal(outputs.read_ids, batch["original_ids"])
    assert not outputs.is_replaced[batch["is_text"]].any()


@pytest.mark.parametrize("target_share", [0.1, 0.9])
def test_a_fixed_number_of_targets_leaves_all_other_tokens_as_they_are(corpus, target_share):
    """Too many are thinned out, and their places read as the text; places that fill up too few write nothing."""
    pair, batch, rows = make_pair(), make_batch(corpus, target_share=target_share), make_rows(corpus)
    is_target = batch["labels"] != IGNORE_INDEX
    found = sum((rows[index]["targets"] != IGNORE_INDEX).sum() for index in range(6))
    assert len(is_target) == round(target_share * 6 * ROW)
    assert int(is_target.sum()) == min(found, len(is_target)) and found not in (0, len(is_target))
    outputs = pair(**batch)
    expected = batch["original_ids"].flatten().clone()
    logits = pair.generator(**{name: batch[name] for name in OF_GENERATOR}).logits
    drawn = sample_tokens(logits, batch["draws"])
    expected[batch["predict_from"][is_target]] = drawn[is_target]
    assert torch.equal(outputs.read_ids.flatten(), expected)
    for place, draw in zip(batch["predict_from"][is_target].tolist(), batch["draws"][is_target].tolist()):
        assert draw == rows[place // ROW]["draws"][place % ROW]


# The two models.


@pytest.mark.parametrize("sharing", SHARING)
def test_the_discriminators_loss_moves_the_generator_only_where_embeddings_are_shared(corpus, sharing):
    pair, batch = make_pair(sharing), make_batch(corpus)
    alone = copy.deepcopy(pair.generator)
    pair(**batch).loss.backward()
    alone(**{name: batch[name] for name in OF_GENERATOR}).loss.backward()
    both = zip(pair.generator.named_parameters(), alone.parameters(), strict=True)
    moved = {name for (name, weight), other in both if not torch.allclose(weight.grad, other.grad, rtol=1e-9)}
    assert moved == ({"model.embed_tokens.weight"} if sharing == "shared" else set())
    assert pair.discriminator.get_input_embeddings().weight.grad.abs().sum() > 0
    assert all(weight.grad is not None for weight in pair.parameters())


def test_a_disentangled_discriminator_begins_with_the_generators_embeddings():
    config = tiny_config(is_causal=False)
    pair = ReplacedTokenObjective(MaskingArguments(), ReplacedTokenArguments()).trained(
        WeftForTokenClassification(config)
    )
    ids = torch.arange(config.vocab_size)[None]
    assert not pair.discriminator.get_input_embeddings().weight.any()
    assert torch.equal(pair.embed(ids)[0], pair.generator.get_input_embeddings().weight)


@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("changes", [{}, {"embedding_scale": 3.0, "tie_word_embeddings": False}], ids=str)
def test_what_is_saved_is_a_plain_model_that_says_the_same(corpus, tmp_path, sharing, changes):
    pair, batch = make_pair(sharing, **changes).float(), make_batch(corpus)
    before = {name: weight.clone() for name, weight in pair.state_dict().items()}
    pair.save_pretrained(tmp_path)
    assert all(torch.equal(before[name], weight) for name, weight in pair.state_dict().items())
    plain, info = WeftForTokenClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    outputs = pair(**batch)
    logits = plain.eval()(outputs.read_ids, position_ids=batch["position_ids"]).logits
    if changes:
        torch.testing.assert_close(logits, outputs.logits, rtol=1e-4, atol=1e-5)
    else:
        assert torch.equal(logits, outputs.logits)
    assert not [name for name in load_file(tmp_path / "model.safetensors") if "generator" in name]
    assert plain.config.architectures == ["WeftForTokenClassification"]
    WeftModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("sharing", SHARING)
def test_what_is_saved_and_what_only_training_needs_are_all_weights(tmp_path, sharing):
    pair = make_pair(sharing).float()
    pair.save_pretrained(tmp_path)
    other = make_pair(sharing).float()
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    other.discriminator.load_state_dict(load_file(tmp_path / "model.safetensors"))
    for name, weight in other.training_only().items():
        weight.detach().copy_(pair.training_only()[name])
    for (name, weight), same in zip(pair.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(weight, same), name


def test_the_generator_has_the_first_layers_of_the_models_shape():
    changes = {"layer_types": [FULL, SLIDING, FULL, SLIDING], "sliding_window": 5, "layers_without_positions": [0, 3]}
    config = tiny_config(num_hidden_layers=4, is_causal=False, **changes)
    for depth, layers in ((0.5, 2), (0.01, 1), (1.0, 4), (0.75, 3)):
        made = generator_config(config, depth)
        assert (made.num_hidden_layers, made.layer_types) == (layers, changes["layer_types"][:layers])
        assert made.layers_without_positions == [layer for layer in (0, 3) if layer < layers]
        assert made.hidden_size == config.hidden_size
    assert config.num_hidden_layers == 4
    pair = make_pair(depth=0.25, num_hidden_layers=4)
    assert (len(pair.generator.model.layers), len(pair.discriminator.model.layers)) == (1, 4)


def test_the_operations_of_both_models_are_counted(corpus):
    """Every matrix that a token is multiplied with in either model, the head for masked tokens only, and the scores."""
    masking, config = MaskingArguments(mask_rate=RATE), tiny_config(num_hidden_layers=4, is_causal=False)
    objective = ReplacedTokenObjective(masking, ReplacedTokenArguments())
    pair = objective.trained(WeftForTokenClassification(config))
    matrices = sum(
        module.weight.numel()
        for name, module in pair.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "generator.lm_head"
    )
    head = pair.generator.lm_head.weight.numel()
    small = sum(weight.numel() for name, weight in pair.named_parameters() if weight.ndim < 2)  # counted, being little
    scores = 12 * config.num_attention_heads * config.head_dim * ROW * (4 + 2)
    parameters = count_parameters(config, WeftForTokenClassification)
    assert parameters.total == sum(weight.numel() for weight in pair.discriminator.parameters())
    assert objective.head_shares(np.arange(3), 3).tolist() == [RATE] * 3
    found = objective.flops_per_token(config, parameters, ROW, RATE)
    assert found == pytest.approx(6 * (matrices + small + RATE * head) + scores, rel=1e-12)


# The held-out text.


def make_evaluator(corpus, seed=0):
    masker = Masker(corpus, MaskingArguments(mask_rate=RATE), VOCABULARY, seed)
    rows = ReplacedTokenValidationRows(ValidationRows(corpus, ROW, overlap=0), masker, RATE)
    return ReplacedTokenEvaluator(rows, 50.0)


@torch.no_grad()
def scores_by_hand(evaluator, pair):
    judged = [judge_by_hand(pair, evaluator.rows[index]) for index in range(len(evaluator.rows))]
    nats = {name: [float(x) for each in judged for x in getattr(each, name)] for name in ("target_nats", "nats")}
    pairs = [both for each in judged for both in zip(each.is_replaced, each.is_called)]
    replaced, called = (np.array(each) for each in zip(*pairs))
    losses = np.mean(nats["target_nats"]), np.mean(nats["nats"])
    precision, recall = replaced[called].mean(), called[replaced].mean()
    of_share = np.where(replaced, replaced.mean(), 1 - replaced.mean())  # of whoever says the share of all tokens
    return {
        "loss": losses[0] + 50 * losses[1],
        "generator_loss": losses[0],
        "discriminator_loss": losses[1],
        "mcfadden_r2": 1 - losses[1] / -np.log(of_share).mean(),
        "detection_accuracy": (replaced == called).mean(),
        "replaced_share": replaced.mean(),
        "replaced_recall": recall,
        "replaced_f1": 2 * precision * recall / (precision + recall),
    }


def test_scores_are_those_of_each_document_alone_on_any_processes(corpus):
    evaluator, pair = make_evaluator(corpus), make_pair()
    expected = pytest.approx(scores_by_hand(evaluator, pair), rel=1e-9)
    for batch_size in (1, 3, 100):
        assert evaluator(StandInTrainer(pair, batch_size)) == expected
    for number in (2, 3, 16):
        assert evaluate_on(number, evaluator, pair, 2) == expected
    assert evaluator(StandInTrainer(pair, 2)) == expected and evaluator.loss_error(1) > 0


def test_text_of_which_nothing_was_replaced_has_an_accuracy_and_no_recall(corpus):
    metrics = make_evaluator(corpus).metrics(20.0, 10.0, 3.0, 60.0, 54.0, 0.0, 6.0, 0.0)
    assert metrics == {
        "loss": pytest.approx(2.0 + 50 * 0.05),
        "generator_loss": 2.0,
        "discriminator_loss": 0.05,
        "detection_accuracy": 0.9,
        "replaced_share": 0.0,
    }
