"""Every known task is read from files in its official layout, with its labels in the official order."""

import json
from pathlib import Path

import pytest
from helpers.official_files import STS_COLUMNS

from weft.recipes.common.errors import RecipeError
from weft.recipes.data import tables
from weft.recipes.data.tables import Record
from weft.recipes.finetuning.tasks.text_classification import builtin_task
from weft.recipes.finetuning.tasks.text_classification import official_files as classification_files
from weft.recipes.finetuning.tasks.text_classification.arguments import TextClassificationArguments
from weft.recipes.finetuning.tasks.text_classification.known_tasks import BUILTIN, KNOWN_TASKS
from weft.recipes.finetuning.tasks.text_classification.reading import read_classification


def write(folder: Path, files: dict) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, list) and content and isinstance(content[0], dict):
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content), encoding="utf-8")
        else:
            path.write_text("".join(line + "\n" for line in content), encoding="utf-8")
    return folder


def tsv(*rows):
    return ["\t".join(row) for row in rows]


def read(task, folder, files, **changes):
    return read_classification(TextClassificationArguments(task=task, data=str(write(folder, files)), **changes))


def labels_of(data, split):
    return [example.label for example in data.splits[split]]


def texts_of(data, split):
    return [example.texts for example in data.splits[split]]


PAIR = ("index", "sentence1", "sentence2", "label")


def test_cola_has_no_header_but_in_its_test_file(tmp_path):
    rows = tsv(("gj04", "1", "", "They drank the pub."), ("gj04", "0", "*", 'They drank the "pub.'))
    files = {"train.tsv": rows, "dev.tsv": rows, "test.tsv": tsv(("index", "sentence"), ("0", "Bill whistled."))}
    data = read("cola", tmp_path, files, glue_submission=True)
    assert data.names.names == ("unacceptable", "acceptable")
    assert labels_of(data, "train") == ["acceptable", "unacceptable"]
    assert texts_of(data, "train")[1] == ('They drank the "pub.',)
    assert texts_of(data, "submission") == [("Bill whistled.",)]
    assert "test" not in data.splits


def test_sst2_scores_a_labelled_test_file_and_submits_the_official_one(tmp_path):
    labelled = tsv(("sentence", "label"), ("good ", "1"), ("bad ", "0"))
    official = tsv(("index", "sentence"), ("0", "so so"))
    files = {"train.tsv": labelled, "dev.tsv": labelled, "test.tsv": official, "test-labeled.tsv": labelled}
    data = read("sst2", tmp_path, files, glue_submission=True)
    assert labels_of(data, "test") == ["positive", "negative"]
    assert texts_of(data, "submission") == [("so so",)]
    assert data.splits["submission"][0].index == "0"


def test_mrpc_is_read_in_both_layouts(tmp_path):
    header = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
    rows = [("1", "1", "2", 'He said "yes.', "Yes."), ("0", "3", "4", "No.", "Yes.")]
    bom = ("\ufeff" + "\n".join(tsv(header, *rows)) + "\n").encode()
    names = {"train": "msr-para-train.tsv", "validation": "msr-para-val.tsv", "test": "msr-para-test.tsv"}
    data = read("mrpc", tmp_path / "a", dict.fromkeys(names.values(), bom))
    for split in names:
        assert texts_of(data, split)[0] == ('He said "yes.', "Yes.")
        assert labels_of(data, split) == ["equivalent", "not_equivalent"]
    data = read("mrpc", tmp_path / "b", {"msr_paraphrase_train.txt": bom, "msr_paraphrase_test.txt": bom})
    assert {split: len(examples) for split, examples in data.splits.items()} == {"train": 1, "validation": 1, "test": 2}
    glue = ("index", "#1 ID", "#2 ID", "#1 String", "#2 String")
    files = {"train.tsv": bom, "dev.tsv": bom, "test.tsv": tsv(glue, ("7", "1", "2", "a", "b"))}
    data = read("mrpc", tmp_path / "c", files, glue_submission=True)
    assert data.splits["submission"][0].index == "7"


@pytest.mark.parametrize("header", [True, False])
def test_stsb_is_a_regression_with_or_without_its_header(tmp_path, header):
    rows = [("0", "news", "MSRvid", "2012", "1", "none", "none", "A plane.", "An air plane.", "4.750")]
    rows += [("1", "news", "MSRvid", "2012", "2", "none", "none", "A man.", "A dog.", "1")]
    content = tsv(*([STS_COLUMNS] if header else []), *rows)
    data = read("stsb", tmp_path, {"train.tsv": content, "dev.tsv": content, "test.tsv": tsv(STS_COLUMNS, *rows)})
    assert data.problem_type == "regression"
    assert labels_of(data, "train") == labels_of(data, "test") == [4.75, 1.0]
    assert texts_of(data, "validation")[0] == ("A plane.", "An air plane.")


