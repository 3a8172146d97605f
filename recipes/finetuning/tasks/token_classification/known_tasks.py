"""Known tasks of token classification: the names of their official files, and what stands in which column."""

from collections.abc import Sequence
from dataclasses import dataclass

from weft.recipes.finetuning.known_tasks import WITH_TEST, KnownTask

USUAL = {"train": ("train",), "validation": ("dev", "valid", "validation"), "test": ("test",)}


@dataclass(frozen=True, kw_only=True)
class KnownTagTask(KnownTask):
    """Attributes:
    format, tag_column: see `Reader`; None: as the file looks.
    """

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


def _conll(about: str, language: str = "en", **official: Sequence[str]) -> KnownTagTask:
    return KnownTagTask(about=about, files=_names(_COLUMNS, **official), format="conll", language=language)


KNOWN_TASKS = {
    "conll2000": _conll("chunks, English"),
    "conll2003": _conll("names, English", train=("eng.train",), validation=("eng.testa",), test=("eng.testb",)),
    "wnut17": _conll(
        "emerging names, English",
        train=("wnut17train.conll",),
        validation=("emerging.dev.conll",),
        test=("emerging.test.annotated",),
    ),
    # the official test.json has no labels: it is one for predict_file
    "cluener": KnownTagTask(
        about="names of ten types, Chinese",
        files={split: names for split, names in _names(("jsonl", "json")).items() if split != "test"},
        format="cluener",
        language="zh",
    ),
    "msra_ner": _conll("names, Chinese", "zh", train=("msra_train_bio",), test=("msra_test_bio",)),
    "weibo_ner": _conll(
        "names and nominal mentions, Chinese",
        "zh",
        train=("weiboNER_2nd_conll.train", "weiboNER.conll.train"),
        validation=("weiboNER_2nd_conll.dev", "weiboNER.conll.dev"),
        test=("weiboNER_2nd_conll.test", "weiboNER.conll.test"),
    ),
    "resume_ner": KnownTagTask(
        about="parts of résumés, Chinese", files=_names(("char.bmes", *_COLUMNS)), format="conll", language="zh"
    ),
    "people_daily": _conll(
        "names, Chinese", "zh", train=("example.train",), validation=("example.dev",), test=("example.test",)
    ),
    "ud_en_ewt": KnownTagTask(
        about="parts of speech, English",
        files=_treebank("en_ewt"),
        hub="universal-dependencies/universal_dependencies",
        hub_config="en_ewt",
        hub_splits=WITH_TEST,
        tag_column="upos",
    ),
    "ud_zh_gsdsimp": KnownTagTask(
        about="parts of speech, Chinese", files=_treebank("zh_gsdsimp"), tag_column="upos", language="zh"
    ),
}
