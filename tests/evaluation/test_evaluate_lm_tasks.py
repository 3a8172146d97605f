"""The figures of each evaluation task are what their definitions say, worked out by hand."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.scored import TEXTS, causal_by_hand, make_scored_model, make_tokenizer, masked_by_hand, text_ids
from helpers.text import CHINESE, EMOJI, prepare_documents, sentences

from weft.recipes.common.errors import RecipeError
from weft.recipes.evaluation.likelihood import Scorer, TokenScores
from weft.recipes.evaluation.likelihood_tasks import last_word, multiple_choice, perplexity
from weft.recipes.evaluation.minimal_pairs import score_pairs
from weft.recipes.evaluation.records import MinimalPair, read_pairs, read_passages, read_questions
from weft.recipes.pretraining.datasets.packed import ValidationRows
from weft.recipes.pretraining.objectives.causal import CausalEvaluator

CLOSE = {"rel": 2e-5, "abs": 2e-5}  # the models compute in float32


class ScorerByTable:
    """Gives each text the total that a table holds."""

    def __init__(self, totals):
        self.totals = totals

    def score_texts(self, texts):
        return [self.score(text) for text in texts]

    def score_continuations(self, pairs, left_to_right=False):
        return [self.score(context + continuation) for context, continuation in pairs]

    def score(self, text):
        total = self.totals[text]
        return TokenScores(np.array([] if total is None else [total / 2, total / 2]), np.array([]))


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def encoder_tokenizer():
    return make_tokenizer(encoder=True)


def scorer_of(family, tokenizer, scoring, **options):
    return Scorer(make_scored_model(family, tokenizer), tokenizer, scoring, quiet=True, **options)


def write_lines(path, *records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize("family, scoring", [("llama", "causal"), ("bert", "masked")])
def test_perplexity_is_that_of_all_tokens_of_all_documents(tokenizer, encoder_tokenizer, family, scoring):
    tokenizer = tokenizer if scoring == "causal" else encoder_tokenizer
    scorer, texts = scorer_of(family, tokenizer, scoring), TEXTS[3:]
    by_hand = causal_by_hand if scoring == "causal" else masked_by_hand
    nats = -sum(sum(by_hand(scorer.model, tokenizer, text)) for text in texts)
    joined = "".join(texts)
    found = perplexity(scorer, iter([*texts, " \n "]))
    unknown = sum(text_ids(tokenizer, text).count(tokenizer.unk_token_id) for text in texts)
    assert found == {
        "perplexity": pytest.approx(math.exp(nats / len(joined)), rel=1e-4),  # characters are the tokens
        "word_perplexity": pytest.approx(math.exp(nats / sum(len(text.split()) for text in texts)), rel=1e-3),
        "bits_per_character": pytest.approx(nats / math.log(2) / len(joined), **CLOSE),
        "bits_per_byte": pytest.approx(nats / math.log(2) / len(joined.encode()), **CLOSE),
        "nats": pytest.approx(nats, **CLOSE),
        "documents": len(texts),
        "tokens": len(joined),
        "unknown_tokens": unknown,
        "words": sum(len(text.split()) for text in texts),
        "characters": len(joined),
        "bytes": len(joined.encode()),
    }


@pytest.mark.parametrize(
    "texts, reason",
    [
        (["今天天气很好、我们去公园散步吧。" * 60], "the text has no blanks between its words"),
        (["今天天气很好、 我们去公园散步吧。"] * 9, "the text has no blanks between its words"),
        (["红猫在河边睡觉", "蓝狗在山下跑"], "the text has no blanks between its words"),
        (["红猫在河边睡觉\n蓝狗在山下跑\n"], "the text has no blanks between its words"),
        (["วันนี้อากาศดีมาก เราไปเดินเล่นกัน"] * 9, "the text has no blanks between its words"),
        (["river" * 400], "the text has too few blanks to tell words by"),
        (["今天 天气 很 好 、 我们 去 公园 散步 吧 。"], None),
        (["今天天气很好。", "the river is quietly under the stone, and the light made a river of stone"], None),
        (["river", "stone"], None),
    ],
)
def test_perplexity_of_words_is_undefined_where_blanks_tell_none(tokenizer, texts, reason):
    found = perplexity(scorer_of("llama", tokenizer, "causal", window=64), texts)
    assert (found["word_perplexity"] is None) == (reason is not None)
    assert found.get("undefined") == (None if reason is None else {"word_perplexity": reason})
    assert found["perplexity"] > 1 and found["bits_per_byte"] > 0


def test_bits_per_byte_are_those_that_training_reports(tmp_path):
    held_out = tmp_path / "held_out.txt"
    texts = [*sentences(6, words=6), CHINESE, EMOJI, "x"]
    held_out.write_text("\n\n".join(texts), encoding="utf-8")
    corpus = prepare_documents(
        tmp_path, [*sentences(40, seed=5), CHINESE[::-1]], tokenizer_type="char", validation_files=[str(held_out)]
    )
    tokenizer = corpus.tokenizer()
    model = make_scored_model("weft", tokenizer)
    arguments = SimpleNamespace(world_size=1, process_index=0, per_device_eval_batch_size=2, device=torch.device("cpu"))
    reported = CausalEvaluator(ValidationRows(corpus, 2000))(
        SimpleNamespace(args=arguments, model=model, obey_stop=list)
    )
    found = perplexity(Scorer(model, tokenizer, "causal", quiet=True), texts)
    assert found["bits_per_byte"] == pytest.approx(reported["bits_per_byte"], rel=1e-5)


def test_a_model_that_knows_nothing_has_the_vocabulary_as_perplexity(tokenizer):
    scorer = scorer_of("gpt2", tokenizer, "causal", window=16)
    for parameter in scorer.model.parameters():
        parameter.data.zero_()
    assert perplexity(scorer, TEXTS)["perplexity"] == pytest.approx(len(tokenizer), rel=1e-5)


def test_max_tokens_cuts_the_text_off(tokenizer):
    scorer = scorer_of("llama", tokenizer, "causal")
    first = len(TEXTS[0])
    found = perplexity(scorer, iter(TEXTS), max_tokens=first + 7)
    assert found == perplexity(scorer, [TEXTS[0], TEXTS[1][:7]])
    assert found["tokens"] == first + 7
    assert perplexity(scorer, iter(TEXTS), max_tokens=first) == perplexity(scorer, TEXTS[:1])
    assert perplexity(scorer, iter(TEXTS), max_tokens=10**6) == perplexity(scorer, TEXTS)


def test_text_without_anything_to_score_is_refused(tokenizer):
    bare = make_tokenizer()
    bare.bos_token = None
    scorer = scorer_of("gpt2", bare, "causal")
    with pytest.raises(RecipeError, match="no token that the model can predict"):
        perplexity(scorer, ["x", " "])
    assert perplexity(scorer, ["x", "ab"])["documents"] == 1


def pair(good, bad, paradigm, phenomenon=None):
    return MinimalPair(good, bad, paradigm, phenomenon, "here")


def test_accuracy_is_the_mean_over_paradigms_and_a_tie_is_wrong():
    table = {"high": -1.0, "low": -2.0, "also low": -2.0}
    pairs = [
        pair("high", "low", "one", "agreement"),
        pair("low", "high", "two", "agreement"),
        pair("low", "also low", "two", "agreement"),
        pair("high", "low", "two", "agreement"),
        pair("high", "low", "two", "agreement"),
        pair("low", "high", "three", "binding"),
        pair("high", "low", "four"),
    ]
    found = score_pairs(ScorerByTable(table), pairs)
    assert found == {
        "accuracy": (1 + 0.5 + 0 + 1) / 4,
        "accuracy_of_pairs": 4 / 7,
        "pairs": 7,
        "ties": 1,
        "phenomena": {"agreement": {"accuracy": 0.75, "pairs": 5}, "binding": {"accuracy": 0.0, "pairs": 1}},
        "paradigms": {
            "four": {"accuracy": 1.0, "pairs": 1},
            "one": {"accuracy": 1.0, "pairs": 1, "phenomenon": "agreement"},
            "three": {"accuracy": 0.0, "pairs": 1, "phenomenon": "binding"},
            "two": {"accuracy": 0.5, "pairs": 4, "phenomenon": "agreement"},
        },
    }
    with pytest.raises(RecipeError, match="here: a sentence has no token"):
        score_pairs(ScorerByTable({"high": None, "low": -1.0}), [pair("high", "low", "one")])


@pytest.mark.parametrize("family, scoring", [("gpt2", "causal"), ("roberta", "masked")])
def test_the_better_sentence_is_the_one_with_the_higher_sum(tokenizer, encoder_tokenizer, family, scoring):
    tokenizer = tokenizer if scoring == "causal" else encoder_tokenizer
    scorer = scorer_of(family, tokenizer, scoring)
    by_hand = causal_by_hand if scoring == "causal" else masked_by_hand
    pairs = [pair(one, other, str(n)) for n, (one, other) in enumerate([("a river", "river a"), ("the stone", "of")])]
    expected = {
        p.paradigm: float(sum(by_hand(scorer.model, tokenizer, p.good)) > sum(by_hand(scorer.model, tokenizer, p.bad)))
        for p in pairs
    }
    found = score_pairs(scorer, pairs)["paradigms"]
    assert {name: entry["accuracy"] for name, entry in found.items()} == expected


def test_pairs_are_grouped_by_what_the_files_say(tmp_path):
    sentence = {"sentence_good": "a b", "sentence_bad": "b a"}
    first = write_lines(
        tmp_path / "first.jsonl",
        {**sentence, "UID": "u", "linguistics_term": "term", "field": "syntax"},
        {**sentence, "UID": "v", "phenomenon": "named", "field": "syntax"},
        {**sentence, "field": "syntax"},
    )
    second = write_lines(tmp_path / "second.part.jsonl", sentence, sentence)
    found = [(p.paradigm, p.phenomenon) for p in read_pairs([first, second])]
    assert found == [("u", "term"), ("v", "named"), ("first", "syntax"), ("second", None), ("second", None)]
    assert [p.where for p in read_pairs([first, second], limit=1)] == [f"{first}, line 1", f"{second}, line 1"]


@torch.no_grad()
def test_the_last_word_is_right_when_greedy_decoding_writes_it(tokenizer):
    scorer = scorer_of("llama", tokenizer, "causal")
    passages, right = [], 0
    for context in ("the river made", "a", "seven light stones", "in that"):
        start = torch.tensor([[1, *text_ids(tokenizer, context + " ")]])
        written = scorer.model.generate(start, max_new_tokens=3, do_sample=False, suppress_tokens=[0, 1, 2, 3, 4])
        word = tokenizer.decode(written[0, start.shape[1] :])
        logits_rule = scorer.model(written).logits[0, start.shape[1] - 1 : -1].argmax(-1)
        is_greedy = torch.equal(logits_rule, written[0, start.shape[1] :])  # nothing was suppressed
        if " " in word or "\n" in word:
            continue
        right += is_greedy
        passages += [(context, " " + word), (context, " " + word[::-1] + "x")]
    assert right >= 1
    found = last_word(scorer, passages)
    nats = [
        -sum(causal_by_hand(scorer.model, tokenizer, context + word)[-len(word.strip()) :])
        for context, word in passages
    ]
    assert found["accuracy"] == right / len(passages)
    assert found["perplexity"] == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-4)
    assert found["examples"] == len(passages)


def test_passages_are_cut_before_their_last_word(tmp_path):
    path = write_lines(tmp_path / "passages.jsonl", {"text": "one two\nthree,  four \n"}, {"text": "五 six"})
    assert read_passages([path], "text") == [("one two\nthree,", "  four"), ("五", " six")]


def test_choices_are_compared_by_their_sum_and_per_byte():
    scorer = ScorerByTable({"q a": -2.0, "q 中": -3.0, "q bb": -4.5, "x": -1.0, "y": -1.0, "none": None})

    def ask(query, choices, label):
        return multiple_choice(scorer, [SimpleNamespace(query=query, choices=choices, label=label, where="here")])

    choices = ["a", "中", "bb"]  # -2, -1 and -2.25 for each byte
    assert ask("q", choices, 0) == {"accuracy": 1.0, "accuracy_normalised": 0.0, "examples": 1}
    assert ask("q", choices, 1) == {"accuracy": 0.0, "accuracy_normalised": 1.0, "examples": 1}
    assert ask("q", choices, 2) == {"accuracy": 0.0, "accuracy_normalised": 0.0, "examples": 1}
    assert ask("", ["x", "y"], 0)["accuracy"] == 0.0  # a tie
    with pytest.raises(RecipeError, match="here: a choice has no token"):
        ask("", ["x", "none"], 0)


@pytest.mark.parametrize(
    "query, choice, delimiter, expected",
    [
        ("Q:", "yes", " ", "Q: yes"),
        ("Q: ", "yes", " ", "Q: yes"),
        ("Q:", " yes", " ", "Q: yes"),
        ("", "yes", " ", "yes"),
        ("问", "是", "", "问是"),
    ],
)
def test_query_and_choice_are_joined_by_one_blank(query, choice, delimiter, expected):
    asked = SimpleNamespace(query=query, choices=[choice, choice], label=0, where="")
    assert multiple_choice(ScorerByTable({expected: -1.0}), [asked], delimiter)["examples"] == 1


@pytest.mark.parametrize("family, scoring", [("gpt2", "causal"), ("bert", "masked")])
def test_choices_are_scored_given_the_query(tokenizer, encoder_tokenizer, family, scoring):
    tokenizer = tokenizer if scoring == "causal" else encoder_tokenizer
    scorer = scorer_of(family, tokenizer, scoring)
    by_hand = causal_by_hand if scoring == "causal" else masked_by_hand
    query, choices = "the seven", ["stones", "river is", "of"]
    sums = [sum(by_hand(scorer.model, tokenizer, f"{query} {choice}")[-len(choice) :]) for choice in choices]
    per_byte = [total / len(choice) for total, choice in zip(sums, choices)]
    for label in range(3):
        found = multiple_choice(scorer, [SimpleNamespace(query=query, choices=choices, label=label, where="")])
        assert found["accuracy"] == float(np.argmax(sums) == label)
        assert found["accuracy_normalised"] == float(np.argmax(per_byte) == label)


def test_questions_are_read_under_either_name(tmp_path):
    path = write_lines(
        tmp_path / "questions.jsonl",
        {"query": "q", "choices": ["a", "b"], "label": 1},
        {"context": "", "choices": ["a", "b"], "answer": "0"},
    )
    found = [(q.query, q.choices, q.label) for q in read_questions([path])]
    assert found == [("q", ["a", "b"], 1), ("", ["a", "b"], 0)]


def test_examples_may_stand_in_an_array(tmp_path):
    pairs = [{"sentence_good": f"a {number}", "sentence_bad": "b"} for number in range(3)]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs, indent=1), encoding="utf-8")
    assert [pair.good for pair in read_pairs([tmp_path / "pairs.json"], limit=2)] == ["a 0", "a 1"]


@pytest.mark.parametrize(
    "read, line, expected",
    [
        (read_pairs, "{torn", "line 1: not JSON"),
        (read_pairs, "[1]", "entry 1: a int, where an object is needed"),
        (read_pairs, '{"sentence_good": "a", "sentence_bad": "b"}\n[1]', "line 2: a list, where an object is needed"),
        (read_pairs, '{"sentence_good": "a"}', "line 1: no field 'sentence_bad': there are sentence_good"),
        (read_pairs, '{"sentence_good": "a", "sentence_bad": ""}', "line 1: field 'sentence_bad' is empty"),
        (read_pairs, '{"sentence_good": "a", "sentence_bad": 3}', "holds int, where str is needed"),
        (read_pairs, "\n", "holds no object"),
        (lambda paths: read_passages(paths, "text"), '{"text": "word"}', "line 1: the text has no blank"),
        (lambda paths: read_passages(paths, "other"), '{"text": "a b"}', "line 1: no column 'other': there are text"),
        (read_questions, '{"query": "q", "choices": ["a"], "label": 0}', "must hold two texts at least"),
        (read_questions, '{"query": "q", "choices": ["a", "b"], "label": 2}', "give the index of a choice, 0 to 1"),
        (read_questions, '{"query": "q", "choices": ["a", "b"], "label": true}', "give the index of a choice"),
        (read_questions, '{"query": "q", "choices": ["a", "b"]}', "no field 'label' or 'answer'"),
        (read_questions, '{"choices": ["a", "b"], "label": 0}', "no field 'query' or 'context' with a text"),
    ],
)
def test_a_broken_line_is_named(tmp_path, read, line, expected):
    path = tmp_path / "examples.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        read([path])
    assert expected in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_examples_must_be_json_lines(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text("a b")
    with pytest.raises(RecipeError, match="not a file of JSON lines"):
        read_pairs([path])
