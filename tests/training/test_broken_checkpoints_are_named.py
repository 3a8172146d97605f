"""Every command that loads a checkpoint says of a broken one, in a sentence, which file is wrong, and how."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from helpers import finetuning as ft
from helpers.models import make_model, tiny_config
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from weft import WeftForCausalLM
from weft.recipes import evaluate_lm, finetune_classification, pretrain_clm
from weft.recipes.common.checkpoint_files import load_tokenizer
from weft.recipes.common.checkpoints import check_files, load_config, load_whole
from weft.recipes.common.errors import RecipeError
from weft.recipes.conversion.run import convert
from weft.recipes.data.text_files import check_file
from weft.recipes.generate import main as generate
from weft.tokenizer.special_tokens import for_role
from weft.tokenizer.train import train_tokenizer

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22\nsize 12345\n"
PAGE = "<!DOCTYPE html>\n<html><body>Not found</body></html>"
WEIGHTS, PICKLE = "model.safetensors", "pytorch_model.bin"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "model"
    tokenizer = for_role(train_tokenizer(iter(["a red cat saw the dog"] * 3), "char", 60), "decoder")
    config = tiny_config(tie_word_embeddings=False, qk_norm=False, vocab_size=60)
    make_model(config, model_class=WeftForCausalLM).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def write(name: str, content: str | bytes):
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def cut(name: str, size: int):
    def change(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:size])

    return change


def remove(pattern: str):
    def change(folder: Path) -> None:
        for path in folder.glob(pattern):
            path.unlink()

    return change


class Settings:
    """What training scripts like to save beside weights; loading it would import code."""


def as_pickle(folder: Path, zipped: bool = True, **more: object) -> None:
    torch.save({**load_file(folder / WEIGHTS), **more}, folder / PICKLE, _use_new_zipfile_serialization=zipped)
    (folder / WEIGHTS).unlink()


def as_shards(folder: Path, missing: bool, ending: str) -> None:
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    table = {name: f"part-{place % 2}.{ending}" for place, name in enumerate(tensors)}
    for part in sorted(set(table.values()))[: 1 if missing else 2]:
        own = {name: tensors[name] for name in tensors if table[name] == part}
        torch.save(own, folder / part) if ending == "bin" else save_file(own, folder / part, metadata={"format": "pt"})
    index = f"{PICKLE if ending == 'bin' else WEIGHTS}.index.json"
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": table}))


def as_adapter(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "me/base"}))
    (folder / "adapter_model.safetensors").write_bytes(b"")


def as_bare_adapter(folder: Path) -> None:
    as_adapter(folder)
    (folder / "config.json").unlink()


def with_another_shape(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({**tensors, "model.embed_tokens.weight": torch.zeros(7, 16)}, folder / WEIGHTS, metadata={"format": "pt"})


ADAPTER = "holds a PEFT adapter for 'me/base' and no weights of a model: merge it first .* or load it with PEFT"
BROKEN = {
    "pointer": (write(WEIGHTS, POINTER), "model.safetensors is a pointer of Git LFS, .* `git lfs pull`"),
    "page": (write(WEIGHTS, PAGE), "model.safetensors is an HTML page, not the file itself"),
    "empty": (write(WEIGHTS, b""), "model.safetensors is empty"),
    "cut": (cut(WEIGHTS, -100), "model.safetensors is no whole file of safetensors"),
    "cut in its header": (cut(WEIGHTS, 50), "model.safetensors is no whole file of safetensors"),
    "no weights": (remove(WEIGHTS), "holds no weights that can be read: model.safetensors or pytorch_model.bin is"),
    "weights of others": (lambda f: (f / WEIGHTS).rename(f / "tf_model.h5"), r"can be read \(it holds tf_model.h5\)"),
    "adapter": (as_adapter, ADAPTER),
    "bare adapter": (as_bare_adapter, ADAPTER),
    "no config": (remove("config.json"), "has no config.json: give a folder"),
    "config, not JSON": (write("config.json", "{no"), r"config.json is not JSON \(Expecting property name"),
    "config, a list": (write("config.json", "[]"), "config.json holds no JSON object but list"),
    "config, a pointer": (write("config.json", POINTER), "config.json is a pointer of Git LFS"),
    "no tokenizer": (remove("tokenizer*"), r"cannot be loaded \(it has no tokenizer.json or other file of a tokenizer"),
    "no vocabulary": (remove("tokenizer.json"), "has the settings of a tokenizer .* but not tokenizer.json"),
    "tokenizer, a pointer": (write("tokenizer.json", POINTER), "tokenizer.json is a pointer of Git LFS"),
    "tokenizer, a page": (write("tokenizer.json", PAGE), "tokenizer.json is an HTML page"),
    "a shard missing": (lambda f: as_shards(f, True, "safetensors"), "lacks part-1.safetensors of the 2 files that"),
    "a shard of pickles missing": (lambda f: as_shards(f, True, "bin"), "lacks part-1.bin of the 2 files that"),
    "index": (lambda f: (as_shards(f, False, "bin"), write(f"{PICKLE}.index.json", "{}")(f)), "names no files in its"),
    "pickle of more": (
        lambda f: as_pickle(f, more=Settings()),
        "holds more than tensors.* safetensors.torch.save_file",
    ),
    "old pickle of more": (lambda f: as_pickle(f, False, more=Settings()), "pytorch_model.bin is a pickle that holds"),
    "pickle, a pointer": (lambda f: (remove(WEIGHTS)(f), write(PICKLE, POINTER)(f)), "bin is a pointer of Git LFS"),
    "pickle, cut": (lambda f: (as_pickle(f), cut(PICKLE, -900)(f)), "pytorch_model.bin (cannot be read|is a pickle)"),
    "another shape": (with_another_shape, r"embed_tokens.weight \(\[7, 16\] in the file, \[60, 32\] in the model\)"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_with_a_folder_is_said_in_one_sentence(kind: str, folder: Path) -> None:
    change, sentence = BROKEN[kind]
    change(folder)
    with pytest.raises(RecipeError, match=sentence) as caught:
        load_config(str(folder))
        load_tokenizer(str(folder))
        load_whole(WeftForCausalLM, str(folder))
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def run_command(command: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, rows = tmp_path / "text.txt", tmp_path / "rows.csv"
    text.write_text("".join(f"a red cat saw dog {number}\n\n" for number in range(40)))
    rows.write_text("sentence,label\n" + "".join(f"a red cat {n},{'no' if n % 2 else 'yes'}\n" for n in range(20)))
    out, shape = tmp_path / "out", ["--sequence_length", "16", "--tokens_per_step", "32", "--use_cpu", "true"]
    if command == "convert":
        convert("export", str(folder), out, "llama")
    elif command == "generate":
        monkeypatch.setattr(
            "sys.argv", ["generate.py", "--model", str(folder), "--prompt", "a", "--max_new_tokens", "2"]
        )
        generate()
    elif command == "evaluate":
        evaluate_lm.main(["--model", str(folder), "--files", str(text)])
    elif command == "pretrain":
        words = ["--model_name_or_path", folder, "--tokenizer_name", folder, "--train_files", text, "--max_steps", "1"]
        monkeypatch.setattr("sys.argv", ["pretrain_clm.py", *map(str, words), *shape, "--output_dir", str(out)])
        pretrain_clm.main()
    else:
        words = ["--model_name_or_path", folder, "--train_file", rows, "--max_steps", "1", "--seeds", "1"]
        words += ["--evaluations", "1", "--output_dir", out]
        monkeypatch.setattr("sys.argv", ["finetune_classification.py", *map(str, words)])
        finetune_classification.main()


COMMANDS = ("convert", "generate", "evaluate", "pretrain", "finetune")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_the_same_fault(
    command: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("pointer", "adapter", "config, a list", "tokenizer, a pointer", "a shard missing", "pickle of more"):
        change, sentence = BROKEN[kind]
        change(folder := Path(shutil.copytree(whole, tmp_path / kind)))
        with pytest.raises(RecipeError, match=sentence):
            run_command(command, folder, tmp_path, monkeypatch)
        written = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
        assert all(name.endswith("lock") for name in written)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_reads_the_tensors_of_pickles_and_says_so(
    command: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    as_pickle(folder) if command in ("convert", "evaluate") else as_shards(folder, False, "bin")
    run_command(command, folder, tmp_path, monkeypatch)
    name = (
        "pytorch_model.bin is a pickle" if command in ("convert", "evaluate") else "part-0.bin and 1 more are pickles"
    )
    assert f"{name}, of which only tensors are loaded (weights_only)" in capsys.readouterr().err


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_pickles_are_those_of_the_file(zipped: bool, whole: Path, folder: Path) -> None:
    as_pickle(folder, zipped)
    model, _ = load_whole(WeftForCausalLM, str(folder))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in load_file(whole / WEIGHTS).items())


def test_code_in_a_pickle_does_not_run(folder: Path, tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (folder / WEIGHTS).unlink()
    (folder / PICKLE).write_bytes(pickle.dumps({"weight": Touch()}))
    with pytest.raises(RecipeError, match="could run any code, so it is refused"):
        check_files(str(folder))
    assert not (tmp_path / "ran").exists()


def test_what_is_whole_or_on_the_hub_is_let_through(folder: Path) -> None:
    check_files(str(folder))
    check_files("nobody/nothing")
    assert load_tokenizer(str(folder)).is_fast


def test_a_body_of_another_shape_or_with_a_hole_is_not_fine_tuned(tmp_path: Path) -> None:
    """Of other families too, of which only a pooler may be new."""
    rows = tmp_path / "rows.csv"
    rows.write_text("sentence,label\n" + "".join(f"a red cat {n},{'no' if n % 2 else 'yes'}\n" for n in range(20)))
    config = LlamaConfig(
        **{"vocab_size": 60, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1},
        **{"num_attention_heads": 2, "max_position_embeddings": 64},
    )
    name = "model.layers.0.self_attn.q_proj.weight"
    for kind, more, told in (
        ("shape", {name: torch.zeros(7, 16)}, f"{name} ([7, 16] in the file, [16, 16] in the model)"),
        ("hole", {}, name),
    ):
        folder = tmp_path / kind
        LlamaForCausalLM(config).save_pretrained(folder)
        for_role(train_tokenizer(iter(["a red cat"]), "char", 60), "decoder").save_pretrained(folder)
        rest = {key: value for key, value in load_file(folder / WEIGHTS).items() if key != name}
        save_file({**rest, **more}, folder / WEIGHTS, metadata={"format": "pt"})
        fields = {
            "model_name_or_path": str(folder),
            "train_file": str(rows),
            "output_dir": str(tmp_path / f"{kind}_out"),
        }
        assert f"has no weights for {told}: it is not whole" in ft.run_error(**fields, max_steps=1)


@pytest.mark.parametrize("name", ["text.txt", "rows.jsonl", "rows.parquet"])
def test_a_pointer_in_place_of_data_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(RecipeError, match=f"{name} is a pointer of Git LFS"):
        check_file(tmp_path / name, (".txt", ".jsonl", ".parquet"))
