"""What a Trainer asks its evaluation for."""

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # which take a second, and --help does not wait for
    import transformers
    from torch import nn
    from torch.utils.data import Dataset


class EvaluatingTrainer(Protocol):
    """What an evaluator needs of a Trainer."""

    args: "transformers.TrainingArguments"
    model: "nn.Module"
    accelerator: Any

    def obey_stop(self) -> None:
        """End the evaluation where SIGTERM asks for it; called before each batch, as often in every process."""


class Evaluator(Protocol):
    """Computes the metrics of the held-out rows with a trainer's model, the same in all processes."""

    rows: "Dataset"

    def __call__(self, trainer: EvaluatingTrainer) -> dict[str, float]: ...
