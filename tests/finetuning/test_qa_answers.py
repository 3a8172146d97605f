"""Questions become windows that lose nothing, targets that are the answers, losses of any model, and scores."""

import contextlib
import csv
import io
import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.models import make_model, tiny_config
from transformers import BertConfig, BertForQuestionAnswering, GPT2Config, LlamaConfig

from weft import WeftForQuestionAnswering
from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.collation import PackingCollator
from weft.recipes.finetuning.prediction import predict
from weft.recipes.finetuning.tasks.question_answering.arguments import QuestionAnsweringArguments
from weft.recipes.finetuning.tasks.question_answering.known_tasks import KNOWN_TASKS
from weft.recipes.finetuning.tasks.question_answering.task import QuestionAnswering, is_causal
from weft.tokenizer.special_tokens import for_role
from weft.tokenizer.train import train_tokenizer

NAMES = ("Anna", "Bob", "Clara", "Dan", "Émile", "Fay")
PLACES = ("Paris", "Rome", "New York", "the old house", "Köln")


def paragraph(draw, number, sentences):
    """Who went where, and what was not said (no answer)."""
    facts = [(draw.choice(NAMES), draw.choice(PLACES), year) for year in range(1900, 1900 + sentences)]
    context = " ".join(f"In {year} {name} went to {place}." for name, place, year in facts)
    name, place, year = draw.choice(facts)
    start = context.index(f"In {year}") + len(f"In {year} {name} went to ")
    return context, [
        (f"{number}a", f"Where was {name} in {year}?", [{"text": place, "answer_start": start}]),
        (f"{number}b", f"Where was {name} in 2024?", []),
    ]


def write(path, seed, number, version_2, sentences=12):
    draw = random.Random(seed)
    paragraphs = []
    for i in range(number):
        context, asked = paragraph(draw, f"{seed}-{i}", sentences)
        qas = [{"id": id_, "question": text, "answers": answers} for id_, text, answers in asked]
        paragraphs.append({"context": context, "qas": qas if version_2 else qas[:1]})
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}), encoding="utf-8")
    return str(path)


def make_task(tmp_path, version_2=True, sentences=12, **fields):
    train = write(tmp_path / "train.json", 1, 8, version_2, sentences)
    validation = write(tmp_path / "dev.json", 2, 5, version_2, sentences)
    return QuestionAnswering(QuestionAnsweringArguments(train_file=train, validation_file=validation, **fields))


def make_tokenizer(task, tokenizer_type="bpe", token_types=False):
    size = 400 if tokenizer_type != "char" else 200
    return for_role(train_tokenizer(task.texts(), tokenizer_type, size), "encoder", token_types)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """A kind of version 2 with windows of 64 tokens, its tokenizer and its items."""
    task = make_task(tmp_path_factory.mktemp("questions"), stride=16)
    tokenizer = make_tokenizer(task, token_types=True)
    return task, tokenizer, {split: task.encode(split, tokenizer, 64) for split in task.splits}


@pytest.mark.parametrize("tokenizer_type", ["bpe", "wordpiece", "unigram", "char"])
def test_every_token_of_a_context_is_in_a_window_and_windows_overlap(tokenizer_type, tmp_path):
    task = make_task(tmp_path, stride=10)
    tokenizer = make_tokenizer(task, tokenizer_type)
    items = task.encode("train", tokenizer, 80)
    assert len(items) >= 2 * task.splits["train"] and max(item.tokens for item in items) <= 80
    for number, question in enumerate(task.examples["train"]):
        whole = tokenizer(question.question, question.context, return_offsets_mapping=True)
        expected = [tuple(offset) for offset, part in zip(whole["offset_mapping"], whole.sequence_ids()) if part == 1]
        windows = [[tuple(o) for o in item.info.offsets.tolist()] for item in items if item.example == number]
        joined = windows[0]
        for window in windows[1:]:
            assert joined[-10:] == window[:10]
            joined = joined + window[10:]
        assert joined == expected


