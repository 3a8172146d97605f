"""Chat: a decoder learns to answer what it is told and asked, by its tokenizer's chat template."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from weft import WeftConfig, WeftPreTrainedModel
from weft.losses import IGNORE_INDEX, next_labels, target_nats
from weft.recipes.common.errors import RecipeError, one_line, refusing
from weft.recipes.common.wording import counted
from weft.recipes.data.conversations import read_conversations
from weft.recipes.finetuning.arguments import FineTuningArguments
from weft.recipes.finetuning.baseline import Baseline
from weft.recipes.finetuning.best_metric import BestMetric
from weft.recipes.finetuning.collation import BatchLayout, EncodedExample, cut_out, in_place
from weft.recipes.finetuning.model_setup import length_limit
from weft.recipes.finetuning.out_of_reach import warn_of
from weft.recipes.finetuning.report_files import evenly
from weft.recipes.finetuning.task import PREDICT, Batch, Divisor, Items, Task
from weft.recipes.finetuning.tasks.chat.arguments import BUILTIN, ChatArguments
from weft.recipes.finetuning.tasks.chat.encoding import SplitCounts, encode_learnt, encode_prompts
from weft.recipes.finetuning.tasks.chat.preview import preview_of, shows_colour
from weft.recipes.finetuning.tasks.chat.reading import asked_first, before_answer, columns_of, read_all
from weft.recipes.finetuning.tasks.chat.report import SampleAnswer, write_answered, write_samples
from weft.recipes.generation.answers import write_answers
from weft.recipes.training.model_setup import VOCABULARY_UNIT, start_rows
from weft.tokenizer.chat_templates import DEFAULT_TEMPLATE, give_chat_template
from weft.tokenizer.vocabulary import number_of_ids

LOGITS_AT_ONCE = 1 << 27  # of validation rows, half a gigabyte


@dataclass(frozen=True)
class AnswerScores:
    """Of the learnt tokens of a conversation: their nats, how many they are, and how many are the likeliest."""

    nats: float
    tokens: int
    right: int


class ChatTask(Task):
    """Conversations: the tokens of the assistant are learnt, by next-token prediction.

    A conversation is one document: packed rows keep it apart from others. It is cut at whole turns only.
    """

    summary = "Answers in a conversation."
    auto_class = "AutoModelForCausalLM"
    pipeline_tag = "text-generation"
    has_own_head = False
    closes_texts = False
    target_names = ("learnt",)
    input_name = "question"
    headline = ("loss", "perplexity", "token_accuracy")
    best_metric = BestMetric("loss", greater_is_better=False)
    input_of = staticmethod(asked_first)
    refused_fields = {"causal": "a model that answers always is: leave it out"}

    @classmethod
    def read(cls, files: ChatArguments, run: FineTuningArguments) -> Self:
        """See Task; one seed unless more are asked for, for answers are looked at rather than scored."""
        run.seeds = run.seeds or [1]
        return cls(files)

    def __init__(self, files: ChatArguments) -> None:
        """Reads and checks all data; raises RecipeError."""
        self.files, self.template = files, files.template()
        self.examples, self.faults = read_all(files)
        self.encoded: dict[str, SplitCounts] = {}
        self.samples: dict[str, list[SampleAnswer]] = {}
        self.config: PreTrainedConfig | None = None
        self.template_line = ""
        self.first: EncodedExample | None = None

    def texts(self) -> Iterator[str]:
        for conversation in self.examples["train"]:
            yield from (message["content"] for message in conversation.messages if message.get("content"))

    def describe(self) -> list[tuple[str, str]]:
        train = self.encoded["train"]
        stops = " or ".join(self.tokenizer.convert_ids_to_tokens(self.stops))
        lines = [
            ("template", f"{self.template_line}; an answer ends with {stops}"),
            (
                "learnt",
                f"{train.learnt:,} of {train.tokens:,} tokens in train ({train.learnt / max(1, train.tokens):.0%}): "
                + ("all" if self.files.loss_on == "all" else "those of the assistant"),
            ),
        ]
        for name, count, what in (
            ("shortened", "shortened", "by whole turns at their end"),
            ("left out", "too_long", "for not even the first answer has room"),
        ):
            cut = [f"{number:,} in {split}" for split, of in self.encoded.items() if (number := getattr(of, count))]
            if cut:
                lines.append((name, f"{', '.join(cut)}, {what} (max_length gives more)"))
        broken = [*self.faults, *(fault for of in self.encoded.values() for fault in of.broken)]
        if broken:
            lines.append(("skipped", f"{counted(len(broken), 'broken conversation')}, the first: {broken[0]}"))
        for split, of in self.encoded.items():
            lost, what = of.shortened + of.too_long, f"the conversations of {split} have no room"
            lines += warn_of(lost, len(self.examples[split]), what, "give a larger --max_length")
        return lines

    def preview(self) -> str:
        if self.first is None:
            return ""
        return preview_of(self.tokenizer, self.first.sequences[0], self.first.target, shows_colour())

    def align_labels(self, config: PreTrainedConfig) -> bool:
        """Refuses what does not write from left to right; raises RecipeError."""
        is_encoder = config.model_type == WeftConfig.model_type and not (config.is_causal or config.masked_next_token)
        if config.is_encoder_decoder or is_encoder:
            what = "an encoder and a decoder" if config.is_encoder_decoder else "an encoder, which fills gaps"
            raise RecipeError(f"the model is {what}: give a causal one, such as one of pretrain_clm.")
        self.config = config
        return True

    def config_fields(self) -> dict[str, Any]:
        """What makes a new model a decoder; one that exists stays as it is."""
        return {"is_causal": True} if self.config is None else {}

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Gives it a chat template, if it has none or another one is asked for; raises RecipeError."""
        self.tokenizer, given, replaced = tokenizer, self.files.chat_template, tokenizer.chat_template is not None
        self.vocabulary = number_of_ids(tokenizer)
        if given is None and replaced:
            self.template_line = "the tokenizer's own"
            return tokenizer
        name = given or DEFAULT_TEMPLATE
        with refusing(f"chat_template {name} cannot be used", ValueError, say=one_line):
            new = give_chat_template(tokenizer, self.template or DEFAULT_TEMPLATE)
        self.new_tokens, self.vocabulary = tokenizer.convert_tokens_to_ids(new), number_of_ids(tokenizer)
        self.template_line = (
            (Path(name).name if self.files.template_file else name)
            + (" instead of the tokenizer's own" if replaced else "")
            + (f", with {counted(len(new), 'new token')} {' '.join(new)}" if new else "")
        )
        return tokenizer

    def encode(self, split: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[EncodedExample]:
        conversations = self.examples[split]
        if split == PREDICT:
            return encode_prompts(conversations, tokenizer, max_length)
        counts = self.encoded[split] = SplitCounts()
        skips = self.files.broken == "skip" or self.files.task == BUILTIN
        items = encode_learnt(conversations, tokenizer, max_length, self.files.loss_on == "all", skips, counts)
        if not items:
            why = counts.broken[0] if counts.broken else f"none has an answer within max_length {max_length:,}."
            raise RecipeError(f"no conversation of {split} is left: {why}")
        self.first = self.first or items[0]
        return items

    @property
    def stops(self) -> list[int]:
        """The tokens that end answers, the most frequent first."""
        stops = self.encoded["train"].stops
        return sorted(stops, key=lambda token: (-stops[token], token))

    def longest(self, item: EncodedExample) -> int:
        """With room for an answer of the report, where the model's positions have no end."""
        answered = item.info.token + self.files.max_new_tokens
        return max(item.tokens, min(answered, length_limit(self.config, self.tokenizer)))

    def prepare_model(self, model: PreTrainedModel) -> PreTrainedModel:
        """Rows for new tokens, and where generation stops, which generation_config.json keeps."""
        rows = model.get_input_embeddings().weight.shape[0]
        if self.vocabulary > rows:
            model.resize_token_embeddings(self.vocabulary, VOCABULARY_UNIT, mean_resizing=False)
        if self.new_tokens and model.name_or_path:
            start_rows(model, self.new_tokens, sorted(self.tokenizer.get_vocab().values()))
        generation = model.generation_config
        before = generation.eos_token_id
        before = [before] if isinstance(before, int) else before or []
        ends = list(dict.fromkeys([*self.stops, *before]))
        generation.eos_token_id = ends[0] if len(ends) == 1 else ends
        generation.pad_token_id = self.tokenizer.pad_token_id
        return model

    def targets(self, layout: BatchLayout) -> Batch:
        """`learnt` [rows]: how many tokens of each row are; and labels [rows, tokens] for the model."""
        labels = in_place(layout, [item.target for item in layout.items], IGNORE_INDEX)
        return {"learnt": (labels != IGNORE_INDEX).sum(dim=1), "labels": labels}

    def forward(self, model: nn.Module, inputs: Batch) -> Any:
        """The model's own next-token loss where there are labels: Weft's needs no memory for all logits."""
        is_weft = isinstance(getattr(model, "module", model), WeftPreTrainedModel)
        options = {"return_logits": False} if is_weft and "labels" in inputs else {}
        return model(**inputs, use_cache=False, **options)

    def loss(self, outputs: Any, targets: Batch, num_items_in_batch: Divisor) -> torch.Tensor:
        """The model's loss is the mean over the batch; its sum is divided by the tokens of the step."""
        if num_items_in_batch is None:
            return outputs.loss
        return outputs.loss * (self.count(targets).to(outputs.loss.device) / num_items_in_batch)

    def count(self, targets: Batch) -> torch.Tensor:
        return targets["learnt"].sum()

    @torch.no_grad()
    def predict(self, model: nn.Module, inputs: Batch, layout: BatchLayout) -> list[Any]:
        """Scores of the learnt tokens, from the logits of a few rows at a time; of prompts, what is answered."""
        if layout.items[0].target is None:
            return self._answers(model, [item.sequences[0] for item in layout.items])
        at_once = max(1, LOGITS_AT_ONCE // (layout.shape[1] * self.vocabulary))
        parts = [slice(first, first + at_once) for first in range(0, layout.shape[0], at_once)]
        labels = self.targets(layout)["labels"]
        scored = []
        for part in parts:
            rows = {name: tensor[part] for name, tensor in inputs.items()}
            scored.append(_token_scores(self.forward(model, rows).logits, labels[part]))
        return self._of_items(layout, *map(torch.cat, zip(*scored)))

    def results(self, outputs: Any, layout: BatchLayout) -> list[Any]:
        return self._of_items(layout, *_token_scores(outputs.logits, self.targets(layout)["labels"]))

    @staticmethod
    def _of_items(layout: BatchLayout, nats: torch.Tensor, right: torch.Tensor) -> list[AnswerScores]:
        learnt = [sum(label != IGNORE_INDEX for label in item.target) for item in layout.items]
        sums = zip(cut_out(layout, nats), learnt, cut_out(layout, right), strict=True)
        return [AnswerScores(float(one.sum()), number, int(hits.sum())) for one, number, hits in sums]

    def score(self, split: str, items: Items, results: Sequence[Any]) -> dict[str, float]:
        tokens = sum(result.tokens for result in results)
        loss = sum(result.nats for result in results) / tokens
        perplexity = math.exp(loss) if loss < 700 else math.inf
        return {
            "loss": loss,
            "perplexity": perplexity,
            "token_accuracy": sum(result.right for result in results) / tokens,
        }

    def baselines(self, split: str, items: Items, learnt: Items) -> list[Baseline]:
        """None: what could be written without a model has no probability to compare."""
        return []

    def sample(self, model: PreTrainedModel, split: str, items: Items) -> None:
        """Have the finished model answer some conversations, evenly over the split."""
        chosen = evenly(items, self.files.samples)
        whole = [self.examples[split][item.example] for item in chosen]
        asked = [replace(one, messages=one.messages[: item.info.message]) for one, item in zip(whole, chosen)]
        prompts = encode_prompts(asked, self.tokenizer, length_limit(self.config, self.tokenizer))
        answers = self._answers(model, [prompt.sequences[0] for prompt in prompts])
        self.samples[split] = []
        for item, one, answer in zip(chosen, asked, answers, strict=True):
            reference = self.tokenizer.decode(item.sequences[0][item.info.token :], skip_special_tokens=True).strip()
            self.samples[split].append(SampleAnswer(one.where, one.messages, reference, answer))

    def _answers(self, model: nn.Module, prompts: list[list[int]]) -> list[str]:
        return write_answers(model, self.tokenizer, prompts, max_new_tokens=self.files.max_new_tokens)

    def write_report(self, folder: Path, split: str, items: Items, results: Sequence[Any]) -> str:
        return write_samples(folder, split, self.samples.get(split, []))

    def read_unlabelled(self, path: Path) -> None:
        self.examples[PREDICT] = read_conversations(path, columns_of(self.files), answered=False)
        if not self.examples[PREDICT]:
            raise RecipeError(f"{path} holds no conversation: give a file with one in a row.")

    def unlabelled(self, folder: Path) -> dict[str, Path]:
        return {PREDICT: folder / "predicted.jsonl"} if PREDICT in self.examples else {}

    def write_predictions(self, path: Path, split: str, items: Items, results: Sequence[Any]) -> None:
        write_answered(path, [each.messages for each in self.examples[split]], results)

    def usage(self, name: str) -> str:
        messages = before_answer(self.examples["train"][0])
        return "\n".join(
            [
                "from transformers import pipeline",
                "",
                f'chat = pipeline("text-generation", model="{name}", trust_remote_code=True)',
                f"messages = {json.dumps(messages, ensure_ascii=False)}",
                "answer = chat(messages, max_new_tokens=128, do_sample=False)",
                'print(answer[0]["generated_text"][-1]["content"])',
            ]
        )


def _token_scores(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Nats of each label [rows, tokens], and whether it is the likeliest; both stand one place before it."""
    following = next_labels(labels).to(logits.device)
    nats = target_nats(logits.flatten(0, 1), following.flatten()).view(following.shape)
    return nats.double().cpu(), (logits.argmax(-1) == following).cpu()


TASK = ChatTask
