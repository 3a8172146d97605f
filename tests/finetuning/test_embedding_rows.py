"""Rows for embeddings: their columns tell what they are, and what cannot be learnt from is refused at once."""

import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest
from helpers import embeddings as rows_of
from helpers import finetuning as ft

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.word_index import WordIndex
from weft.recipes.finetuning.embeddings.arguments import EmbeddingArguments, EmbeddingFiles
from weft.recipes.finetuning.embeddings.documents import damaged, title_and_rest, without_words
from weft.recipes.finetuning.embeddings.evaluation_sets import RetrievalSet, SimilaritySet, make_set
from weft.recipes.finetuning.embeddings.losses import columns_of, prepare_rows, with_hard_negatives
from weft.recipes.finetuning.embeddings.reading import Row, read_all, read_rows
from weft.recipes.finetuning.embeddings.sides import Bm25, Reranker, words_of


def rows_in(path: Path, **fields: object) -> list[Row]:
    return list(read_rows(path, EmbeddingFiles(**fields)))


@pytest.mark.parametrize(
    "values, expected",
    [
        ({"query": "q", "positive": "p"}, Row("pairs", ("q", "p"))),
        ({"id": "7", "question": "q", "context": "c", "answers": {"text": ["x"]}}, Row("pairs", ("q", "c"))),
        ({"title": "t", "abstract": "a", "label": 3}, Row("pairs", ("t", "a"))),
        ({"anchor": "a", "positive": "p", "negative": "n"}, Row("triplets", ("a", "p", "n"))),
        ({"anchor": "a", "positive": "p", "negative_1": "n", "negative_2": "m"}, Row("triplets", ("a", "p", "n", "m"))),
        ({"query": "q", "pos": ["p"], "neg": ["n", "m"]}, Row("triplets", ("q", "p", "n", "m"))),
        ({"sentence1": "a", "sentence2": "b", "score": 3.5}, Row("scored", ("a", "b"), 3.5)),
        ({"genre": "g", "sentence1": "a", "sentence2": "b", "score": "4"}, Row("scored", ("a", "b"), 4.0)),
        ({"text1": "a", "text2": "b", "label": 1}, Row("scored", ("a", "b"), 1.0)),
        ({"premise": "a", "hypothesis": "b", "label": 0}, Row("pairs", ("a", "b"))),
        ({"gold_label": "entailment", "sentence1": "a", "sentence2": "b"}, Row("pairs", ("a", "b"))),
        ({"sentence_A": "a", "sentence_B": "b", "relatedness_score": 4.5, "label": 1}, Row("scored", ("a", "b"), 4.5)),
        ({"text": "a", "label": 2}, Row("labelled", ("a",), "2")),
        ({"sentence": "a", "class": "sport"}, Row("labelled", ("a",), "sport")),
        ({"text": "a"}, Row("text", ("a",))),
        ({"whatever": "a"}, Row("text", ("a",))),
    ],
)
def test_columns_tell_what_a_row_is(values, expected, tmp_path):
    assert rows_in(ft.write_rows(tmp_path / "rows.jsonl", [values])) == [expected]


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"columns": ["a", "b"]}, Row("pairs", ("one", "two"))),
        ({"columns": ["b", "a"]}, Row("pairs", ("two", "one"))),
        ({"columns": ["a", "b", "c"]}, Row("triplets", ("one", "two", "three"))),
        ({"columns": ["a", "b", "n"]}, Row("scored", ("one", "two"), 0.5)),
        ({"columns": ["a", "label"]}, Row("labelled", ("one",), "x")),
        ({"columns": ["a", "c"], "kind": "labelled"}, Row("labelled", ("one",), "three")),
        ({"columns": ["c"]}, Row("text", ("three",))),
    ],
)
def test_columns_can_be_named(fields, expected, tmp_path):
    values = {"a": "one", "b": "two", "c": "three", "n": "0.5", "label": "x"}
    assert rows_in(ft.write_rows(tmp_path / "rows.jsonl", [values]), **fields) == [expected]


def test_each_of_several_texts_that_belong_makes_a_pair(tmp_path):
    path = ft.write_rows(tmp_path / "rows.jsonl", [{"query": "q", "pos": ["p", "r"]}])
    assert [row.texts for row in rows_in(path)] == [("q", "p"), ("q", "r")]


RELATIONS = [("p", "a", 0), ("p", "b", 2), ("p", "c", 1), ("q", "d", 2), ("p", "e", 0), ("r", "f", 0), ("r", "g", -1)]


def entailment(path: Path, first: str, second: str, name: str, words: dict | None = None) -> Path:
    rows = [{first: a, second: b, name: words[label] if words else label} for a, b, label in RELATIONS]
    return ft.write_rows(path / "rows.jsonl", rows)