def test_a_headerless_file_with_other_columns_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"train.tsv, line 1: 3 fields that name no column, where the 10"):
        read("stsb", tmp_path, {"train.tsv": tsv(("a", "b", "3.0"))})


def test_qqp_leaves_broken_lines_out_and_counts_them_but_keeps_empty_questions(tmp_path):
    header = ("id", "qid1", "qid2", "question1", "question2", "is_duplicate")
    rows = [("0", "1", "2", "What?", "Who?", "0"), ("1", "3", "4", "Why", "broken"), ("2", "5", "6", "Where?", "", "1")]
    data = read("qqp", tmp_path, {"train.tsv": tsv(header, *rows), "dev.tsv": tsv(header, rows[0])})
    assert labels_of(data, "train") == ["not_duplicate", "duplicate"]
    assert texts_of(data, "train")[1] == ("Where?", "")
    assert ("broken lines", "1 left out, with a wrong number of fields") in data.notes


def test_mnli_has_two_validation_sets_and_two_test_sets(tmp_path):
    header = ("index", "promptID", "sentence1", "sentence2", "label1", "gold_label")
    rows = [("0", "1", "A", "B", "neutral", "neutral"), ("1", "2", "C", "D", "neutral", "entailment")]
    rows += [("2", "3", "E", "F", "neutral", "contradiction"), ("3", "3", "G", "H", "neutral", "-")]
    content = tsv(header, *rows)
    test = tsv(("index", "sentence1", "sentence2"), ("9847", "X", "Y"))
    files = {"train.tsv": content, "dev_matched.tsv": content, "dev_mismatched.tsv": content}
    files |= {"test_matched.tsv": test, "test_mismatched.tsv": test}
    data = read("mnli", tmp_path, files, glue_submission=True)
    assert data.names.names == ("entailment", "neutral", "contradiction")
    assert labels_of(data, "validation_mismatched") == ["neutral", "entailment", "contradiction"]
    assert ("left out of train", "1 example with the label '-'") in data.notes
    assert data.splits["submission_mismatched"][0].index == "9847"


@pytest.mark.parametrize(
    ("task", "header", "row", "label"),
    [
        ("qnli", ("index", "question", "sentence", "label"), ("0", "Who?", "He.", "not_entailment"), "not_entailment"),
        ("rte", PAIR, ("0", "A.", "B.", "entailment"), "entailment"),
        ("wnli", PAIR, ("0", "A.", "B.", "1"), "entailment"),
    ],
)
def test_the_other_pairs_of_glue(tmp_path, task, header, row, label):
    other = (*row[:3], {"1": "0"}.get(row[3], "entailment" if row[3] != "entailment" else "not_entailment"))
    content = tsv(header, row, other)
    data = read(task, tmp_path, {"train.tsv": content, "dev.tsv": content})
    assert labels_of(data, "train")[0] == label
    assert texts_of(data, "train")[0] == (row[1], row[2])
    assert set(data.names.names) == {"entailment", "not_entailment"}


@pytest.mark.parametrize("inside", ["", "aclImdb/"])
def test_imdb_folders_hold_a_text_in_each_file(tmp_path, inside):
    files = {}
    for split in ("train", "test"):
        for label in ("pos", "neg"):
            files |= {f"{inside}{split}/{label}/{n}_9.txt": [f"{split} {label} {n}", "second line"] for n in range(3)}
    files[f"{inside}train/unsup/0_0.txt"] = ["not labelled"]
    data = read("imdb", tmp_path, files)
    assert data.names.names == ("neg", "pos")
    assert {split: len(examples) for split, examples in data.splits.items()} == {"train": 5, "validation": 1, "test": 6}
    assert ("test neg 0\nsecond line\n",) in texts_of(data, "test")
    assert all(example.label in example.texts[0] for example in data.splits["train"])


def test_imdb_as_one_csv_file(tmp_path):
    rows = [
        "review,sentiment",
        *(f'"good, {n}",positive' for n in range(10)),
        *(f"bad {n},negative" for n in range(10)),
    ]
    data = read("imdb", tmp_path, {"IMDB Dataset.csv": rows})
    assert len(data.splits["validation"]) == 2
    assert set(labels_of(data, "validation")) == {"pos", "neg"}


