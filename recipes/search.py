"""Search texts of your own by meaning, by words, or by both; and Python's own documentation.

    python recipes/search.py build FOLDER_OF_TEXTS INDEX [--model FOLDER]
    python recipes/search.py ask INDEX "which port does the server use?"
    python recipes/search.py serve INDEX
    python recipes/search.py python "how do I read a CSV file?"

Run `build` again after texts have changed: what has not is neither read nor embedded again. Searching by meaning needs
a model and sentence-transformers (pip install sentence-transformers); by words it needs neither.
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from weft.recipes.common.errors import RecipeError, refusing, run_command
from weft.recipes.common.wording import counted
from weft.recipes.data.json_values import refuse_halves
from weft.recipes.searching.build import BuildArguments, build
from weft.recipes.searching.index import BY, SearchIndex
from weft.recipes.searching.python_text import open_python_index
from weft.recipes.searching.serve import SearchServer, is_loopback
from weft.recipes.searching.show import as_json, print_hits


def main(argv: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(argv)
    if given.command == "build":
        build(_build_arguments(given))
    elif given.command == "serve":
        _serve(given)
    elif given.command == "python":
        _check([given.question])
        with contextlib.redirect_stdout(sys.stderr) if given.json else contextlib.nullcontext():
            index = open_python_index(given.index, given.model, given.device)
        _answer(index, [given.question], given)
    else:
        index = SearchIndex(given.index)
        questions = given.questions or _read_questions()
        _check(questions)
        _answer(index, questions, given)


def _read_questions() -> list[str]:
    with refusing("the questions on the standard input cannot be read", UnicodeError, advice="write them in UTF-8."):
        return [line.strip() for line in sys.stdin if line.strip()]


def _check(questions: Sequence[str]) -> None:
    for question in questions:
        refuse_halves(question, f"question {question!r}")
    if not questions or not all(question.strip() for question in questions):
        raise RecipeError("the question is empty: give one between quotes, or write one on each line of the input.")


def _answer(index: SearchIndex, questions: Sequence[str], given: argparse.Namespace) -> None:
    """Print what is found for each question."""
    if (given.by or index.by) != "words" and index.embedder is None:
        index.load_model(getattr(given, "model", None), given.device)
    for question, hits in zip(questions, index.search(questions, given.top, given.by, given.faiss)):
        if given.json:
            print(as_json(hits, question), flush=True)
            continue
        if len(questions) > 1:
            print(f"# {question}\n")
        print_hits(hits, question, sys.stdout, index.form, given.whole)


def _serve(given: argparse.Namespace) -> None:
    """Answer requests until the process is stopped."""
    index = SearchIndex(given.index)
    if index.about["model"] is not None:
        index.load_model(given.model, given.device)
    with SearchServer(index, given.host, given.port, given.faiss) as server:
        host = f"[{given.host}]" if ":" in given.host else given.host
        print(f"{counted(len(index), 'passage')} at http://{host}:{server.server_port}/ (Ctrl+C ends it)", flush=True)
        if not is_loopback(given.host):
            print(f"note: whoever reaches {given.host} can read the passages of {given.index}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("ended", flush=True)


def _build_arguments(given: argparse.Namespace) -> BuildArguments:
    return BuildArguments(**{name: value for name, value in vars(given).items() if name != "command"})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help="make an index, or bring one up to date")
    endings = ".txt, .md, .rst, .jsonl, .json, .csv, .tsv (each also .gz or .zst) or .parquet"
    texts = f"files ({endings}), folders, or patterns between quotes; none: those that the index was built from before"
    command.add_argument("texts", nargs="*", help=texts)
    command.add_argument("index", type=Path, help="the folder of the index")
    command.add_argument("--model", help="folder or Hub id: of sentence-transformers, or any encoder; none: words only")
    command.add_argument(
        "--passage_tokens", type=int, help="tokens of a passage, at most (without a model words) [200]"
    )
    command.add_argument("--overlap", type=int, help="tokens that a passage shares with the one before, at most [32]")
    command.add_argument(
        "--stem", metavar="LANGUAGE", help="of the texts: find words in all their forms [as they stand]"
    )
    command.add_argument("--text_column", help="the field of records that holds the text [text]")
    command.add_argument("--encoding", help="how characters are written in the files [UTF-8]")
    command.add_argument("--batch_size", type=_positive, default=32, help="passages that are embedded at once [32]")
    command = commands.add_parser("ask", help="find passages for questions")
    command.add_argument("index", type=Path, help="the folder of an index")
    command.add_argument("questions", nargs="*", help="one or more; none: one on each line of the standard input")
    _add_answering(command)
    command.add_argument("--model", help="where the model of the index lies now, if it was moved")
    command = commands.add_parser("serve", help="a page that searches an index")
    command.add_argument("index", type=Path, help="the folder of an index")
    command.add_argument("--host", default="127.0.0.1", help="who may ask: 127.0.0.1 is this machine only [127.0.0.1]")
    command.add_argument("--port", type=int, default=8000, help="0: any that is free [8000]")
    command.add_argument("--model", help="where the model of the index lies now, if it was moved")
    _add_faiss(command)
    command = commands.add_parser("python", help="search Python's own documentation, offline")
    command.add_argument("question")
    _add_answering(command)
    command.add_argument(
        "--model", help="folder of a model [that of make pretrain-mlm or make pretrain, if there is one]"
    )
    command.add_argument("--index", type=Path, default=Path("runs/search"), help="where indexes are kept [runs/search]")
    for command in commands.choices.values():
        command.add_argument("--device", help="cuda, cpu ... [a GPU if there is one]")
    return parser


def _add_answering(command: argparse.ArgumentParser) -> None:
    command.add_argument("--top", type=_positive, default=5, help="passages to show [5]")
    command.add_argument(
        "--by", choices=BY, help="what to search by [both, or words where no model was trained for it]"
    )
    command.add_argument("--json", action="store_true", help="print a line of JSON for each question")
    command.add_argument("--whole", action="store_true", help="print passages whole")
    _add_faiss(command)


def _add_faiss(command: argparse.ArgumentParser) -> None:
    text = "have faiss compare vectors; --no-faiss: numpy [faiss for many, where it is installed]"
    command.add_argument("--faiss", action=argparse.BooleanOptionalAction, help=text)


def _positive(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number from 1 on")
    return int(word)


if __name__ == "__main__":
    run_command(main)
