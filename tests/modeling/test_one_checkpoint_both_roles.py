"""What one class saved loads as any other, with no weight lost or invented, and then does that class' work."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.elsewhere import make_folder, succeed
from helpers.models import FULL, SLIDING, make_model, random_ids, tiny_config
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoTokenizer,
    PreTrainedModel,
    pipeline,
)

from weft import WeftForCausalLM, WeftForMaskedLM, WeftForPreTraining, WeftModel
from weft.configuration_weft import AUTO_MAP

LANGUAGE_MODELS = (WeftForCausalLM, WeftForMaskedLM, WeftForPreTraining)
CLASSES = (WeftModel, *LANGUAGE_MODELS)
AUTO_CLASSES = {
    AutoModel: WeftModel,
    AutoModelForCausalLM: WeftForCausalLM,
    AutoModelForMaskedLM: WeftForMaskedLM,
    AutoModelForPreTraining: WeftForPreTraining,
}
OF_PAIRS = {"pooler.dense.weight", "pooler.dense.bias", "seq_relationship.weight", "seq_relationship.bias"}
SHAPES: dict[str, dict[str, Any]] = {
    "plain, tied": {},
    "plain, untied": {"tie_word_embeddings": False},
    "whole head, tied": {"lm_head_transform": True, "lm_head_bias": True, "type_vocab_size": 2},
    "whole head, untied": {"lm_head_transform": True, "lm_head_bias": True, "tie_word_embeddings": False},
}


def own_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Weights under the names they have in the base model, those of the heads under their own; a tied head's matrix is
    the embedding."""
    named = dict(model.named_parameters())
    return {name.removeprefix("model."): weight.detach() for name, weight in named.items()}


@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("saver", CLASSES)
def test_every_class_loads_what_another_saved(saver: type, shape: str, tmp_path: Path) -> None:
    """The report of the loading names exactly what one class has and the other has not."""
    model = make_model(tiny_config(is_causal=False, **SHAPES[shape]), model_class=saver)
    model.save_pretrained(tmp_path)
    saved = own_weights(model)
    for auto_class, loader in AUTO_CLASSES.items():
        loaded, report = auto_class.from_pretrained(tmp_path, output_loading_info=True)
        assert type(loaded) is loader
        found = own_weights(loaded)
        missing, unexpected = set(report["missing_keys"]), set(report["unexpected_keys"])
        assert {name.removeprefix("model.") for name in missing} == found.keys() - saved.keys()
        assert {name.removeprefix("model.") for name in unexpected} == saved.keys() - found.keys()
        assert not report["mismatched_keys"]
        for name in found.keys() & saved.keys():
            assert torch.equal(found[name], saved[name]), name
        if saver in LANGUAGE_MODELS and loader in LANGUAGE_MODELS:
            assert missing == (OF_PAIRS if loader is WeftForPreTraining and saver is not loader else set())
            assert unexpected == (OF_PAIRS if saver is WeftForPreTraining and loader is not saver else set())


@pytest.mark.parametrize("saver", LANGUAGE_MODELS)
def test_the_other_class_computes_with_the_same_weights(saver: type, tmp_path: Path) -> None:
    """Causal logits from a masked checkpoint, masked logits from a causal one, hidden states from both."""
    config = tiny_config(
        is_causal=saver is WeftForCausalLM, lm_head_transform=True, lm_head_bias=True, masked_next_token=True
    )
    make_model(config, model_class=saver).save_pretrained(tmp_path)
    ids = random_ids(2, 11)
    for loader in CLASSES:
        loaded = loader.from_pretrained(tmp_path)
        expected = make_model(config, model_class=saver)
        with torch.no_grad():
            states = expected.model(ids, is_causal=loader is WeftForCausalLM).last_hidden_state
            if loader is WeftModel:
                states = expected.model(ids).last_hidden_state
                assert torch.equal(loaded(ids).last_hidden_state, states)
                continue
            logits = expected.get_logits(states)
            if loader is not WeftForCausalLM:
                logits = torch.cat((logits[:, :1], logits[:, :-1]), dim=1)
            torch.testing.assert_close(loaded(ids)[0], logits, rtol=0, atol=2e-5)