@pytest.mark.parametrize("header", ["", "Class Index,Title,Description"])
def test_ag_news_counts_its_classes_from_one(tmp_path, header):
    rows = [
        '"3","Wall St., up","Reuters - Stocks rose."',
        '"4","Chips","Faster."',
        '"1","Talks","Peace."',
        '"2","Cup","Won."',
    ]
    files = {"train.csv": [*([header] if header else []), *rows * 3], "test.csv": rows}
    data = read("ag_news", tmp_path, files)
    assert data.names.names == ("World", "Sports", "Business", "Sci/Tech")
    assert labels_of(data, "test") == ["Business", "Sci/Tech", "World", "Sports"]
    assert texts_of(data, "test")[0] == ("Wall St., up Reuters - Stocks rose.",)


def test_ag_news_refuses_a_class_that_it_does_not_have(tmp_path):
    with pytest.raises(RecipeError, match=r"line 1: the train label 'class 5' is none"):
        read("ag_news", tmp_path, {"train.csv": ["5,Cup,Won.", "1,Cup,Won."]})


def test_trec_takes_the_coarse_label_and_is_in_latin_1(tmp_path):
    lines = "DESC:manner How did serfdom develop ?\nHUM:ind Who is José ?\nLOC:other Where ?\n".encode("latin-1")
    data = read("trec", tmp_path, {"train_5500.label": lines * 4, "TREC_10.label": lines})
    assert data.names.names == ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM")
    assert texts_of(data, "test") == [("How did serfdom develop ?",), ("Who is José ?",), ("Where ?",)]
    assert labels_of(data, "test") == ["DESC", "HUM", "LOC"]


def test_go_emotions_has_several_labels_by_number(tmp_path):
    rows = tsv(("Thanks a lot", "15", "eczm50f"), ("You know, man", "4,27", "ee84bjg"))
    data = read("go_emotions", tmp_path / "a", {"train.tsv": rows, "dev.tsv": rows})
    assert labels_of(data, "train") == [("gratitude",), ("approval", "neutral")]
    assert len(data.names) == 28
    own = {"train.tsv": tsv(("x", "0,1", "1"), ("y", "1", "2")), "labels.txt": b"joy\nfear"}
    data = read("go_emotions", tmp_path / "b", own | {"dev.tsv": tsv(("z", "0", "3"))})
    assert data.names.names == ("joy", "fear")
    assert labels_of(data, "train") == [("joy", "fear"), ("fear",)]


def test_chnsenticorp_names_its_columns(tmp_path):
    content = tsv(("label", "text_a"), ("1", "很好"), ("0", "太差"))
    test = tsv(("qid", "label", "text_a"), ("0", "1", "还行"))
    data = read("chnsenticorp", tmp_path, {"train.tsv": content, "dev.tsv": content, "test.tsv": test})
    assert labels_of(data, "validation") == ["positive", "negative"]
    assert texts_of(data, "test") == [("还行",)]


@pytest.mark.parametrize(
    "names",
    [("train.json", "dev.json", "test.json"), ("train_few_all.json", "dev_few_all.json", "test_public.json")],
)
def test_tnews_maps_its_codes_to_names(tmp_path, names):
    rows = [{"label": code, "label_desc": "x", "sentence": f"第{code}条"} for code in ("100", 116, "104")]
    test = rows if "public" in names[2] else [{"id": 0, "sentence": "没有"}]
    data = read("tnews", tmp_path, dict(zip(names, (rows, rows, test))))
    assert labels_of(data, "train") == ["news_story", "news_game", "news_finance"]
    assert len(data.names) == 15
    assert ("test" in data.splits) == ("public" in names[2])


@pytest.mark.parametrize("ending", ["tsv", "txt"])
@pytest.mark.parametrize("header", [True, False])
def test_lcqmc_is_read_with_and_without_header(tmp_path, ending, header):
    rows = tsv(*([("text_a", "text_b", "label")] if header else []), ("喜欢吗", "爱吗", "1"), ("谁", "哪里", "0"))
    data = read("lcqmc", tmp_path, {f"train.{ending}": rows, f"dev.{ending}": rows, f"test.{ending}": rows})
    assert labels_of(data, "train") == ["same", "different"]
    assert texts_of(data, "test")[0] == ("喜欢吗", "爱吗")


