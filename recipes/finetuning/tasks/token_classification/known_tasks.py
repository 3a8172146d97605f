"""Known tasks of token classification: the names of their official files, and what stands in which column."""

from collections.abc import Sequence
from dataclasses import dataclass

from weft.recipes.finetuning.known_tasks import TaskFiles

USUAL = {"train": ("train",), "validation": ("dev", "valid", "validation"), "test": ("test",)}
SPLITS = {"train": "train", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class TagTask(TaskFiles):
    """Attributes:
    about: what it is, for the command's help.
    format, tag_column: see `Reader`; None: as the file looks.
    """

    about: str = ""
    format: str | None = None
    tag_column: str | None = None


def _names(endings: Sequence[str], **official: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Candidates of the files' names: the official ones, then the usual ones."""
    return {
        split: (*official.get(split, ()), *(f"{name}.{ending}" for name in names for ending in endings))
        for split, names in USUAL.items()
    }


def _treebank(name: str) -> dict[str, tuple[str, ...]]:
    official = {"train": "train", "validation": "dev", "test": "test"}
    return _names(("conllu",), **{split: (f"{name}-ud-{part}.conllu",) for split, part in official.items()})


_COLUMNS = ("txt", "conll", "bio", "tsv")

TASKS = {
    "conll2000": TagTask(_names(_COLUMNS), about="chunks, English", format="conll"),
    "conll2003": TagTask(
        _names(_COLUMNS, train=("eng.train",), validation=("eng.testa",), test=("eng.testb",)),
        about="names, English",
        format="conll",
    ),
    "wnut17": TagTask(
        _names(
            _COLUMNS,
            train=("wnut17train.conll",),
            validation=("emerging.dev.conll",),
            test=("emerging.test.annotated",),
        ),
        about="emerging names, English",
        format="conll",
    ),
    # the official test.json has no labels: it is one for predict_file
    "cluener": TagTask(
        {split: names for split, names in _names(("jsonl", "json")).items() if split != "test"},
        about="names of ten types, Chinese",
        format="cluener",
    ),
    "msra_ner": TagTask(
        _names(_COLUMNS, train=("msra_train_bio",), test=("msra_test_bio",)), about="names, Chinese", format="conll"
    ),
    "weibo_ner": TagTask(
        _names(
            _COLUMNS,
            train=("weiboNER_2nd_conll.train", "weiboNER.conll.train"),
            validation=("weiboNER_2nd_conll.dev", "weiboNER.conll.dev"),
            test=("weiboNER_2nd_conll.test", "weiboNER.conll.test"),
        ),
        about="names and nominal mentions, Chinese",
        format="conll",
    ),
    "resume_ner": TagTask(_names(("char.bmes", *_COLUMNS)), about="parts of résumés, Chinese", format="conll"),
    "people_daily": TagTask(
        _names(_COLUMNS, train=("example.train",), validation=("example.dev",), test=("example.test",)),
        about="names, Chinese",
        format="conll",
    ),
    "ud_en_ewt": TagTask(
        _treebank("en_ewt"),
        hub="universal-dependencies/universal_dependencies",
        hub_config="en_ewt",
        hub_splits=SPLITS,
        about="parts of speech, English",
        tag_column="upos",
    ),
    "ud_zh_gsdsimp": TagTask(_treebank("zh_gsdsimp"), about="parts of speech, Chinese", tag_column="upos"),
}
