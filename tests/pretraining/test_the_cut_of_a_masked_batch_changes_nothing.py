"""Masked, hybrid, sentence-pair and diffusion steps: the same gradient, losses and parts, however a step is cut."""

import pytest
import torch
from helpers import runs
from helpers.launched import run_together

from weft import WeftForMaskedLM, WeftForPreTraining
from weft.recipes.common.command_line import Parsed
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.arguments import RunArguments
from weft.recipes.pretraining.datasets.diffusion import DiffusionArguments
from weft.recipes.pretraining.datasets.hybrid import HybridArguments
from weft.recipes.pretraining.datasets.masking import MaskingArguments
from weft.recipes.pretraining.objectives import make_objective, objectives
from weft.recipes.pretraining.objectives.causal import ServingArguments
from weft.recipes.pretraining.plan import make_plan

STEPS = 6
FIELDS = {"max_steps": STEPS, "save_steps": STEPS, "eval_steps": STEPS, "learning_rate": 0.01}
# Rates that change with every step; rows of all kinds: an uneven share of causal ones, and none in between.
OBJECTIVES = {
    "masked": {"masking": "word", "mask_rate": 0.4, "mask_rate_end": 0.15},
    "hybrid": {"mask_rate": 0.4, "mask_rate_end": 0.15, "causal_share": 0.3, "causal_steps": 2},
    "next-sentence": {"masking": "token"},
    "three kinds": {"objective": "hybrid", "mask_rate": 0.4, "causal_share": 0.4, "diffusion_share": 0.3},
}
OF_HYBRID = {"loss_causal": "eval_causal_loss", "loss_masked": "eval_masked_loss"}
PARTS = {
    "masked": {},
    "hybrid": OF_HYBRID,
    "three kinds": {**OF_HYBRID, "loss_diffusion": "eval_diffusion_loss"},
    "next-sentence": {"loss_masked": "eval_masked_loss", "loss_next_sentence": "eval_next_sentence_loss"},
}


def fields_of(objective: str) -> dict:
    return {**FIELDS, "objective": objective, **OBJECTIVES[objective]}


@pytest.fixture(scope="module", params=OBJECTIVES)
def objective(request):
    return request.param


@pytest.fixture(scope="module")
def whole(english, objective, tmp_path_factory):
    """A run of one process whose steps are one batch each, with a checkpoint at every step."""
    folder = tmp_path_factory.mktemp("runs") / objective
    fields = {**fields_of(objective), "save_steps": 1, "save_total_limit": STEPS}
    runs.run_here(data=english, output_dir=folder, per_device_train_batch_size=8, **fields)
    return folder


def logged(folder, name: str) -> list[float | None]:
    return [entry.get(name) for entry in runs.history(folder) if "loss" in entry]


def assert_equal_runs(folder, reference, objective) -> None:
    for name in ("loss", *PARTS[objective]):
        found, expected = logged(folder, name), logged(reference, name)
        assert [value is None for value in found] == [value is None for value in expected]
        torch.testing.assert_close(*(torch.tensor([x or 0.0 for x in v]) for v in (found, expected)), rtol=2e-5, atol=0)
    runs.assert_equal_ends(folder, reference)


@pytest.mark.parametrize(("micro_batch", "target_share"), [(4, 1.0), (1, None)])
def test_accumulation_with_and_without_a_fixed_number_of_targets(
    english, objective, whole, tmp_path, micro_batch, target_share
):
    fields = {**fields_of(objective), "per_device_train_batch_size": micro_batch}
    if objective not in ("next-sentence", "three kinds"):  # whose shapes cannot be fixed
        fields["target_share"] = target_share
    runs.run_here(data=english, output_dir=tmp_path / "run", **fields)
    assert_equal_runs(tmp_path / "run", whole, objective)


@pytest.mark.parametrize("objective", ["hybrid", "next-sentence", "three kinds"], indirect=True, scope="module")
def test_two_processes_follow_the_curve_of_one(english, objective, whole, tmp_path, capfd):
    capfd.readouterr()
    fields = {**fields_of(objective), "per_device_train_batch_size": 2}
    run_together("cpu_2.yaml", runs.run_here, data=english, output_dir=tmp_path / "run", **fields)
    assert "2 processes x 2 micro-batches x 2 rows" in capfd.readouterr().out
    assert_equal_runs(tmp_path / "run", whole, objective)


def test_the_gradient_is_that_of_the_whole_step(english, objective, tmp_path):
    """Plain gradient descent, so that the weights after one step tell the gradient."""
    found = []
    plain = {"optim": "sgd", "max_steps": 1, "warmup_steps": 0, "lr_scheduler_type": "constant", "max_grad_norm": 0}
    for micro_batch in (8, 1):
        fields = {**fields_of(objective), **plain, "causal_steps": None, "weight_decay": 0}
        folder = tmp_path / f"run-{micro_batch}"
        runs.run_here(data=english, output_dir=folder, per_device_train_batch_size=micro_batch, **fields)
        found.append(runs.weights(folder))
    for weights in found[1:]:
        for name, value in found[0].items():
            torch.testing.assert_close(weights[name], value, rtol=0, atol=2e-7)


