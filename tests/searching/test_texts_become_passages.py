"""Texts of every format become passages that are whole sentences, fit into a model, and know their place."""

import gzip
import itertools
import json
import random
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from helpers.text import CHINESE, sentences
from transformers import PreTrainedTokenizerBase

from weft.recipes.common.errors import RecipeError
from weft.recipes.data import text_source
from weft.recipes.data.segmentation import word_spans
from weft.recipes.data.text_source import TextSource
from weft.recipes.searching.embedder import Embedder
from weft.recipes.searching.passages import Cutter, Passage
from weft.recipes.searching.reading import Stretch, open_sources, read_stretches
from weft.tokenizer.train import train_tokenizer


def cut(text: str, longest: int = 20, overlap: int = 6) -> list[Passage]:
    return Cutter(word_spans, longest, overlap).passages([Stretch(text, line=1)])


def passages_of(path: Path, index: str = "index", text_column: str = "text", longest: int = 100) -> list[Passage]:
    sources = open_sources([str(path)], path.parent / index, text_column, None)
    return [each for source in sources for each in Cutter(word_spans, longest, 10).passages(read_stretches(source))]


def random_text(seed: int) -> str:
    draw = random.Random(seed)
    paragraphs = []
    for number in range(draw.randint(1, 9)):
        words = [f"w{number}x{draw.randrange(99)}" for _ in range(draw.choice((3, 9, 30, 90)))]
        for place in range(4, len(words), draw.choice((5, 11, 200))):
            words[place] = f"{words[place]}." if draw.random() < 0.8 else f"{words[place]},\n  and"
            words[min(place + 1, len(words) - 1)] = words[min(place + 1, len(words) - 1)].capitalize()
        paragraphs.append(" ".join(words))
    return draw.choice(("", "\n\n   ")) + "\n\n".join(paragraphs) + draw.choice(("", "\n", "\n \n"))


@pytest.mark.parametrize("seed", range(40))
def test_passages_hold_the_whole_text_and_none_is_too_long(seed: int) -> None:
    text = random_text(seed)
    spans = Cutter(word_spans, 20, 6).spans(text, 20)
    assert [(first, last) for first, last in spans if first >= last] == []
    covered = np.zeros(len(text), bool)
    for first, last in spans:
        covered[first:last] = True
        assert len(word_spans(text[first:last])) <= 20
    assert not [sign for sign, there in zip(text, covered) if not there and not sign.isspace()]
    for (_, before), (after, _) in itertools.pairwise(spans):
        assert len(word_spans(text[after:before])) <= 6


@pytest.mark.parametrize("seed", range(40))
def test_lines_are_those_of_the_file(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(random_text(seed))
    lines = path.read_text().split("\n")
    for passage in passages_of(path, longest=12):
        first, last = (int(number) for number in (re.findall(r"\d+", passage.place) * 2)[:2])
        assert first == passage.line and passage.text in "\n".join(lines[first - 1 : last])
        assert passage.text.split("\n")[0].strip() in lines[first - 1]
        assert passage.text.split("\n")[-1] in lines[last - 1]


def test_passages_begin_with_sentences_and_share_the_last_ones() -> None:
    text = "One two three four. Five six seven. Eight nine ten. Eleven twelve."
    assert [each.text for each in cut(text, longest=14, overlap=5)] == [
        "One two three four. Five six seven. Eight nine ten.",
        "Eight nine ten. Eleven twelve.",
    ]
    assert [each.text for each in cut(text, longest=14, overlap=0)][1] == "Eleven twelve."


def test_a_paragraph_that_ends_in_the_second_half_ends_the_passage() -> None:
    text = "One two three four five.\n\nSix seven eight.\n\nNine ten. Eleven twelve thirteen."
    assert [each.text for each in cut(text, longest=13)] == [
        "One two three four five.\n\nSix seven eight.",
        "Nine ten. Eleven twelve thirteen.",
    ]


def test_a_sentence_that_is_too_long_is_cut_between_words() -> None:
    text = " ".join(f"word{number}" for number in range(50))
    found = cut(text, longest=20, overlap=0)
    assert " ".join(each.text for each in found) == text and len(found) == 3


def test_sentences_without_blanks_are_found() -> None:
    found = cut(CHINESE * 3, longest=16, overlap=0)
    assert "".join(each.text for each in found) == CHINESE * 3
    assert all(each.text.endswith("。") for each in found)


def test_no_passage_has_more_tokens_than_the_tokenizer_counts() -> None:
    texts = sentences(60)
    tokenizer: PreTrainedTokenizerBase = train_tokenizer(iter(texts), "bpe", 320)

    def offsets(text: str) -> list[tuple[int, int]]:
        return tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]

    text = " ".join(texts[:20]) + "\n\n" + "\n".join(texts[20:])
    found = Cutter(offsets, 60, 10).passages([Stretch(text, line=1)])
    assert max(len(offsets(each.text)) for each in found) in range(45, 62)
    assert all(any(text_[:20] in each.text for each in found) for text_ in texts)


def test_titles_stand_before_every_passage_and_count() -> None:
    stretch = Stretch("One two three. " * 9, title="a.b", record="a.b")
    found = Cutter(word_spans, 16, 0).passages([stretch])
    assert len(found) > 2 and all(each.text.startswith("a.b\nOne") for each in found)
    assert all(len(word_spans(each.text)) <= 16 for each in found)
    assert [each.place for each in found][:2] == [f"a.b, part 1 of {len(found)}", f"a.b, part 2 of {len(found)}"]


