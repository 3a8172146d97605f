"""The table of attention features and backends: every cell is tried."""

import shutil
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from helpers.backends import BACKENDS, FEATURES, batches, directions, make, outcome, real_tokens, written_out

from weft.positions import ScoreBias

MODEL_PAGE = Path(__file__).parents[2] / "docs" / "model.md"
BEGIN, END = "<!-- features and backends -->", "<!-- end -->"
has_compiler = shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")


def claimed() -> dict[str, list[str]]:
    """The table in docs/model.md: feature -> what is said of each backend."""
    table = MODEL_PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert rows[0][1:] == list(BACKENDS)
    return {name: cells for name, *cells in rows[2:]}


def test_the_table_has_every_feature() -> None:
    assert list(claimed()) == list(FEATURES)


@pytest.mark.parametrize("feature", ["ALiBi", "T5 buckets, shared", "T5 buckets, per layer", "disentangled"])
def test_flex_attention_never_writes_a_bias_out(feature: str) -> None:
    """Edits are made one score at a time; tokens x tokens x heads numbers are not made on the way."""
    model, batch = make(feature, "flex_attention", True), batches(feature)["left"]
    refuse = AssertionError("a bias was written out")
    with (
        torch.no_grad(),
        patch("weft.backends.compile_friendly_flex_attention", written_out),
        patch.object(ScoreBias, "dense", side_effect=refuse),
    ):
        assert model(**batch).logits.isfinite().all()
        model.set_attn_implementation("sdpa")
        with pytest.raises(AssertionError, match="a bias was written out"):
            model(**batch)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("feature", FEATURES)
def test_the_table_tells_the_truth(feature: str, backend: str) -> None:
    if backend == "flex_attention" and not has_compiler:
        pytest.skip("flex_attention on a CPU is compiled with a C++ compiler")
    assert outcome(feature, backend) == claimed()[feature][BACKENDS.index(backend)]


@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature_compiles_as_one_graph_that_computes_the_same(feature: str) -> None:
    model, batch = make(feature, "eager", directions(feature)[0]), batches(feature)["packed"]
    torch._dynamo.reset()
    with torch.no_grad():
        expected = model(**batch, use_cache=False).logits
        found = torch.compile(model, backend="eager", fullgraph=True)(**batch, use_cache=False).logits
    is_token = real_tokens(batch)
    torch.testing.assert_close(found[is_token], expected[is_token], rtol=0, atol=1e-11)
