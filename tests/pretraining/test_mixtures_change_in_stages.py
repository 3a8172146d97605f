"""A mixture of sources that changes goes on with the passes over each source where its last stage stopped."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from helpers.masks import VOCABULARY, write_sources

from weft.recipes.common.errors import RecipeError
from weft.recipes.data.source_mixture import Source, SourceMixture, assign_sources, with_weights
from weft.recipes.pretraining.datasets.masking import Masker, MaskingArguments
from weft.recipes.pretraining.datasets.packed import TrainingRows
from weft.recipes.pretraining.datasets.sentence_pairs import SentencePairRows
from weft.recipes.pretraining.sources import describe_mixture
from weft.recipes.training.batch_schedule import Steps

ROW, PER_STEP, STEPS = 16, 4, 100
WEIGHTS = ("2@0.3,0.25", "1", "0@0.5,0.7@30,0", "0.5")  # stages that begin at steps 0, 30, 50 and 80
STARTS = [0, 30, 50, 80]
OF_STAGES = [(2, 1, 0, 0.5), (0.25, 1, 0, 0.5), (0.25, 1, 0.7, 0.5), (0.25, 1, 0, 0.5)]


class ByHand:
    """The rows of a run, from the definition: places are taken one at a time from the passes over each source."""

    def __init__(self, corpus, overlap, stages, row=ROW, seed=0):
        """`stages`: first row of the run, and the weights of the sources."""
        self.corpus, self.overlap, self.row, self.seed = corpus, overlap, row, seed
        offsets = np.asarray(corpus.offsets)
        self.lengths = np.diff(offsets) - overlap
        number = len(stages[0][1])
        source_of = np.asarray(corpus.source_of)
        self.members = [
            [i for i in range(len(self.lengths)) if source_of[i] == source and self.lengths[i] > 0]
            for source in range(number)
        ]
        self.sizes = [sum(int(self.lengths[i]) for i in members) for members in self.members]
        self.stages = stages

    def pass_places(self, source, number, in_order):
        """(pass, document, place) of a pass over a source."""
        members = self.members[source]
        if not in_order:
            order = np.random.default_rng([self.seed, number, source]).permutation(len(members))
            members = [members[i] for i in order]
        return [(number, document, i) for document in members for i in range(int(self.lengths[document]))]

    def taken(self, source, start, count):
        """`count` places of the sequence of passes, from place `start`, in pieces of a document each."""
        size = self.sizes[source]
        in_order = count == size and start % max(1, size) == 0  # a whole pass, which its epoch shuffles
        places = []
        while len(places) < count:
            number, begin = divmod(start + len(places), size)
            places += self.pass_places(source, number, in_order)[begin : begin + count - len(places)]
        pieces = []
        for place in places:
            if pieces and pieces[-1][-1][:2] == place[:2]:
                pieces[-1].append(place)
            else:
                pieces.append([place])
        return pieces

    def rows(self, number):
        """The places of each of the first rows of the run."""
        found, epoch = [], 0
        position = [0] * len(self.sizes)
        first_total = sum(size * weight for size, weight in zip(self.sizes, self.stages[0][1]))
        ends = [*(first for first, _ in self.stages[1:]), None]
        for (first, weights), end in zip(self.stages, ends):
            assert len(found) == first
            total = sum(size * weight for size, weight in zip(self.sizes, weights))
            longer = 1 if first == 0 else first_total / total
            shares = [int(size * float(f"{weight * longer:.12g}")) for size, weight in zip(self.sizes, weights)]
            while len(found) < number and (end is None or len(found) < end):
                counts, rows = shares, sum(shares) // self.row
                if end is not None and end - len(found) < rows:
                    rows = end - len(found)
                    below = np.concatenate(([0], np.cumsum(shares))) * rows * self.row // sum(shares)
                    counts = np.diff(below).tolist()
                pieces = []
                for source, count in enumerate(counts):
                    pieces += self.taken(source, position[source], count)
                    position[source] += count
                draw = np.random.default_rng([self.seed, epoch])
                order = draw.permutation(len(pieces))
                text = [place for i in order for place in pieces[i]]
                shift, shuffled = int(draw.integers(self.row)), draw.permutation(rows)
                for row in shuffled:
                    begin = shift + int(row) * self.row
                    found.append([text[(begin + i) % len(text)] for i in range(self.row)])
                epoch += 1
        return found[:number]


def places_of(rows, index):
    return [
        (span.pass_number, span.document, span.first + i)
        for span in rows.spans(index)
        for i in range(len(span.tokens) - rows.overlap)
    ]


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """A corpus whose weights change in stages."""
    return write_sources(tmp_path_factory.mktemp("staged"), WEIGHTS)[0]


def make_rows(corpus, overlap=0, mixture=None, steps=STEPS):
    rows = TrainingRows(corpus, ROW, PER_STEP * steps, seed=0, overlap=overlap)
    rows.mix(mixture or corpus.mixture, Steps(PER_STEP, steps))
    return rows


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0), (2.5, 1.0, 0.3, 0.07), (2.0, 0.5)])
@pytest.mark.parametrize("overlap", [0, 1])
def test_without_stages_the_rows_are_what_they_were_by_their_definition(tmp_path, weights, overlap):
    corpus, _ = write_sources(tmp_path, weights)
    rows = TrainingRows(corpus, ROW, 400, seed=0, overlap=overlap)
    number = min(400, 5 * rows.rows_per_epoch)
    expected = ByHand(corpus, overlap, [(0, weights)]).rows(number)
    assert [places_of(rows, index) for index in range(number)] == expected


@pytest.mark.parametrize("overlap", [0, 1])
def test_the_rows_of_a_run_with_stages_are_those_of_plain_loops(staged, overlap):
    rows = make_rows(staged, overlap)
    stages = [(start * PER_STEP, weights) for start, weights in zip(STARTS, OF_STAGES)]
    expected = ByHand(staged, overlap, stages).rows(STEPS * PER_STEP)
    found = {index: places_of(rows, index) for index in reversed(range(STEPS * PER_STEP))}  # in any order
    assert [found[index] for index in range(STEPS * PER_STEP)] == expected


def test_nothing_comes_again_before_all_else_has_come_across_stages(staged):
    """By the text of the epochs, of which rows leave out less than one at the end of a whole one."""
    rows = make_rows(staged)
    lengths = np.diff(staged.offsets)
    taken = [Counter() for _ in WEIGHTS]
    last, _ = rows.epochs.find(STEPS * PER_STEP - 1)
    for epoch in range(last + 1):
        text = rows._make_epoch(epoch).text
        for document, first, length, number in zip(*(column.tolist() for column in text.columns)):
            taken[document % 4].update((number, document, first + i) for i in range(length))
        for source, counts in enumerate(taken):
            every = {(document, i) for document in range(source, 60, 4) for i in range(lengths[document])}
            assert set(counts.values()) <= {1}
            whole, begun = divmod(counts.total(), len(every))
            for number in range(whole + 1):
                seen = {(document, place) for n, document, place in counts if n == number}
                assert seen == every if number < whole else len(seen) == begun
    assert all(counts.total() > 0 for counts in taken)


def test_the_last_epoch_of_a_stage_fills_its_rows_with_all_that_it_takes(staged):
    rows = make_rows(staged)
    ends = [start * PER_STEP for start in STARTS[1:]]
    for end in ends:
        epoch, place = rows.epochs.find(end - 1)
        following, first = rows.epochs.find(end)
        assert (following, first) == (epoch + 1, 0) and rows.epochs.epoch(epoch).rows == place + 1
        begin = end - 1 - place
        found = Counter(each for index in range(begin, end) for each in places_of(rows, index))
        assert set(found.values()) == {1}
        assert len(found) == (end - begin) * ROW == int(rows._make_epoch(epoch).text.ends[-1])


def most_off(rows, start, end):
    """How many places a source may have more or fewer in a stage than its share: what is not whole, and of each epoch
    less than a row that is left out, whatever it holds; where the run ends within an epoch, five standard deviations of
    rows drawn from it, which hold all or nothing of the source."""
    number, of_epoch = (end - start) * PER_STEP, rows.rows_per_epoch
    used = number % of_epoch if end == STEPS else 0
    return -(-number // of_epoch) * (ROW + 1) + 5 * ROW / 2 * np.sqrt(used * (1 - used / of_epoch))


def test_each_stage_takes_of_the_sources_what_its_weights_say(staged):
    rows = make_rows(staged)
    sizes = np.array(rows.source_sizes)
    for (start, end), weights in zip(pairwise([*STARTS, STEPS]), OF_STAGES):
        found = Counter(
            document % 4
            for index in range(start * PER_STEP, end * PER_STEP)
            for _, document, _ in places_of(rows, index)
        )
        shares = sizes * weights / (sizes @ weights)
        total = (end - start) * PER_STEP * ROW
        assert found.total() == total
        for source, share in enumerate(shares):
            assert abs(found[source] - share * total) < most_off(rows, start, end), (start, source)
            assert share > 0 or found[source] == 0
    for stage in rows.epochs.stages:
        assert abs(stage.rows - rows.rows_per_epoch) <= 1  # an epoch is as long in all stages


def test_stages_that_begin_with_a_row_of_an_epoch_or_are_short_lose_nothing(tmp_path):
    """Stages of exactly an epoch, of one step, and of no step at all."""
    corpus, _ = write_sources(tmp_path, (1.0, 1.0))
    rows = TrainingRows(corpus, ROW, 10**6, seed=0, overlap=0)
    epoch = rows.rows_per_epoch
    mixture = SourceMixture.of([Source("a", f"1@{epoch},3@1,2@0.001,1"), Source("b")])
    steps = epoch + 40
    rows.mix(mixture, Steps(1, steps))
    weights = [(0, (1, 1)), (epoch, (3, 1)), (epoch + 1, (1, 1))]
    assert [places_of(rows, index) for index in range(steps)] == ByHand(corpus, 0, weights).rows(steps)


def passes_by_hand(sizes, weights, temperature):
    parts = [size * weight for size, weight in zip(sizes, weights)]
    powers = [part**temperature if part else 0.0 for part in parts]
    return [power / sum(powers) * sum(parts) / size for power, size in zip(powers, sizes)]


@pytest.mark.parametrize("temperature", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (2.0, 0.5, 0.0)])
def test_a_temperature_makes_parts_proportional_to_their_power(temperature, weights):
    sizes = [100_000, 10_000, 37]
    mixture = SourceMixture.of([Source(str(i), weight) for i, weight in enumerate(weights)], temperature)
    passes = mixture.passes(sizes)
    assert passes == pytest.approx(passes_by_hand(sizes, weights, temperature), rel=1e-9)
    assert np.dot(passes, sizes) == pytest.approx(np.dot(weights, sizes))  # an epoch is as long as without
    if temperature == 1:
        assert passes == list(weights)
    if temperature == 0:
        parts = np.multiply(passes, sizes)[np.array(weights) > 0]
        assert parts == pytest.approx([parts[0]] * len(parts))


def test_a_temperature_falls_in_stages_and_the_rows_with_it(tmp_path):
    corpus, _ = write_sources(tmp_path, (1.0, 1.0, 1.0), documents=31)
    mixture = SourceMixture.of(corpus.sources, "1@0.5,0.5@0.3,0")
    rows = make_rows(corpus, 1, mixture)
    assert mixture.starts(STEPS) == [0, 50, 80]
    sizes = np.array(rows.source_sizes, dtype=float)
    assert len(set(sizes)) == 3
    expected = [sizes / sizes.sum(), sizes**0.5 / (sizes**0.5).sum(), np.full(3, 1 / 3)]
    for (start, end), shares in zip(pairwise([0, 50, 80, STEPS]), expected):
        found = Counter(
            document % 3
            for index in range(start * PER_STEP, end * PER_STEP)
            for _, document, _ in places_of(rows, index)
        )
        for source, share in enumerate(shares):
            assert abs(found[source] - share * found.total()) < most_off(rows, start, end)


@pytest.fixture(scope="module")
def pair_rows(tmp_path_factory):
    """Rows of sentence pairs of a run whose weights change in stages."""
    corpus, _ = write_sources(tmp_path_factory.mktemp("pairs"), ("2@0.3,0.5", "1", "0@0.5,1.5"), documents=90)
    masker = Masker(corpus, MaskingArguments(mask_rate=0.2), VOCABULARY, 0)
    rows = SentencePairRows(corpus, "train", 32, masker, True, 0)
    rows.mix(corpus.mixture, Steps(2, 200))
    rows.schedule(400, Steps(2, 200))
    return rows


def test_rows_of_sentence_pairs_go_on_across_stages_too(pair_rows):
    home = {row: source for source, members in enumerate(pair_rows._members) for row in members.tolist()}
    sizes = pair_rows.source_sizes
    taken, of_stage = [[], [], []], Counter()
    bounds = [0, 120, 200, 400]  # rows: steps 0, 60 and 100
    for index in range(400):
        epoch, place = pair_rows.epochs.find(index)
        rows, passes = pair_rows._row_order(epoch)
        row, number = int(rows[place]), int(passes[place])
        taken[home[row]].append((number, row))
        of_stage[sum(index >= bound for bound in bounds[1:]), home[row]] += 1
        if index + 1 in bounds[:3]:
            for each, size in zip(taken, sizes):
                assert len(set(each)) == len(each)
                whole, begun = divmod(len(each), size)
                counts = Counter(number for number, _ in each)
                assert [counts[number] for number in range(whole)] == [size] * whole and counts[whole] == begun
    for stage, weights in enumerate([(2, 1, 0), (0.5, 1, 0), (0.5, 1, 1.5)]):
        shares = np.multiply(sizes, weights) / np.dot(sizes, weights)
        total = bounds[stage + 1] - bounds[stage]
        rounded = 2 + total / pair_rows.rows_per_epoch
        cut = pair_rows.rows_per_epoch / 3 if stage == 2 else 0  # the run ends within an epoch
        for source in range(3):
            assert abs(of_stage[stage, source] - shares[source] * total) < rounded + cut


def test_rows_of_sentence_pairs_are_made_in_any_order(pair_rows):
    indices = list(range(0, 400, 7))
    expected = {index: pair_rows[index]["input_ids"].tolist() for index in indices}
    assert all(pair_rows[index]["input_ids"].tolist() == expected[index] for index in reversed(indices))


def test_a_stage_without_a_row_is_refused(tmp_path):
    corpus, _ = write_sources(tmp_path, ("1@0.5,0.001", 0.0001))
    rows = TrainingRows(corpus, ROW, 100, seed=0)
    rows.mix(corpus.mixture, Steps(4, 20))  # an epoch is as long in all stages, so it has rows in all
    silent = SourceMixture.of([Source("a", "1@0.5,0"), Source("b", "1@0.5,0")])
    with pytest.raises(RecipeError, match="has 0 tokens, fewer than one row of 16"):
        rows.mix(silent, Steps(4, 20))


@pytest.mark.parametrize("entry", ["books=0@0.5,0", "books=1@0.5", "books=0.5..1", "books=1@0.5,-1", "books=nan@3,1"])
def test_stages_of_weights_that_make_no_sense_are_refused(entry):
    with pytest.raises(RecipeError, match=r"is not PATTERN=WEIGHT with a weight above 0.* or stages, as books=0@0.9,2"):
        assign_sources(["books.txt"], [entry])


def test_weights_of_a_prepared_corpus_are_given_by_the_names_of_its_sources(staged):
    sources, source_of = assign_sources(["a.txt", "b.txt"], ["a=0@0.5,2", "b=3"])
    assert [source.weight for source in sources] == ["0@0.5,2", 3.0] and source_of == [0, 1]
    assert [source.weight for source in with_weights(sources, ["b=1@5,0.5"], staged.folder)] == ["0@0.5,2", "1@5,0.5"]
    with pytest.raises(RecipeError, match="has no source 'books': give weights for a, b"):
        with_weights(sources, ["books=2"], staged.folder)


def test_a_mixture_is_told_by_what_each_source_gives():
    mixture = SourceMixture.of([Source("en", "1@0.5,0.5"), Source("zh", 1.0)])
    assert describe_mixture(mixture, ["en", "zh"], [300, 100], 200) == (
        "en 75.0%, zh 25.0% until step 100, then en 60.0%, zh 40.0%"
    )
    assert mixture.min_steps() == 1 and not mixture.is_constant
    late = SourceMixture.of([Source("en"), Source("zh", "0@150,1")], "0.7@0.5,0.3")
    assert describe_mixture(late, ["en", "zh"], [300, 100], 200).startswith("en 100.0% until step 100, then en 100.0%")
    assert late.min_steps() == 151 and late.starts(200) == [0, 100, 150]
    many = SourceMixture.of([Source(str(i)) for i in range(20)])
    assert describe_mixture(many, list(map(str, range(20))), [1] * 20, 10).endswith("and 17 more")
