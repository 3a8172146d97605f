"""Every usual form of tagged data gives the same words, tags and entities, and a broken row is named."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from weft.recipes.common.errors import RecipeError
from weft.recipes.finetuning.arguments import FineTuningArguments, ModelSetupArguments
from weft.recipes.finetuning.model_setup import set_up_model
from weft.recipes.finetuning.tasks.token_classification.arguments import TokenClassificationArguments
from weft.recipes.finetuning.tasks.token_classification.passages import Joiner, Sentence, is_by_character, words_in
from weft.recipes.finetuning.tasks.token_classification.reading import Reader
from weft.recipes.finetuning.tasks.token_classification.task import TokenClassification

WORDS = [["Anna", "lives", "in", "New", "York"], ["#", "Bob"]]
TAGS = [["B-PER", "O", "O", "B-LOC", "I-LOC"], ["O", "B-PER"]]


def write(folder: Path, name: str, content: str | list[Any]) -> Path:
    """A file of text, or of JSON lines."""
    path = folder / name
    if not isinstance(content, str):
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
    path.write_text(content, encoding="utf-8")
    return path


def read(path: Path, **options: Any) -> list[Any]:
    return Reader(**options).read(path)


def check(examples: list[Sentence]) -> None:
    assert [example.words for example in examples] == WORDS
    assert [example.tags for example in examples] == TAGS


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(RecipeError) as error:
        read(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("separator", [" ", "\t", "   "])
@pytest.mark.parametrize("ending", ["txt", "conll", "bio", "train", "char.bmes"])
def test_columns(tmp_path: Path, separator: str, ending: str) -> None:
    lines = ["# id = 1", "# a comment", f"-DOCSTART-{separator}-X-{separator}O", ""]
    for words, tags in zip(WORDS, TAGS):
        lines += [f"{word}{separator}X{separator}{tag}" for word, tag in zip(words, tags)] + ["", " "]
    check(read(write(tmp_path, f"data.{ending}", "\n".join(lines))))


def test_columns_with_windows_line_ends_and_no_end_of_the_last_line(tmp_path: Path) -> None:
    text = "\r\n\r\n".join("\r\n".join(map(" ".join, zip(words, tags))) for words, tags in zip(WORDS, TAGS))
    path = tmp_path / "data.txt"
    path.write_bytes(text.encode())
    check(read(path))


def test_columns_are_chosen_by_number(tmp_path: Path) -> None:
    path = write(tmp_path, "data.txt", "O a DT I-NP\nO # # I-NP\n")
    [sentence] = read(path, word_column="1", tag_column="-2")
    assert (sentence.words, sentence.tags) == (["a", "#"], ["DT", "#"])
    assert "0 is the first" not in refusal(path, tag_column="9")
    assert "has 4 columns" in refusal(path, tag_column="9")
    assert "without names" in refusal(path, tag_column="ner")


def test_a_line_that_begins_with_a_number_sign_is_a_word_where_it_has_the_tag_of_one(tmp_path: Path) -> None:
    lines = "# B-NP\nx B-NP\n# comment\n\n#tag O\ny O\n\n# # B-NP\n"
    sentences = read(write(tmp_path, "data.txt", lines))
    assert [sentence.words for sentence in sentences] == [["#", "x"], ["#tag", "y"]]
    three = read(write(tmp_path, "three.txt", "# # B-NP\nx NN B-NP\n# sent id\ny NN O\n"))
    assert three[0].words == ["#", "x", "y"]


def test_an_ideographic_blank_is_a_word(tmp_path: Path) -> None:
    [sentence] = read(write(tmp_path, "data.txt", "中 B-LOC\n\u3000 O\n国 B-LOC\n"))
    assert sentence.words == ["中", "\u3000", "国"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a O\nb\nc O\n", "line 2: 1 column, where the others have 2"),
        ("a\nb\n", "word and tag at once"),
        ("-DOCSTART- O\n\n", "holds no words"),
    ],
)
def test_broken_columns_are_named(tmp_path: Path, content: str, message: str) -> None:
    assert message in refusal(write(tmp_path, "data.txt", content))


def test_tokens_in_json_lines_json_and_parquet(tmp_path: Path) -> None:
    rows = [{"tokens": words, "ner_tags": tags, "pos_tags": None} for words, tags in zip(WORDS, TAGS)]
    check(read(write(tmp_path, "a.jsonl", rows)))
    check(read(write(tmp_path, "b.json", json.dumps(rows))))
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "c.parquet")
    check(read(tmp_path / "c.parquet"))
    renamed = [{"w": words, "t": tags} for words, tags in zip(WORDS, TAGS)]
    check(read(write(tmp_path, "d.jsonl", renamed), word_column="w", tag_column="t"))


def test_numbers_get_the_names_that_are_given(tmp_path: Path) -> None:
    names = ["O", "B-PER", "B-LOC", "I-LOC"]
    rows = [{"tokens": w, "tags": [names.index(tag) for tag in t]} for w, t in zip(WORDS, TAGS)]
    path = write(tmp_path, "data.jsonl", rows)
    check(read(path, labels=names))
    assert "--label_names" in refusal(path)
    assert "label_names has 2 names" in refusal(path, labels=names[:2])
    files = TokenClassificationArguments(
        train_file=str(path), label_names=[str(write(tmp_path, "names.txt", "\n".join(names)))]
    )
    assert TokenClassification.read(files, FineTuningArguments()).labels == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": None, "tags": ["O"]}, "'tokens' holds null (None), where a list of words"),
        ({"tokens": ["a", "b"], "tags": ["O"]}, "2 words and 1 tag "),
        ({"tokens": ["a", None], "tags": ["O", "O"]}, "word 2 of column 'tokens' is null"),
        ({"tokens": ["a", "b"], "tags": ["O", None]}, "tag 2 of column 'tags' is null"),
        ({"tokens": ["a"], "tags": [True]}, "tag 1 of column 'tags' is True (bool)"),
        ({"tokens": ["a", "b"], "tags": ["O", 1]}, "tag 2 of column 'tags' is the number 1"),
        ({"tokens": ["a"], "tags": [""]}, "tag 1 of column 'tags' is empty"),
        ({"tokens": ["a\ud800"], "tags": ["O"]}, "surrogate"),
        ({"words": ["a"], "labels_": ["O"]}, "no column 'ner_tags'"),
    ],
)
def test_broken_rows_of_tokens_are_named(tmp_path: Path, row: dict, message: str) -> None:
    path = tmp_path / "data.jsonl"
    good = {**{key: ["a"] for key in row}, "tokens": ["a"], "tags": ["O"]}
    path.write_text("".join(json.dumps(r) + "\n" for r in ([row] if "labels_" in row else [good, row])))
    sentence = refusal(path)
    assert message in sentence
    assert f"{path}, line {1 if 'labels_' in row else 2}" in sentence


CLUENER = {"text": "叶老桂在浙商银行", "label": {"name": {"叶老桂": [[0, 2]]}, "company": {"浙商银行": [[4, 7]]}}}
SPANS = {"text": "叶老桂在浙商银行", "entities": [{"start": 4, "end": 8, "label": "company"}, [0, 3, "name"]]}


def test_cluener_and_spans_say_the_same(tmp_path: Path) -> None:
    one = read(write(tmp_path, "train.json", [CLUENER]))
    other = read(write(tmp_path, "spans.jsonl", [SPANS]))
    doccano = [{"text": SPANS["text"], "label": [[0, 3, "name"], [4, 8, "company"]]}]
    assert [tuple(span) for span in one[0].spans] == [(0, 3, "name"), (4, 8, "company")]
    assert one[0].spans == other[0].spans == read(write(tmp_path, "doccano.jsonl", doccano))[0].spans


def test_of_nested_mentions_of_cluener_the_longest_is_kept_and_counted(tmp_path: Path) -> None:
    row = {"text": "投资永隆银行书", "label": {"book": {"投资永隆银行书": [[0, 6]]}, "company": {"永隆银行": [[2, 5]]}}}
    reader = Reader()
    [example] = reader.read(write(tmp_path, "train.jsonl", [row]))
    assert [tuple(span) for span in example.spans] == [(0, 7, "book")]
    assert sum(reader.notes.values()) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "ab", "label": {"x": {"b": [[0, 0]]}}}, "the text from 0 to 0 is 'a', not the mention 'b'"),
        ({"text": "ab", "label": {"x": [[0, 0]]}}, "is not of the form"),
        ({"text": "ab", "entities": [{"start": 0, "end": 3, "label": "x"}]}, "the text has 2 characters"),
        ({"text": "ab", "entities": [{"start": 1, "end": 1, "label": "x"}]}, "from 1 to 1"),
        ({"text": "a b", "entities": [{"start": 1, "end": 2, "label": "x"}]}, "is blank"),
        ({"text": "ab", "entities": [{"start": 0, "end": 1}]}, "needs start, end and label"),
        ({"text": "ab", "entities": [{"start": "0", "end": 1, "label": "x"}]}, "whole numbers"),
        ({"text": "ab", "entities": [{"start": 0, "end": 1, "label": 3}]}, "where a name is needed"),
        ({"text": "ab", "entities": [[0, 2, "x"], [1, 2, "y"]]}, "'ab' (x) and 'b' (y) overlap"),
        ({"text": "ab", "entities": None}, "'entities' holds null"),
        ({"text": None, "entities": []}, "'text' holds null"),
    ],
)
def test_broken_spans_are_named(tmp_path: Path, row: dict, message: str) -> None:
    good = {"text": "a", "entities": []} if "entities" in row else {"text": "a", "label": {}}
    sentence = refusal(write(tmp_path, "data.jsonl", [good, row]))
    assert message in sentence
    assert "data.jsonl, line 2" in sentence


def test_blanks_at_the_ends_of_spans_are_cut_off_and_counted(tmp_path: Path) -> None:
    reader = Reader()
    [example] = reader.read(write(tmp_path, "a.jsonl", [{"text": "in Rome .", "spans": [[2, 8, "LOC"]]}]))
    assert [tuple(span) for span in example.spans] == [(3, 7, "LOC")]
    assert sum(reader.notes.values()) == 1


TREEBANK = """# text = He doesn't go to the café, vámonos du
1\tHe\the\tPRON\tPRP\tNumber=Sing|Person=3\t4\tnsubj\t_\tNER=B-PER
2-3\tdoesn't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdoes\tdo\tAUX\tVBZ\tNumber=Sing\t4\taux\t_\tNER=O
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\tNER=O
4\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\tNER=O
4.1\tgone\tgo\tVERB\tVB\t_\t_\t_\t_\t_
5\tcafé\tcafé\tNOUN\tNN\tNumber=Sing\t4\tobl\t_\tSpaceAfter=No|NER=B-LOC
6-7\t, du\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
6\tde\tde\tADP\t_\t_\t7\tcase\t_\tNER=O
7\tle\tle\tDET\t_\t_\t5\tdet\t_\tNER=O
8\t.\t.\tPUNCT\t.\t_\t4\tpunct\t_\tNER=O

