"""A field may follow the step of a run, in stages and in straight lines; what cannot be read is refused by name."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest

from weft.recipes.common.command_line import parse_arguments
from weft.recipes.common.errors import RecipeError
from weft.recipes.common.options import Options, option
from weft.recipes.common.schedule import Schedule, read_schedule

# The text of a schedule, and its stages: first value, last value, length.
SCHEDULES = {
    "0.3": [(0.3, 0.3, None)],
    "0.3..0.15": [(0.3, 0.15, None)],
    "0.3@0.5,0.15@0.4,0.05": [(0.3, 0.3, "0.5"), (0.15, 0.15, "0.4"), (0.05, 0.05, None)],
    "1@3 0.5@0.25, 0..0.4": [(1, 1, "3"), (0.5, 0.5, "0.25"), (0, 0.4, None)],
    "0.2..0.6@0.3,0.6..0.1@11,.7": [(0.2, 0.6, "0.3"), (0.6, 0.1, "11"), (0.7, 0.7, None)],
}


def value_by_hand(stages, step, steps):
    """By counting, with exact shares."""
    share, number, begin = Fraction(0), 0, 0
    for first, last, length in stages:
        if length is None:
            end = steps
        elif Fraction(length) < 1:
            share += Fraction(length)
            end = round(share * steps) + number
        else:
            number += int(length)
            end = round(share * steps) + number
        end = min(end, steps)
        if begin <= step < end:
            return first if end - begin == 1 else first + (last - first) * Fraction(step - begin, end - begin - 1)
        begin = end
    raise AssertionError("no stage has this step")


@pytest.mark.parametrize("text", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 7, 40, 1000])
def test_the_value_at_a_step_is_that_of_its_stage(text, steps):
    schedule, stages = read_schedule(text), SCHEDULES[text]
    expected = [float(value_by_hand(stages, step, steps)) for step in range(steps)]
    found = [schedule.at(step, steps) for step in range(steps)]
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert schedule.at_all(np.arange(steps), steps).tolist() == found  # to the last bit
    assert schedule.at_all(np.array([steps - 1, 0]), steps).tolist() == [found[-1], found[0]]
    assert schedule.at(steps + 5, steps) == found[-1]
    changes = {step for step in range(1, steps) if found[step] != found[step - 1]}
    if not schedule.has_lines:
        assert changes <= schedule.edges(steps)
    assert {0, steps - 1} <= schedule.edges(steps)
    extremes = [found[step] for step in schedule.edges(steps)]
    assert (min(extremes), max(extremes)) == (min(found), max(found))


def test_a_schedule_is_told_in_words():
    assert read_schedule("0.3@0.5,0.15@0.4,0.05").describe("{:.0%}".format, 200) == (
        "30% until step 100, then 15% until step 180, then 5%"
    )
    assert read_schedule("1..0.5@2000,0.5").describe("{:g}".format, 5000) == "1 to 0.5 until step 2,000, then 0.5"
    assert read_schedule(0.25).describe("{:.1%}".format, 10) == "25.0%"
    assert read_schedule("1@0.1,0.5").describe("{:g}".format, 2) == "0.5"  # a tenth of two steps is none


@pytest.mark.parametrize("text", [*SCHEDULES, "1@20,0", "1@20,0.5@0.5,0", "1@1,0.5@0.3,0.2@0.6,0.1"])
def test_the_shortest_run_reaches_the_last_stage_and_so_do_all_longer_ones(text):
    schedule = read_schedule(text)
    least = schedule.min_steps()
    if "@1" in text or "@20" in text or "@3" in text:  # numbers of steps
        with pytest.raises(RecipeError, match="share has stages before its last that are as long as the whole run"):
            schedule.check_length("share", least - 1)
        for steps in range(least, least + 100):
            schedule.check_length("share", steps)
            assert schedule.spans(steps)[-1][0] is schedule.stages[-1]
    else:
        assert least == 1
    assert read_schedule("1@20,0").min_steps() == 21


def test_a_stage_may_be_put_before_others():
    assert read_schedule("0.5").after(1.0, 0.25) == read_schedule("1@0.25,0.5")
    assert read_schedule("0.5@10,0").after(1.0, 3) == read_schedule("1@3,0.5@10,0")
    assert read_schedule("0.5@10,0").after(1.0, 0.0) == read_schedule("0.5@10,0")
    assert Schedule.line(0.3, 0.1) == read_schedule("0.3..0.1")
    with pytest.raises(ValueError, match="take all steps"):
        read_schedule("0.5@0.8,0").after(1.0, 0.2)


@dataclasses.dataclass
class Fields(Options):
    share: float | str | None = option(None, "a share", least=0, most=1, staged=True)
    rate: float | str = option(0.5, "a rate", above=0, staged=True)


FORM = "give VALUE@LENGTH,...,VALUE with lengths in steps"


@pytest.mark.parametrize(
    "share, sentence",
    [
        (1.5, "share is 1.5: give at least 0 and at most 1, or leave it out."),
        ("0.5@3,1.5", "share has 1.5: give at least 0 and at most 1, or leave it out."),
        ("0..-1@3,1", "share has -1.0: give at least 0"),
        ("nan@3,1", "share has nan: give a finite number"),
        ("0.3@0.5", f"share is '0.3@0.5', of which every stage but the last needs a length: {FORM}"),
        ("0.3,0.2", "every stage but the last needs a length"),
        ("0.3@0.5,0.2,0.1", "every stage but the last needs a length"),
        ("", "every stage but the last needs a length"),
        ("0.3@0.6,0.2@0.4,0.1", "of which the stages before the last take all steps: give shares that sum to less"),
        ("half@0.5,0.1", f"of which 'half@0.5' is no stage: {FORM}"),
        ("0.3@half,0.1", "of which '0.3@half' is no stage"),
        ("0.3..@5,0.1", "of which '0.3..@5' is no stage"),
        ("0.3@@5,0.1", "of which '0.3@@5' is no stage"),
        *[(f"0.3@{length},0.1", f"of which '0.3@{length}' has no length of a stage") for length in ("0", "-1", "2.5")],
        *[(f"0.3@{length},0.1", f"of which '0.3@{length}' has no length of a stage") for length in ("nan", "inf")],
    ],
)
def test_what_is_no_schedule_or_has_values_out_of_range_is_refused_by_name(share, sentence):
    with pytest.raises(RecipeError) as raised:
        Fields(share=share).check()
    assert str(raised.value).startswith("share ") and sentence in str(raised.value)


def test_words_and_files_give_numbers_or_stages(tmp_path):
    def read(*words):
        fields = parse_arguments(None, [Fields], argv=list(words))[Fields]
        fields.check()
        return fields.share, fields.rate

    assert read() == (None, 0.5)
    stages = "1@3 0.5@0.2 0"
    for given, expected in {"0.25": 0.25, "1e-1": 0.1, "1@0.25,0": "1@0.25,0", stages: stages}.items():
        assert read("--share", given) == (expected, 0.5)
        (tmp_path / "fields.yaml").write_text(f"share: {given}\nrate: 2\n")
        assert read(str(tmp_path / "fields.yaml")) == (expected, 2.0)
        assert read(str(tmp_path / "fields.yaml"), "--share", "0.75") == (0.75, 2.0)
    assert isinstance(read("--share", "1")[0], float)
