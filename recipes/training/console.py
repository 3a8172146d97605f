"""What a run shows on the terminal: a progress bar and one line for each log."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from weft.recipes.training.metric_format import FORMATS, in_order, speed_of, text_of, words_of


def _words(name: str) -> str:
    return words_of(name).replace(" per ", "/")


class Console(TrainerCallback):
    """Progress bar of the first process, and the logged numbers in words that fit one line."""

    def __init__(
        self,
        disable_bar: bool,
        has_epochs: bool = True,
        headline: Sequence[str] = (),
        formats: Mapping[str, str] = FORMATS,
    ) -> None:
        """Args:
        disable_bar: show none on a terminal either.
        headline: names of metrics to show at each validation, besides those of `formats`.
        """
        self.has_epochs, self.headline, self.formats = has_epochs, headline, formats
        self.disable_bar = disable_bar or None  # None: where there is no terminal
        self.bar: tqdm | None = None
        self.began: float | None = None
        self.passes: int | None = None  # over a stream, as far as they were logged

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open the bar at the step the run starts or resumes from."""
        if self.began is None:  # else a run goes on with another Trainer
            self.began = time.perf_counter()
        if state.is_world_process_zero:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", disable=self.disable_bar)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Print a training or a validation line."""
        if not state.is_world_process_zero or not logs:
            return
        parts = [f"step {state.global_step:>{len(str(state.max_steps))}}/{state.max_steps}"]
        if "loss" in logs:
            parts.append(f"loss {logs['loss']:.4f}")
            parts += [f"{_words(name[5:])} {logs[name]:.4f}" for name in sorted(logs) if name.startswith("loss_")]
            parts.append(f"lr {logs['learning_rate']:.2e}")
            if "grad_norm" in logs:
                parts.append(f"grad norm {logs['grad_norm']:.2f}")
            if "tokens_per_second" in logs:
                parts.append(f"{speed_of(logs['tokens_per_second'])} tokens/s")
            if "mfu" in logs:
                parts.append(f"MFU {logs['mfu']:.1%}")
            if "examples_per_second" in logs:
                parts.append(f"{speed_of(logs['examples_per_second'])} examples/s")
            if "stream_pass" in logs:
                parts.append(f"pass {logs['stream_pass']}")
                self._say_if_anew(logs["stream_pass"])
            if self.has_epochs:
                parts.append(f"epoch {logs.get('epoch', 0):.2f}")
        elif any(name.startswith("eval_") for name in logs):
            parts.append(f"validation loss {logs['eval_loss']:.4f}" if "eval_loss" in logs else "validation")
            shown = in_order(logs, "eval_", self.formats)
            names = [name for name in shown if name in self.formats or name in self.headline]
            parts += [f"{_words(name)} {text_of(name, shown[name], self.formats)}" for name in names if name != "loss"]
            parts.append(f"after {time.perf_counter() - self.began:,.0f} s")
        else:
            return
        tqdm.write(" | ".join(parts))

    def _say_if_anew(self, number: int) -> None:
        if self.passes is not None and number > self.passes:
            tqdm.write(f"the stream began anew: this is pass {number} over its text")
        self.passes = number

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