@pytest.mark.parametrize(
    "columns, fields",
    [
        (("premise", "hypothesis", "label"), {}),
        (("sentence1", "sentence2", "label"), {"kind": "entailment"}),
        (("a", "b", "label"), {"columns": ["a", "b", "label"], "kind": "entailment"}),
        (("Premise", "b", "label"), {"columns": ["Premise", "b", "label"]}),
    ],
)
def test_what_follows_from_a_text_belongs_to_it_and_what_contradicts_it_does_not(columns, fields, tmp_path):
    expected = [Row("triplets", ("p", text, "b")) for text in ("a", "e")]
    assert rows_in(entailment(tmp_path, *columns), **fields) == expected
    words = {0: "entailment", 1: "neutral", 2: "contradiction", -1: "-"}
    assert rows_in(entailment(tmp_path, *columns, words), **fields) == expected


def test_numbers_that_may_be_scores_or_classes_of_entailment_are_asked_for(tmp_path):
    path = entailment(tmp_path, "sentence1", "sentence2", "label")
    for fields in ({}, {"columns": ["sentence1", "sentence2", "label"]}):
        with pytest.raises(RecipeError, match="scores or classes of entailment: say which with --kind scored or"):
            rows_in(path, **fields)
    assert [row.target for row in rows_in(path, kind="scored")] == [0, 2, 1, 2, 0, 0, -1]
    assert len(rows_in(entailment(tmp_path, "sentence1", "sentence2", "score"))) == 7
    path = entailment(tmp_path, "sentence1", "sentence2", "label", {0: "same", 1: "same", 2: "other", -1: "other"})
    with pytest.raises(RecipeError, match="line 1: column 'label' holds 'same', where entailment, neutral or"):
        rows_in(path)


def test_squad_is_read_as_questions_and_paragraphs(tmp_path):
    path = tmp_path / "squad.json"
    answers = '[{"text": "b", "answer_start": 2}]'
    questions = f'[{{"id": "1", "question": "what", "answers": {answers}}}]'
    path.write_text(f'{{"version": "1.1", "data": [{{"paragraphs": [{{"context": "a b c", "qas": {questions}}}]}}]}}')
    assert rows_in(path) == [Row("pairs", ("what", "a b c"))]


@pytest.mark.parametrize(
    "values, fields, sentence",
    [
        (
            {"a": "x", "b": "y"},
            {},
            "line 1: the columns a, b are none of the kinds of rows that are known by their names",
        ),
        ({"text": "x"}, {"kind": "pairs"}, "line 1: the columns text are no pairs rows that are known by their names"),
        ({"text": "x"}, {"columns": ["text", "b"]}, "line 1: no column 'b': there are text; name it with --columns."),
        ({"a": "x"}, {"columns": ["a"], "kind": "scored"}, "columns names 1 (a), which does not fit scored rows"),
        ({"query": "q", "answer": " "}, {}, "line 1: the text in column 'answer' is empty: mend or drop the row."),
        ({"query": "q", "pos": []}, {}, "line 1: the list in column 'pos' is empty: mend or drop the row."),
        ({"text": "x", "label": None}, {}, "line 1: column 'label' holds no label: mend or drop the row."),
    ],
)
def test_rows_that_tell_nothing_are_refused(values, fields, sentence, tmp_path):
    with pytest.raises(RecipeError) as raised:
        rows_in(ft.write_rows(tmp_path / "rows.jsonl", [values]), **fields)
    assert sentence in str(raised.value)


def test_a_later_row_without_a_score_is_named(tmp_path):
    given = [{"sentence1": "a", "sentence2": "b", "score": 1}, {"sentence1": "a", "sentence2": "b", "score": "high"}]
    with pytest.raises(RecipeError, match="line 2: column 'score' holds 'high', where a score is needed"):
        rows_in(ft.write_rows(tmp_path / "rows.jsonl", given))


@pytest.mark.parametrize(
    "document, parts",
    [
        ("A title\nIts text. More.", ("A title", "Its text. More.")),
        ("One sentence. And another.", ("One sentence.", "And another.")),
        ("Mr. Smith went home. He slept.", ("Mr. Smith went home.", "He slept.")),
        ("北京是首都。人口很多。", ("北京是首都。", "人口很多。")),
        ("Only a title", None),
        ("Only a sentence.\n\n***\n", None),
    ],
)
def test_a_document_is_parted_behind_its_title_or_first_sentence(document, parts):
    assert title_and_rest(document) == parts