def rows_of_run(corpus_folder, objective: str) -> list[dict]:
    """The rows that a run of one process trains on, in order."""
    corpus = Corpus.open(corpus_folder)
    given = {"objective": objective, **OBJECTIVES[objective]}
    masking = MaskingArguments(**{name: given[name] for name in given if name.startswith("mask")})
    hybrid = HybridArguments(**{name: given[name] for name in given if name.startswith(("causal", "diffusion"))})
    parsed = Parsed([masking, hybrid, DiffusionArguments(), ServingArguments()], {}, {})
    made = make_objective(given["objective"], list(objectives()), parsed)
    packed = made.pack(corpus, 32, 42, made.prepare_tokenizer(corpus.tokenizer()))
    plan = make_plan(RunArguments(sequence_length=32, tokens_per_step="256", max_steps=STEPS), packed.rows_per_epoch, 1)
    rows = made.make_rows(packed, plan)
    return [rows[index] for index in range(STEPS * 8)]


def naive_losses(folder, rows: list[dict]) -> dict[str, float]:
    """Nats per target of each part (of diffusion per token of the text), a row at a time and with the head computed at
    every place."""
    is_pair = "pool_from" in rows[0]
    model = (WeftForPreTraining if is_pair else WeftForMaskedLM).from_pretrained(folder).eval()
    sums: dict[str, torch.Tensor] = {}

    def add(name: str, log_shares: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> None:
        weights = weights[targets != -100].double()
        nats = -log_shares.double().log_softmax(-1)[targets != -100].gather(1, targets[targets != -100][:, None])[:, 0]
        sums[name] = sums.get(name, 0) + torch.stack(((nats * weights).sum(), weights.sum()))

    for row in rows:
        inputs = {name: torch.tensor(row[name])[None] for name in ("input_ids", "position_ids")}
        if is_pair:
            inputs["token_type_ids"] = torch.tensor(row["token_type_ids"])[None]
            inputs["pool_from"] = torch.tensor(row["pool_from"])
        with torch.no_grad():
            everywhere = torch.arange(len(row["input_ids"]))
            outputs = model(**inputs, predict_from=everywhere, is_causal=bool(row["is_causal"]))
        is_diffusion, targets = row.get("is_diffusion", False), torch.tensor(row["targets"])
        name = "loss_causal" if row["is_causal"] else "loss_diffusion" if is_diffusion else "loss_masked"
        weights = torch.tensor(row["weight"]) if is_diffusion else torch.ones(len(targets))
        add(name, outputs.prediction_logits if is_pair else outputs.logits, targets, weights)
        if is_pair:
            labels = torch.tensor(row["pair_labels"])
            add("loss_next_sentence", outputs.seq_relationship_logits, labels, torch.ones(len(labels)))
    return {name: (nats / count).item() for name, (nats, count) in sums.items()}


def test_what_is_logged_is_what_a_plain_loop_computes(english, objective, whole):
    rows = rows_of_run(english, objective)
    for step in range(2, STEPS + 1):  # the weights at a step are those of the checkpoint before it
        expected = naive_losses(whole / f"checkpoint-{step - 1}", rows[8 * (step - 1) : 8 * step])
        names = PARTS[objective] or {"loss": "eval_loss"}
        for name in names:
            found = logged(whole, name)[step - 1]
            same = expected.get(name if PARTS[objective] else "loss_masked")
            assert found == (None if same is None else pytest.approx(same, rel=1e-5)), (name, step)


def test_the_loss_of_a_step_weighs_its_parts(english, objective, whole):
    rows = rows_of_run(english, objective)
    for step in range(1, STEPS + 1):
        parts = {name: logged(whole, name)[step - 1] for name in PARTS[objective]}
        loss = logged(whole, "loss")[step - 1]
        if objective == "next-sentence":
            assert loss == pytest.approx(parts["loss_masked"] + parts["loss_next_sentence"], rel=1e-4)
        elif objective != "masked":
            # A row counts by its targets over the share of its tokens that is to be predicted, or by its tokens.
            rate = 0.4 + (OBJECTIVES[objective].get("mask_rate_end", 0.4) - 0.4) * (step - 1) / (STEPS - 1)
            counts = dict.fromkeys(parts, 0.0)
            for row in rows[8 * (step - 1) : 8 * step]:
                if row["is_diffusion"]:
                    counts["loss_diffusion"] += row["is_text"].sum()
                else:
                    share, name = (1, "loss_causal") if row["is_causal"] else (rate, "loss_masked")
                    counts[name] += (row["targets"] != -100).sum() / share
            total = sum(count * (parts[name] or 0) for name, count in counts.items())
            assert loss == pytest.approx(total / sum(counts.values()), rel=1e-4)
            assert (parts["loss_masked"] is None) == (step <= OBJECTIVES[objective].get("causal_steps", 0))