@pytest.mark.parametrize("longest", [8, 16, 17])
def test_a_long_title_is_cut_so_that_passages_are_not(longest: int) -> None:
    """As that of a function with many arguments."""
    title = f"subprocess.call({', '.join(f'option_{number}=None' for number in range(40))})"
    found = Cutter(word_spans, longest, 0).passages([Stretch("One two three. " * 9, title=title, record="call")])
    assert all(len(word_spans(each.text)) <= longest for each in found)
    heads = {each.text.split("\n")[0] for each in found}
    assert len(heads) == 1 and title.startswith(heads.pop())
    assert "".join(each.text.split("\n", 1)[1] for each in found).count("three") == 9


def test_words_count_as_many_tokens_as_a_tokenizer_without_offsets_makes_of_them() -> None:
    """Else the model would leave the ends of passages out."""

    def tokenize(text: str) -> list[str]:
        return re.findall("...?", text)

    model = SimpleNamespace(tokenizer=SimpleNamespace(is_fast=False, tokenize=tokenize))
    embedder = Embedder.__new__(Embedder)
    embedder.model = model
    for text in (random_text(3), "unbelievable antidisestablishmentarianism " * 30, "words. " * 50, ""):
        found = Cutter(embedder.offsets, 20, 6).passages([Stretch(text, line=1)])
        assert all(len(tokenize_words(each.text, tokenize)) <= 20 for each in found)
        assert {word for each in found for word in each.text.split()} == {*text.split()}


def tokenize_words(text: str, tokenize) -> list[str]:
    return [token for first, last in word_spans(text).tolist() for token in tokenize(text[first:last]) or [""]]


def test_every_format_is_read_and_its_places_are_named(tmp_path: Path) -> None:
    texts = ["The otter swims.", "The heron waits."]
    rows = [{"text": text, "n": number} for number, text in enumerate(texts)]
    (tmp_path / "a.txt").write_text("\n\n".join(texts))
    (tmp_path / "b.md").write_text("# Title\n\n" + "\n\n".join(texts))
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "d.json").write_text(json.dumps(rows))
    (tmp_path / "e.csv").write_text("text,n\n" + "".join(f'"{text}",1\n' for text in texts))
    (tmp_path / "f.tsv.gz").write_bytes(gzip.compress(("text\tn\n" + "".join(f"{t}\t1\n" for t in texts)).encode()))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "g.parquet")
    found = {}
    for path in sorted(tmp_path.iterdir()):
        passages = passages_of(path, longest=7)
        assert {each.text.replace("# Title\n\n", "") for each in passages} - {"# Title"} == set(texts), path
        found[path.name] = [each.place for each in passages]
    assert found == {
        "a.txt": ["line 1", "line 3"],
        "b.md": ["lines 1-3", "line 5"],
        "c.jsonl": ["line 1", "line 2"],
        "d.json": ["entry 1", "entry 2"],
        "e.csv": ["line 2", "line 3"],
        "f.tsv.gz": ["line 2", "line 3"],
        "g.parquet": ["row 0", "row 1"],
    }


def test_pages_are_counted_by_form_feeds(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("On the first.\n\fOn the second.\nStill there.\n\fOn the third.\n\f")
    found = passages_of(path)
    assert [(each.page, each.place) for each in found] == [
        (1, "page 1, line 1"),
        (2, "page 2, lines 2-3"),
        (3, "page 3, line 4"),
    ]
    path.write_text("No pages.")
    assert [(each.page, each.place) for each in passages_of(path)] == [(0, "line 1")]


def test_long_files_are_read_in_stretches_that_join_to_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(f"Paragraph {number} of many.\nIt goes on." for number in range(3000)))
    (source,) = open_sources([str(path)], tmp_path / "index", "text", None)
    stretches = list(read_stretches(source))
    assert len(stretches) > 2 and "".join(each.text for each in stretches) == path.read_text()
    found = passages_of(path, longest=12)
    assert [each.line for each in found] == list(range(1, 9000, 3))


def test_folders_give_what_can_be_read_and_not_the_index(tmp_path: Path) -> None:
    for name in ("a.txt", "deep/b.md", "picture.png", "index/words.json", ".hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("Something.")
    (tmp_path / "empty.txt").touch()
    found = open_sources([str(tmp_path)], tmp_path / "index", "text", None)
    assert [source.name for source in found] == [str(tmp_path / "a.txt"), str(tmp_path / "deep" / "b.md")]


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        ("missing.txt", None, "missing.txt is missing"),
        ("a.txt", b"", "a.txt is empty"),
        ("a.pdf", b"x", "must end in .txt, .md, .rst, .jsonl"),
        ("a.txt", b"caf\xe9\n", "a.txt, line 1: byte 0xe9"),
        ("a.csv", b"title,n\nx,1\n", "no column 'text'.*--text_column"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, content: bytes | None, sentence: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RecipeError, match=sentence):
        passages_of(tmp_path / name)


def test_a_source_of_ones_own_is_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Numbers(TextSource):
        @classmethod
        def accepts(cls, name: str) -> bool:
            return name.startswith("numbers:")

        def _read(self, state: object, record: int):
            yield from (f"Number {number}." for number in range(int(self.name.removeprefix("numbers:"))))

    monkeypatch.setattr(text_source, "SOURCES", [Numbers, *text_source.SOURCES])
    found = passages_of(Path("numbers:2"))
    assert [(each.text, each.place) for each in found] == [("Number 0.", "document 1"), ("Number 1.", "document 2")]
