"""The Trainer under all others: what it writes is whole, wherever the parts of the weights are while it trains.

A way of sharding weights over processes says how to gather them and how to take its parts of whole ones; what a
checkpoint consists of, and who reads and writes it, is said here once.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from weft.recipes.common.files import move_folder, remove_folder
from weft.recipes.training.checkpoint_folders import checkpoint_name, checkpoints_of, step_of

UNFINISHED_PREFIX = ".unfinished-"


class WholeCheckpoints(Trainer):
    """Trainer whose checkpoints are the same with and without sharding."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._whole_class = type(self.model)  # sharding may give it another

    _unfinished: str | None = None
    # The newest checkpoint up to this step is kept besides the last ones.
    kept_up_to: int | None = None

    @property
    def checkpoint_of_step(self) -> Path:
        """The folder of the checkpoint of the step that training stands at, whether it was written or not."""
        return Path(self.args.output_dir) / checkpoint_name(self.state.global_step)

    def _get_output_dir(self, trial: Any) -> str:
        """The run's folder, or, while a checkpoint is being written, a hidden folder inside of it."""
        folder = super()._get_output_dir(trial)
        return str(Path(folder) / self._unfinished) if self._unfinished else folder

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint under a hidden name, flush it to disk, then give it its own name."""
        run = Path(super()._get_output_dir(trial))
        name = checkpoint_name(self.state.global_step)
        if (run / name).exists():
            return
        self._unfinished = f"{UNFINISHED_PREFIX}{name}"
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self.save_beside(run / self._unfinished / name)
                move_folder(run / self._unfinished / name, run / name)
                (run / self._unfinished).rmdir()
        except BaseException:  # a full disk, for one: what is half-written would only take space
            if self.args.should_save:
                shutil.rmtree(run / self._unfinished, ignore_errors=True)
            raise
        finally:
            self._unfinished = None
        limit = self.args.save_total_limit
        if self.args.should_save and limit:
            old = checkpoints_of(run)[:-limit]
            before = [checkpoint for checkpoint in old if step_of(checkpoint) <= (self.kept_up_to or 0)]
            for checkpoint in old:
                if checkpoint not in before[-1:]:
                    remove_folder(checkpoint)
        self.accelerator.wait_for_everyone()

    def save_beside(self, checkpoint: Path) -> None:
        """Write what a checkpoint holds besides Trainer's own files; the first process calls this."""

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds a part of the weights only."""
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    def whole_weights(self) -> dict[str, torch.Tensor]:
        """Sharded weights gathered, in the first process; all processes have to call this."""
        raise NotImplementedError

    def whole_optimizer_state(self) -> dict[str, Any]:
        """What an optimizer of the whole weights would save, in the first process; all have to call this."""
        raise NotImplementedError

    def take_optimizer_state(self, state: dict[str, Any]) -> None:
        """Go on with what an optimizer of the whole weights saved: with this process's parts of it."""
        self.optimizer.load_state_dict(state)

    def whole_model(self) -> PreTrainedModel | None:
        """The model with all its weights, in the first process; None in others where they are sharded.

        All processes have to call this.
        """
        if not self.is_sharded:
            return self.accelerator.unwrap_model(self.model)
        weights = self.whole_weights()
        if not self.accelerator.is_main_process:
            return None
        config = self.model.config
        return self._whole_class.from_pretrained(None, config=config, state_dict=weights, dtype=torch.float32)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the whole model as a `from_pretrained` folder."""
        if not self.is_sharded:
            return super().save_model(output_dir, _internal_call)
        sharded, whole = self.model, self.whole_model()
        if whole is not None:
            self.model = whole
            try:
                self._save(output_dir)
            finally:
                self.model = sharded

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_sharded:
            return super()._save_optimizer_and_scheduler(output_dir)
        state = self.whole_optimizer_state()
        if self.accelerator.is_main_process:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        # older versions of transformers map to the "cpu:0" of several processes, which torch.load does not know
        if checkpoint is None or not (self.is_sharded or self.args.device.type == "cpu"):
            return super()._load_optimizer_and_scheduler(checkpoint)
        # mapped, so that a process reads little more than its own part
        mapped = {"map_location": "cpu", "mmap": self.is_sharded}
        self.take_optimizer_state(torch.load(Path(checkpoint) / OPTIMIZER_NAME, weights_only=True, **mapped))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))


def remove_unfinished(run: Path) -> None:
    """Remove what a killed process left half-written or half-removed."""
    for leftover in (*run.glob(f"{UNFINISHED_PREFIX}*"), *run.glob(f".{PREFIX_CHECKPOINT_DIR}-*.removed")):
        shutil.rmtree(leftover, ignore_errors=True)
