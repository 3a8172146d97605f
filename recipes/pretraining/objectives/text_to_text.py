"""What the text-to-text objectives share: an encoder reads what is left of a text, a decoder writes what is missing."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import transformers
from transformers import PreTrainedTokenizerBase as Tokenizer

import weft
from weft.recipes.common.command_line import Parsed
from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.pretraining.arguments import RunArguments
from weft.recipes.pretraining.datasets.collators import Batch
from weft.recipes.pretraining.datasets.denoising.frame import Frame
from weft.recipes.pretraining.datasets.denoising.pieces import Denoiser, TextPair
from weft.recipes.pretraining.datasets.denoising.rows import DenoisingRows, PieceReader, collate_pairs
from weft.recipes.pretraining.datasets.packed import DocumentSpan, TrainingRows, ValidationRows
from weft.recipes.pretraining.objectives.base import Objective
from weft.recipes.pretraining.objectives.masked import VALIDATION_SEED, score_targets
from weft.recipes.pretraining.plan import Plan
from weft.recipes.pretraining.validation import RowEvaluator, token_nats
from weft.recipes.training.evaluator import Evaluator
from weft.recipes.training.model_arguments import ModelArguments
from weft.tokenizer.denoising_tokens import give_tokens
from weft.tokenizer.special_tokens import decoder_start, for_role

if TYPE_CHECKING:  # torch takes a second, which --help does not wait for
    import torch
    from torch import nn
    from torch.utils.data import Dataset

SHORTEST_ROW = 8  # tokens, so that there is text in every row
SAMPLES, SAMPLE_LENGTH = 3, 40  # held-out documents of the card, and tokens of each


class TextToTextObjective(Objective):
    """A denoiser makes a source and a target of each document of a row; the loss is that of the targets.

    A document that is cut over several rows is spoilt as a whole, by a pure function of (seed, pass, document,
    position). Each of its parts is then a text by itself, with start and end tokens of its own.
    """

    recipe = "pretrain_seq2seq"
    model_fields = ("num_decoder_layers",)
    model_class = property(lambda self: weft.WeftForConditionalGeneration)
    auto_class = teacher_class = "AutoModelForSeq2SeqLM"
    pipeline_tag = "text2text-generation"
    collate = staticmethod(collate_pairs)
    kept_back = ("modes",)
    metrics = {"denoising_loss": ".4f", "target_accuracy": ".2%"}
    headline = ("denoising_loss", "target_accuracy")
    with_sentences: ClassVar[bool] = False

    # Made by `prepare_tokenizer`.
    denoiser: Denoiser
    frame: Frame

    def __init__(self) -> None:
        super().__init__()
        self.existing: str | None = None

    def add_tokens(self, tokenizer: Tokenizer) -> None:
        """Give a tokenizer the special tokens that the denoiser needs."""
        give_tokens(tokenizer, self.special_tokens())

    def special_tokens(self) -> Sequence[str]:
        """Their names."""
        return ()

    @abstractmethod
    def make_denoiser(self, tokenizer: Tokenizer) -> Denoiser:
        """Make the denoiser, with the ids of a tokenizer that has its tokens."""

    def check(self, parsed: Parsed) -> None:
        self.existing = parsed[ModelArguments].model_name_or_path
        backend, length = parsed[ModelArguments].attn_implementation or "", parsed[RunArguments].sequence_length
        if "flash" in backend:
            raise RecipeError(
                f"attn_implementation {backend} cannot keep the documents of an encoder-decoder's rows apart: choose "
                "sdpa or flex_attention."
            )
        if length < SHORTEST_ROW:
            raise RecipeError(f"sequence_length is {length}: text to text needs at least {SHORTEST_ROW} tokens.")

    def require(self, data: DataArguments) -> None:
        if data.document_tokens == "none":
            raise RecipeError("text to text needs start and end tokens: leave document_tokens at both.")
        if self.with_sentences and data.segmenter == "none":
            data.segmenter = "characters"

    def prepare_tokenizer(self, tokenizer: Tokenizer) -> Tokenizer:
        """With the denoiser's tokens, and with an end token around each text, as sources and targets have one."""
        if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
            raise RecipeError("the corpus has no start and end tokens: prepare it with --document_tokens both.")
        with refusing(None, ValueError, say=str):
            self.add_tokens(tokenizer)
            if not Frame.of(tokenizer).after:
                tokenizer = for_role(tokenizer, "encoder")
            self.start = decoder_start(tokenizer)
            if self.existing is not None:
                from weft.recipes.training.model_setup import existing_content

                before = existing_content(self.existing).get("decoder_start_token_id")
                self.start = self.start if before is None else before
            self.frame, self.denoiser = Frame.of(tokenizer, self.start), self.make_denoiser(tokenizer)
        return tokenizer

    def role(self) -> dict[str, Any]:
        return {"is_encoder_decoder": True, "is_causal": True, "decoder_start_token_id": self.start}

    def longest_input(self, row_length: int) -> int:
        """With what stands around a text, and a sentinel at the end of a target or a mode before a source."""
        return row_length + self.frame.longest + 1

    def pack(self, corpus: Corpus, row_length: int, seed: int, tokenizer: Tokenizer) -> TrainingRows:
        self._check_corpus(corpus)
        self.seed = seed
        return TrainingRows(corpus, row_length, 0, seed, overlap=0)

    def make_rows(self, packed: TrainingRows, plan: Plan) -> "Dataset":
        packed.num_rows = plan.num_rows
        return DenoisingRows(packed, self._reader(packed.corpus, self.seed), self.denoiser, self.frame)

    def make_evaluator(self, corpus: Corpus, row_length: int, tokenizer: Tokenizer) -> Evaluator:
        rows = ValidationRows(corpus, row_length, overlap=0)
        return DenoisingEvaluator(
            DenoisingRows(rows, self._reader(corpus, VALIDATION_SEED), self.denoiser, self.frame), tuple(self.parts)
        )

    def make_samples(
        self, model: "transformers.PreTrainedModel", tokenizer: Tokenizer, prompt: str, corpus: Corpus
    ) -> list[str]:
        from weft.recipes.pretraining.samples import sample_written

        if prompt:
            return sample_written(model, tokenizer, [(tokenizer(prompt).input_ids, None)])
        pairs = islice(self._held_out_pairs(corpus), SAMPLES)
        framed = [self.frame.put_around(pair) for pair in pairs]
        return sample_written(model, tokenizer, [(source.tolist(), target.tolist()) for source, target in framed])

    def _held_out_pairs(self, corpus: Corpus) -> Iterator[TextPair]:
        """The beginnings of held-out documents as pairs, but for those of which nothing is predicted."""
        read = self._reader(corpus, VALIDATION_SEED)
        for document in corpus.documents("validation").tolist():
            first, last = int(corpus.offsets[document]), int(corpus.offsets[document + 1])
            tokens = corpus.tokens[first : min(last, first + SAMPLE_LENGTH)]
            piece = read(DocumentSpan(document, 0, tokens, 0, False))
            if piece is not None and len((pair := self.denoiser(piece)).target):
                yield pair

    def loss_parts(self, batch: Batch, outputs: Any) -> "dict[str, tuple[torch.Tensor, torch.Tensor]]":
        """Those of the modes; none of sharded weights, which give logits instead of the loss of each target."""
        is_target, modes = (batch["labels"] != weft.IGNORE_INDEX).flatten(), batch["modes"].flatten()
        nats = outputs.get("target_nats")
        parts = {} if nats is None else self.parts
        return {part: (nats, is_target & (modes == mode)) for mode, part in enumerate(parts)}

    @abstractmethod
    def describe(self) -> str:
        """What is done to a text, in words."""

    def plan_lines(self) -> list[tuple[str, str]]:
        read, written = (round(100 * share) for share in self.denoiser.shares())
        sides = f"about {read} tokens of sources and {written} of targets for 100 of the text"
        return [("denoising", self.describe()), ("sides", sides)]

    def side_shares(self) -> tuple[float, float]:
        return self.denoiser.shares()

    def head_share(self) -> float:
        return self.denoiser.shares()[1]

    def _reader(self, corpus: Corpus, seed: int) -> PieceReader:
        return PieceReader(corpus, seed, self.with_sentences)

    def _check_corpus(self, corpus: Corpus) -> None:
        """Refuse a corpus without what this objective needs; raises RecipeError."""
        if self.with_sentences and not corpus.has_boundaries:
            raise RecipeError(
                f"{corpus.folder} does not know where sentences begin: prepare it again with --segmenter characters, "
                "or give --permute_sentences false."
            )


