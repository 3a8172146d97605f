"""Tags of every usual scheme mean the same entities as in seqeval, and mistakes in them are repaired and counted."""

import random

import pytest
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, Entities

from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.tasks.token_classification.schemes import (
    TagError,
    detect_scheme,
    entities_of,
    entity_labels,
    split_tag,
    to_iob2,
)

TYPES = ("PER", "LOC", "A-B")
ENTITIES = [(0, 1, "PER"), (1, 3, "PER"), (4, 7, "A-B"), (7, 8, "LOC")]
WRITTEN = {
    "IOB1": ["I-PER", "B-PER", "I-PER", "O", "I-A-B", "I-A-B", "I-A-B", "I-LOC"],
    "IOB2": ["B-PER", "B-PER", "I-PER", "O", "B-A-B", "I-A-B", "I-A-B", "B-LOC"],
    "BIOES": ["S-PER", "B-PER", "E-PER", "O", "B-A-B", "I-A-B", "E-A-B", "S-LOC"],
    "BMES": ["S-PER", "B-PER", "E-PER", "O", "B-A-B", "M-A-B", "E-A-B", "S-LOC"],
    "BILOU": ["U-PER", "B-PER", "L-PER", "O", "B-A-B", "I-A-B", "L-A-B", "U-LOC"],
}


@pytest.mark.parametrize("scheme", WRITTEN)
def test_each_scheme_is_recognised_and_written_as_iob2(scheme: str) -> None:
    assert detect_scheme([WRITTEN[scheme]]) == scheme
    tags, broken = to_iob2(WRITTEN[scheme], scheme)
    assert tags == WRITTEN["IOB2"]
    assert broken == 0
    assert entities_of(tags) == ENTITIES


def test_underscores_and_the_w_of_single_words_are_understood() -> None:
    assert to_iob2(["W_PER", "B_LOC", "E_LOC", "O"], detect_scheme([["W_PER", "B_LOC", "E_LOC", "M_LOC"]]))[0] == [
        *("B-PER", "B-LOC", "I-LOC", "O")
    ]


@pytest.mark.parametrize("letters", ["BI", "BIES"])
def test_any_sequence_however_broken_means_what_seqeval_reads(letters: str) -> None:
    draw = random.Random(0)
    known = ["O", *(f"{letter}-{kind}" for letter in letters for kind in TYPES)]
    for _ in range(2000):
        tags = draw.choices(known, k=draw.randint(1, 8))
        expected = [(first, last + 1, kind) for kind, first, last in get_entities(tags)]
        repaired, _ = to_iob2(tags, "IOB2" if letters == "BI" else "BIOES")
        assert entities_of(repaired) == expected
        assert to_iob2(repaired, "IOB2") == (repaired, 0)


@pytest.mark.parametrize(("scheme", "strict"), [("IOB1", IOB1), ("IOB2", IOB2), ("BIOES", IOBES), ("BILOU", BILOU)])
def test_sequences_that_keep_to_a_scheme_are_those_without_a_repair(scheme: str, strict: type) -> None:
    """An independent reading: seqeval's strict one finds the same entities exactly where nothing is counted."""
    draw = random.Random(1)
    letters = {"IOB1": "BI", "IOB2": "BI", "BIOES": "BIES", "BILOU": "BILU"}[scheme]
    known = ["O", *(f"{letter}-{kind}" for letter in letters for kind in TYPES[:2])]
    clean = 0
    for _ in range(3000):
        tags = draw.choices(known, k=draw.randint(1, 5))
        repaired, broken = to_iob2(tags, scheme)
        found = [(entity.start, entity.end, entity.tag) for entity in Entities([tags], strict).entities[0]]
        if not broken:
            clean += 1
            assert found == entities_of(repaired)
        elif scheme != "IOB1":  # of IOB1, seqeval lets a needless B- pass
            covered = sum(end - start for start, end, _ in found)
            assert covered < sum(tag != "O" for tag in tags)
    assert clean > 100


def test_iob1_and_iob2_are_told_apart_by_most_of_the_tags() -> None:
    assert detect_scheme([["I-PER", "I-PER", "O", "I-LOC"]] * 5 + [["O", "B-PER"]]) == "IOB1"
    assert detect_scheme([["B-PER", "I-PER", "O", "B-LOC"]] * 5 + [["O", "I-PER"]]) == "IOB2"


def test_mistakes_are_counted() -> None:
    assert to_iob2(["O", "I-PER", "I-LOC", "B-LOC"], "IOB2") == (["O", "B-PER", "B-LOC", "B-LOC"], 2)
    assert to_iob2(["B-PER", "O", "E-LOC"], "BIOES") == (["B-PER", "O", "B-LOC"], 2)
    assert to_iob2(["B-PER"], "BIOES") == (["B-PER"], 1)
    assert to_iob2(["O", "B-PER", "I-PER"], "IOB1") == (["O", "B-PER", "I-PER"], 1)


def test_types_alone_are_entities_where_the_scheme_is_given_as_io() -> None:
    assert to_iob2(["PER", "PER", "LOC", "O", "LOC"], "IO") == (["B-PER", "I-PER", "B-LOC", "O", "B-LOC"], 0)


def test_parts_of_speech_are_plain_tags() -> None:
    assert detect_scheme([["NN", "B-NP"]]) == "plain"
    assert detect_scheme([["O", "O"]]) == "plain"
    assert to_iob2(["NN", "VB"], "plain") == (["NN", "VB"], 0)


def test_a_tag_that_the_scheme_does_not_have_is_named() -> None:
    with pytest.raises(TagError, match="'E-PER' is none of IOB2") as error:
        to_iob2(["O", "E-PER"], "IOB2")
    assert error.value.word == 1
    with pytest.raises(RecipeError, match="no single scheme"):
        detect_scheme([["M-PER", "L-PER"]])


def test_labels_are_o_then_pairs_by_type() -> None:
    assert entity_labels(["PER", "LOC", "PER"]) == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    assert split_tag("O") is None
    assert split_tag("B-A-B") == ("B", "A-B")
