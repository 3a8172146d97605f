"""Checkpoints by the words that were seen, as learning curves of BabyLM compare them: chck_1M, chck_2M ...

A checkpoint is due at 1, 2 ... 10 million words, at 20, 30 ... 100 million, and at every hundred million from there on
(https://babylm.github.io). Words are what blanks divide (`tokenization.count_words`); a run sees them at the rate at
which its training text has them. Their names are noted in the run's folder, for publishing.
"""

from collections.abc import Callable
from itertools import chain, count
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import write_json
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.plan import Plan
from weft.recipes.training.checkpoint_folders import checkpoint_name
from weft.recipes.training.hub import REVISIONS

MILLION = 1_000_000


def words_in_training(corpus: Corpus) -> int:
    """The words of a corpus' training text (raises RecipeError: it was prepared before they were counted)."""
    description, training = corpus.description, corpus.description["splits"]["train"]
    if "words_per_token" not in description:
        raise RecipeError(
            f"{corpus.folder} was prepared before words were counted, which hub_revisions words needs: prepare it "
            "again into another folder."
        )
    around = sum(description[name] is not None for name in ("start_token_id", "end_token_id"))
    return round(description["words_per_token"] * (training["tokens"] - around * training["documents"]))


def revisions_by_step(words_before: Callable[[int], float], max_steps: int) -> dict[int, list[str]]:
    """The names of the checkpoints that are due, by the first step that has seen so many words.

    Args:
        words_before: the words of the first steps, of this number.
    """
    found: dict[int, list[str]] = {}
    step = 1
    for millions in chain(range(1, 10), range(10, 100, 10), count(100, 100)):
        while step <= max_steps and words_before(step) < millions * MILLION:
            step += 1
        if step > max_steps:
            return found
        found.setdefault(step, []).append(f"chck_{millions}M")
    return found


class WordCheckpoints(TrainerCallback):
    """Has a checkpoint written at each of these steps, and their names noted in the run's folder."""

    def __init__(self, folder: Path, names: dict[int, list[str]]) -> None:
        self.folder, self.names = folder, names

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Note the names, of checkpoints to come too."""
        if state.is_world_process_zero:
            write_json(self.folder / REVISIONS, {checkpoint_name(step): names for step, names in self.names.items()})

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for a checkpoint where one is due."""
        if state.global_step in self.names:
            control.should_save = True


def word_checkpoints(corpus: Corpus, places: int, plan: Plan, folder: Path) -> WordCheckpoints:
    """Those of a run.

    Args:
        places: tokens of a pass over the training text, as the run's rows count them.
        folder: the run's.
    """
    words = words_in_training(corpus)
    names = revisions_by_step(lambda step: plan.tokens_before(step) * words / places, plan.max_steps)
    return WordCheckpoints(folder, names)