"""


def test_conllu_gives_words_and_the_text_they_stand_in(tmp_path: Path) -> None:
    path = write(tmp_path, "en-ud-train.conllu", TREEBANK)
    reader = Reader()
    [sentence] = reader.read(path)
    assert sentence.words == ["He", "does", "n't", "go", "café", "de", "le", "."]
    assert sentence.tags == ["PRON", "AUX", "PART", "VERB", "NOUN", "ADP", "DET", "PUNCT"]
    text, spans = Joiner(None, False).join(sentence)
    assert text == "He doesn't go caféde le."
    assert [text[start:end] for start, end in spans] == sentence.words
    assert reader.notes.total() == 1  # "de le" does not spell its token
    assert read(path, tag_column="xpos")[0].tags[:2] == ["PRP", "VBZ"]
    assert read(path, tag_column="Number")[0].tags[:3] == ["Sing", "Sing", "_"]
    assert read(path, tag_column="NER")[0].tags[:2] == ["B-PER", "O"]
    assert "no word has a tag in 'Gender'" in refusal(path, tag_column="Gender")
    assert read(write(tmp_path, "same.txt", TREEBANK))[0].words == sentence.words


def test_a_broken_line_of_conllu_is_named(tmp_path: Path) -> None:
    assert "line 2: no line of CoNLL-U" in refusal(write(tmp_path, "a.conllu", "# x\n1\tHe\tPRON\n"))


@pytest.mark.parametrize(
    ("words", "by_character", "text"),
    [
        (["New", "York", "."], False, "New York ."),
        (["我", "在", "iPhone", "上", "。"], False, "我在 iPhone 上。"),
        (["北京", "大学", "《", "PKU", "》"], False, "北京大学《PKU》"),
        (["กรุงเทพ", "มหานคร"], False, "กรุงเทพมหานคร"),
        (["서울", "대학교"], False, "서울 대학교"),
        (list("用CSOL打"), True, "用CSOL打"),
        (["用", "Windows", "Vista", "打"], True, "用Windows Vista打"),
    ],
)
def test_words_are_joined_as_they_stand_in_running_text(words: list[str], by_character: bool, text: str) -> None:
    joined, spans = Joiner(None, by_character).join(Sentence(words, None, ""))
    assert joined == text
    assert [joined[start:end] for start, end in spans] == words


def test_a_joiner_that_is_given_stands_between_all_words() -> None:
    assert Joiner("|", True).join(Sentence(["a", "我", "b"], None, ""))[0] == "a|我|b"


def test_single_chinese_characters_are_told_from_words() -> None:
    characters = [Sentence(list("他在北京大学用Windows学习。"), None, "")]
    words = [Sentence(["他", "在", "北京", "大学", "学习", "。"], None, "")]
    english = [Sentence(["I", "a", "b"], None, "")]
    assert is_by_character(characters)
    assert not is_by_character(words)
    assert not is_by_character(english)


def test_every_sign_of_a_text_that_is_no_blank_is_in_one_word() -> None:
    text = "The naïve café-owner said: 他在北京 3.5% \u200b\x07 कि «ok»"
    spans = words_in(text)
    assert "".join(text[start:end] for start, end in spans) == "".join(text.split())
    assert [text[s:e] for s, e in spans][:5] == ["The", "naïve", "café", "-", "owner"]
    assert "他" in [text[s:e] for s, e in spans]


def make(folder: Path, **fields: Any) -> Any:
    return TokenClassification.read(TokenClassificationArguments(**fields), FineTuningArguments())


def columns(words: list[list[str]], tags: list[list[str]]) -> str:
    return "\n\n".join("\n".join(map(" ".join, zip(w, t))) for w, t in zip(words, tags)) + "\n"


def test_a_label_that_training_does_not_have_is_named_with_its_line(tmp_path: Path) -> None:
    train = write(tmp_path, "train.txt", columns(WORDS, TAGS))
    dev = write(tmp_path, "dev.txt", columns([["x", "y"]], [["O", "B-PRE"]]))
    with pytest.raises(RecipeError, match=r"dev.txt, line 2: the validation label 'PRE' .* did you mean 'PER'"):
        make(tmp_path, train_file=str(train), validation_file=str(dev))


def test_the_scheme_is_found_over_all_splits(tmp_path: Path) -> None:
    train = write(tmp_path, "train.txt", columns([["a", "b"]], [["B-X", "I-X"]]))
    dev = write(tmp_path, "dev.txt", columns([["a", "b"]], [["B-X", "E-X"]]))
    kind = make(tmp_path, train_file=str(train), validation_file=str(dev))
    assert kind.data.scheme == "BIOES"
    assert ("tags", "BIOES, written as IOB2; 1 tag broke it, read as conlleval does") in kind.describe()
    with pytest.raises(RecipeError, match=r"dev.txt, line 2: the tag 'E-X' is none of IOB2"):
        make(tmp_path, train_file=str(train), validation_file=str(dev), scheme="IOB2")
    with pytest.raises(RecipeError, match="scheme is 'bio'"):
        TokenClassificationArguments(scheme="bio").check()


@pytest.mark.parametrize(
    ("tags", "message"),
    [([["O"] * 5, ["O"] * 2], "same tag"), ([["NN"] * 5, ["NN"] * 2], "same tag")],
)
def test_data_without_anything_to_learn_are_refused(tmp_path: Path, tags: list[list[str]], message: str) -> None:
    path = write(tmp_path, "train.txt", columns(WORDS, tags))
    with pytest.raises(RecipeError, match=message):
        make(tmp_path, train_file=str(path), validation_file=str(path))


def test_splits_of_different_forms_are_refused(tmp_path: Path) -> None:
    train = write(tmp_path, "train.txt", columns(WORDS, TAGS))
    dev = write(tmp_path, "dev.jsonl", [SPANS])
    with pytest.raises(RecipeError, match=r"gives entities by characters, where .* gives them by words"):
        make(tmp_path, train_file=str(train), validation_file=str(dev))


def test_a_task_finds_its_files_and_holds_a_part_out_but_leaves_the_test_split(tmp_path: Path) -> None:
    many = [[f"w{number}", "x"] for number in range(20)]
    write(tmp_path, "train.txt", columns(many, [["B-NP", "O"]] * 20))
    write(tmp_path, "test.txt", columns(WORDS, [["B-NP", "I-NP", "O", "O", "O"], ["O", "O"]]))
    kind = make(tmp_path, task="conll2000", data=str(tmp_path))
    assert kind.splits == {"train": 18, "validation": 2, "test": 2}
    with pytest.raises(RecipeError, match=r"no training file of task 'cluener': looked for train.jsonl"):
        make(tmp_path, task="cluener", data=str(tmp_path))
    with pytest.raises(RecipeError, match="give task"):
        make(tmp_path)


def test_a_hub_data_set_gives_names_of_labels(tmp_path: Path) -> None:
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    features = datasets.Features(
        {"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(datasets.ClassLabel(names=names))}
    )
    rows = {"tokens": WORDS, "ner_tags": [[names.index(tag) for tag in tags] for tags in TAGS]}
    (tmp_path / "set").mkdir()
    for split in ("train", "validation"):
        datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "set" / f"{split}.parquet")
    kind = make(tmp_path, dataset_name=str(tmp_path / "set"))
    assert kind.labels == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    assert kind.examples["train"][0].tags == TAGS[0]


def test_the_place_in_a_word_that_signs_bear_is_left_out_and_said(tmp_path: Path) -> None:
    """As the official files of Weibo NER have it."""
    signs, tags = [["口0", "腔1", "医2", "生3", "A0", "。0"]], [["B-PER", "I-PER", "I-PER", "I-PER", "O", "O"]]
    train = write(tmp_path, "train.txt", columns(signs * 4, tags * 4))
    task = make(tmp_path, train_file=str(train), validation_file=str(train))
    assert task.examples["train"][0].text == "口腔医生A。"
    assert any("place in a word" in text for _, text in task.describe())
    rows = write(tmp_path, "train.jsonl", [{"tokens": signs[0], "ner_tags": tags[0]}] * 4)
    task = make(tmp_path, train_file=str(rows), validation_file=str(rows))
    assert task.examples["train"][0].text == "口腔医生A。"
    assert any("place in a word" in text for _, text in task.describe())
    assert task.examples["train"][0].spans[0].label == "PER"
    plain = write(tmp_path, "plain.txt", columns([["T1", "a1", "口", "b", "c", "d"]] * 4, tags * 4))
    assert "T1" in make(tmp_path, train_file=str(plain), validation_file=str(plain)).examples["train"][0].text


def test_a_new_tokenizer_of_a_chinese_tagger_has_a_token_for_each_sign(tmp_path: Path) -> None:
    signs, tags = [list("小明住在北京城")], [["B-PER", "I-PER", "O", "O", "B-LOC", "I-LOC", "I-LOC"]]
    train = write(tmp_path, "train.txt", columns(signs * 9, tags * 9))
    task = make(tmp_path, train_file=str(train), validation_file=str(train))
    setup = set_up_model(task, ModelSetupArguments(vocab_size=60), {"hidden_size": 16, "num_attention_heads": 2}, 64)
    assert set("小明北京") <= set(setup.tokenizer.tokenize("小明在北京"))
