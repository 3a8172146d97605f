"""The command finds passages by words, by meaning and by both, for people and for programs."""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.searching import TEXTS, ToyEmbedder, make_model, run, use_toy_model, write_texts

from weft.recipes.common.errors import RecipeError
from weft.recipes.data import builtin_text
from weft.recipes.searching import python_text
from weft.recipes.searching.index import SearchIndex
from weft.recipes.searching.show import print_hits


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_toy_model(monkeypatch)
    monkeypatch.chdir(tmp_path)
    write_texts(tmp_path / "texts")
    make_model(tmp_path / "model")
    run("build", "texts", "words")
    run("build", "texts", "both", "--model", "model")
    return tmp_path


def asked(capsys: pytest.CaptureFixture, *words: object) -> list[dict]:
    """What is found, as programs read it."""
    capsys.readouterr()
    run("ask", *words, "--json")
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_passages_come_with_place_and_score(folder: Path, capsys: pytest.CaptureFixture) -> None:
    capsys.readouterr()
    run("ask", "words", "Who eats fish?")
    printed = capsys.readouterr().out
    assert (
        printed.startswith("1. texts/animals.txt, lines 1-3; score ") and "   The otter swims in the river." in printed
    )
    (found,) = asked(capsys, "words", "Who eats fish?")
    hit = found["hits"][0]
    assert found["question"] == "Who eats fish?" and (hit["source"], hit["line"]) == ("texts/animals.txt", 1)
    assert hit["score"] > 0 and hit["ranks"] == {} and "otter" in hit["text"]


