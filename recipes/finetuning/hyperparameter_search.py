"""Search for the settings with the best validation score (Optuna)."""

import dataclasses
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError, optional_package
from weft.recipes.common.files import read_json, write_json
from weft.recipes.common.options import Options, option
from weft.recipes.common.processes import world_size
from weft.recipes.finetuning.arguments import FineTuningArguments
from weft.recipes.finetuning.best_metric import BestMetric

TRIALS = "trials.json"
SEARCHABLE = (
    *("learning_rate", "weight_decay", "warmup_steps", "num_train_epochs", "max_steps", "per_device_train_batch_size"),
    *("hidden_dropout", "attention_dropout", "classifier_dropout"),
)


@dataclass
class SearchArguments(Options):
    """Whether and where to look for better settings first."""

    search_trials: int = option(
        0, "first train so many times with other settings, and go on with the best (needs optuna)", least=0
    )
    search_space: list[str] = option(
        ["learning_rate=1e-4:2e-3"],
        "NAME=LOW:HIGH (on a logarithmic scale) or NAME=A,B,C ..., of " + ", ".join(SEARCHABLE),
        rare=True,
    )

    def check(self, parsed: Parsed) -> None:
        """Refuse, before any work is done, what cannot be searched; raises RecipeError."""
        parsed.refuse_without(("search_space",), "search_trials")
        super().check()
        if not self.search_trials:
            return
        optional_package("optuna", "search_trials")
        if world_size() > 1:
            raise RecipeError("search_trials is for one process: search first, then train on many with what was found.")
        run = parsed[FineTuningArguments]
        for name, values in map(parse_range, self.search_space):
            if name == "num_train_epochs" and run.max_steps is not None:
                raise RecipeError("search_space has num_train_epochs, but max_steps is given, which is the length.")
            for value in values:
                if hasattr(run, name):
                    dataclasses.replace(run, **{name: value}).check()
                elif not 0 <= value < 1:
                    raise RecipeError(f"search_space has {name}={value:g}: give numbers of at least 0 and below 1.")


def parse_range(text: str) -> tuple[str, tuple[float, float] | list[float]]:
    """A name with the two ends of its range, or with its values; raises RecipeError."""
    name, _, values = text.partition("=")
    if name not in SEARCHABLE:
        raise RecipeError(f"search_space {text!r}: {name!r} cannot be searched: choose among {', '.join(SEARCHABLE)}.")
    whole = name in ("max_steps", "per_device_train_batch_size")
    try:
        numbers = [int(value) if whole else float(value) for value in values.replace(":", ",").split(",")]
    except ValueError:
        numbers = []
    if ":" in values:
        if len(numbers) == 2 and 0 < numbers[0] < numbers[1]:
            return name, (numbers[0], numbers[1])
    elif numbers:
        return name, numbers
    raise RecipeError(f"search_space {text!r}: give NAME=LOW:HIGH with 0 < LOW < HIGH, or NAME=A,B,C.")


def search(
    arguments: SearchArguments,
    folder: Path,
    best_metric: BestMetric,
    run_trial: Callable[[Path, dict[str, Any]], float | None],
) -> dict[str, Any] | None:
    """The settings with the best score, None where a trial was stopped; finished ones are not run again.

    Args:
        folder: of the run; settings and scores of the trials are kept in its search/trials.json.
        run_trial: trains in a folder with settings and returns the score; None where it was stopped. The folder is
            removed as soon as the score is noted down.
    """
    optuna = optional_package("optuna", "search_trials")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = dict(parse_range(text) for text in arguments.search_space)
    distributions = {name: _distribution(optuna, name, values) for name, values in space.items()}
    study = optuna.create_study(
        direction="maximize" if best_metric.greater_is_better else "minimize",
        sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=min(10, max(3, arguments.search_trials // 2))),
    )
    file = folder / "search" / TRIALS
    done: list[dict[str, Any]] = read_json(file) if file.is_file() else []
    for number in range(arguments.search_trials):
        trial = study.ask(distributions)  # also for those done before, so that the sampler's random numbers go on alike
        chosen, place = trial.params, file.with_name(f"trial-{number}")
        if number == len(done):
            print(f"trial {number + 1} of {arguments.search_trials}: {_words(chosen)}", flush=True)
            score = run_trial(place, chosen)
            if score is None:
                return None
            done.append({"settings": chosen, "score": score})
            write_json(file, done)
        shutil.rmtree(place, ignore_errors=True)  # also what was left by a run that was killed here
        _tell(optuna, study, trial, done[number]["score"])
    if all(trial["score"] != trial["score"] for trial in done):
        raise RecipeError(f"no trial has a {best_metric.name} that is a number: choose another search_space or metric.")
    best = done[study.best_trial.number]
    print(
        f"best of {len(done)} trials: {best_metric.name} {best['score']:.4f} with {_words(best['settings'])}",
        flush=True,
    )
    return best["settings"]


def _tell(optuna: Any, study: Any, trial: Any, score: float) -> None:
    """A training that diverged has failed."""
    if math.isnan(score):
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial, score)


def _distribution(optuna: Any, name: str, values: tuple[float, float] | list[float]) -> Any:
    if isinstance(values, list):
        return optuna.distributions.CategoricalDistribution(values)
    kinds = {entry.name: entry.type for entry in dataclasses.fields(FineTuningArguments)}
    if kinds.get(name) in (int, int | None):
        return optuna.distributions.IntDistribution(*values, log=True)
    return optuna.distributions.FloatDistribution(*values, log=True)


def _words(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in settings.items())