def test_ruins_are_words_of_the_text_in_order_and_the_same_every_time():
    text = " ".join(f"w{number}" for number in range(50))
    ruin = without_words(text, random.Random(1)).split()
    assert 0 < len(ruin) < 50 and sorted(ruin, key=lambda word: int(word[1:])) == ruin
    assert without_words("word", random.Random(1)) == "word"
    assert set(without_words("今天天气很好", random.Random(3))) < set("今天天气很好")
    first, again = damaged([text, "one two"], 2, seed=5), damaged([text, "one two"], 2, seed=5)
    assert first == again and len(first) == 4 and first[0] != first[2]


def test_no_text_that_is_found_stands_on_both_sides(tmp_path):
    given = [
        {"query": f"question {number} of {place}", "passage": f"passage {place}"}
        for place in range(20)
        for number in range(3)
    ]
    files = EmbeddingFiles(train_file=str(ft.write_rows(tmp_path / "rows.jsonl", given)), validation_fraction=0.25)
    splits = read_all(files)
    sides = [{row.texts[1] for row in splits[name]} for name in ("train", "validation")]
    assert len(sides[1]) == 5 and not sides[0] & sides[1]


def test_queries_know_all_texts_that_belong_to_them_and_others_are_searched_too():
    rows = [
        Row("pairs", ("q", "a")),
        Row("pairs", ("q", "b")),
        Row("pairs", ("r", "a")),
        Row("triplets", ("s", "c", "d")),
    ]
    training = [Row("pairs", ("x", text)) for text in ("a", "e", "f", "g")]
    found = make_set("validation", rows, training, distractors=2, seed=0)
    assert isinstance(found, RetrievalSet) and found.queries == ["q", "r", "s"]
    assert [{found.documents[place] for place in places} for places in found.relevant] == [{"a", "b"}, {"a"}, {"c"}]
    assert found.documents[:4] == ["a", "b", "c", "d"] and found.distractors == len(found.documents) - 4 <= 2


def test_texts_of_a_label_belong_to_each_text_that_has_it():
    training = [Row("labelled", (text,), label) for text, label in (("a", "x"), ("b", "y"), ("c", "x"))]
    found = make_set("validation", [Row("labelled", ("q",), "x"), Row("labelled", ("r",), "new")], training, 0, 0)
    assert found.queries == ["q"] and found.relevant == [{0, 2}]


def test_scores_are_compared_as_they_are():
    found = make_set("test", [Row("scored", ("a", "b"), 1.0), Row("scored", ("c", "d"), 3.0)], [], 0, 0)
    assert found == SimilaritySet(["a", "c"], ["b", "d"], [1.0, 3.0])
    with pytest.raises(RecipeError, match="all scores of test are equal"):
        make_set("test", [Row("scored", ("a", "b"), 1.0)], [], 0, 0)


def test_columns_stand_as_the_losses_read_them():
    triplets = [Row("triplets", ("q", "p", "n", "m")), Row("triplets", ("r", "s", "t", "u"))]
    assert columns_of(triplets, False, 1, 0) == {
        **{"anchor": ["q", "r"], "positive": ["p", "s"]},
        **{"negative_1": ["n", "t"], "negative_2": ["m", "u"]},
    }
    assert columns_of(triplets[:1], True, 1, 0) == {
        "query": ["q"] * 3,
        "text": ["p", "n", "m"],
        "label": [1.0, 0.0, 0.0],
    }
    scored = [Row("scored", ("a", "b"), 1.0), Row("scored", ("c", "d"), 5.0), Row("scored", ("e", "f"), 2.0)]
    assert columns_of(scored, False, 1, 0)["label"] == [0.0, 1.0, 0.25]
    labelled = [Row("labelled", ("a",), "y"), Row("labelled", ("b",), "x")]
    assert columns_of(labelled, False, 1, 0) == {"text": ["a", "b"], "label": [1, 0]}


def test_triplets_of_different_lengths_keep_what_all_have():
    rows = [Row("triplets", ("q", "p", "n", "m")), Row("triplets", ("r", "s", "t"))]
    prepared = prepare_rows(rows, EmbeddingFiles(), EmbeddingArguments())
    assert [row.texts for row in prepared] == [("q", "p", "n"), ("r", "s", "t")]


def test_hard_negatives_belong_to_other_queries_and_share_words():
    rows = [Row("pairs", (row["query"], row["passage"])) for row in rows_of.pairs()]
    found = with_hard_negatives(rows, 3, seed=0)
    own = {row.texts[0]: row.texts[1] for row in rows}
    for row in found:
        query, positive, *negatives = row.texts
        assert positive == own[query] and len(set(negatives)) == 3 and positive not in negatives
        assert all(set(words_of(query)) & set(words_of(text)) - {"the", "is"} for text in negatives)
    with pytest.raises(RecipeError, match="hard_negatives is 100, but the training rows have 80 texts: give fewer"):
        with_hard_negatives(rows, 100, seed=0)