@pytest.mark.parametrize("tokenizer_type", ["bpe", "wordpiece", "unigram", "char"])
@pytest.mark.parametrize("causal", [False, True])
def test_targets_are_the_answer_where_a_window_holds_it_and_else_the_no_answer_token(tokenizer_type, causal, tmp_path):
    task = make_task(tmp_path, stride=10)
    task.align_labels(tiny_config(is_causal=causal))
    tokenizer = make_tokenizer(task, tokenizer_type)
    seen = {True: 0, False: 0}
    for item in task.encode("train", tokenizer, 80):
        question, ids = task.examples["train"][item.example], item.sequences[0]
        first, last = item.info.offsets[0, 0], item.info.offsets[-1, 1]
        held = any(first <= answer.start and answer.start + len(answer.text) <= last for answer in question.answers)
        seen[held] += 1
        start, end = item.target
        if held:
            start, end = start - item.info.first, end - item.info.first
            text = question.context[item.info.offsets[start, 0] : item.info.offsets[end, 1]].strip()
            assert text.startswith(question.answers[0].text) and len(text) <= len(question.answers[0].text) + 1
        else:
            assert start == end == (len(ids) - 1 if causal else 0)
            assert ids[start] == (tokenizer.eos_token_id if causal else tokenizer.bos_token_id)
    assert min(seen.values()) > 5


def test_a_causal_models_tokenizer_gets_an_end_token_to_say_no_answer_at(tmp_path):
    task = make_task(tmp_path)
    decoder = train_tokenizer(task.texts(), "bpe", 400)
    assert task.prepare_tokenizer(decoder) is decoder
    task.align_labels(tiny_config(is_causal=True))
    assert task.prepare_tokenizer(decoder)("a", "b")["input_ids"][-1] == decoder.eos_token_id
    closed = make_tokenizer(task)
    assert task.prepare_tokenizer(closed) is closed


def test_causal_models_are_known_by_their_config_or_family():
    assert is_causal(tiny_config(is_causal=True)) and not is_causal(tiny_config(is_causal=False))
    assert is_causal(GPT2Config()) and is_causal(LlamaConfig())
    assert not is_causal(BertConfig())


def test_packed_and_padded_rows_give_the_same_answers_and_losses(encoded):
    task, tokenizer, items = encoded
    model = make_model(tiny_config(vocab_size=len(tokenizer), type_vocab_size=2), model_class=WeftForQuestionAnswering)
    model = model.double()
    both = [
        predict(task, model, items["validation"], PackingCollator(tokenizer, packed), 7) for packed in (True, False)
    ]
    for packed, padded in zip(*both, strict=True):
        assert (packed.starts == padded.starts).all() and (packed.ends == padded.ends).all()
        assert packed.scores == pytest.approx(padded.scores, abs=1e-5)
        assert packed.loss == pytest.approx(padded.loss, abs=1e-10)
    for packed in (True, False):
        batch, layout = PackingCollator(tokenizer, packed).lay_out(items["train"][:9])
        targets = task.targets(layout)
        loss = task.loss(model(**batch), targets, None)
        positions = {name: targets[name] for name in ("start_positions", "end_positions")}
        assert loss.item() == pytest.approx(model(**batch, **positions).loss.item(), abs=1e-12)


def test_a_stock_model_has_the_loss_of_its_sequences_alone(encoded):
    """Its logits at padding are no part of it."""
    task, tokenizer, items = encoded
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    )
    model = BertForQuestionAnswering(config).double().eval()
    chosen = sorted(items["validation"], key=lambda item: item.tokens)[:3] + items["validation"][:3]
    assert len({item.tokens for item in chosen}) > 1
    alone = []
    for item in chosen:
        start, end = (torch.tensor([place]) for place in item.target)
        ids, types = torch.tensor(item.sequences), torch.tensor(item.token_types)
        alone.append(model(ids, token_type_ids=types, start_positions=start, end_positions=end).loss.item())
    batch, layout = PackingCollator(tokenizer, False).lay_out(chosen)
    outputs, targets = model(**batch), task.targets(layout)
    assert task.loss(outputs, targets, None).item() == pytest.approx(sum(alone) / len(alone), abs=1e-10)
    assert [result.loss for result in task.results(outputs, layout)] == pytest.approx(alone, abs=1e-10)


