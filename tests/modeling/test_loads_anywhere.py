"""A saved folder is all that another machine needs: transformers loads it without this package, to the same bits."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from helpers.elsewhere import ROPE, elsewhere, make_folder, succeed
from helpers.models import make_model, random_ids, tiny_config
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForPreTraining

import weft
from weft import WeftConfig, WeftForCausalLM, WeftForMaskedLM, WeftForPreTraining, WeftModel
from weft.configuration_weft import AUTO_MAP


def test_the_other_process_really_has_no_package(tmp_path: Path) -> None:
    done = elsewhere("import weft", tmp_path)
    assert done.returncode != 0 and "No module named 'weft'" in done.stderr


LOAD_AND_SAVE_AGAIN = """
    from pathlib import Path

    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, pipeline

    def load(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
        base, base_report = AutoModel.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
        head, report = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
        assert config.model_type == "weft" and type(config).__name__ == "WeftConfig"
        assert type(base).__name__ == "WeftModel" and type(head).__name__ == "WeftForCausalLM"
        for found in (report, base_report):
            assert not any(found[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), found
        assert not base.training and not head.training
        ids = torch.load(folder.parent / "ids.pt")
        results = {f"buffer {name}": buffer.clone() for name, buffer in head.model.rotary_emb.named_buffers()}
        with torch.no_grad():
            results["logits"] = head(ids).logits
            results["hidden"] = base(ids).last_hidden_state
            results["short"] = head(ids[:, :7]).logits
            results["generated"] = head.generate(ids[:, :4], max_new_tokens=9, do_sample=False)
        torch.save(results, folder / "results.pt")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer("a b </s>").input_ids == [3, 4, 2]
        return head, tokenizer

    for name in ("default", "dynamic", "yarn"):
        folder, again = Path(name, "model").resolve(), Path(name, "again").resolve()
        head, tokenizer = load(folder)
        head.save_pretrained(again)
        tokenizer.save_pretrained(again)
        load(again)

    generate = pipeline("text-generation", model=str(again), trust_remote_code=True)
    text = generate("a b c", max_new_tokens=5, do_sample=False)[0]["generated_text"]
    assert text.startswith("a b c") and len(text) > 5, text
"""


def test_every_auto_class_loads_the_same_bits(tmp_path: Path) -> None:
    """AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer and a pipeline; what they save loads again."""
    expected = {}
    for rope in ROPE:
        model, ids = make_folder(tmp_path / rope / "model", rope)
        torch.save(ids, tmp_path / rope / "ids.pt")
        results = {f"buffer {name}": buffer.clone() for name, buffer in model.model.rotary_emb.named_buffers()}
        with torch.no_grad():
            results["logits"] = model(ids).logits
            results["hidden"] = model.model(ids).last_hidden_state
            results["short"] = model(ids[:, :7]).logits
            results["generated"] = model.generate(ids[:, :4], max_new_tokens=9, do_sample=False)
        expected[rope] = results
    succeed(LOAD_AND_SAVE_AGAIN, tmp_path)
    for rope, results in expected.items():
        for folder in ("model", "again"):
            actual = torch.load(tmp_path / rope / folder / "results.pt")
            assert actual.keys() == results.keys()
            for name, value in results.items():
                assert torch.equal(actual[name], value), f"{rope}, {folder}: {name}"


def test_loading_without_trust_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "model")
    succeed(
        """
        import transformers

        for name in NAMES:
            try:
                getattr(transformers, name).from_pretrained("model")
            except ValueError as error:
                assert "trust_remote_code=True" in str(error), error
            else:
                raise AssertionError(f"{name} ran code that nobody trusted")
        """.replace("NAMES", str(list(AUTO_MAP))),
        tmp_path,
    )


def test_with_the_package_no_trust_is_needed(tmp_path: Path) -> None:
    """Where it is imported, the installed classes are used, also by the generic Auto classes."""
    model, ids = make_folder(tmp_path / "model")
    for arguments in ({}, {"trust_remote_code": True}):
        assert type(AutoConfig.from_pretrained(tmp_path / "model", **arguments)) is WeftConfig
        assert type(AutoModel.from_pretrained(tmp_path / "model", **arguments)) is WeftModel
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", **arguments)
        assert type(loaded) is WeftForCausalLM
        with torch.no_grad():
            assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert type(AutoModelForCausalLM.from_config(tiny_config())) is WeftForCausalLM
    assert type(AutoModelForMaskedLM.from_config(tiny_config())) is WeftForMaskedLM
    assert type(AutoModelForPreTraining.from_config(tiny_config(is_causal=False))) is WeftForPreTraining
    assert type(AutoModel.from_config(tiny_config())) is WeftModel


def relative_imports(path: Path) -> set[str]:
    """Files of the package that one of its files names."""
    names = re.findall(r"^\s*from \.(\w+) import", path.read_text(), flags=re.MULTILINE)
    return {f"{name}.py" for name in names}


@pytest.mark.parametrize("model_class", [WeftForCausalLM, WeftForMaskedLM, WeftForPreTraining, WeftModel])
def test_what_a_saved_folder_contains(model_class: type, tmp_path: Path) -> None:
    """Weights as safetensors only, the code whole and unchanged, and the table of every class."""
    make_model(model_class=model_class).save_pretrained(tmp_path)
    source = Path(weft.__file__).parent
    needed, open_files = set(), {"modeling_weft.py"}
    while open_files:
        name = open_files.pop()
        needed.add(name)
        open_files |= relative_imports(source / name) - needed
    assert len(needed) >= 6
    saved = {path.name for path in tmp_path.iterdir()}
    assert {name for name in saved if name.endswith(".py")} == needed
    for name in needed:
        assert (tmp_path / name).read_text() == (source / name).read_text()
    expected = needed | {"config.json", "model.safetensors"}
    assert saved == expected | ({"generation_config.json"} if model_class is WeftForCausalLM else set())
    config = json.loads((tmp_path / "config.json").read_text())
    of_saver = {"AutoModelForPreTraining": "modeling_weft.WeftForPreTraining"}  # else the config decides
    assert config["auto_map"] == WeftConfig().auto_map | (of_saver if model_class is WeftForPreTraining else {})
    assert config["model_type"] == "weft" and config["architectures"] == [model_class.__name__]


def test_the_shipped_code_imports_only_what_every_loader_has() -> None:
    """Single-dot relative imports of flat files, torch, transformers and what transformers itself needs."""
    source = Path(weft.__file__).parent
    for path in source.glob("*.py"):
        if path.name == "__init__.py":
            continue
        for line in path.read_text().splitlines():
            if re.match(r"\s*(from|import) ", line):
                module = re.match(r"\s*(?:from|import) (\S+)", line).group(1)
                if module.startswith("."):
                    assert re.fullmatch(r"\.\w+", module), f"{path.name}: {line}"
                else:
                    top = module.split(".")[0]
                    allowed = {"torch", "transformers", "huggingface_hub", "packaging"} | set(sys.stdlib_module_names)
                    assert top in allowed, f"{path.name}: {line}"


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_the_weights_are_saved_once(tied: bool, tmp_path: Path) -> None:
    model = make_model(tiny_config(tie_word_embeddings=tied))
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    expected = dict(model.named_parameters())
    assert saved.keys() == expected.keys()
    assert ("lm_head.weight" in saved) != tied
    assert all(torch.equal(saved[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize("rope", list(ROPE))
def test_weights_and_buffers_right_after_loading(rope: str, tmp_path: Path) -> None:
    """Buffers that are not in the checkpoint hold the same values as in the model that was saved."""
    model, ids = make_folder(tmp_path, rope)
    # memory full of values that are no frequencies: what loading leaves uninitialised would show them
    garbage = [torch.full((size,), 1e30) for size in (2, 4, 8, 16) for _ in range(200)]
    del garbage
    for loaded in (
        WeftForCausalLM.from_pretrained(tmp_path),
        WeftForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).float(),
    ):
        buffers = dict(model.named_buffers())
        assert buffers and buffers.keys() == dict(loaded.named_buffers()).keys()
        for name, buffer in loaded.named_buffers():
            torch.testing.assert_close(buffer, buffers[name], rtol=1e-6, atol=0)
        for name, weight in loaded.named_parameters():
            assert torch.equal(weight, dict(model.named_parameters())[name])
    loaded = WeftForCausalLM.from_pretrained(tmp_path)
    for length in (7, 30, 7):
        with torch.no_grad():
            assert torch.equal(loaded(ids[:, :length]).logits, model(ids[:, :length]).logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_positions_stay_exact_in_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    """A checkpoint loaded in half precision keeps its angular velocities in float32."""
    model, _ = make_folder(tmp_path)
    loaded = WeftForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    assert loaded.dtype == dtype
    assert loaded.model.rotary_emb["all"].inv_freq.dtype == torch.float32
    assert torch.equal(loaded.model.rotary_emb["all"].inv_freq, model.model.rotary_emb["all"].inv_freq)


def test_a_checkpoint_saved_in_several_files_loads(tmp_path: Path) -> None:
    model, ids = make_model(), random_ids(1, 9)
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    with torch.no_grad():
        assert torch.equal(WeftForCausalLM.from_pretrained(tmp_path)(ids).logits, model(ids).logits)