def test_bm25_ranks_by_words_in_any_script_and_scores_pairs():
    texts = ["the red house", "a blue boat on the river", "蓝色的船"]
    search = Bm25().index(texts)
    assert search(["where is the boat", "红色和蓝色"]).argmax(1).tolist() == [1, 2]
    assert not search(["nothing known"]).any()
    asked = ["the boat", "the house", "船"]
    assert Bm25().similarities(asked, texts).tolist() == [search([one])[0, place] for place, one in enumerate(asked)]


def test_pairs_are_scored_without_a_look_at_all_other_pairs(monkeypatch):
    looked = []
    scores = WordIndex.scores
    monkeypatch.setattr(WordIndex, "scores", lambda *given: looked.append(given) or scores(*given))
    Bm25().similarities(["the boat"] * 50, [f"boat {number}" for number in range(50)])
    assert not looked


class Judge:
    """Gives each pair of texts a score, and remembers the pairs."""

    def __init__(self, score):
        self.score, self.pairs = score, []

    def predict(self, pairs, **options):
        self.pairs += pairs
        return [self.score(*pair) for pair in pairs]


def test_a_reranker_reads_what_bm25_finds_whichever_split_the_texts_are_of():
    own, others = [f"own {number}" for number in range(150)], [f"other {number}" for number in range(150)]
    judges = [Judge(lambda query, text: float(text.endswith("7"))) for _ in range(2)]
    for judge, documents in zip(judges, (own + others, others + own)):
        scores = Reranker(judge, 8).index(documents)(["own 7", "nothing known"])
        assert np.isfinite(scores).sum(1).tolist() == [100, 100] and scores[0, documents.index("own 7")] == 1
    assert sorted(judges[0].pairs) == sorted(judges[1].pairs) and not all(text in own for _, text in judges[0].pairs)


@pytest.mark.parametrize(
    "kind, fields, embedding, sentence",
    [
        ("scored", {"hard_negatives": 2}, {}, "hard_negatives are found for pairs, but the training rows are scored"),
        ("pairs", {"unsupervised": "simcse"}, {}, "unsupervised is simcse, but the training rows are pairs"),
        ("scored", {}, {"mini_batch_size": 4}, "mini_batch_size is for pairs and triplets, but the training rows are"),
        ("labelled", {}, {"reranker": True}, "a reranker learns from pairs, triplets or scored pairs"),
        ("text", {}, {}, "no training document has more than a title"),
    ],
)
def test_what_does_not_fit_the_rows_is_refused(kind, fields, embedding, sentence):
    texts = {"pairs": ("a", "b"), "scored": ("a", "b")}.get(kind, ("a",))
    with pytest.raises(RecipeError, match=sentence):
        prepare_rows([Row(kind, texts, 1.0)], EmbeddingFiles(**fields), EmbeddingArguments(**embedding))


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"reranker": "true", "matryoshka": [8]}, "matryoshka is given, which a reranker has no use for"),
        ({"reranker": "true", "pooling": "mean"}, "pooling is given, and a reranker reads its head instead"),
        ({"baselines": ["none", "bm25"]}, "baselines has none beside others"),
        ({"baselines": ["word2vec"]}, "baselines has 'word2vec': choose one of bm25, fasttext, none."),
        ({"lora_rank": 4}, "lora_rank is given: embeddings are trained whole here"),
        ({"batching": "packed"}, "batching is given: texts are padded to the longest of a batch."),
        ({"evaluation_files": ["missing.jsonl"]}, "missing.jsonl is missing"),
    ],
)
def test_fields_that_contradict_are_refused_before_anything_is_read(fields, sentence, tmp_path):
    path = ft.write_rows(tmp_path / "rows.jsonl", rows_of.pairs())
    assert sentence in ft.run_error(rows_of.main, train_file=path, output_dir=tmp_path / "run", **fields)
    assert not (tmp_path / "run").exists()


def test_a_missing_library_is_one_sentence_with_the_command_that_installs_it(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    hidden = ("sentence_transformers", "gensim")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in hidden else find(name, *rest))
    path = ft.write_rows(tmp_path / "rows.jsonl", rows_of.pairs())
    given = {"train_file": path, "baselines": ["fasttext"]}
    assert ft.run_error(rows_of.main, **given) == (
        "this recipe needs sentence-transformers and gensim: pip install sentence-transformers gensim."
    )
