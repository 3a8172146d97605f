"""The heads of fine-tuning: classes, tags, answers and choices of documents."""

from typing import Any, Unpack

import torch
from torch import nn
from transformers import modeling_outputs
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple, is_tracing

from .attention import chosen
from .configuration_weft import WeftConfig
from .layers import WeftTransform, dropout
from .losses import (
    IGNORE_INDEX,
    check_count,
    find_problem_type,
    question_answering_loss,
    sequence_classification_loss,
    token_classification_loss,
)
from .masks import document_places, find_documents, token_mask
from .stack import INPUT_NAMES, LANGUAGE_MODEL_HEADS, TASK_HEADS, WeftHeadModel, captured


class WeftTaskModel(WeftHeadModel):
    """The stack, in the direction that the config's `is_causal` says, and what the fine-tuning heads share. Any of them
    loads what any other class saved: only its own output matrix is new.

    `past_key_values` of every `forward` are keys and values that stand before each row, as prefix tuning learns them
    (https://huggingface.co/papers/2101.00190); attention_mask covers them too. None are returned. What `forward` is
    said to return is that of one stack: of two it is transformers' class for such."""

    _keys_to_ignore_on_load_unexpected = TASK_HEADS + LANGUAGE_MODEL_HEADS
    is_of_document = False  # whether the head is given one hidden state for each document
    seq2seq_output_class = modeling_outputs.Seq2SeqSequenceClassifierOutput  # for tokens there is none
    head_name, head_width = "classifier", None  # of the output matrix; None: num_labels wide, with classifier_bias

    def build_head(self, config: WeftConfig) -> None:
        self.num_labels = config.num_labels
        self.dropout = dropout(config.classifier_dropout)
        has_transform = config.classifier_transform and (self.is_of_document or config.classifier_transform_tokens)
        transform = (config.classifier_transform, config.classifier_transform_bias, config.classifier_transform_norm)
        self.classifier_transform = WeftTransform(config, *transform) if has_transform else nn.Identity()
        width, bias = self.head_width or config.num_labels, config.classifier_bias or self.head_width is not None
        self.add_module(self.head_name, nn.Linear(config.hidden_size, width, bias))

    def read(
        self, inputs: tuple[Any, ...], **kwargs: Any
    ) -> tuple[BaseModelOutputWithPast, Any, torch.Tensor | None, torch.Tensor]:
        """The outputs of the stack for these inputs (see `run_stack`), the attention mask of the states that the head
        reads (a decoder's own, where it is given an input of its own), what `find_documents` says of them, and logits
        [batch, tokens, head_width] or [documents, head_width]."""
        own = tuple(kwargs.get("decoder_" + name) for name in INPUT_NAMES)
        last = inputs if own[0] is None and own[-1] is None else own
        documents = find_documents(last[2], last[1], kwargs.get("past_key_values"))
        tokens, read = inputs[0] if inputs[-1] is None else inputs[-1], {}
        reads_one = self.is_of_document and not self.config.is_encoder_decoder and self.pooling != "mean"
        is_counted = documents is None or not is_tracing(documents)  # a graph has not so many documents as a batch
        if reads_one and is_counted and self.skips_unread(tokens, kwargs):
            read["read_from"] = self.document_tokens(tokens, inputs, documents)
        outputs = self.run_stack(inputs, **read, **kwargs)
        states = outputs.last_hidden_state
        if self.is_of_document and states.ndim == 3:
            states = self.pool_documents(states, last, documents)
        logits = getattr(self, self.head_name)(self.dropout(self.classifier_transform(states)))
        return outputs, last[1], documents, logits

    def classify(self, inputs: tuple[Any, ...], labels: torch.Tensor | None, **kwargs: Any) -> ModelOutput:
        """The logits of these inputs (see `read`) and, with labels, the loss by `get_loss` of the class."""
        outputs, *_, logits = self.read(inputs, **kwargs)
        loss = None if labels is None else self.get_loss(logits, labels, **kwargs)
        return self.as_output(outputs, loss, logits)

    def as_output(self, outputs: ModelOutput, *values: torch.Tensor | None) -> ModelOutput:
        """Loss and logits with all that the stack returned, in the class that transformers has for one stack or two."""
        kind = self.seq2seq_output_class if self.config.is_encoder_decoder else self.output_class
        return kind(*values, **captured(outputs))

    @property
    def pooling(self) -> str:
        """What stands for a document: "cls", "last" or "mean"."""
        return self.config.classifier_pooling or ("last" if self.config.is_causal else "mean")

    def pool_documents(self, states: torch.Tensor, inputs: tuple[Any, ...], documents: Any) -> torch.Tensor:
        """What stands for each document, by `pooling`: [documents, hidden_size], of packed rows all documents in order,
        else one of each row. `states` [batch, tokens, hidden_size] are those of `inputs` (see `run_stack`), and
        `documents` what `find_documents` says of these."""
        if self.pooling != "mean":
            return chosen(states, self.document_tokens(states, inputs, documents))
        places = document_places(states, inputs[1], documents)
        is_token = places >= 0
        states = chosen(states, places.clamp(min=0)) * is_token[..., None]
        return states.sum(dim=1) / is_token.sum(dim=1, keepdim=True)

    def document_tokens(self, tokens: torch.Tensor, inputs: tuple[Any, ...], documents: Any) -> torch.Tensor:
        """The first or, where `pooling` says so, last token of each document: indices [documents] into `tokens` [batch,
        tokens, ...]; the rest as in `pool_documents`. Where no 2-D mask says what padding is, the last token is the
        last one that is not pad_token_id, as in transformers' decoders."""
        input_ids, attention_mask, *_ = inputs
        places = document_places(tokens, attention_mask, documents)
        if self.pooling == "cls":
            return places[:, 0]
        is_token, pad_token_id = places >= 0, self.config.pad_token_id
        is_unmasked = token_mask(attention_mask, 1) is None
        if is_unmasked and input_ids is not None and pad_token_id is not None:
            is_token = is_token & (input_ids.flatten()[places.clamp(min=0)] != pad_token_id)
        last = (is_token * torch.arange(places.shape[1], device=places.device)).amax(dim=1, keepdim=True)
        return places.gather(1, last)[:, 0]


