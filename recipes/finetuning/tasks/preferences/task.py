"""Preferences: a model that writes is trained to prefer some answers to others, by TRL's DPO, KTO or ORPO."""

import copy
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from weft.losses import IGNORE_INDEX, target_nats
from weft.recipes.common.errors import RecipeError, refusing
from weft.recipes.common.wording import counted, some_of
from weft.recipes.finetuning.arguments import FineTuningArguments
from weft.recipes.finetuning.baseline import Baseline
from weft.recipes.finetuning.best_metric import BestMetric
from weft.recipes.finetuning.collation import BatchLayout, EncodedExample, cut_out, in_place
from weft.recipes.finetuning.known_tasks import read_splits
from weft.recipes.finetuning.out_of_reach import warn_of
from weft.recipes.finetuning.report_files import evenly
from weft.recipes.finetuning.task import Batch, Items, ScoredTask
from weft.recipes.finetuning.tasks.preferences import reading, scoring, trl_trainers
from weft.recipes.finetuning.tasks.preferences.arguments import LOSSES, PreferenceArguments
from weft.recipes.finetuning.tasks.preferences.encoding import EncodedPreference, encode_preferences
from weft.recipes.finetuning.tasks.preferences.known_tasks import KNOWN_TASKS
from weft.recipes.finetuning.tasks.preferences.report import PreferenceReport, WrittenAnswer
from weft.recipes.generation.answers import write_answers
from weft.tokenizer.chat_templates import give_chat_template