def test_losses_of_parts_add_up_to_that_of_the_whole(encoded):
    task, tokenizer, items = encoded
    model = make_model(
        tiny_config(vocab_size=len(tokenizer), type_vocab_size=2), model_class=WeftForQuestionAnswering
    ).double()
    collator = PackingCollator(tokenizer, True)
    parts = [collator.lay_out(items["train"][a:b]) for a, b in ((0, 3), (3, 4), (4, 10))]
    total = sum(task.count(task.targets(layout)) for _, layout in parts)
    assert total == 10
    batch, layout = collator.lay_out(items["train"][:10])
    whole = task.loss(model(**batch), task.targets(layout), None)
    added = sum(task.loss(model(**batch), task.targets(layout), total) for batch, layout in parts)
    assert added.item() == pytest.approx(whole.item(), abs=1e-12)


def oracle(task, items, certainty=9.0):
    """Results of a model that knows every target."""
    results = []
    for item in items:
        length = len(item.sequences[0])
        logits = torch.zeros(2, 1, length)
        start, end = item.target
        logits[0, 0, start] = logits[1, 0, end] = certainty
        layout = SimpleNamespace(items=[item], lengths=[length])
        results += task.results(SimpleNamespace(start_logits=logits[0], end_logits=logits[1]), layout)
    return results