class WeftForSequenceClassification(WeftTaskModel):
    """The stack with a linear map of each document's pooled hidden state, read by the config's `problem_type`."""

    is_of_document, head_name = True, "score"
    loss_function = staticmethod(sequence_classification_loss)
    output_class = modeling_outputs.SequenceClassifierOutput

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict[str, Any] | None = None,
        position_ids: torch.LongTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> modeling_outputs.SequenceClassifierOutput:
        """`labels` are as `get_loss` says, which is also given `class_weights` and `label_smoothing`."""
        inputs = (input_ids, attention_mask, position_ids, token_type_ids, inputs_embeds)
        return self.classify(inputs, labels, past_key_values=past_key_values, **kwargs)

    def get_loss(self, logits: torch.Tensor, labels: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The loss of logits [documents, num_labels], one document in each row, or of packed rows all documents in
        order; labels for each as in `sequence_classification_loss`, ValueError where there are not as many."""
        problem_type = find_problem_type(self.config.problem_type, self.num_labels, labels)
        is_class = problem_type == "single_label_classification"
        check_count("labels", labels.numel(), len(logits), "document", 1 if is_class else self.num_labels)
        if self.config.problem_type is None:
            self.config.problem_type = problem_type  # as in stock classes; pipelines read it
        return self.loss_function(logits, labels, problem_type, **kwargs)


class WeftForTokenClassification(WeftTaskModel):
    """The stack with a linear map of each token's hidden state to classes."""

    loss_function = staticmethod(token_classification_loss)
    output_class = modeling_outputs.TokenClassifierOutput

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict[str, Any] | None = None,
        position_ids: torch.LongTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> modeling_outputs.TokenClassifierOutput:
        """`labels` are as `get_loss` says, which is also given `class_weights` and `label_smoothing`."""
        inputs = (input_ids, attention_mask, position_ids, token_type_ids, inputs_embeds)
        return self.classify(inputs, labels, past_key_values=past_key_values, **kwargs)

    def get_loss(self, logits: torch.Tensor, labels: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The loss of logits [batch, tokens, num_labels]; labels are class numbers [batch, tokens], those at i belong
        to token i, -100 where there is no target, ValueError where there is not one for each token."""
        check_count("labels", labels.numel(), logits.shape[:-1].numel(), "token")
        return self.loss_function(logits, labels, **kwargs)


class WeftForQuestionAnswering(WeftTaskModel):
    """The stack with a linear map of each token's hidden state to two logits: of an answer's first token, and last."""

    head_name, head_width = "qa_outputs", 2
    loss_function = staticmethod(question_answering_loss)
    output_class = modeling_outputs.QuestionAnsweringModelOutput
    seq2seq_output_class = modeling_outputs.Seq2SeqQuestionAnsweringModelOutput

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict[str, Any] | None = None,
        position_ids: torch.LongTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        start_positions: torch.LongTensor | None = None,
        end_positions: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> modeling_outputs.QuestionAnsweringModelOutput:
        """Args:
            start_positions, end_positions: [documents], where the answer's first and last token are: counted over the
                row, padding included, or in packed rows from the document's first token. -100, and what is outside of
                the row or document, is no target.
        Returns: loss (where both were given), start_logits and end_logits: [batch, tokens], or of packed rows
            [documents, tokens of the longest], in order; the dtype's minimum at padding and behind a document.
        Raises: ValueError for positions that are not one for each document."""
        inputs = (input_ids, attention_mask, position_ids, token_type_ids, inputs_embeds)
        outputs, attention_mask, documents, logits = self.read(inputs, past_key_values=past_key_values, **kwargs)
        is_token = token_mask(attention_mask, logits.shape[1])
        if documents is not None:
            places = document_places(logits, attention_mask, documents)
            logits, is_token = logits.flatten(0, 1)[places.clamp(min=0)], places >= 0
        if is_token is not None:
            logits = logits.masked_fill(~is_token[..., None], torch.finfo(logits.dtype).min)
        start_logits, end_logits = (each.contiguous() for each in logits.unbind(-1))
        loss = None
        if start_positions is not None and end_positions is not None:
            for name, positions in (("start_positions", start_positions), ("end_positions", end_positions)):
                check_count(name, positions.numel(), len(logits), "document")
            loss = self.loss_function(start_logits, end_logits, start_positions, end_positions, **kwargs)
        return self.as_output(outputs, loss, start_logits, end_logits)


class WeftForMultipleChoice(WeftTaskModel):
    """The stack with a linear map of each choice's pooled hidden state to one logit; an example's choices compete."""

    is_of_document, head_name, head_width = True, "choice_score", 1
    loss_function = staticmethod(token_classification_loss)
    output_class = modeling_outputs.MultipleChoiceModelOutput

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict[str, Any] | None = None,
        position_ids: torch.LongTensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        choice_counts: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> modeling_outputs.MultipleChoiceModelOutput:
        """Args:
            input_ids: [examples, choices, tokens], and so what stands beside them (inputs_embeds: [examples, choices,
                tokens, hidden_size]). A choice whose attention_mask is all 0 does not exist. Or, with choice_counts,
                [rows, tokens] as in `WeftModel.forward`.
            choice_counts: [examples], how many choices each example has: the batch's documents, of packed rows or one
                in each row, are the choices of the first example, then of the second, and so on.
            labels: [examples], the number of the right choice, -100 where there is no target.
        Returns: loss and logits [examples, most choices], the dtype's minimum for a choice that does not exist.
        Raises: ValueError for choices that are not as many as announced, or labels that are not one for each example or
            name a choice that does not exist."""
        if choice_counts is None:
            rows = input_ids if inputs_embeds is None else inputs_embeds[..., 0]
            if rows is None or rows.ndim != 3:
                raise ValueError(
                    "Give input_ids [examples, choices, tokens] (or inputs_embeds, with hidden_size behind), or rows "
                    "of documents [rows, tokens] and with choice_counts how many of them belong to each example."
                )
            number, most = rows.shape[0] * rows.shape[1], rows.shape[1]
            counts = torch.full(rows.shape[:1], most, device=rows.device)
            input_ids, attention_mask, position_ids, token_type_ids = (
                value.flatten(0, 1) if torch.is_tensor(value) and value.ndim == 3 else value
                for value in (input_ids, attention_mask, position_ids, token_type_ids)
            )
            inputs_embeds = None if inputs_embeds is None else inputs_embeds.flatten(0, 1)
            of_decoder = [name for name, value in kwargs.items() if "decoder_" in name and torch.is_tensor(value)]
            kwargs |= {name: kwargs[name].flatten(0, 1) for name in of_decoder}
        else:
            counts, number, most = choice_counts.reshape(-1), int(choice_counts.sum()), int(choice_counts.max())
        inputs = (input_ids, attention_mask, position_ids, token_type_ids, inputs_embeds)
        outputs, attention_mask, _, logits = self.read(inputs, past_key_values=past_key_values, **kwargs)
        scores, counts = logits[:, 0], counts.to(logits.device)
        if number != scores.shape[0]:  # len() would fix the size of an exported program
            raise ValueError(
                f"The batch announces {number} choices (by choice_counts, or the shape of its input), but holds "
                f"{len(scores)} documents: give each choice one, in order."
            )
        # the documents of each example side by side
        steps, first = torch.arange(most, device=scores.device), counts.cumsum(0) - counts
        places, exists = (first[:, None] + steps).clamp(max=number - 1), steps < counts[:, None]
        states = outputs.last_hidden_state
        given = input_ids if inputs_embeds is None else inputs_embeds
        is_token = token_mask(attention_mask, (states if states.ndim == 3 else given).shape[1])
        if choice_counts is None and is_token is not None:
            exists = is_token.any(dim=-1)[places]
        logits = scores[places].masked_fill(~exists, torch.finfo(scores.dtype).min)
        loss = None
        if labels is not None:
            check_count("labels", labels.numel(), len(logits), "example")
            self.check_choices(labels.to(logits.device).reshape(-1), exists)
            loss = self.loss_function(logits, labels, **kwargs)
        return self.as_output(outputs, loss, logits)

    @staticmethod
    def check_choices(labels: torch.Tensor, exists: torch.Tensor) -> None:
        """Refuse labels [examples] of choices that do not exist [examples, choices] (not looked at while tracing)."""
        if is_tracing(labels):
            return
        is_inside = (labels >= 0) & (labels < exists.shape[1])
        chosen = exists.gather(1, labels.where(is_inside, 0)[:, None])[:, 0] & is_inside
        wrong = (~chosen & (labels != IGNORE_INDEX)).nonzero().flatten()
        if len(wrong):
            example = int(wrong[0])
            raise ValueError(
                f"The label of example {example} is {int(labels[example])}, a choice that it does not have: give the "
                "number of one of its choices, from 0, or -100 where there is no target."
            )
