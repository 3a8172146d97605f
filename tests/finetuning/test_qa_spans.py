"""The best answer is found: in a window, over all windows of a text, and exactly where its characters are."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from weft.recipes.finetuning.collation import BatchLayout, EncodedExample
from weft.recipes.finetuning.tasks.question_answering.arguments import QuestionAnsweringArguments
from weft.recipes.finetuning.tasks.question_answering.spans import (
    AnswerSpan,
    ContextWindow,
    WindowSpans,
    as_arrays,
    best_spans,
    merge,
    no_answer_probability,
    probabilities,
    target_of,
)
from weft.recipes.finetuning.tasks.question_answering.task import QuestionAnswering


def naive_spans(start, end, first, last, max_tokens, number):
    """All pairs of one window, one by one."""
    spans = [
        (start[i] + end[j], i, j) for i in range(first, last + 1) for j in range(i, last + 1) if j - i < max_tokens
    ]
    return sorted(spans, reverse=True)[:number]


@pytest.mark.parametrize("max_tokens", [1, 3, 7, 100])
@pytest.mark.parametrize("number", [1, 5, 1000])
def test_the_best_spans_are_those_of_trying_all_pairs(max_tokens, number):
    generator = torch.Generator().manual_seed(max_tokens)
    start, end = (torch.randn(6, 17, generator=generator, dtype=torch.float64) for _ in range(2))
    first, last = torch.tensor([0, 3, 5, 16, 2, 7]), torch.tensor([16, 9, 5, 16, 12, 8])
    found = as_arrays(*best_spans(start, end, first, last, max_tokens, number), torch.zeros(6))
    for row, spans in enumerate(found):
        expected = naive_spans(
            start[row].tolist(), end[row].tolist(), int(first[row]), int(last[row]), max_tokens, number
        )
        assert list(zip(spans.starts.tolist(), spans.ends.tolist())) == [(i, j) for _, i, j in expected]
        assert np.allclose(spans.scores, [score for score, _, _ in expected], rtol=1e-6)


def test_large_logits_outside_of_the_context_are_not_looked_at():
    start, end = torch.zeros(1, 8), torch.zeros(1, 8)
    start[0, :2], end[0, 6:] = 1e4, torch.finfo(torch.float32).max
    start[0, 4], end[0, 5] = 1.0, 1.0
    starts, ends, scores = best_spans(start, end, torch.tensor([2]), torch.tensor([5]), 30, 1)
    assert (starts.item(), ends.item(), scores.item()) == (4, 5, 2.0)


def offsets_of(text, lengths):
    """Tokens of these lengths, one after another."""
    ends = np.cumsum(lengths)
    assert ends[-1] == len(text)
    return np.stack([ends - lengths, ends], axis=1).astype(np.int32)


def test_the_target_is_the_fewest_tokens_that_hold_the_answer():
    draw = random.Random(0)
    for _ in range(300):
        lengths = [draw.randint(1, 4) for _ in range(12)]
        offsets = offsets_of("x" * sum(lengths), lengths)
        start = draw.randrange(sum(lengths))
        end = draw.randint(start + 1, sum(lengths))
        holding = [(i, j) for i in range(12) for j in range(i, 12) if offsets[i, 0] <= start and offsets[j, 1] >= end]
        assert target_of(start, end, offsets, True, True) == min(holding, key=lambda span: span[1] - span[0])


def test_a_window_that_holds_a_part_of_the_answer_does_not_hold_it():
    offsets = offsets_of("x" * 20, [2] * 10)[3:7]  # characters 6 to 14
    assert target_of(6, 14, offsets, False, False) == (0, 3)
    assert target_of(5, 9, offsets, False, False) is None
    assert target_of(12, 15, offsets, False, False) is None
    assert target_of(0, 3, offsets, False, False) is None
    assert target_of(16, 18, offsets, False, False) is None


def test_characters_without_a_token_at_either_end_of_the_text_do_not_hide_the_answer():
    offsets = np.array([[1, 4], [4, 6]], dtype=np.int32)  # of seven characters: the first and the last have no token
    assert target_of(0, 7, offsets, True, True) == (0, 1)
    assert target_of(0, 7, offsets, False, True) is None
    assert target_of(0, 7, offsets, True, False) is None
    assert target_of(6, 7, offsets, True, True) is None


def test_several_tokens_of_one_character_all_belong_to_it():
    offsets = np.array([[0, 1], [0, 1], [0, 1], [1, 2], [1, 2]], dtype=np.int32)
    assert target_of(0, 1, offsets, True, True) == (0, 2)
    assert target_of(1, 2, offsets, True, True) == (3, 4)


def spans_of(*found):
    starts, ends, scores = (np.array(column) for column in zip(*found))
    return WindowSpans(starts.astype(np.int32), ends.astype(np.int32), scores.astype(np.float32), 0.0)


def test_windows_are_merged_by_characters_and_the_best_score_of_each_span_counts():
    context = "one two three four"
    offsets = np.array([[0, 3], [3, 7], [7, 13], [13, 18]], dtype=np.int32)
    windows = [ContextWindow(5, offsets[:3]), ContextWindow(5, offsets[1:])]
    found = merge(context, windows, [spans_of((0, 0, 1.0), (1, 1, 0.5)), spans_of((0, 0, 2.0), (2, 2, 1.5))], 10)
    assert found == [AnswerSpan("two", 4, 2.0), AnswerSpan("four", 14, 1.5), AnswerSpan("one", 0, 1.0)]
    assert [span.text for span in merge(context, windows, [spans_of((0, 0, 1.0)), spans_of((1, 2, 0.0))], 1)] == ["one"]


def test_answers_have_no_blanks_around_them_and_blanks_alone_are_no_answer():
    context = "a   b \n c"
    offsets = np.array([[0, 1], [1, 3], [3, 5], [5, 7], [7, 9]], dtype=np.int32)
    found = merge(
        context, [ContextWindow(0, offsets)], [spans_of((1, 1, 9.0), (2, 3, 8.0), (1, 2, 7.0), (4, 4, 6.0))], 10
    )
    assert found == [AnswerSpan("b", 4, 8.0), AnswerSpan("c", 8, 6.0)]


def test_a_constant_on_all_logits_of_a_window_changes_nothing():
    task = QuestionAnswering.__new__(QuestionAnswering)
    task.files, task.causal, task.max_answer_length, task.version_2 = QuestionAnsweringArguments(), False, 5, True
    item = EncodedExample([list(range(9))], 0, (0, 0), info=ContextWindow(3, offsets_of("x" * 10, [2] * 5)))
    layout = BatchLayout([item] * 2, rows=[0, 1], starts=[0, 0], lengths=[9, 9], shape=(2, 9))
    start, end = (torch.randn(1, 9, dtype=torch.float64) for _ in range(2))
    shifted = SimpleNamespace(start_logits=torch.cat([start, start + 7]), end_logits=torch.cat([end, end - 3]))
    one, other = task.results(shifted, layout)
    assert np.allclose(one.scores, other.scores, atol=1e-6) and (one.starts == other.starts).all()
    assert one.loss == pytest.approx(other.loss)


def test_probabilities_follow_the_scores():
    spans = [AnswerSpan("a", 0, 2.0), AnswerSpan("b", 1, -1.0)]
    weights = np.exp([2.0, -1.0, 0.0])
    assert probabilities(spans, with_none=True) == pytest.approx((weights / weights.sum()).tolist())
    assert probabilities(spans, with_none=False) == pytest.approx((weights[:2] / weights[:2].sum()).tolist())
    assert no_answer_probability(spans) == pytest.approx(1 / (1 + np.exp(2.0)))
    assert (
        no_answer_probability([AnswerSpan("a", 0, 800.0)]) == 0.0 < no_answer_probability([AnswerSpan("a", 0, 700.0)])
    )
    assert no_answer_probability([AnswerSpan("a", 0, -800.0)]) == no_answer_probability([]) == 1.0
