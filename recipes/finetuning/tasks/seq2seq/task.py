"""Text to text: an encoder reads the source, a decoder writes the target."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from weft.losses import IGNORE_INDEX, masked_lm_loss, target_nats
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.wording import counted
from weft.recipes.finetuning.arguments import FineTuningArguments
from weft.recipes.finetuning.baseline import Baseline
from weft.recipes.finetuning.best_metric import BestMetric
from weft.recipes.finetuning.collation import BatchLayout, EncodedExample, PackingCollator
from weft.recipes.finetuning.model_setup import default_length, length_limit
from weft.recipes.finetuning.out_of_reach import warn_of
from weft.recipes.finetuning.task import PREDICT, Batch, Divisor, Items, Task
from weft.recipes.finetuning.tasks.seq2seq.arguments import Seq2SeqArguments
from weft.recipes.finetuning.tasks.seq2seq.batches import PairCollator, decoder_batch
from weft.recipes.finetuning.tasks.seq2seq.encoding import PairCounts, encode_sources, encode_targets
from weft.recipes.finetuning.tasks.seq2seq.known_tasks import KNOWN_TASKS, columns_of, read_all
from weft.recipes.finetuning.tasks.seq2seq.reading import read_sources, source_of
from weft.recipes.finetuning.tasks.seq2seq.report import write_seq2seq_report, write_texts
from weft.recipes.finetuning.tasks.seq2seq.scoring import beginnings, bleu_tokenizer, score_texts
from weft.recipes.finetuning.tasks.seq2seq.special_tokens import special_ids
from weft.tokenizer.special_tokens import decoder_start


@dataclass(frozen=True)
class Written:
    """What a model wrote for a source, and the nats and tokens of its first reference (0 without one)."""

    text: str
    nats: float = 0.0
    tokens: int = 0


class Seq2SeqTask(Task):
    """Translation, summarisation, and whatever else is a text for a text.

    A training pair with several references is learnt with each of them; in evaluation the loss is that of the first,
    and the scores know all.
    """

    summary = "Writes a text for a text."
    auto_class = "AutoModelForSeq2SeqLM"
    has_own_head = False
    input_name = "source"
    input_of = staticmethod(source_of)
    refused_fields = {
        "causal": "the encoder reads in both directions and the decoder in one: leave it out",
        "max_length": "a source and a target have a limit each: give max_source_length and max_target_length",
    }

    @classmethod
    def read(cls, files: Seq2SeqArguments, run: FineTuningArguments) -> Self:
        """See Task; a source's limit is what a run calls the length of its input."""
        if files.max_source_length is not None:
            run.max_length = files.max_source_length
        return cls(files)

    def __init__(self, files: Seq2SeqArguments) -> None:
        """Reads and checks all data; raises RecipeError."""
        known = KNOWN_TASKS.get(files.task or "")
        self.examples = read_all(files)
        self.files, self.columns = files, columns_of(files)
        self.pipeline_tag = "text2text-generation" if known is None else known.pipeline_tag
        metric = files.metric or ("chrf" if known is None else known.metric)  # chrF is never 0 for short texts
        self.best_metric = BestMetric(metric, greater_is_better=metric != "loss")
        shown = ("bleu", "chrf", "rougeL")
        self.headline = shown if metric == "loss" else tuple(dict.fromkeys((metric, *shown)))
        self.tokenize = bleu_tokenizer(pair.targets[0] for pair in self.examples["train"])
        self.signatures: dict[str, str] = {}
        self.encoded: dict[str, PairCounts] = {}
        self.config: PreTrainedConfig | None = None

    def texts(self) -> Iterator[str]:
        """Of both sides, which share a vocabulary."""
        for pair in self.examples["train"]:
            yield self.files.source_prefix + pair.source
            yield from pair.targets

    def describe(self) -> list[tuple[str, str]]:
        train = self.encoded["train"]
        beams = self.files.num_beams
        lines = [
            (
                "targets",
                f"{train.target_tokens / train.targets:.1f} tokens on average, at most {train.longest_target}"
                + (f"; {counted(train.targets, 'reference')}" if train.targets != train.sources else ""),
            ),
            (
                "output",
                f"at most {counted(self.max_new_tokens, 'token')}, {'greedy' if beams == 1 else f'{beams} beams'}",
            ),
            ("scores", f"BLEU of {self.tokenize} tokens, chrF, ROUGE"),
        ]
        for side in ("source", "target"):
            cut = [(split, getattr(found, f"cut_{side}s")) for split, found in self.encoded.items()]
            named = [f"{number:,} in {split}" for split, number in cut if number]
            if named:
                lines.append(("cut", f"the end of {side}s: {', '.join(named)} (max_{side}_length gives more room)"))
            for split, found in self.encoded.items():
                total, ends = getattr(found, f"{side}s"), f"the {side}s of {split} are longer than what is read"
                lines += warn_of(getattr(found, f"cut_{side}s"), total, ends, f"give a larger --max_{side}_length")
        return lines

    def align_labels(self, config: PreTrainedConfig) -> bool:
        """Refuses what has no encoder and decoder; raises RecipeError."""
        if not config.is_encoder_decoder:
            raise RecipeError(
                f"the model is a single stack ({config.model_type!r} with is_encoder_decoder false): give an "
                "encoder-decoder, such as T5, BART or one of this recipe, or none for a new one."
            )
        self.config = config
        return True

    def config_fields(self) -> dict[str, Any]:
        """What makes a new Weft model an encoder-decoder; of any other model the ids that its tokenizer gives."""
        if self.config is not None:
            return special_ids(self.config, self.tokenizer)
        start = decoder_start(self.tokenizer)
        return {"is_encoder_decoder": True, "is_causal": True, "decoder_start_token_id": start}

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Refuses lengths that the model does not take; raises RecipeError."""
        self.tokenizer = tokenizer
        if self.config is not None:
            limit = length_limit(self.config, tokenizer)
            for name in ("max_source_length", "max_target_length", "max_new_tokens"):
                value = getattr(self.files, name)
                if value is not None and value > limit:
                    raise RecipeError(f"{name} is {value}, but the model takes {limit} tokens at most: give less.")
        return tokenizer

    def encode(self, split: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[EncodedExample]:
        pairs, found = self.examples[split], PairCounts()
        self.encoded[split], self.max_source = found, max_length
        prefix = self.files.source_prefix
        sources = encode_sources([prefix + pair.source for pair in pairs], tokenizer, max_length, found)
        if split == PREDICT:
            return [EncodedExample([ids], number) for number, ids in enumerate(sources)]
        chosen = [
            (number, text)
            for number, pair in enumerate(pairs)
            for text in (pair.targets if split == "train" else pair.targets[:1])
        ]
        longest = self.files.max_target_length or default_length(self.config, tokenizer)
        start = self.config.decoder_start_token_id
        targets = encode_targets([text for _, text in chosen], tokenizer, start, longest, found)
        return [EncodedExample([sources[number]], number, ids) for (number, _), ids in zip(chosen, targets)]

    @property
    def max_new_tokens(self) -> int:
        return self.files.max_new_tokens or self.encoded["train"].longest_target

    def longest(self, item: EncodedExample) -> int:
        return max(super().longest(item), len(item.target or ()), self.max_new_tokens)

    def make_collator(self, tokenizer: PreTrainedTokenizerBase, packed: bool) -> PackingCollator:
        return PairCollator(tokenizer, packed)

    def prepare_model(self, model: PreTrainedModel) -> PreTrainedModel:
        """How texts are generated, which generation_config.json keeps; what else a model brings along stays."""
        generation = model.generation_config
        generation.max_length = None  # it would contradict max_new_tokens
        generation.num_beams, generation.max_new_tokens = self.files.num_beams, self.max_new_tokens
        for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id"):
            setattr(generation, name, getattr(self.config, name))
        return model

    def targets(self, layout: BatchLayout) -> Batch:
        return decoder_batch(layout, self.config.decoder_start_token_id, self.tokenizer.pad_token_id)

    def forward(self, model: nn.Module, inputs: Batch) -> Any:
        return model(**inputs, use_cache=False)  # of which only generation has a use

    def loss(self, outputs: Any, targets: Batch, num_items_in_batch: Divisor) -> torch.Tensor:
        labels, vocabulary = targets["labels"], outputs.logits.shape[-1]
        nats = target_nats(
            outputs.logits.flatten(0, -2), labels.flatten(), label_smoothing=self.files.label_smoothing_factor
        )
        return masked_lm_loss(outputs.logits, labels, vocabulary, num_items_in_batch, nats=nats)

    def count(self, targets: Batch) -> torch.Tensor:
        return (targets["labels"] != IGNORE_INDEX).sum()

    def predict(self, model: nn.Module, inputs: Batch, layout: BatchLayout) -> list[Any]:
        """Written texts. They are generated from padded rows, for each has to go on by itself."""
        if layout.packed:
            device = inputs["input_ids"].device
            inputs, layout = PairCollator(self.tokenizer, packed=False).lay_out(layout.items)
            inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
        tokens = model.generate(**inputs).tolist()
        texts = [text.strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]
        if layout.items[0].target is None:
            return [Written(text) for text in texts]
        decoder = {name: tensor.to(inputs["input_ids"].device) for name, tensor in self.targets(layout).items()}
        labels = decoder.pop("labels")
        nats = self.results(self.forward(model, {**inputs, **decoder}), layout)
        return [
            Written(text, of_text, number)
            for text, of_text, number in zip(texts, nats, (labels != IGNORE_INDEX).sum(dim=1).tolist(), strict=True)
        ]

    def results(self, outputs: Any, layout: BatchLayout) -> list[Any]:
        """Nats of each target, of padded rows."""
        labels = self.targets(layout)["labels"]
        nats = target_nats(outputs.logits.flatten(0, -2), labels.flatten())
        return nats.view(labels.shape).double().sum(dim=1).tolist()

    def score(self, split: str, items: Items, results: Sequence[Any]) -> dict[str, float]:
        references = [self.examples[split][item.example].targets for item in items]
        scores = score_texts([result.text for result in results], references, self.tokenize)
        self.signatures = scores.pop("signatures")
        loss = sum(result.nats for result in results) / sum(result.tokens for result in results)
        return {"loss": loss, **scores}

    def baselines(self, split: str, items: Items, learnt: Items) -> list[Baseline]:
        """The source as it is or, where targets are much shorter, as much of its beginning."""
        by_words = self.tokenize == "13a"
        answer, written = beginnings(self.examples["train"], self.examples[split], by_words)
        return [Baseline(answer, [Written(written[item.example], math.nan, 1) for item in items])]

    def remarks(self, split: str, items: Items, results: Sequence[Any]) -> list[str]:
        texts = {result.text for result in results}
        if len(results) < 2 or len(texts) > 1:
            return []
        return [f"{'nothing' if texts == {''} else 'the same'} is written for every {split} source"]

    def write_report(self, folder: Path, split: str, items: Items, results: Sequence[Any]) -> str:
        return write_seq2seq_report(folder, split, self.examples[split], [r.text for r in results], self.signatures)

    def read_unlabelled(self, path: Path) -> None:
        self.examples[PREDICT] = read_sources(path, self.columns.source)

    def write_predictions(self, path: Path, split: str, items: Items, results: Sequence[Any]) -> None:
        write_texts(path, self.examples[split], [result.text for result in results])

    def usage(self, name: str) -> str:
        source = json.dumps(self.files.source_prefix + self.examples["train"][0].source, ensure_ascii=False)
        return "\n".join(
            [
                "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer",
                "",
                f'tokenizer = AutoTokenizer.from_pretrained("{name}", trust_remote_code=True)',
                f'model = AutoModelForSeq2SeqLM.from_pretrained("{name}", trust_remote_code=True)',
                "",
                f"texts = [{source}]",
                "inputs = tokenizer(",
                f'    texts, padding=True, truncation=True, max_length={self.max_source}, return_tensors="pt"',
                ")",
                "for tokens in model.generate(**inputs):",
                "    print(tokenizer.decode(tokens, skip_special_tokens=True).strip())",
            ]
        )


TASK = Seq2SeqTask
