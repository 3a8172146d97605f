"""lm-evaluation-harness (the package lm_eval) on masked language models, for which it has no class of its own.

Importing this module registers `weft-masked` with lm_eval. It needs lm_eval, which is not installed with Weft.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.evaluation.diffusion import make_scorer
from weft.recipes.evaluation.likelihood import Scorer
from weft.recipes.evaluation.model_loading import load_model
from weft.recipes.generation.generate_text import start_ids


@register_model("weft-masked")
class MaskedHarnessModel(LM):
    """Answers lm_eval's requests with pseudo-log-likelihoods of a masked language model."""

    def __init__(
        self,
        pretrained: str | Scorer,
        scoring: str = "masked",
        window: int | None = None,
        stride: int | None = None,
        tokens_per_batch: int = 4096,
        device: str | None = None,
        dtype: str = "auto",
        trust_remote_code: bool = False,
        rates: int = 32,
        **_: Any,
    ) -> None:
        """Args:
            pretrained: a scorer that is not causal, or the folder or Hub id of a model; the other arguments are for the
                latter, and as in `make_scorer` and `load_model`. Others of lm_eval (batch_size) have no effect.

        Raises:
            RecipeError: scoring is causal; lm_eval has a class (`hf`) for that.
        """
        super().__init__()
        if not isinstance(pretrained, Scorer):
            model, tokenizer, scoring = load_model(pretrained, scoring, device, dtype, trust_remote_code)
            pretrained = make_scorer(model, tokenizer, scoring, window, stride, tokens_per_batch, rates=rates)
        if pretrained.is_causal:
            raise RecipeError("weft-masked scores masked models: use lm_eval's own class (hf) for a causal one.")
        self.scorer = pretrained
        self._device = pretrained.model.device

    @property
    def tokenizer_name(self) -> str:
        """Name under which lm_eval caches requests."""
        return self.scorer.tokenizer.name_or_path.replace("/", "__")

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Score continuations given their contexts.

        Returns:
            For each the sum over its tokens, each given context and continuation without itself (within-word: and
            without the later tokens of its word; diffusion: as `DiffusionScorer` has it), and whether all of them were
            the most likely ones.
        """
        scores = self.scorer.score_continuations([request.args for request in requests])
        return [(score.total, bool(score.is_top.all())) for score in scores]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Return the pseudo-log-likelihood of whole texts, in windows if they are longer than the model's."""
        return [score.total for score in self.scorer.score_texts([request.args[0] for request in requests])]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Raise RecipeError: only causal models continue texts here."""
        raise RecipeError(
            f"the task {requests[0].task_name!r} has the model write text, which only a causal one does here: choose "
            "tasks that compare likelihoods, or --scoring causal."
        )


class CausalHarnessModel(HFLM):
    """lm_eval's own class, which also goes on with a tokenizer that has no start and no end token."""

    @property
    def eot_token_id(self) -> int:
        """Return what ends a text: the end token, else padding, which a model never writes."""
        known = (self.tokenizer.eos_token_id, self.tokenizer.pad_token_id, 0)
        return next(token for token in known if token is not None)

    @property
    def prefix_token_id(self) -> int:
        """Return what stands before a text without context: the start token, else the end token, else what a generated
        text begins with."""
        known = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, *start_ids(self.tokenizer, ""))
        return next(token for token in known if token is not None)


def run_harness(
    scorer: Scorer,
    tasks: Sequence[str],
    include_path: Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Run tasks of lm_eval, a causal model in lm_eval's own class and any other one in `MaskedHarnessModel`.

    Args:
        tasks: names of tasks or groups.
        include_path: a folder with tasks of your own (YAML files).
        num_fewshot: solved examples before each question; None: as the task says.
        limit: number of examples of each task, from the first on.

    Returns:
        For each task, its metrics by name and lm_eval's version of the task, as far as they are numbers.

    Raises:
        RecipeError: an unknown task, or one that cannot be loaded.
    """
    manager = TaskManager(include_path=include_path, include_defaults=False)
    if not set(tasks) <= set(manager.all_tasks):  # lm_eval's own are thousands of files, read in many seconds
        manager = TaskManager(include_path=include_path)
    unknown = [task for task in tasks if task not in manager.all_tasks]
    if unknown:
        raise RecipeError(
            f"lm_eval knows no task {unknown[0]!r}: `lm_eval ls tasks` lists its own; give --include_path for yours."
        )
    if scorer.is_causal:
        rows = max(1, scorer.tokens_per_batch // scorer.window)
        options = {"batch_size": rows, "max_length": scorer.window}
        model: LM = CausalHarnessModel(pretrained=scorer.model, tokenizer=scorer.tokenizer, **options)
    else:
        model = MaskedHarnessModel(scorer)
    with refusing(f"lm_eval cannot load the data of {', '.join(tasks)}", OSError, ConnectionError):
        found = simple_evaluate(
            model, tasks=list(tasks), task_manager=manager, num_fewshot=num_fewshot, limit=limit, log_samples=False
        )
    return {
        task: {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        for task, metrics in found["results"].items()
    }
