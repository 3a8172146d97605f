"""What the documents say works: their Python runs, their commands parse, their links, targets and files are there."""

import argparse
import ast
import functools
import importlib
import inspect
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser
from helpers import finetuning, runs, sequences

import weft
from weft.recipes.common import command_line

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")])
READ = [page for page in PAGES if page.name not in ("RESULTS.md", "CHANGELOG.md")]
TRANSLATED = {page: page.with_name(page.name.replace(".zh.md", ".md")) for page in READ if ".zh." in page.name}
INTRODUCTIONS = ROOT / "docs" / "introductions.md"
# What may stand before a command in a shell: a variable for it alone.
ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
TASKS = {"pydoc": "classification", "conll2000": "tokens", "squad": "qa", "swag": "choice", "chat": "chat"}


def blocks_of(page: Path, language: str) -> list[tuple[int, str]]:
    """The code blocks of a page in a language, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)) + 1, match.group(1)) for match in found]


def commands_of(page: Path) -> list[list[str]]:
    """The words of each command in the shell blocks of a page, variables before it and comments left out."""
    found = []
    for _, block in blocks_of(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and ASSIGNMENT.fullmatch(words[0]):
                words = words[1:]
            found += [words] if words else []
    return found


class Accepted(Exception):
    """A command line was read to its end."""


def accept(*_: object, **__: object) -> None:
    raise Accepted


def read_as_recipe(script: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a recipe read its command line, and stop it there; raises what the recipe raises of it."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, *arguments: object, **fields: object) -> object:
        parsed = parse(parser, *arguments, **fields)
        return parsed if isinstance(parser, command_line.HfArgumentParser) else accept()

    monkeypatch.setattr(command_line.Parsed, "__init__", accept)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setattr("sys.argv", [script, *words])
    monkeypatch.chdir(ROOT)
    name = {"tokenizer/train.py": "train_tokenizer", "tokenizer/judge.py": "judge_tokenizer"}.get(script)
    with pytest.raises(Accepted):
        importlib.import_module(f"weft.recipes.{name or Path(script).stem}").main()


def script_of(words: list[str]) -> tuple[str, list[str]] | None:
    """The script of ours that a command runs, and the words behind it; None for a command of another kind."""
    words = [word for word in words if not re.fullmatch(r"\w+\.yaml", word)]  # a reader's own file of fields
    if words[0] == "python" and words[1] == "-m" and words[2].startswith("weft.recipes."):
        return f"recipes/{words[2].rpartition('.')[2]}.py", words[3:]
    if words[0] == "python" and re.match(r"(recipes|tokenizer)/", words[1]):
        return words[1], words[2:]
    if words[:2] == ["accelerate", "launch"]:
        place = next(
            number for number, word in enumerate(words) if word.startswith("recipes/") and word.endswith(".py")
        )
        launcher = launch_command_parser().parse_args([*words[2:place], words[place]])
        assert launcher.config_file is None or (ROOT / launcher.config_file).is_file(), launcher.config_file
        return words[place], words[place + 1 :]
    return None


@pytest.mark.parametrize("page", READ, ids=lambda page: page.name)
def test_commands_are_those_that_there_are(page: Path) -> None:
    targets = set(re.findall(r"(?m)^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text()))
    variables = set(re.findall(r"(?m)^([A-Z]+) \?=", (ROOT / "Makefile").read_text()))
    for words in commands_of(page):
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= targets, words
            assert {word.split("=")[0] for word in words[1:] if "=" in word} <= variables, words
        elif (command := script_of(words)) is not None:
            assert (ROOT / command[0]).is_file(), words
            with pytest.MonkeyPatch.context() as patch:
                read_as_recipe(*command, patch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"(?m)^#+ (.*)$", target.read_text(encoding="utf-8"))
            assert anchor in {
                re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
            }


@pytest.mark.parametrize("page", READ, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page: Path) -> None:
    """Paths in code spans that begin with a folder of the project."""
    for path in re.findall(r"`((?:modeling|recipes|tokenizer|tests|docs|examples)/[\w./-]*)`", page.read_text("utf-8")):
        if not re.search(r"[A-Z]{4}", path):  # else a name that the reader puts in its place
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", READ, ids=lambda page: page.name)
def test_names_that_lead_to_a_file_are_in_it(page: Path) -> None:
    """Links with a name of code as their text, and a Python file as their target."""
    for name, path in re.findall(r"\[`([\w.]+)`\]\(([^)#]+\.py)\)", page.read_text(encoding="utf-8")):
        assert name in names_in((page.parent / path).resolve()), f"{name} is not in {path}"


@functools.cache
def names_in(file: Path) -> set[str]:
    """What the statements of a file give a name to, those within a class also as Class.name."""
    names = set()

    def visit(node: ast.AST, owner: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.update((node.name, owner + node.name))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
        for child in getattr(node, "body", []):
            visit(child, f"{node.name}." if isinstance(node, ast.ClassDef) else "")

    visit(ast.parse(file.read_text(encoding="utf-8")), "")
    return names


def test_commands_within_sentences_of_the_introductions_are_those_that_there_are(monkeypatch) -> None:
    targets = set(re.findall(r"(?m)^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text()))
    for span in re.findall(r"`((?:recipes/\w+\.py --|make )[^`]*)`", INTRODUCTIONS.read_text(encoding="utf-8")):
        words = shlex.split(span)
        if words[0] == "make":
            assert words[1] in targets, span
        else:
            with monkeypatch.context() as patch:
                read_as_recipe(words[0], words[1:], patch)


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: page.name)
def test_a_translation_has_the_code_and_the_commands_of_its_page(page: Path) -> None:
    """What is run is the page itself; comments may be translated."""
    code, commands = [[each(one) for one in (page, TRANSLATED[page])] for each in (programs_of, commands_of)]
    assert code[0] == code[1]
    assert commands[0] == commands[1]


def programs_of(page: Path) -> list[str]:
    return [ast.dump(ast.parse(block)) for _, block in blocks_of(page, "python")]


def test_the_words_of_the_introductions_lead_to_the_same_places_in_both_languages() -> None:
    english, chinese = (rows_of_words(page) for page in (INTRODUCTIONS, INTRODUCTIONS.with_suffix(".zh.md")))
    assert len({word for word, _ in english}) == len(english) > 100
    places = [[re.findall(r"`[^`]+`|\]\([^)#]+", where) for _, where in rows] for rows in (english, chinese)]
    assert places[0] == places[1]


def rows_of_words(page: Path) -> list[tuple[str, str]]:
    """The rows of the last table of a page: a word, and where it is."""
    return re.findall(r"(?m)^\| (.+) \| (.+) \|$", page.read_text(encoding="utf-8").rpartition("| --- | --- |\n")[2])


API = ROOT / "docs" / "python_api.md"
PROMISED = dict(re.findall(r"`(weft\.[\w.]+)(\(.*?\))?`", API.read_text(encoding="utf-8").partition("\n## ")[0]))


@pytest.mark.parametrize("name", PROMISED)
def test_what_may_be_imported_is_there_as_it_is_shown(name: str) -> None:
    found = weft
    for part in name.split(".")[1:]:
        if not hasattr(found, part):
            importlib.import_module(f"{found.__name__}.{part}")
        found = getattr(found, part)
    if PROMISED[name]:
        shown = re.findall(r"\w+", PROMISED[name])
        there = [parameter for parameter in inspect.signature(found).parameters if parameter not in ("self", "_")]
        assert shown == (there[: len(shown)] if "..." in PROMISED[name] else there)


def test_the_page_of_what_may_be_imported_imports_nothing_else() -> None:
    for _, block in [*blocks_of(API, "python"), *blocks_of(API, "py")]:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("weft"):
                for name in node.names:
                    assert any(f"{promised}.".startswith(f"{node.module}.{name.name}.") for promised in PROMISED), name


def test_the_readme_is_short() -> None:
    for name in ("README.md", "README.zh.md"):
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 200, name


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small models where the documents have theirs."""
    root = tmp_path_factory.mktemp("documents")
    text = runs.write_sentences(root / "text.txt", documents=200)
    given = {"train_files": text, "vocab_size": 300, "max_steps": 4, "validation_fraction": 0.1}
    runs.run_here(**given, output_dir=root / "runs" / "pretrain_clm")
    runs.run_here(**given, output_dir=root / "runs" / "infill", infill_rate=0.5)
    runs.run_here(**given, output_dir=root / "runs" / "pretrain_mlm", objective="masked")
    runs.run_here(**given, output_dir=root / "runs" / "hybrid", objective="hybrid")
    runs.run_here(**given, output_dir=root / "runs" / "readings", objective="hybrid", diffusion_share=0.3)
    runs.run_here(**given, output_dir=root / "runs" / "pretrain_seq2seq", objective="span")
    runs.run_here(**given, output_dir=root / "runs" / "pretrain_diffusion", objective="diffusion")
    runs.run_here(**given, output_dir=root / "runs" / "pretrain_replaced", objective="replaced-tokens")
    for name, task in TASKS.items():
        files = finetuning.files_of(f"finetune_{task}", root / "data", train=40, validation=20)
        main = finetuning.MAINS[f"finetune_{task}"]
        finetuning.run_here(main, **files, max_steps=2, evaluations=1, output_dir=root / "runs" / name)
    pairs = sequences.write_files(root / "pairs")
    sequences.run(**pairs, max_steps=2, evaluations=1, output_dir=root / "runs" / "multi30k")
    return root


PROGRAMS = [page for page in READ if page not in TRANSLATED and blocks_of(page, "python")]


@pytest.mark.parametrize("page", PROGRAMS, ids=lambda page: page.name)
def test_python_runs_from_top_to_bottom(page: Path, trained: Path, tmp_path: Path, monkeypatch) -> None:
    shutil.copytree(trained / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    names: dict[str, object] = {"__name__": "__main__"}
    for line, block in blocks_of(page, "python"):
        program = compile("\n" * (line - 1) + block, str(page), "exec")
        exec(program, names)
