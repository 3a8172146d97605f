"""A teacher: loaded, tried, and asked about each batch."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from weft import WeftPreTrainedModel
from weft.losses import LOGITS_AT_ONCE
from weft.recipes.common.checkpoints import load_whole
from weft.recipes.common.errors import RecipeError
from weft.recipes.pretraining.datasets.collators import Batch
from weft.recipes.pretraining.distillation.arguments import TeacherArguments
from weft.recipes.pretraining.distillation.checks import check_size, check_tokens
from weft.recipes.pretraining.distillation.head import Head, find_head
from weft.recipes.pretraining.distillation.isolation import (
    MOST,
    batch_of,
    check_direction,
    choose_reader,
    draw_documents,
    readers_of,
)
from weft.recipes.pretraining.distillation.lesson import Lesson
from weft.recipes.pretraining.distillation.reading import Reader, gather, logits_at
from weft.recipes.pretraining.objectives.base import Objective


class Teacher:
    """A trained model that is asked about the targets of each batch.

    Attributes:
        fingerprint: of its weights.
        parameters: how many it has.
    """

    def __init__(
        self,
        arguments: TeacherArguments,
        objective: Objective,
        tokenizer: PreTrainedTokenizerBase,
        length: int,
        bf16: bool,
    ) -> None:
        """Load it.

        Args:
            tokenizer: of the run.
            length: the most tokens that are read at once.
            bf16: compute in bfloat16.

        Raises:
            RecipeError: it cannot be loaded, or is no teacher for this run; says why.
        """
        self.name, self.weight, self.temperature = arguments.teacher, arguments.weight, arguments.temperature
        check_tokens(self.name, tokenizer)
        auto_class = getattr(transformers, objective.teacher_class)
        model, _ = load_whole(auto_class, self.name, advice="give a whole model as the teacher", dtype="auto")
        check_size(self.name, model, tokenizer, length)
        self.fingerprint = _fingerprint(model)
        self.parameters = sum(weight.numel() for weight in model.parameters())
        dtype = torch.bfloat16 if bf16 else torch.promote_types(model.dtype, torch.float32)
        self.model = model.to(dtype).eval().requires_grad_(False)
        self.model.config.get_text_config().use_cache = False
        self.is_causal = objective.teacher_class == "AutoModelForCausalLM"
        self.head, self.read = self._look_into(sorted({*tokenizer.get_vocab().values()} - {*tokenizer.all_special_ids}))

    def _look_into(self, tokens: Sequence[int]) -> tuple[Head | None, Reader | None]:
        """How its logits are made (None: unknown), and how it reads a batch (None: as it is, as Weft's models do)."""
        model, name = self.model, f"teacher {self.name!r} ({type(self.model).__name__})"
        if isinstance(model, WeftPreTrainedModel):
            return Head(model, model.get_output_embeddings(), cap=model.config.final_logit_softcapping), None
        readers, documents = readers_of(model), draw_documents(tokens)
        head = find_head(model, **next(readers[-1](batch_of(documents), MOST)).inputs)
        answer = self._own_logits if head is None else head.reach
        if not model.config.is_encoder_decoder:
            check_direction(readers[-1], answer, documents[0], self.is_causal, name)
        return head, choose_reader(readers, answer, documents, name)

    @torch.no_grad()
    def _own_logits(self, **inputs: Any) -> torch.Tensor:
        return self.model(**inputs).logits

    def check_same(self, noted: str | None) -> None:
        """Raises RecipeError where a run began with a teacher of another fingerprint."""
        if noted not in (None, self.fingerprint):
            raise RecipeError(
                f"teacher {self.name!r} has other weights than when this run began: give those back, or another "
                "--output_dir."
            )

    def describe(self) -> str:
        """Its name, size and share of the loss."""
        heat = "" if self.temperature == 1 else f", temperature {self.temperature:g}"
        return f"{self.name} ({self.parameters:,} parameters), {self.weight:g} of the loss{heat}"

    def flops_per_token(self, head_share: float, side_shares: tuple[float, float]) -> float:
        """Operations of its forward for a token of a row: 2 for each parameter that the token is multiplied with.

        Args:
            head_share: share of the tokens that logits are made for.
            side_shares: of an encoder-decoder, how many tokens each side computes for one of a row.
        """
        matrix = getattr(self.model.get_output_embeddings(), "weight", None)
        looked_up = {id(each.weight) for each in self.model.modules() if isinstance(each, nn.Embedding)} | {id(matrix)}
        body = sum(each.numel() for each in self.model.parameters() if id(each) not in looked_up)
        share = sum(side_shares) / 2 if self.model.config.is_encoder_decoder else 1.0
        return 2 * (share * body + head_share * (0 if matrix is None else matrix.numel()))

    @torch.no_grad()
    def lesson(self, batch: Batch) -> Lesson | None:
        """What it says of the targets of a batch, as the student's forward is given it; None: there are none."""
        if self.read is None:
            return self._lesson(self.head.reach(**batch).flatten(0, -2))
        grid = batch["labels"] if self.model.config.is_encoder_decoder else batch["input_ids"]
        places, total = batch.get("predict_from"), grid.numel()
        if self.head is None:
            return self._lesson_of_own_logits(batch, places, total)
        states = gather(self.head.reach, self.read(batch, total), total)
        return None if states is None else self._lesson(states if places is None else states[places])

    def _lesson(self, states: torch.Tensor) -> Lesson:
        return Lesson(lambda part: self.head(states[part]), self.weight, self.temperature)

    def _lesson_of_own_logits(self, batch: Batch, places: torch.Tensor | None, total: int) -> Lesson:
        """The same of a model whose head is not known, which computes the rows of each part when they are asked for."""
        most = LOGITS_AT_ONCE.get(self.model.device.type, LOGITS_AT_ONCE["cuda"])
        pieces = list(self.read(batch, max(1, most // self.model.config.get_text_config().vocab_size)))
        places = torch.arange(total, device=self.model.device) if places is None else places
        return Lesson(
            lambda part: logits_at(self._own_logits, pieces, places[part], total), self.weight, self.temperature
        )


def _fingerprint(model: PreTrainedModel) -> str:
    """A digest of the weights by their names."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