def test_several_questions_are_answered_in_order(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = ["hammer", "snow", "zebra"]
    found = asked(capsys, "words", *questions)
    assert [each["question"] for each in found] == questions
    assert [len(each["hits"]) for each in found] == [1, 1, 0]
    monkeypatch.setattr(sys, "stdin", io.StringIO("hammer\n\nsnow\n"))
    assert asked(capsys, "words") == found[:2]


def test_meaning_is_the_order_of_cosines(folder: Path, capsys: pytest.CaptureFixture) -> None:
    question = "a hammer and a saw"
    (found,) = asked(capsys, "both", question, "--by", "meaning", "--top", 3)
    model = ToyEmbedder("model")
    texts = SearchIndex(folder / "both").passages.column("text").to_pylist()
    cosines = model.of_passages(texts, 32) @ model.of_questions([question])[0]
    best = np.argsort(-cosines)[:3]
    assert [hit["text"] for hit in found["hits"]] == [texts[row] for row in best]
    np.testing.assert_allclose([hit["score"] for hit in found["hits"]], cosines[best], rtol=1e-5)


def test_both_is_reciprocal_rank_fusion(folder: Path, capsys: pytest.CaptureFixture) -> None:
    question = "What waits in the snow?"
    orders = {
        by: [hit["text"] for hit in asked(capsys, "both", question, "--by", by, "--top", 9)[0]["hits"]]
        for by in ("meaning", "words")
    }
    expected: dict[str, float] = {}
    for order in orders.values():
        for rank, text in enumerate(order, start=1):
            expected[text] = expected.get(text, 0) + 1 / (60 + rank)
    (found,) = asked(capsys, "both", question, "--by", "both", "--top", 9)
    assert {hit["text"]: pytest.approx(hit["score"]) for hit in found["hits"]} == expected
    scores = [hit["score"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True)
    for hit in found["hits"]:
        assert hit["ranks"] == {
            by: order.index(hit["text"]) + 1 for by, order in orders.items() if hit["text"] in order
        }
    assert asked(capsys, "both", question, "--top", 9) == [found]  # what an index with a model does by itself


def test_the_same_text_is_shown_once_with_all_its_places(tmp_path: Path) -> None:
    write_texts(tmp_path / "texts", {"a.txt": "Same words.", "b.txt": "Same words.", "c.txt": "Other words."})
    run("build", tmp_path / "texts", tmp_path / "index")
    hits = SearchIndex(tmp_path / "index").search(["words"], top=2)[0]
    assert [hit.text for hit in hits] == ["Same words.", "Other words."]
    assert hits[0].others == [f"{tmp_path / 'texts' / 'b.txt'}, line 1"]
    out = io.StringIO()
    print_hits(hits, "words", out)
    assert "also in" in out.getvalue()


def test_long_passages_are_shown_by_their_first_lines(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"Line {number}" for number in range(20)))
    run("build", tmp_path / "a.txt", tmp_path / "index")
    capsys.readouterr()
    run("ask", tmp_path / "index", "line")
    short = capsys.readouterr().out
    assert "Line 7" in short and "Line 8" not in short and short.rstrip().endswith("   ...")
    run("ask", tmp_path / "index", "line 14 15 16 17")
    assert "Line 14" in (short := capsys.readouterr().out) and "Line 3" not in short and short.count("   ...") == 2
    run("ask", tmp_path / "index", "line", "--whole")
    assert "Line 19" in capsys.readouterr().out


def test_words_are_found_in_all_forms_of_their_language(folder: Path, capsys: pytest.CaptureFixture) -> None:
    run("build", "texts", "stemmed", "--stem", "english")
    for question, text in (("driving a nail", "A hammer drives nails."), ("falling", "Rain falls on the hills.")):
        assert asked(capsys, "words", question, "--top", 1)[0]["hits"] != asked(capsys, "stemmed", question)[0]["hits"]
        assert text in asked(capsys, "stemmed", question, "--top", 1)[0]["hits"][0]["text"]
    out, index = Terminal(), SearchIndex(folder / "stemmed")
    print_hits(index.search(["falling"])[0], "falling", out, index.form)
    assert "Rain \x1b[1mfalls\x1b[0m on" in out.getvalue()
    with pytest.raises(RecipeError, match=r"stem is 'german', but stemmed was built with 'english'"):
        run("build", "texts", "stemmed", "--stem", "german")


def test_nothing_that_a_terminal_obeys_is_printed(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("before \x1b[2J\x07 after")
    run("build", tmp_path / "a.txt", tmp_path / "index")
    capsys.readouterr()
    run("ask", tmp_path / "index", "after")
    assert not {"\x1b", "\x07"} & set(capsys.readouterr().out)


def test_text_that_is_not_english_is_printed_as_it_is(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    text = "\u3000\u3000\u516c\u56ed\u6563\u6b65 \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 10\u00a0000"
    (tmp_path / "a.txt").write_text(f"A line.\n{text}", encoding="utf-8")
    run("build", tmp_path / "a.txt", tmp_path / "index")
    capsys.readouterr()
    run("ask", tmp_path / "index", "\u516c\u56ed")
    assert text in capsys.readouterr().out


def test_copies_of_a_text_leave_room_for_others(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """More of them than an order is looked at first, as of a licence in every file."""
    copies = {f"{number:03}.txt": "Licence, licence and licence." for number in range(250)}
    others = {f"z{number}.txt": f"A licence of another kind, {number}." for number in range(3)}
    run("build", write_texts(tmp_path / "texts", copies | others), tmp_path / "index")
    hits = SearchIndex(tmp_path / "index").search(["licence", "kind"], top=3)
    assert [hit.text for hit in hits[0]] == [copies["000.txt"], others["z0.txt"], others["z1.txt"]]
    assert len(hits[0][0].others) == 249 and [hit.text for hit in hits[1]] == [*others.values()]
    capsys.readouterr()
    run("ask", tmp_path / "index", "licence")
    first = capsys.readouterr().out.splitlines()[0]
    assert first.count("line 1") == 9 and "; 241 more; score" in first


def test_names_that_are_not_utf_8_are_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """As an archive from elsewhere leaves them."""
    (tmp_path / "texts").mkdir()
    name = os.fsdecode(os.fsencode(tmp_path / "texts") + b"/caf\xe9.txt")
    try:
        Path(name).write_text("An otter swims.")
    except OSError:
        pytest.skip("this file system takes no such name")
    run("build", tmp_path / "texts", tmp_path / "index")
    run("build", tmp_path / "index")
    assert "up to date" in capsys.readouterr().out
    run("ask", tmp_path / "index", "otter")
    assert "caf\\udce9.txt, line 1" in capsys.readouterr().out
    run("ask", tmp_path / "index", "otter", "--json")
    printed = capsys.readouterr().out
    assert printed.encode() and json.loads(printed)["hits"][0]["source"] == name


def test_questions_that_are_not_utf_8_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8"))
    with pytest.raises(RecipeError, match=r"the questions on the standard input cannot be read .*in UTF-8"):
        run("ask", "words")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_words_of_the_question_are_bold_in_a_terminal(folder: Path) -> None:
    out = Terminal()
    print_hits(SearchIndex(folder / "words").search(["otter"])[0], "otter", out)
    assert "The \x1b[1motter\x1b[0m swims" in out.getvalue()


@pytest.mark.parametrize(
    "words, sentence",
    [
        (("ask", "missing", "a"), "missing is no index: make one with `search.py build TEXTS missing`"),
        (("ask", "words", " "), "the question is empty"),
        (("ask", "words", "caf\udce9"), "holds half of a surrogate pair"),
        (("ask", "words", "a", "--by", "meaning"), "built without a model"),
        (("build", "texts", "new", "--model", "runs/missing"), "model is 'runs/missing': there is no such folder"),
        (("build", "texts", "new", "--model", "texts"), "model 'texts' has no files of a model"),
        (("build", "texts", "new", "--model", "someone/unknown"), "model 'someone/unknown' cannot be fetched"),
        (("build", "texts", "new", "--passage_tokens", 3), "passage_tokens is 3: give at least 8"),
        (("build", "texts", "new", "--overlap", 150), "overlap is 150: give a number from 0 to half"),
        (("build", "texts", "new", "--encoding", "klingon"), "encoding is 'klingon'"),
        (("build", "texts", "new", "--stem", "klingon"), "stem is 'klingon': choose one of arabic"),
        (("build", "text", "new"), "text is missing"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(words: tuple[object, ...], sentence: str, folder: Path) -> None:
    with pytest.raises(RecipeError, match=sentence.replace("(", r"\(")):
        run(*words)
    assert not (folder / "new").exists()


def test_python_is_searched_without_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """On a library of three files: reading Python's own takes seconds."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "csv.py").write_text(
        '"""CSV parsing and writing."""\nclass DictReader:\n    def read(self, file=None):\n'
        '        """Read rows of a CSV file as dicts."""\n'
    )
    monkeypatch.setattr(builtin_text.sysconfig, "get_paths", lambda: {"stdlib": str(library)})
    monkeypatch.setattr(builtin_text, "topics", {"import": "The import statement binds names."})
    builtin_text.embedded_definitions.cache_clear()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    reranker = make_model(tmp_path / "runs" / "embeddings_pydoc")
    (reranker / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "CrossEncoder"}))
    try:
        run("python", "how do I read a CSV file?")
        first = capsys.readouterr().out
        builtin_text.embedded_definitions.cache_clear()
        (library / "csv.py").unlink()
        run("python", "what binds names")
        second = capsys.readouterr().out
        run("python", "what binds names", "--json")
        third = capsys.readouterr()
    finally:
        builtin_text.embedded_definitions.cache_clear()
    assert first.splitlines()[0].startswith("no model: passages are found by the words")
    assert "   csv.DictReader.read(file=None)" in first
    assert "building runs/search/words" in first and "1. Python, csv.DictReader.read; score" in first
    assert "up to date" in second and "1. Python, topic import; score" in second
    assert [hit["place"] for hit in json.loads(third.out)["hits"]] == ["topic import"]
    assert "up to date" in third.err


def test_the_model_that_was_trained_last_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for time, name in enumerate(("b", "c", "a"), start=1):
        os.utime(make_model(tmp_path / "runs" / f"embeddings_{name}") / "modules.json", (time, time))
    monkeypatch.setattr(python_text.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(python_text, "build", lambda arguments: arguments)
    assert python_text.open_python_index(tmp_path / "search", None, None).model == "runs/embeddings_a"


def test_texts_are_whole_in_the_index(folder: Path) -> None:
    found = SearchIndex(folder / "words")
    joined = " ".join(" ".join(text.split()) for text in found.passages.column("text").to_pylist())
    for text in TEXTS.values():
        assert " ".join(text.split()) in joined