@pytest.mark.parametrize("version_2", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_a_model_that_knows_the_targets_is_right_in_everything(version_2, causal, tmp_path):
    task = make_task(tmp_path, version_2, stride=16)
    task.align_labels(tiny_config(is_causal=causal))
    tokenizer = make_tokenizer(task)
    task.encode("train", tokenizer, 64)
    items = task.encode("validation", tokenizer, 64)
    scores = task.score("validation", items, oracle(task, items))
    assert scores["exact_match"] == scores["f1"] == 100 and 0 < scores["loss"] < 0.1
    assert ("no_answer_threshold" in scores) == version_2 == task.version_2
    if version_2:
        assert scores["has_answer_f1"] == scores["no_answer_f1"] == 100 and 0 < scores["no_answer_threshold"] < 0.5


def test_the_threshold_is_chosen_on_validation_and_kept_for_the_rest(encoded, tmp_path):
    task, _, items = encoded
    known = oracle(task, items["validation"])
    # doubtful of everything: the right span is less probable than no answer
    unsure = [result._replace(scores=result.scores - 20) for result in known]
    sure = [result._replace(scores=result.scores + 20) for result in known]
    chosen = task.score("validation", items["validation"], unsure)
    assert chosen["f1"] == 100 and chosen["no_answer_threshold"] > 0.5
    task.examples["test"] = task.examples["validation"]
    test = task.score("test", items["validation"], sure)
    assert test["no_answer_threshold"] == chosen["no_answer_threshold"] and test["no_answer_f1"] == 0
    fresh = make_task(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps({"eval_no_answer_threshold": chosen["no_answer_threshold"]}))
    fresh.unlabelled(tmp_path)
    assert fresh.threshold == chosen["no_answer_threshold"]


def test_the_report_is_in_the_official_form_and_lists_the_mistakes(encoded, tmp_path):
    task, _, items = encoded
    results = oracle(task, items["validation"])
    doubtful, wrong = task.examples["validation"][0], task.examples["validation"][2]
    for number, item in enumerate(items["validation"]):
        if item.example in (0, 2):  # another span than the right one is found
            spans, score = results[number], 1.0 if item.example == 0 else 9.0
            score = np.full(1, score, dtype=np.float32)
            results[number] = spans._replace(starts=spans.starts[-1:], ends=spans.ends[-1:], scores=score)
    task.score("validation", items["validation"], results)
    text = task.write_report(tmp_path, "validation", items["validation"], results)
    answers = json.loads((tmp_path / "predictions.json").read_text())
    expected = {q.id: q.answers[0].text if q.answers else "" for q in task.examples["validation"]}
    blank = {doubtful.id: "", wrong.id: ""}
    assert {**answers, **blank} == {**expected, **blank}
    assert all(answers[identifier] != expected[identifier] for identifier in blank)
    probabilities = json.loads((tmp_path / "na_prob.json").read_text())
    assert set(probabilities) == set(expected) and all(0 <= value <= 1 for value in probabilities.values())
    ranked = json.loads((tmp_path / "nbest.json").read_text())
    for identifier, entries in ranked.items():
        assert sum(entry["probability"] for entry in entries) == pytest.approx(1)
        assert entries == sorted(entries, key=lambda entry: -entry["probability"])
        context = next(q.context for q in task.examples["validation"] if q.id == identifier)
        assert all(not e["text"] or context.startswith(e["text"], e["start"]) for e in entries)
    with (tmp_path / "mistakes.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["id"] for row in rows] == [wrong.id, doubtful.id] and rows[0]["gold"] == expected[wrong.id]
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["id"] for row in rows] == list(expected)
    assert {row["id"]: row["predicted"] for row in rows} == answers
    assert (tmp_path / "answers.png").stat().st_size > 5000
    assert "| where | 10 |" in text and "| no answer | 5 | 100.00 |" in text


def test_answers_that_are_nowhere_are_not_learnt_but_scored(tmp_path):
    task = make_task(tmp_path, version_2=False)
    for name in ("train.json", "dev.json"):
        content = json.loads((tmp_path / name).read_text())
        content["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["text"] = "Atlantis"
        content["data"][0]["paragraphs"][1]["qas"][0]["answers"][0]["answer_start"] += 3
        (tmp_path / name).write_text(json.dumps(content))
    task = QuestionAnswering(task.files)
    assert task.splits == {"train": 7, "validation": 5} and not task.version_2
    tokenizer = make_tokenizer(task)
    assert all(item.target is not None for item in task.encode("train", tokenizer, 512))
    items = task.encode("validation", tokenizer, 512)
    assert [item.target is None for item in items] == [True] + [False] * 4
    known = oracle(task, items[1:])
    lost = known[0]._replace(loss=float("nan"))
    scores = task.score("validation", items, [lost, *known])
    assert scores["exact_match"] == 80 and 0 < scores["loss"] < 0.1
    figures = dict(task.describe())
    assert "2 wrong offsets, 1 found by the text, 1 nowhere in the context; 1 question left out" in figures["train"]
    assert "1 question without an answer that could be found" in figures["validation"]


def test_an_answer_that_no_window_holds_whole_is_not_learnt_as_no_answer(tmp_path):
    task = make_task(tmp_path, version_2=False, sentences=30, stride=4)
    content = json.loads((tmp_path / "train.json").read_text())
    first = content["data"][0]["paragraphs"][0]
    first["qas"][0]["answers"] = [{"text": first["context"][5:-5], "answer_start": 5}]
    (tmp_path / "train.json").write_text(json.dumps(content))
    task = QuestionAnswering(task.files)
    items = task.encode("train", make_tokenizer(task), 64)
    targets = [item.target for item in items if item.example == 0]
    assert len(targets) > 2 and set(targets) == {None}
    assert "1 answer in no window" in dict(task.describe())["train"]


def test_what_is_cut_is_counted(tmp_path):
    task = make_task(tmp_path, max_question_length=4, max_answer_length=1)
    tokenizer = make_tokenizer(task, "char")
    for item in task.encode("train", tokenizer, 128):
        assert item.info.first <= 1 + 4 + 1
    figures = dict(task.describe())["train"]
    assert "16 questions cut" in figures and "8 answers longer than max_answer_length" in figures
    with pytest.raises(RecipeError, match="max_length is 4, which leaves no room"):
        task.encode("train", tokenizer, 4)


def test_the_longest_answer_follows_the_training_answers(tmp_path):
    task = make_task(tmp_path)
    task.encode("validation", make_tokenizer(task, "char"), 128)
    assert task.max_answer_length == 30
    content = json.loads((tmp_path / "train.json").read_text())
    first = content["data"][0]["paragraphs"][0]
    first["qas"][0]["answers"] = [{"text": first["context"][:50].strip(), "answer_start": 0}]
    (tmp_path / "train.json").write_text(json.dumps(content))
    task = QuestionAnswering(task.files)
    task.encode("validation", make_tokenizer(task, "char"), 128)
    assert task.max_answer_length == len(first["context"][:50].strip())


def test_held_out_questions_are_about_other_texts(tmp_path):
    train = write(tmp_path / "train.json", 3, 20, True)
    task = QuestionAnswering(QuestionAnsweringArguments(train_file=train, validation_fraction=0.25))
    contexts = [{q.context for q in task.examples[split]} for split in ("train", "validation")]
    assert [len(texts) for texts in contexts] == [15, 5] and not contexts[0] & contexts[1]
    assert task.splits == {"train": 30, "validation": 10}
    few = QuestionAnsweringArguments(train_file=train, validation_fraction=0.25, max_train_examples=7)
    assert QuestionAnswering(few).splits == {"train": 7, "validation": 10}


def test_chinese_answers_are_compared_by_characters(tmp_path):
    context = "安娜在五月写了这封很长的信、寄给了住在河边的朋友。"
    row = {"context": context, "question": "寄给了谁", "answers": {"text": ["住在河边的朋友"], "answer_start": [17]}}
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({**row, "id": str(i)}) for i in range(2)))
    files = {"train_file": str(tmp_path / "x.jsonl"), "validation_file": str(tmp_path / "x.jsonl")}
    for language in ("auto", "zh", "en"):
        task = QuestionAnswering(QuestionAnsweringArguments(**files, language=language))
        tokenizer = make_tokenizer(task, "char")
        items = task.encode("validation", tokenizer, 64)
        results = oracle(task, items)
        # the friend without the river
        results = [
            spans._replace(starts=spans.starts[:1] + 4, ends=spans.ends[:1], scores=spans.scores[:1])
            for spans in results
        ]
        scores = task.score("validation", items, results)
        assert scores["exact_match"] == 0
        # three of the answer's seven characters: 2 * 3 / (3 + 7); as English they are one other word
        assert scores["f1"] == pytest.approx(0 if language == "en" else 60)


