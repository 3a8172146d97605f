"""A pretraining run before it is carried out: everything that follows from its fields, its text and its machine."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from weft.recipes.common.command_line import Parsed
from weft.recipes.common.hardware import computes_on_gpu, settle_on_processor, share_cores
from weft.recipes.common.processes import world_size
from weft.recipes.data.corpus import Corpus
from weft.recipes.data.streaming.blocks import StreamFolder
from weft.recipes.data.streaming.documents import BlockArguments
from weft.recipes.pretraining.arguments import LENGTHS, RunArguments
from weft.recipes.pretraining.checks import check_sharding
from weft.recipes.pretraining.hyperparameters import DERIVED, describe_derived, with_derived
from weft.recipes.pretraining.objectives.base import Objective
from weft.recipes.pretraining.plan import Plan, make_plan, schedule_fields
from weft.recipes.pretraining.stream_dataset import StreamRows
from weft.recipes.pretraining.time_budget.arithmetic import TIMES
from weft.recipes.pretraining.time_budget.measurement import describe_budget
from weft.recipes.training.batch_schedule import steps_of
from weft.recipes.training.fsdp2 import describe_sharding, shards_weights
from weft.recipes.training.model_setup import (
    DEFAULT_EXTRAS,
    PRESETS,
    ModelArguments,
    count_parameters,
    describe_added,
    make_config,
)
from weft.recipes.training.run_folder import noted_plan

# Fields with which a model has a size of its own.
SIZE_FIELDS = {"preset", "config_name", "model_name_or_path", *(name for shape in PRESETS.values() for name in shape)}
SIZE_FIELDS |= {"intermediate_size", "head_dim"}


class RunSetup:
    """What a run is made of: rows, evaluator, model's shape, plan and schedule."""

    def __init__(
        self,
        objective: Objective,
        parsed: Parsed,
        corpus: Corpus,
        blocks: BlockArguments | None,
        folder: Path,
        settings: dict[str, Any],
    ) -> None:
        """Args:
        corpus: what to train on and to evaluate with.
        blocks: of the stream that `corpus` is the first block of, if it is.
        """
        self.began = time.perf_counter()
        self.objective, self.corpus, self.folder, self.settings = objective, corpus, folder, settings
        self.blocks, self.stream = blocks, StreamFolder(folder)
        self.given, self.model_arguments = parsed[RunArguments], parsed[ModelArguments]
        noted = noted_plan(folder)
        has_shape = self.model_arguments.config_name or self.model_arguments.model_name_or_path
        # a run that began before there were such fields noted none of them
        self.added = {} if has_shape else {name: noted.pop(name, not noted) for name in DEFAULT_EXTRAS}
        self.added |= {name: value for name, value in parsed.model.items() if name in self.added}
        self.model_fields, self.trainer_fields = {**parsed.model, **self.added}, parsed.trainer
        self.presets = (None,) if SIZE_FIELDS & parsed.given else tuple(PRESETS)
        self.tokenizer = objective.prepare_tokenizer(corpus.tokenizer())
        length, self.processes = self.given.sequence_length, world_size()
        self.layout = objective.lay_out(corpus, length, self.given.seed, self.tokenizer)
        self.rows_per_epoch = None if blocks else self.layout.rows_per_epoch
        self.on_gpu = computes_on_gpu(parsed.trainer.get("use_cpu", False))
        self.threads = share_cores(self.given.cpu_threads)
        if not self.on_gpu:
            settle_on_processor()
        self.evaluator = objective.make_evaluator(corpus, length, self.tokenizer)
        # fields of the schedule that stayed as they were when the run became one of another length
        self.kept = {name: noted[name] for name in ("warmup_steps", "decay_steps") if name in noted}
        self.budget: dict[str, Any] | None = noted.pop("budget", None)
        if self.given.budget is None or noted:
            self.derive(**noted)

    def derive(self, preset: str | None = None, **fields: Any) -> None:
        """Become the run of that preset (None: as given) with these fields; one that gives the length replaces all."""
        replaced = dict.fromkeys(LENGTHS) if fields.keys() & set(LENGTHS) else {}
        arguments = replace(self.given, **{**replaced, **fields})
        if preset is not None:
            self.model_arguments = replace(self.model_arguments, preset=preset)
        length, role = arguments.sequence_length, self.objective.role()
        self.config = make_config(self.model_arguments, self.model_fields, self.tokenizer, length, role)
        self.tokenizer.model_max_length = self.config.max_position_embeddings
        self.parameters = count_parameters(self.config, self.objective.model_class)
        # of what Trainer or sharding offers beside it, Muon knows nothing
        default = "adamw" if shards_weights() or "optim" in self.trainer_fields else "muon"
        self.arguments = with_derived(arguments, self.parameters, self.rows_per_epoch, self.processes, default)
        if shards_weights():
            check_sharding(self.arguments, self.trainer_fields)
        self.plan: Plan = make_plan(self.arguments, self.rows_per_epoch, self.processes, self.on_gpu)
        self.schedule = schedule_fields(self.arguments, self.plan.max_steps)
        self.rows = self.objective.make_rows(self.layout, self.plan)
        if self.blocks:
            self.rows = StreamRows(self.stream, self.objective, self.layout, self.plan, arguments.seed, self.tokenizer)

    @property
    def evaluations(self) -> int:
        """How often the held-out text is scored, where the interval is not given."""
        return TIMES if self.budget is None else self.budget["evaluations"]

    def derived(self) -> dict[str, Any]:
        """What was derived or decided, for `derive` to make the same run again."""
        values = {name: getattr(self.arguments, name) for name in (*DERIVED, "optimizer")}
        if self.budget is not None:
            values |= {"max_steps": self.plan.max_steps, "preset": self.model_arguments.preset, **self.kept}
        return values

    @property
    def last_full_rate(self) -> int | None:
        """The step up to which the learning rate does not depend on the length of the run; None: it always does."""
        kind = self.arguments.lr_scheduler_type
        if kind == "constant":
            return self.plan.max_steps
        if kind != "warmup_stable_decay":
            return None
        return self.plan.max_steps - self.schedule["lr_scheduler_kwargs"]["num_decay_steps"]

    def change_length(self, steps: int, done: int) -> None:
        """Become a run of so many steps, whose learning rate is that of this one in the first `done`."""
        decay = min(steps_of(self.given.decay_steps, steps), steps - done)
        self.kept = {"warmup_steps": self.schedule["warmup_steps"], "decay_steps": decay}
        self.derive(**self.derived() | {"max_steps": steps})

    def decisions(self) -> list[tuple[str, str]]:
        """Lines of the plan on what was derived or decided."""
        derived = describe_derived(self.given, self.arguments, self.parameters, self.plan.total_tokens)
        lines = [("derived", derived)] if derived else []
        if self.budget is not None:
            lines += describe_budget(self.given.budget, self.budget, self.plan.epochs)
        return lines

    def describe_corpus(self) -> str:
        """What the plan says of the text."""
        training = self.corpus.description["splits"]["train"]["documents"]
        text = f"{self.corpus.folder} ({self.layout.num_places:,} training tokens in {training:,} documents)"
        if self.blocks is None:
            return text
        files = len(self.blocks.train_files)
        source = self.blocks.dataset_name or f"{files} file{'s' if files > 1 else ''}"
        return f"stream of {source} in blocks of {self.blocks.block_bytes:,} bytes, first {text}"

    def plan_lines(self, bf16: bool) -> list[tuple[str, str]]:
        """What the plan says of all else but lengths."""
        config, source = self.config, self.model_arguments.model_name_or_path
        backend = self.model_arguments.attn_implementation or "sdpa"
        return [
            (
                "model",
                f"{self.parameters.total:,} parameters ({config.num_hidden_layers} layers of {config.hidden_size}, "
                f"vocabulary {config.vocab_size:,}), {f'from {source}' if source else 'new'}",
            ),
            *describe_added(self.added),
            *self.objective.plan_lines(),
            ("attention", backend),
            ("dtype", "computed in bfloat16, float32 weights" if bf16 else "float32"),
            ("device", ("GPU" if self.on_gpu else f"CPU, {self.threads} threads per process") + describe_sharding()),
            (
                "schedule",
                f"{self.arguments.optimizer}, {self.arguments.lr_scheduler_type}, learning rate "
                f"{self.arguments.learning_rate:g}, weight decay {self.arguments.weight_decay:g}",
            ),
            *self.decisions(),
        ]