def test_ocnli_drops_examples_without_agreement_and_counts_them(tmp_path):
    rows = [{"sentence1": "甲", "sentence2": "乙", "label": label} for label in ("neutral", "-", "entailment", "-")]
    test = [{"sentence1": "甲", "sentence2": "乙", "id": 0}]
    data = read("ocnli", tmp_path, {"train.50k.json": rows, "dev.json": rows, "test.json": test})
    assert labels_of(data, "train") == ["neutral", "entailment"]
    assert ("left out of train", "2 examples with the label '-'") in data.notes
    assert "test" not in data.splits


def test_waimai_is_one_file_of_which_a_stratified_part_is_held_out(tmp_path):
    rows = ["\ufefflabel,review", *(f"1,好{n}" for n in range(40)), *(f'0,"差,{n}"' for n in range(80))]
    data = read("waimai", tmp_path, {"waimai_10k.csv": rows})
    held_out = labels_of(data, "validation")
    assert (held_out.count("positive"), held_out.count("negative")) == (4, 8)
    assert not set(texts_of(data, "train")) & set(texts_of(data, "validation"))


def test_files_may_be_compressed_and_the_first_candidate_wins(tmp_path):
    import gzip

    content = tsv(("sentence", "label"), ("good", "1"), ("bad", "0"))
    packed = gzip.compress("\n".join(content).encode())
    other = [{"sentence": "never read", "label": 1}]
    data = read("sst2", tmp_path, {"train.tsv.gz": packed, "train.jsonl": other, "dev.tsv": content})
    assert texts_of(data, "train") == [("good",), ("bad",)]