def test_thai_answers_are_compared_by_characters(tmp_path):
    context = "แอนนาเขียนจดหมายยาวฉบับนี้ในเดือนพฤษภาคมแล้วส่งให้เพื่อนริมแม่น้ำ"
    answer = {"text": ["เพื่อนริมแม่น้ำ"], "answer_start": [context.index("เพื่อน")]}
    row = {"context": context, "question": "ส่งให้ใคร", "answers": answer}
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(json.dumps({**row, "id": str(i)}) for i in range(2)))
    task = QuestionAnswering(QuestionAnsweringArguments(train_file=str(path), validation_file=str(path)))
    assert ("questions", "version 1; compared by characters") in task.describe()
    tokenizer = make_tokenizer(task, "char")
    items = task.encode("validation", tokenizer, 128)
    # the friend without the river
    shorter = len("ริมแม่น้ำ")
    results = [
        spans._replace(ends=spans.ends[:1] - shorter, starts=spans.starts[:1], scores=spans.scores[:1])
        for spans in oracle(task, items)
    ]
    scores = task.score("validation", items, results)
    assert scores["exact_match"] == 0
    assert scores["f1"] == pytest.approx(100 * 2 * 4 / (4 + 10))  # เ พื่ อ น of เ พื่ อ น ริ ม แ ม่ น้ ำ


