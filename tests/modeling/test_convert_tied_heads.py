"""A head of its own, or the embedding as head: convert.py goes by the tensors of a file, not by its config."""

import json
from pathlib import Path

import pytest
import torch
from helpers.families import make_batch, make_pair, output_of
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, T5ForConditionalGeneration

from weft import WeftForConditionalGeneration
from weft.interop import weft_class
from weft.interop.tying import head_matrix
from weft.recipes.common.errors import RecipeError
from weft.recipes.conversion.run import convert


def rewrite(folder: Path, tensors: dict[str, torch.Tensor | None], **config: object) -> None:
    """Put tensors into a checkpoint (None: take it out), and fields into its config."""
    file = folder / "model.safetensors"
    changed = {**load_file(file), **tensors}
    save_file({name: value for name, value in changed.items() if value is not None}, file, metadata={"format": "pt"})
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))


def save(case: str, head: str, folder: Path) -> PreTrainedModel:
    _, stock, _ = make_pair(case, head)
    stock.save_pretrained(folder)
    return stock


@pytest.mark.parametrize(
    ("case", "head"),
    [
        *(("t5", "seq2seq"), ("t5-1.1", "seq2seq"), ("bart", "seq2seq"), ("gpt2", "causal")),
        *(("llama-biases", "causal"), ("bert", "masked"), ("modernbert", "masked")),
    ],
)
@pytest.mark.parametrize("says", [True, False])
def test_a_head_of_its_own_is_kept_in_both_directions(case: str, head: str, says: bool, tmp_path: Path) -> None:
    stock = save(case, head, tmp_path / "stock")
    own = torch.randn(stock.get_output_embeddings().weight.shape) * 0.1
    every = {name: value.clone() for name, value in stock.state_dict().items()}
    rewrite(tmp_path / "stock", {**every, head_matrix(stock): own}, tie_word_embeddings=says)
    family = stock.config.model_type
    convert("import", str(tmp_path / "stock"), tmp_path / "weft", None)
    convert("export", str(tmp_path / "weft"), tmp_path / "back", family)
    expected, back = (type(stock).from_pretrained(tmp_path / each).eval() for each in ("stock", "back"))
    model = weft_class(head).from_pretrained(tmp_path / "weft").eval()
    assert torch.equal(expected.get_output_embeddings().weight, own)
    assert not model.config.tie_word_embeddings and torch.equal(model.lm_head.weight, own)
    assert torch.equal(back.get_output_embeddings().weight, own)
    batch = make_batch(stock, head, "right")
    for other in (model, back):
        torch.testing.assert_close(output_of(other, batch), output_of(expected, batch), rtol=0, atol=2e-5)


def test_a_t5_of_version_1_1_is_not_scaled_whatever_its_head(tmp_path: Path) -> None:
    """As in FLAN-T5's files: `tie_word_embeddings` false, and nothing said of the scale."""
    stock = save("t5-1.1", "seq2seq", tmp_path / "stock")
    path = tmp_path / "stock" / "config.json"
    config = {key: value for key, value in json.loads(path.read_text()).items() if key != "scale_decoder_outputs"}
    path.write_text(json.dumps({**config, "tie_word_embeddings": False}))
    rewrite(tmp_path / "stock", {"lm_head.weight": torch.randn(97, 48)})
    convert("import", str(tmp_path / "stock"), tmp_path / "weft", None)
    config = WeftForConditionalGeneration.from_pretrained(tmp_path / "weft").config
    assert (config.lm_head_scale, config.tie_word_embeddings) == (1.0, False)
    convert("export", str(tmp_path / "weft"), tmp_path / "back", "t5")
    back = json.loads((tmp_path / "back" / "config.json").read_text())
    assert (back["scale_decoder_outputs"], back["tie_word_embeddings"]) == (False, False)
    assert not T5ForConditionalGeneration.from_pretrained(tmp_path / "back").config.scale_decoder_outputs
    assert stock.config.scale_decoder_outputs is False


@pytest.mark.parametrize(
    ("case", "head", "absent"),
    [
        ("bart", "seq2seq", ["model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"]),
        ("bert-untied", "masked", ["cls.predictions.decoder.bias"]),
        ("bert-untied", "masked", ["cls.predictions.bias"]),
    ],
)
def test_copies_that_earlier_versions_saved_once_are_found(
    case: str, head: str, absent: list[str], tmp_path: Path
) -> None:
    """Without a tied head, transformers 5 would make them random numbers."""
    stock = save(case, head, tmp_path / "stock")
    every = {name: value.clone() for name, value in stock.state_dict().items()}
    for pair in ("cls.predictions.bias", "cls.predictions.decoder.bias"):
        if pair in every:
            every[pair] = every["cls.predictions.decoder.bias"].clone()
    own = torch.randn(stock.get_output_embeddings().weight.shape) * 0.1
    whole = {**every, head_matrix(stock): own}
    rewrite(tmp_path / "stock", {**whole, **dict.fromkeys(absent)}, tie_word_embeddings=False)
    convert("import", str(tmp_path / "stock"), tmp_path / "weft", None)
    convert("export", str(tmp_path / "weft"), tmp_path / "back", stock.config.model_type)
    back = type(stock).from_pretrained(tmp_path / "back").state_dict()
    assert all(torch.equal(back[name], value) for name, value in whole.items())


@pytest.mark.parametrize(("case", "head"), [("gpt2", "causal"), ("bert", "masked"), ("bart", "seq2seq")])
def test_a_file_without_a_head_that_says_it_has_one_is_refused_with_the_mend(
    case: str, head: str, tmp_path: Path
) -> None:
    stock = save(case, head, tmp_path / "stock")
    every = {name: value.clone() for name, value in stock.state_dict().items()}
    rewrite(tmp_path / "stock", {**every, head_matrix(stock): None}, tie_word_embeddings=False)
    mend = r'or write "tie_word_embeddings": true into its config.json'
    with pytest.raises(RecipeError, match=rf"lacks {head_matrix(stock)}, which .*{mend}"):
        convert("import", str(tmp_path / "stock"), tmp_path / "weft", None)
    rewrite(tmp_path / "stock", {}, tie_word_embeddings=True)
    convert("import", str(tmp_path / "stock"), tmp_path / "weft", None)
    model = weft_class(head).from_pretrained(tmp_path / "weft")
    assert model.config.tie_word_embeddings and model.lm_head.weight is model.get_input_embeddings().weight


def test_a_weft_file_with_a_head_of_its_own_is_exported_with_it(tmp_path: Path) -> None:
    _, _, model = make_pair("llama-biases", "causal")
    model.save_pretrained(tmp_path / "weft")
    own = torch.randn(97, 48)
    rewrite(tmp_path / "weft", {"lm_head.weight": own}, tie_word_embeddings=True)
    convert("export", str(tmp_path / "weft"), tmp_path / "back", "llama")
    assert torch.equal(load_file(tmp_path / "back" / "model.safetensors")["lm_head.weight"], own)
    assert json.loads((tmp_path / "back" / "config.json").read_text())["tie_word_embeddings"] is False
