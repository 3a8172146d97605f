"""One tag that is a mistake is named by its place, and does not turn entities into plain tags."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.arguments import FineTuningArguments
from weft.recipes.finetuning.tasks.token_classification.arguments import TokenClassificationArguments
from weft.recipes.finetuning.tasks.token_classification.schemes import detect_scheme
from weft.recipes.finetuning.tasks.token_classification.task import TokenClassification

WORDS = ["John", "Smith", "lives", "in", "New", "York"]
TAGS = {
    "IOB2": ["B-PER", "I-PER", "O", "O", "B-LOC", "I-LOC"],
    "IOB1": ["I-PER", "I-PER", "O", "O", "I-LOC", "I-LOC"],
    "BIOES": ["B-PER", "E-PER", "O", "O", "S-LOC", "S-LOC"],
    "BMES": ["B-PER", "E-PER", "O", "O", "B_LOC", "M_LOC"],
    "BILOU": ["B-PER", "L-PER", "O", "O", "U-LOC", "U-LOC"],
}
STRAYS = ["0", "B", "b-per", "I.PER", "IPER", "o", "PER", "-", "X-PER", "B-"]
STRAY_LINE = 7 * 3 + 3  # of a file of columns: the third word of the fourth sentence


def sentences(tags: list[str], stray: str | None = None, number: int = 12) -> list[list[str]]:
    """Tags of sentences of WORDS; of the fourth the third is the stray one."""
    rows = [list(tags) for _ in range(number)]
    if stray is not None:
        rows[3][2] = stray
    return rows


def columns(path: Path, rows: list[list[str]], separator: str = " ") -> Path:
    """Sentences of different words, so that some can be held out."""
    blocks = [
        "\n".join(f"{word}{number}{separator}{tag}" for word, tag in zip(WORDS, tags))
        for number, tags in enumerate(rows)
    ]
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return path


def read(**files: Path | str) -> TokenClassification:
    arguments = TokenClassificationArguments(**{name: str(value) for name, value in files.items()})
    return TokenClassification.read(arguments, FineTuningArguments())


def refusal(**files: Path | str) -> str:
    with pytest.raises(RecipeError) as error:
        read(**files)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("scheme", TAGS)
@pytest.mark.parametrize("stray", STRAYS)
def test_a_stray_tag_is_refused_by_file_and_line(tmp_path: Path, scheme: str, stray: str) -> None:
    path = columns(tmp_path / "train.conll", sentences(TAGS[scheme], stray))
    sentence = refusal(train_file=path)
    assert sentence.startswith(f"{path}, line {STRAY_LINE}: the tag {stray!r} is none of ")
    assert "--scheme" in sentence


@pytest.mark.parametrize(("scheme", "letter"), [("IOB2", "E"), ("IOB2", "M"), ("BMES", "I"), ("BILOU", "E")])
def test_a_letter_of_another_scheme_is_refused_too(tmp_path: Path, scheme: str, letter: str) -> None:
    path = columns(tmp_path / "train.conll", sentences(TAGS[scheme], f"{letter}-PER", number=30))
    assert f"line {STRAY_LINE}: the tag '{letter}-PER' is none of {scheme}" in refusal(train_file=path)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_stray_tag_of_another_split_is_named_in_that_file(tmp_path: Path, split: str) -> None:
    files = {name: columns(tmp_path / f"{name}.conll", sentences(TAGS["IOB2"])) for name in ("train", "validation")}
    files[split] = columns(tmp_path / f"{split}.conll", sentences(TAGS["IOB2"], "0"))
    found = refusal(**{f"{name}_file": path for name, path in files.items()})
    assert found.startswith(f"{files[split]}, line {STRAY_LINE}: the tag '0'")


@pytest.mark.parametrize("ending", ["json", "jsonl", "parquet"])
def test_a_stray_tag_of_a_table_is_named_by_row_and_word(tmp_path: Path, ending: str) -> None:
    rows = [
        {"tokens": [*WORDS[:5], f"York{number}"], "ner_tags": tags}
        for number, tags in enumerate(sentences(TAGS["IOB2"], "0"))
    ]
    path = tmp_path / f"train.{ending}"
    if ending == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows) if ending == "json" else "\n".join(map(json.dumps, rows)))
    place = {"json": "entry 4", "jsonl": "line 4", "parquet": "row 3"}[ending]
    assert refusal(train_file=path).startswith(f"{path}, {place}, word 3: the tag '0' is none of IOB2")


def test_zeros_in_place_of_every_o_are_refused(tmp_path: Path) -> None:
    tags = [tag.replace("O", "0") if tag == "O" else tag for tag in TAGS["IOB2"]]
    assert "line 3: the tag '0'" in refusal(train_file=columns(tmp_path / "train.conll", sentences(tags)))


def test_a_corpus_in_lower_case_is_refused(tmp_path: Path) -> None:
    path = columns(tmp_path / "train.conll", sentences([tag.lower() for tag in TAGS["IOB2"]]))
    assert "line 1: the tag 'b-per' is none of IOB2" in refusal(train_file=path)


@pytest.mark.parametrize("tags", [TAGS["IOB2"], ["NN", "NN", "VB", "IN", "NN", "NN"]])
def test_an_empty_tag_is_refused_of_plain_tags_too(tmp_path: Path, tags: list[str]) -> None:
    path = columns(tmp_path / "train.conll", sentences(tags, " "), separator="\t")
    assert refusal(train_file=path).startswith(f"{path}, line {STRAY_LINE}: the tag is empty")


def test_blanks_around_a_tag_do_not_count(tmp_path: Path) -> None:
    path = columns(tmp_path / "train.conll", sentences(TAGS["IOB2"], "O "), separator="\t")
    assert read(train_file=path).labels == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def test_tags_that_are_plain_stay_plain(tmp_path: Path) -> None:
    speech = ["NNP", "NNP", "VBZ", "IN", "B-NP", "S-X"]
    task = read(train_file=columns(tmp_path / "train.conll", sentences(speech)))
    assert task.is_plain
    assert task.labels == sorted(set(speech))
    assert detect_scheme([["S-Nom", "S-Gen", "S-Acc", "V", "S-Nom"]]) == "plain"
    assert detect_scheme([["b-flat", "c-sharp", "O", "d"]]) == "plain"
    assert detect_scheme([["B", "M", "E", "S"]]) == "plain"  # words cut out of a line of characters


def test_a_user_who_means_plain_tags_says_so(tmp_path: Path) -> None:
    path = columns(tmp_path / "train.conll", sentences(TAGS["IOB2"], "0"))
    task = read(train_file=path, scheme="plain")
    assert task.is_plain
    assert "0" in task.labels


def test_a_word_of_conllu_without_an_entity_is_outside(tmp_path: Path) -> None:
    lines = []
    for place, tags in enumerate(sentences(TAGS["IOB2"])):
        for number, (word, tag) in enumerate(zip(WORDS, tags), start=1):
            misc = "_" if tag == "O" else f"Entity={tag}"
            lines.append("\t".join([str(number), f"{word}{place}", "_", "X", "_", "_", "_", "_", "_", misc]))
        lines.append("")
    path = tmp_path / "train.conllu"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert read(train_file=path, tag_column="Entity").labels == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