LAYERS: dict[str, dict[str, Any]] = {
    "full": {},
    "sliding": {"sliding_window": 5},
    "mixed": {"num_hidden_layers": 3, "sliding_window": 5, "layer_types": [SLIDING, FULL, SLIDING]},
}
CACHES: dict[str, dict[str, Any]] = {
    "dynamic": {},
    "static": {"cache_implementation": "static", "disable_compile": True},
    "none": {"use_cache": False},
}


@pytest.mark.parametrize("cache", list(CACHES))
@pytest.mark.parametrize("layers", list(LAYERS))
@pytest.mark.parametrize("saver", [WeftForMaskedLM, WeftForPreTraining])
def test_a_masked_checkpoint_generates_with_every_cache(saver: type, layers: str, cache: str, tmp_path: Path) -> None:
    """Token for token what the most likely token of the whole row is each time, left-padded rows included."""
    changes = {"masked_next_token": saver is WeftForMaskedLM}
    config = tiny_config(is_causal=False, pad_token_id=0, **LAYERS[layers], **changes)
    make_model(config, model_class=saver).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.config.is_causal is False
    prompts = [random_ids(1, length, seed=length) for length in (9, 4)]
    ids, mask = torch.zeros(2, 9, dtype=torch.long), torch.zeros(2, 9, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, 9 - prompt.shape[1] :], mask[row, 9 - prompt.shape[1] :] = prompt[0], 1
    found = model.generate(ids, attention_mask=mask, max_new_tokens=14, do_sample=False, **CACHES[cache])[:, 9:]
    for row, prompt in enumerate(prompts):
        with torch.no_grad():
            for _ in range(14):
                prompt = torch.cat((prompt, model(prompt, use_cache=False).logits[:, -1:].argmax(-1)), dim=1)
        assert found[row].tolist() == prompt[0, -14:].tolist()
    assert len(found.unique()) > 5, "the model repeats itself: this proves little"


def test_token_types_follow_a_generation(tmp_path: Path) -> None:
    """Types given for the prompt hold for what is generated after it, whatever cache there is."""
    make_model(tiny_config(type_vocab_size=2, pad_token_id=0), model_class=WeftForMaskedLM).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = random_ids(1, 9)
    types = (torch.arange(9) > 4).long()[None]
    arguments = {"max_new_tokens": 14, "do_sample": False}
    found = [model.generate(ids, token_type_ids=types, **arguments, **cache).tolist() for cache in CACHES.values()]
    assert found[0] == found[1] == found[2]
    row = ids
    with torch.no_grad():
        for _ in range(14):
            type_ids = torch.nn.functional.pad(types, (0, row.shape[1] - 9), value=1)
            logits = model(row, token_type_ids=type_ids, use_cache=False).logits
            row = torch.cat((row, logits[:, -1:].argmax(-1)), dim=1)
    assert found[0] == row.tolist() != model.generate(ids, **arguments).tolist()


@pytest.mark.parametrize("shifted", [False, True], ids=["plain", "shifted"])
@pytest.mark.parametrize("saver", LANGUAGE_MODELS)
def test_the_fill_mask_pipeline_of_every_checkpoint(saver: type, shifted: bool, tmp_path: Path) -> None:
    """The pipeline's best words are those that the logits name; `masked_next_token` is nothing it has to know of."""
    model, _ = make_folder(tmp_path, model_class=saver, masked_next_token=shifted, max_position_embeddings=64)
    fill = pipeline("fill-mask", model=str(tmp_path))
    found = fill("a b <mask> d e", top_k=3)
    ids = AutoTokenizer.from_pretrained(tmp_path)("a b <mask> d e", return_tensors="pt").input_ids
    with torch.no_grad():
        states = model.model(ids, is_causal=False).last_hidden_state[0, 1 if shifted else 2]
        best = model.get_logits(states).softmax(-1).topk(3)
    assert [entry["token"] for entry in found] == best.indices.tolist()
    assert [entry["score"] for entry in found] == pytest.approx(best.values.tolist(), rel=1e-4)