@pytest.mark.parametrize("causal", [False, True])
def test_the_usage_of_the_card_gives_the_answer_and_refuses_at_the_threshold(causal, tmp_path):
    task = make_task(tmp_path)
    task.align_labels(tiny_config(is_causal=causal))
    tokenizer = make_tokenizer(task)
    config = tiny_config(vocab_size=len(tokenizer), is_causal=causal)
    model = make_model(config, model_class=WeftForQuestionAnswering)
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    question, context = "Who wrote the letter?", "The letter was written by Anna in May."
    (tmp_path / "x.jsonl").write_text(json.dumps({"question": question, "context": context}))
    task.read_unlabelled(tmp_path / "x.jsonl")
    task.encode("train", tokenizer, 128)
    (item,) = items = task.encode("predict", tokenizer, 128)
    assert item.target is None
    results = predict(task, model, items, PackingCollator(tokenizer, True), 1)
    task.write_predictions(tmp_path / "x.csv", "predict", items, results)
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as handle:
        probability = float(next(csv.DictReader(handle))["no_answer_probability"])
    assert 1e-4 < probability < 1 - 1e-4
    answers = []
    for threshold in (0.0, probability * 0.99, probability * 1.01, 1.0):
        task.threshold = threshold
        task.write_predictions(tmp_path / "x.csv", "predict", items, results)
        answers.append(json.loads((tmp_path / "x.json").read_text())["1"])
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(task.usage(str(folder)), {})
        assert output.getvalue() == answers[-1] + "\n"
    assert answers[:2] == ["", ""] and answers[2] == answers[3] != ""


@pytest.mark.parametrize("name", KNOWN_TASKS)
def test_a_known_task_is_read_from_a_folder_with_its_official_files(name, tmp_path):
    for number, (_, names) in enumerate(KNOWN_TASKS[name].files.items()):
        write(tmp_path / names[0], number, 3, "v2" in name)
    task = QuestionAnswering(QuestionAnsweringArguments(task=name, data=str(tmp_path)))
    assert list(task.splits) == list(KNOWN_TASKS[name].files) and task.version_2 == (name == "squad_v2")


def test_sources_that_are_not_there_are_named(tmp_path):
    with pytest.raises(RecipeError, match=r"task is 'squat': choose one of squad, squad_v2, cmrc2018, drcd"):
        QuestionAnswering(QuestionAnsweringArguments(task="squat"))
    with pytest.raises(RecipeError, match=r"looked for cmrc2018_train.json, train.json; give"):
        QuestionAnswering(QuestionAnsweringArguments(task="cmrc2018", data=str(tmp_path)))
    with pytest.raises(RecipeError, match=r"task 'drcd' is not on the Hub under a known name"):
        QuestionAnswering(QuestionAnsweringArguments(task="drcd"))
    with pytest.raises(RecipeError, match="no examples are given: give task"):
        QuestionAnswering(QuestionAnsweringArguments())


def test_a_test_set_without_answers_is_refused_where_all_other_questions_have_one(tmp_path):
    task, test = make_task(tmp_path, version_2=False), write(tmp_path / "test.json", 5, 2, True)
    task.files.test_file = test
    with pytest.raises(
        RecipeError, match=r"test.json, article 1, paragraph 1, question 2: there is no answer, but all"
    ):
        QuestionAnswering(task.files)
    task.files.version_2 = True
    assert QuestionAnswering(task.files).splits == {"train": 8, "validation": 5, "test": 4}


def test_wrong_fields_are_refused():
    with pytest.raises(RecipeError, match="language is 'fr': choose one of auto, en, zh"):
        QuestionAnsweringArguments(language="fr").check_files()
    for name, value in (("stride", -1), ("max_question_length", 0), ("max_answer_length", 0), ("n_best_size", 0)):
        with pytest.raises(RecipeError, match=f"{name} is {value}: give at least"):
            QuestionAnsweringArguments(**{name: value}).check_files()