def test_a_folder_without_training_file_is_refused_with_what_was_looked_for(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(RecipeError, match=r"no training file of task 'trec': looked for train_5500.label, train.tsv, "):
        read("trec", tmp_path / "x", {})


def test_a_submission_needs_the_official_test_file(tmp_path):
    content = tsv(PAIR, ("0", "a", "b", "entailment"), ("1", "a", "b", "not_entailment"))
    with pytest.raises(RecipeError, match=r"no test file of task 'rte': looked for test.tsv"):
        read("rte", tmp_path, {"train.tsv": content, "dev.tsv": content}, glue_submission=True)


def test_an_unknown_label_in_an_official_file_is_refused_with_its_line(tmp_path):
    content = tsv(("sentence", "label"), ("good", "1"), ("bad", "2"))
    with pytest.raises(RecipeError, match=r"train.tsv, line 3: the train label '2' is none"):
        read("sst2", tmp_path, {"train.tsv": content})


def test_an_unknown_task_is_refused_with_the_near_one():
    with pytest.raises(
        RecipeError, match=r"there is no task 'SST-2' \(did you mean sst2\?\): choose one of pydoc, cola"
    ):
        read_classification(TextClassificationArguments(task="SST-2"))


HUB_ROWS = {
    "sst2": {"sentence": "good", "label": "positive"},
    "mnli": {"premise": "a", "hypothesis": "b", "label": "neutral"},
    "stsb": {"sentence1": "a", "sentence2": "b", "label": 3.5},
    "imdb": {"text": "good", "label": "pos"},
    "ag_news": {"text": "good", "label": "Sci/Tech"},
    "trec": {"text": "Who ?", "label": 3, "label_coarse": 4, "label_coarse_original": "HUM"},
    "go_emotions": {"text": "good", "labels": ["joy", "love"]},
    "chnsenticorp": {"text": "好", "label": 1},
    "tnews": {"sentence": "好", "label": "104"},
    "lcqmc": {"sentence1": "a", "sentence2": "b", "score": 1},
    "ocnli": {"sentence1": "a", "sentence2": "b", "label": "neutral"},
    "waimai": {"review": "好", "label": 1},
}
HUB_LABELS = {
    **{"sst2": "positive", "mnli": "neutral", "stsb": 3.5, "imdb": "pos", "ag_news": "Sci/Tech", "trec": "HUM"},
    **{"go_emotions": ("joy", "love"), "chnsenticorp": "positive", "tnews": "news_finance", "lcqmc": "same"},
    **{"ocnli": "neutral", "waimai": "positive"},
}
OTHER = {
    "stsb": 1.0,
    "go_emotions": ["fear"],
    "trec": "LOC",
    "tnews": "100",
    "mnli": "entailment",
    "ocnli": "entailment",
}


@pytest.mark.parametrize("task", HUB_ROWS)
def test_rows_of_the_hub_give_the_same_labels(monkeypatch, task):
    asked = []

    def rows(name, config, split):
        asked.append((name, config, split))
        column = {"lcqmc": "score", "trec": "label_coarse_original", "go_emotions": "labels"}.get(task, "label")
        other = {
            **HUB_ROWS[task],
            column: OTHER.get(task, KNOWN_TASKS[task].labels[0] if KNOWN_TASKS[task].labels else 0),
        }
        text = next(name for name in ("text", "sentence", "sentence1", "premise", "review") if name in other)
        return [
            Record({**values, text: f"{values[text]} {n}"}, f"row {n}")
            for n, values in enumerate([HUB_ROWS[task], other] * 3)
        ]

    monkeypatch.setattr(classification_files, "read_hub_records", rows)
    data = read_classification(TextClassificationArguments(task=task))
    assert labels_of(data, "train")[0] == HUB_LABELS[task] or task in ("imdb", "ag_news", "trec", "waimai")
    assert HUB_LABELS[task] in labels_of(data, "train")
    known = KNOWN_TASKS[task]
    assert asked[0] == (known.hub, known.hub_config, "train")
    if known.submissions:  # their test sets have no labels
        assert "test" not in [split for _, _, split in asked]


def test_the_table_is_complete_and_consistent():
    for name, task in KNOWN_TASKS.items():
        assert (task.hub and task.files["train"]) or name == BUILTIN, name
        assert task.metric, name
        assert len(task.text_columns) in (1, 2)
        assert bool(task.labels) == (task.problem_type != "regression" and name != BUILTIN)
        assert set(task.spelled.values()) <= set(task.labels)
        for split in ("train", "validation", "test"):
            assert len(set(task.files.get(split, ()))) == len(task.files.get(split, ()))
    assert sum(1 for task in KNOWN_TASKS.values() if task.hub == "nyu-mll/glue") == 9


def test_docstrings_make_a_task_with_a_fixed_stratified_split(monkeypatch):
    sources = [("email.parser", f"Parse message number {n} of a mail." * 2) for n in range(100)]
    sources += [("xml.dom", f"Node number {n} of a tree of elements." * 2) for n in range(100)]
    sources += [("logging", f"Only few of these are there: {n} things.") for n in range(5)]
    sources += [
        ("email.parser", "Said in two areas, and so left out of both."),
        ("xml.sax", "Said in two areas, and so left out of both."),
    ]
    sources += [
        ("xml.dom", sources[100][1]),
        ("xml.dom", "short"),
        ("nowhere", "A text of an area that is not among them."),
    ]
    monkeypatch.setattr(builtin_task, "embedded_docstrings", lambda: tuple(sources))
    data = read_classification(TextClassificationArguments())
    assert data.name == "pydoc"
    assert data.names.names == ("email", "xml")
    assert {split: len(examples) for split, examples in data.splits.items()} == {
        "train": 140,
        "validation": 30,
        "test": 30,
    }
    assert labels_of(data, "validation").count("xml") == labels_of(data, "test").count("xml") == 15
    assert len({text for split in data.splits for text in texts_of(data, split)}) == 200
    again = read_classification(TextClassificationArguments(split_seed=5))
    assert texts_of(again, "test") == texts_of(data, "test")


def test_a_label_that_a_task_does_not_have_is_named_with_its_row_and_those_allowed(tmp_path):
    good, bad = (tsv(("sentence", "label"), ("good ", label), ("bad ", "0")) for label in ("1", "2"))
    for split, files in {"validation": {"train.tsv": good, "dev.tsv": bad}, "train": {"train.tsv": bad}}.items():
        with pytest.raises(RecipeError) as caught:
            read("sst2", tmp_path / split, files)
        path = tmp_path / split / ("dev.tsv" if split == "validation" else "train.tsv")
        sentence = f"{path}, line 2: the {split} label '2' is none of task sst2's ('negative', 'positive')"
        assert str(caught.value).startswith(sentence)


def test_lines_that_are_left_out_are_an_error_where_nobody_counts_them(tmp_path):
    path = write(tmp_path, {"a.tsv": tsv(("x", "y"), ("1", "2"), ("3",), ("4", "5"))}) / "a.tsv"
    broken = []
    assert [record.values["x"] for record in tables.read_records(path, broken=broken)] == ["1", "4"]
    assert broken == [f"{path}, line 3: 1 field between tabs, where 2 are needed (x, y): mend the line."]
    with pytest.raises(RecipeError, match="line 3"):
        list(tables.read_records(path))
