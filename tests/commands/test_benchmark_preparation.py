"""How time and memory of preparing text grow with its size is one command; the text that it makes does not repeat."""

import json
import re
from pathlib import Path

import pytest
from helpers.text import sentences, write_paragraphs

from weft.recipes import benchmark
from weft.recipes.benchmarks import growing_text
from weft.recipes.benchmarks.arguments import BenchmarkArguments
from weft.recipes.benchmarks.growing_text import write_growing_text
from weft.recipes.common.errors import RecipeError
from weft.recipes.data.text_files import read_text
from weft.tokenizer.train import train_tokenizer


def test_text_of_any_size_has_no_document_twice_and_new_words_all_along(tmp_path: Path) -> None:
    source, path = tmp_path / "source.txt", tmp_path / "grown.txt"
    write_paragraphs(source, sentences(50))
    write_growing_text(source, path, 1)
    documents = list(read_text(path, "blank-line"))
    assert 1_000_000 <= path.stat().st_size < 1_001_000 and len({*documents}) == len(documents) > 5000
    known: set[str] = set()
    for first in range(0, 5000, 1000):
        words = [word for text in documents[first : first + 1000] for word in text.split()]
        new = {*words} - known
        assert len(new) > len(words) / growing_text.NEW_WORD_EVERY
        known |= new


def test_time_and_memory_of_larger_texts_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("/proc/self/status").is_file():
        pytest.skip("memory is measured on Linux only")
    write_paragraphs(tmp_path / "text.txt", sentences(50))
    train_tokenizer(iter(sentences(50)), "bpe", 300).save_pretrained(tmp_path / "tokenizer")
    words = ["--train_files", str(tmp_path / "text.txt"), "--tokenizer_name", str(tmp_path / "tokenizer")]
    words += ["--megabytes", "1", "--rounds", "1", "--output_file", str(tmp_path / "result.json")]
    monkeypatch.setattr("sys.argv", ["benchmark.py", "--subject", "prepare_data", *words])
    benchmark.main()
    told = re.search(r"^1 MB: (\S+) s, (\S+) s a MB, (\d+) MB of memory at most$", capsys.readouterr().out, re.M)
    assert told is not None and 30 < int(told[3]) < 400
    seconds = json.loads((tmp_path / "result.json").read_text())["seconds"]
    assert seconds.keys() == {"weft, 1 MB"} and seconds["weft, 1 MB"][0] == pytest.approx(float(told[1]), abs=0.01)


@pytest.mark.parametrize("sizes", [[0], [10, 10]])
def test_sizes_that_make_no_sense_are_refused(sizes: list[int]) -> None:
    with pytest.raises(RecipeError, match=r"megabytes are .*: give each once, 1 or more\."):
        BenchmarkArguments(megabytes=sizes).check()