class DenoisingEvaluator(RowEvaluator):
    """Predicts the targets of the held-out text, which is spoilt in the same way in all runs.

    Metrics: denoising_loss (nats per target), which is the loss too, target_accuracy, and the loss of each mode, where
    there are several, as MODE_loss.
    """

    def __init__(self, rows: "Dataset", modes: Sequence[str] = ()) -> None:
        """Args:
            modes: names of the modes of pairs.

        Raises:
            RecipeError: nothing is predicted in any row.
        """
        super().__init__(rows, collate_pairs)
        self.modes = modes
        if not any(len(rows[index]["labels"]) for index in range(len(rows))):
            raise RecipeError("nothing of the held-out text is predicted, so short is it: hold more text out.")

    def score(self, model: "nn.Module", batch: Batch) -> "torch.Tensor":
        import torch

        modes, labels = batch.pop("modes").cpu(), batch["labels"]
        logits = model(**batch, use_cache=False).logits
        nats, is_target = token_nats(logits, labels), (labels != weft.IGNORE_INDEX).cpu()
        chosen = [is_target & (modes == mode) for mode in range(len(self.modes))]
        of_modes = [number for these in chosen for number in (nats[these].sum(), these.sum().double())]
        return torch.stack([*score_targets(nats, logits, labels), *of_modes])

    def metrics(self, nats: float, right: float, targets: float, *of_modes: float) -> dict[str, float]:
        loss = nats / targets
        result = {"loss": loss, "denoising_loss": loss, "target_accuracy": right / targets}
        for mode, nats, number in zip(self.modes, of_modes[::2], of_modes[1::2]):
            if number:
                result[f"{mode}_loss"] = nats / number
        return result