LOAD_EVERYTHING = """
    from pathlib import Path

    import torch
    import transformers
    from transformers import AutoConfig, AutoTokenizer, pipeline

    AUTO_CLASSES = ("AutoModel", "AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForPreTraining")

    def load(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
        assert {"AutoConfig", *AUTO_CLASSES} <= config.auto_map.keys(), config.auto_map
        ids, results = torch.load(folder.parent / "ids.pt"), {}
        for name in AUTO_CLASSES:
            model, report = getattr(transformers, name).from_pretrained(
                folder, trust_remote_code=True, output_loading_info=True
            )
            results[f"{name} missing"] = sorted(report["missing_keys"])
            with torch.no_grad():
                results[name] = model(ids)[0]
            if name == "AutoModelForCausalLM":
                results["generated"] = model.generate(ids[:, :4], max_new_tokens=9, do_sample=False)
        torch.save(results, folder / "results.pt")
        return model

    for name in NAMES:
        folder, again = Path(name, "model").resolve(), Path(name, "again").resolve()
        load(folder).save_pretrained(again)
        load(again)

        tokenizer = AutoTokenizer.from_pretrained(folder)
        for where in (folder, again):
            fill = pipeline("fill-mask", model=str(where), tokenizer=tokenizer, trust_remote_code=True)
            assert len(fill("a b <mask> d", top_k=3)) == 3
            generate = pipeline("text-generation", model=str(where), tokenizer=tokenizer, trust_remote_code=True)
            text = generate("a b c", max_new_tokens=5, do_sample=False)[0]["generated_text"]
            assert text.startswith("a b c") and len(text) > 5, text
"""


def test_a_process_without_the_package_loads_every_class(tmp_path: Path) -> None:
    """From a folder that the masked class saved and from one of the pretraining class; what it saves loads again."""
    folders: dict[str, tuple[type, dict[str, Any]]] = {
        "masked": (WeftForMaskedLM, {"masked_next_token": True}),
        "pretraining": (WeftForPreTraining, {"lm_head_transform": True, "lm_head_bias": True, "type_vocab_size": 2}),
    }
    expected: dict[str, dict[str, Any]] = {}
    for name, (saver, changes) in folders.items():
        _, ids = make_folder(tmp_path / name / "model", model_class=saver, is_causal=False, **changes)
        ids = ids[:, :20]
        torch.save(ids, tmp_path / name / "ids.pt")
        named = json.loads((tmp_path / name / "model" / "config.json").read_text())["auto_map"]
        of_saver = {"AutoModelForPreTraining": "modeling_weft.WeftForPreTraining"} if name == "pretraining" else {}
        assert named == AUTO_MAP | of_saver
        expected[name] = {}
        for auto_class, loader in AUTO_CLASSES.items():
            has_all = saver is WeftForPreTraining or loader is not WeftForPreTraining
            expected[name][f"{auto_class.__name__} missing"] = [] if has_all else sorted(OF_PAIRS)
            loaded = loader.from_pretrained(tmp_path / name / "model")
            with torch.no_grad():
                expected[name][auto_class.__name__] = loaded(ids)[0]
            if loader is WeftForCausalLM:
                expected[name]["generated"] = loaded.generate(ids[:, :4], max_new_tokens=9, do_sample=False)
    succeed(LOAD_EVERYTHING.replace("NAMES", str(tuple(folders))), tmp_path)
    for name, results in expected.items():
        for folder in ("model", "again"):
            actual = torch.load(tmp_path / name / folder / "results.pt")
            assert actual.keys() == results.keys()
            for key, value in results.items():
                if torch.is_tensor(value):
                    assert torch.equal(actual[key], value), f"{name}, {folder}: {key}"
                else:
                    assert actual[key] == ([] if folder == "again" else value), f"{name}, {folder}: {key}"