WEFT = "weft"
START = "preferences change a model that writes: give model_name_or_path, such as a run of finetune_chat.py"
OWN = "the model has its own"
TEXT = """prompt = {given}
inputs = tokenizer(prompt, return_tensors="pt")"""
CONVERSATION = """messages = {given}
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)"""
USAGE = """from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}", trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained("{name}", trust_remote_code=True)

{inputs}
tokens = model.generate(**inputs, max_new_tokens={most})[0]
print(tokenizer.decode(tokens[inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""


class Preferences(ScoredTask):
    """Answers that are preferred to others: DPO, KTO and ORPO, trained by TRL.

    A training item is a pair of sequences, of the chosen and the rejected answer behind the prompt, or for KTO one
    sequence. A held-out item of KTO has one more: the prompt with another example's answer, from which the divergence
    from the start is estimated. `info` of an item is the number of tokens of its prompt.
    """

    summary = "Writes answers, and was trained to prefer some to others."
    auto_class = "AutoModelForCausalLM"
    pipeline_tag = "text-generation"
    has_own_head = False
    closes_texts = False
    input_name = "prompt"
    input_of = staticmethod(reading.prompt_of)
    refused_fields = {
        **dict.fromkeys(("config_name", "tokenizer_name", "preset"), START),
        **dict.fromkeys(("tokenizer_type", "vocab_size", "special_tokens", "causal"), OWN),
        "batching": "TRL's trainers pad, and pairs of like length go together: leave it out",
        "layer_decay": "TRL's trainers have one learning rate for all layers: leave it out",
        "predict_file": "prompts without answers are nothing to score; recipes/generate.py answers them",
    }

    @classmethod
    def read(cls, files: PreferenceArguments, run: FineTuningArguments) -> Self:
        """See ScoredTask; one seed unless more are asked for: the model starts the same, and only the order differs."""
        run.seeds = run.seeds or [1]
        return cls(files)

    def __init__(self, files: PreferenceArguments) -> None:
        """Reads and checks all data; raises RecipeError."""
        self.files = files
        self.examples: dict[str, list[reading.Preference]] = read_splits(
            *(files, KNOWN_TASKS, lambda path: reading.read_preferences(path, files)),
            *(lambda rows: reading.preferences_of(rows, files), reading.prompt_of),
        )
        kinds = {split: examples[0].kind for split, examples in self.examples.items()}
        if len({*kinds.values()}) > 1:
            raise RecipeError(f"{'; '.join(f'{split} has {kind}' for split, kind in kinds.items())}: give one kind.")
        first = self.examples["train"][0]
        self.is_conversation, self.is_single = first.is_conversation, first.wanted is not None
        if self.is_single and files.loss != "kto":
            raise RecipeError(f"loss {files.loss} compares two answers, and {first.where} has one: give --loss kto.")
        for split, examples in self.examples.items() if self.is_single else ():
            if len({example.wanted for example in examples}) == 1:
                which = "wanted" if examples[0].wanted else "unwanted"
                raise RecipeError(f"all {counted(len(examples), 'answer')} of {split} are {which}: give both kinds.")
        self.best_metric = BestMetric("auc" if self.is_single else "accuracy")
        self.headline = (self.best_metric.name, "margin")
        self.encoded: dict[str, list[EncodedPreference]] = {}
        self.written: dict[str, list[WrittenAnswer]] = {}
        self.max_length = 0  # tokens of a sequence, once there are any
        self.config: PreTrainedConfig | None = None
        self.reference: PreTrainedModel | None = None
        self.by_reference: dict[int, np.ndarray] = {}

    def texts(self) -> Iterator[str]:
        if self.config is None:
            raise RecipeError(f"{START}.")
        return (reading.told(said) for each in self.examples["train"] for said in (each.prompt, *each.answers))

    def describe(self) -> list[tuple[str, str]]:
        train, fields = self.encoded["train"], self.files
        beside = "" if fields.loss == "orpo" else ", beside the model as it starts"
        lengths = np.array([each.whole for each in train], dtype=float)
        if self.is_single:
            times = Counter(example.wanted for example in self.examples["train"])
            answers = f"{times[True]:,} wanted, {times[False]:,} unwanted; {lengths.mean():.1f} tokens on average"
        else:
            answers = f"chosen {lengths[:, 0].mean():.1f}, rejected {lengths[:, 1].mean():.1f} tokens on average"
        lines = [
            ("loss", f"{LOSSES[fields.loss]}, beta {fields.beta:g}{beside}"),
            ("form", "conversations, by the chat template" if self.is_conversation else "texts as they are"),
            ("answers", answers),
            ("batches", "padded by TRL, like lengths together; packed as below in evaluation"),
        ]
        for split, encoded in self.encoded.items():
            total, lost = len(self.examples[split]), len(self.examples[split]) - len(encoded)
            cut = sum(each.is_cut for each in encoded)
            found = [f"{number:,} {what}" for number, what in ((lost, "left out"), (cut, "answers cut")) if number]
            lines += [("too long", f"{', '.join(found)} of {total:,} in {split}")] if found else []
            lines += warn_of(lost + cut, total, f"{split} is longer than what is read", "give a larger --max_length")
        return lines

    def align_labels(self, config: PreTrainedConfig) -> bool:
        """Takes any model of one stack; raises RecipeError for another."""
        if config.is_encoder_decoder:
            raise RecipeError(f"the model ({config.model_type!r}) is an encoder and a decoder: give one of one stack.")
        self.config = config
        return True

    def config_fields(self) -> dict[str, Any]:
        """Without dropout, as the losses are defined: both models have to see the same."""
        return {"hidden_dropout": 0.0, "attention_dropout": 0.0} if self.config.model_type == WEFT else {}

    def prepare_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """The tokenizer with a chat template, where it needs one; raises RecipeError."""
        name, template, new = self.files.chat_template, self.files.template(), []
        if name is not None and not self.is_conversation:
            raise RecipeError("chat_template is given, and the prompts are texts: leave it out, or give messages.")
        if name is not None:
            with refusing(f"chat_template {name}", ValueError, say=str):
                new = give_chat_template(tokenizer, template)
        elif self.is_conversation and tokenizer.chat_template is None:
            raise RecipeError(
                "the prompts are conversations and the tokenizer has no chat template: start from a model of "
                "recipes/finetune_chat.py, or give --chat_template plain or a file."
            )
        if new:
            raise RecipeError(
                f"chat_template {name} writes {some_of(new)}, which the model has never read: teach it by "
                "recipes/finetune_chat.py first, or give plain."
            )
        self.tokenizer = tokenizer
        return tokenizer

    def encode(self, split: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[EncodedExample]:
        examples, self.max_length = self.examples[split], max_length
        found = self.encoded[split] = encode_preferences(examples, tokenizer, max_length)
        if not found:
            raise RecipeError(f"nothing of {split} has room in {max_length} tokens: give a larger --max_length.")
        items = []
        for number, each in enumerate(found):
            wanted, sequences = examples[each.example].wanted, each.sequences
            targets, parts = [True, False] if wanted is None else [wanted], [sequences]
            if self.files.loss == "kto" and split == "train":
                parts = [[ids] for ids in sequences]
            elif self.files.loss == "kto":
                other = found[number - 1]
                borrowed = [*sequences[0][: each.prompt], *other.sequences[0][other.prompt :]]
                parts = [[*sequences, borrowed[:max_length]]]
            items += [EncodedExample(ids, each.example, to, info=each.prompt) for ids, to in zip(parts, targets)]
        return items

    def prepare_model(self, model: PreTrainedModel) -> PreTrainedModel:
        """Keeps a copy of the model as it starts, which rewards are relative to, and says where generation stops."""
        self.by_reference, generation = {}, model.generation_config
        special = {number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        ends = special & {ids[-1] for each in self.encoded["train"] for ids in each.sequences}
        before = generation.eos_token_id
        ends |= {before} if isinstance(before, int) else {*(before or [])}
        generation.eos_token_id = sorted(ends) or None
        generation.pad_token_id = self.tokenizer.pad_token_id
        if self.files.loss != "orpo":
            self.reference = copy.deepcopy(model).requires_grad_(False).eval()
        return model

    def make_trainer(self, **given: Any) -> Any:
        """TRL's trainer."""
        return trl_trainers.make_trainer(**given)

    def forward(self, model: nn.Module, inputs: Batch) -> Any:
        return model(**inputs, use_cache=False)

    def predict(self, model: nn.Module, inputs: Batch, layout: BatchLayout) -> list[Any]:
        """Likelihoods by the model and, once for each item, by the model as it starts."""
        found = self.results(self.forward(model, inputs), layout)
        if self.reference is None:
            return found
        if any(id(item) not in self.by_reference for item in layout.items):
            reference = self.reference.to(inputs["input_ids"].device)
            at_start = found if model is reference else self.results(self.forward(reference, inputs), layout)
            self.by_reference |= {id(item): each[0] for item, each in zip(layout.items, at_start)}
        return [each - np.outer((1, 0), self.by_reference[id(item)]) for item, each in zip(layout.items, found)]

    def results(self, outputs: Any, layout: BatchLayout) -> list[Any]:
        """What `scoring` says of each item, by this model alone."""
        next_ids = [[*ids[1:], IGNORE_INDEX] for item in layout.items for ids in item.sequences]
        labels = in_place(layout, next_ids, IGNORE_INDEX)
        nats = target_nats(outputs.logits.flatten(0, 1), labels.flatten()).view(layout.shape).double().cpu()
        of_sequences, found = iter(cut_out(layout, nats)), []
        for item in layout.items:
            parts = [next(of_sequences) for _ in item.sequences]
            found.append(-np.array([[part[first:].sum().item() for part in parts] for first in (item.info - 1, 0)]))
        return found

    def _tokens(self, items: Items) -> np.ndarray:
        """Tokens of the answers of items: [items, answers]."""
        answers = 1 if self.is_single else 2
        return np.array([[len(ids) - item.info for ids in item.sequences[:answers]] for item in items])

    def score(self, split: str, items: Items, results: Sequence[Any]) -> dict[str, float]:
        rewards = scoring.rewards_of(self.files, results, self._tokens(items))
        wanted = np.array([[item.target, False][: rewards.shape[1]] for item in items])
        targets = sum(len(item.sequences[0]) - 1 for item in items)
        loss = scoring.loss_of(self.files, results, rewards, wanted, targets)
        scores = scoring.score_single(*rewards.T, *wanted.T) if self.is_single else scoring.score_pairs(rewards)
        return {"loss": loss, **scores}

    def baselines(self, split: str, items: Items, learnt: Items) -> list[Baseline]:
        """Chance and, of pairs, to prefer the longer or the shorter answer, as the training pairs do."""
        chance = Baseline("by chance", scores={self.best_metric.name: 0.5})
        if self.is_single:
            return [chance]
        chosen, rejected = np.array([each.whole for each in self.encoded["train"]]).T
        longer = (chosen > rejected).sum() >= (chosen < rejected).sum()
        chosen, rejected = self._tokens(items).T
        right = chosen > rejected if longer else chosen < rejected
        answer = f"always prefers the {'longer' if longer else 'shorter'} answer"
        return [chance, Baseline(answer, scores={"accuracy": float(right.mean())})]

    def remarks(self, split: str, items: Items, results: Sequence[Any]) -> list[str]:
        texts = {each.text for each in self.written.get(split, [])}
        if len(self.written.get(split, [])) < 2 or len(texts) > 1:
            return []
        return [f"{'nothing' if texts == {''} else 'the same'} is written for every prompt of {split}"]

    def sample(self, model: PreTrainedModel, split: str, items: Items) -> None:
        """Have the finished model, and the model as it started, answer some prompts, evenly over the split."""
        chosen = evenly(items, self.files.samples)
        prompts = [item.sequences[0][: item.info] for item in chosen]
        after = write_answers(model, self.tokenizer, prompts, self.files.max_new_tokens)
        before: list[str | None] = [None] * len(chosen)
        if self.reference is not None:
            reference = self.reference.to(model.device)
            before = write_answers(reference, self.tokenizer, prompts, self.files.max_new_tokens)
        self.written[split] = [WrittenAnswer(item.example, *both) for item, *both in zip(chosen, after, before)]

    def write_report(self, folder: Path, split: str, items: Items, results: Sequence[Any]) -> str:
        tokens = self._tokens(items)
        rewards = scoring.rewards_of(self.files, results, tokens)
        report = PreferenceReport(self.examples[split], items, rewards, tokens, self.written[split], self.tokenizer)
        return report.write(folder, split, self.files.max_new_tokens)

    def usage(self, name: str) -> str:
        prompt = self.examples["train"][0].prompt
        given = json.dumps(prompt, ensure_ascii=False, default=str)
        inputs = (CONVERSATION if self.is_conversation else TEXT).format(given=given)
        return USAGE.format(name=name, inputs=inputs, most=self.files.max_new_tokens)


TASK = Preferences
