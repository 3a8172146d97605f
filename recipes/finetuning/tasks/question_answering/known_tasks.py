"""Known question-answering tasks: SQuAD 1 and 2, CMRC 2018 and DRCD."""

from weft.recipes.finetuning.known_tasks import WITH_TEST, KnownTask

KNOWN_TASKS = {
    "squad": KnownTask(
        files={
            "train": ("train-v1.1.json", "train.json"),
            "validation": ("dev-v1.1.json", "dev.json", "validation.json"),
        },
        hub="rajpurkar/squad",
    ),
    "squad_v2": KnownTask(
        files={
            "train": ("train-v2.0.json", "train.json"),
            "validation": ("dev-v2.0.json", "dev.json", "validation.json"),
        },
        hub="rajpurkar/squad_v2",
    ),
    # the labelled trial set is what the Hub calls test
    "cmrc2018": KnownTask(
        files={
            "train": ("cmrc2018_train.json", "train.json"),
            "validation": ("cmrc2018_dev.json", "dev.json"),
            "test": ("cmrc2018_trial.json", "trial.json"),
        },
        hub="hfl/cmrc2018",
        hub_splits=WITH_TEST,
        language="zh",
    ),
    "drcd": KnownTask(
        files={
            "train": ("DRCD_training.json", "train.json"),
            "validation": ("DRCD_dev.json", "dev.json"),
            "test": ("DRCD_test.json", "test.json"),
        },
        language="zh",
    ),
}
