"""Text that is read while it is trained on: every document once a pass, in blocks that can be made again."""

import gzip
import itertools
import json
import pickle
import random

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from helpers.text import sentences, texts, write_paragraphs

from weft.recipes.common.errors import RecipeError
from weft.recipes.common.files import remove_folder
from weft.recipes.data.corpus import Corpus
from weft.recipes.data.streaming.blocks import StreamFolder, open_first_block
from weft.recipes.data.streaming.documents import BlockArguments, Cursor, DocumentStream, StreamArguments
from weft.recipes.data.streaming.writer import AHEAD, BEHIND, BlockWriter
from weft.recipes.pretraining.datasets.fill_in_the_middle import FillInTheMiddleRows, InfillingArguments
from weft.recipes.pretraining.datasets.hybrid import HybridArguments
from weft.recipes.pretraining.datasets.masking import MaskingArguments
from weft.recipes.pretraining.datasets.packed import TrainingRows
from weft.recipes.pretraining.datasets.prefix import PrefixArguments
from weft.recipes.pretraining.objectives.causal import CausalObjective
from weft.recipes.pretraining.objectives.hybrid import HybridObjective
from weft.recipes.pretraining.objectives.masked import MaskedObjective
from weft.recipes.pretraining.plan import Plan
from weft.recipes.pretraining.stream_dataset import StreamRows
from weft.tokenizer.fill_in_the_middle import MiddleTokens

ROW, ROWS_PER_STEP = 16, 4


def write_shards(folder):
    """Files of three formats, and the documents of each; one file has two copies of a document, and an empty one."""
    documents = {
        "a.jsonl.gz": sentences(40, seed=1),
        "b.txt": sentences(25, seed=2),
        "c.parquet": sentences(30, seed=3),
    }
    documents = {name: [f"{name} {text}" for text in given] for name, given in documents.items()}
    documents["a.jsonl.gz"][7] = documents["a.jsonl.gz"][6]
    documents["c.parquet"][3] = " "
    with gzip.open(folder / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in documents["a.jsonl.gz"])
    write_paragraphs(folder / "b.txt", documents["b.txt"])
    pyarrow.parquet.write_table(pyarrow.table({"text": documents["c.parquet"]}), folder / "c.parquet")
    return {str(folder / name): given for name, given in documents.items()}


@pytest.fixture
def shards(tmp_path):
    return write_shards(tmp_path)


def settings(shards, **changes):
    given = {"train_files": list(shards), "vocab_size": 300, "block_bytes": 700, "validation_fraction": 0.1}
    return BlockArguments(**{**given, **changes})


def blocks_of(arguments, number, cursor=None):
    """The documents of so many blocks, each with the cursor before it as the ledger keeps it."""
    stream, found = DocumentStream(arguments, cursor), []
    for _ in range(number):
        start = Cursor(**json.loads(json.dumps(vars(stream.cursor))))
        found.append((start, [text for text, _ in stream.block(arguments.block_bytes)]))
    return found


def two_passes(arguments, total):
    """Documents of each block of the first two passes over so many documents."""
    stream, found = DocumentStream(arguments), []
    while sum(map(len, found)) < 2 * total:
        found.append([text for text, _ in stream.block(arguments.block_bytes)])
    return found


@pytest.mark.parametrize("size", [1, 200, 1500, 4000, 10**6])
def test_each_pass_has_every_document_of_every_file_once_and_in_order(shards, size):
    total = sum(map(len, shards.values()))
    found = two_passes(settings(shards, block_bytes=size), total)
    joined = [text for block in found for text in block]
    orders = []
    for documents in (joined[:total], joined[total:]):
        orders.append(sorted(shards, key=lambda path: documents.index(shards[path][0])))
        assert documents == [text for path in orders[-1] for text in shards[path]]
    assert total in np.cumsum([len(block) for block in found])  # no block has text of two passes
    for block in found:
        assert sum(len(text.encode()) for text in block[:-1]) < size


def test_the_order_of_the_files_follows_from_seed_and_pass(shards):
    total = sum(map(len, shards.values()))

    def orders(seed):
        joined = [text for block in two_passes(settings(shards, split_seed=seed), total) for text in block]
        return [[text.split()[0] for text in half if "Number 0" in text] for half in (joined[:total], joined[total:])]

    assert orders(3) == orders(3)
    assert len({str(orders(seed)) for seed in range(8)}) > 4


def test_a_cursor_goes_on_with_the_next_document_wherever_it_was_taken(shards):
    arguments = settings(shards, block_bytes=700)
    found = blocks_of(arguments, 20)
    assert any(cursor.record for cursor, _ in found)
    for index, (cursor, _) in enumerate(found):
        assert blocks_of(arguments, 20 - index, cursor) == found[index:]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_data_set_streams_and_goes_on_too(tmp_path, ending):
    folder, documents = tmp_path / "set", sentences(90)
    folder.mkdir()
    for shard in range(3):
        table = pyarrow.table({"text": documents[30 * shard : 30 * shard + 30]})
        if ending == "parquet":
            pyarrow.parquet.write_table(table, folder / f"{shard}.parquet", row_group_size=7)
        else:
            lines = [json.dumps({"text": text}) for text in table.column(0).to_pylist()]
            (folder / f"{shard}.jsonl").write_text("\n".join(lines))
    arguments = BlockArguments(dataset_name=str(folder), block_bytes=1500)
    found = blocks_of(arguments, 12)
    joined = [text for _, block in found for text in block]
    assert joined[:180] == documents + documents
    for index in range(0, 12, 3):
        assert blocks_of(arguments, 3, found[index][0]) == found[index : index + 3]


def test_a_file_that_was_changed_before_the_cursor_is_refused_and_one_that_was_mended_behind_it_is_not(tmp_path):
    documents = sentences(40)
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": text}) + "\n" for text in documents]
    arguments = BlockArguments(train_files=[str(path)], block_bytes=700)
    path.write_text("".join([*lines[:30], "broken\n", *lines[31:]]))
    found = blocks_of(arguments, 2)
    with pytest.raises(RecipeError, match=r"a\.jsonl, line 31: not JSON"):
        blocks_of(arguments, 20, found[1][0])
    path.write_text("".join(lines))
    going_on = blocks_of(arguments, 4, found[1][0])
    assert going_on[0] == found[1]
    assert [text for _, block in going_on for text in block][:30] == documents[len(found[0][1]) :][:30]
    path.write_text("".join([*lines[:2], *lines[3:]]))
    with pytest.raises(RecipeError, match=r"a\.jsonl was changed: its first \d+ documents"):
        blocks_of(arguments, 1, found[1][0])


class Driven:
    """A stream whose writer works whenever a reader waits, in this process."""

    def __init__(self, folder, arguments, monkeypatch):
        self.stream, self.arguments = StreamFolder(folder), arguments
        self.first = open_first_block(arguments, self.stream)
        self.stream.clean()
        self.start(0)
        self.most = 0
        monkeypatch.setattr(StreamRows, "_wait", lambda rows: self.work())

    def start(self, place):
        self.writer = BlockWriter(self.stream, self.arguments, place)

    def work(self):
        self.writer.step()
        self.most = max(self.most, len(self.stream.numbers()))

    def kept(self, number):
        """Texts of a block, which is prepared if it is not there."""
        self.stream.announce(number)
        while not self.stream.block(number).is_dir():
            self.work()
        tokenizer, corpus = self.first.tokenizer(), Corpus.open(self.stream.block(number))
        ids = np.split(corpus.tokens, corpus.offsets[1:-1])
        return [tokenizer.decode(each, skip_special_tokens=True) for each in ids]

    def rows(self, objective, num_steps=300):
        tokenizer = objective.prepare_tokenizer(self.first.tokenizer())
        packed = objective.pack(self.first, ROW, 5, tokenizer)
        plan = Plan(ROW, ROWS_PER_STEP, None, ROWS_PER_STEP, 1, 1, num_steps)
        return StreamRows(self.stream, objective, packed, plan, 5, tokenizer)


@pytest.fixture
def driven(shards, tmp_path, monkeypatch):
    return Driven(tmp_path / "run", settings(shards, segmenter="characters"), monkeypatch)


def expected_blocks(arguments, number, held_out):
    """What a block must hold: its documents without empty ones, those held out and copies within the block."""
    return [
        [text for text in dict.fromkeys(block) if text.strip() and text not in held_out]
        for _, block in blocks_of(arguments, number)
    ]


def test_the_prepared_blocks_hold_the_stream_without_what_is_held_out(driven, shards):
    held_out = texts(driven.first, "validation")
    assert 0 < len(held_out) < 5
    expected = expected_blocks(driven.arguments, 20, held_out)
    assert texts(driven.first, "train") == expected[0]
    assert [driven.kept(number) for number in range(1, 20)] == expected[1:]
    ledger = driven.stream.blocks()
    assert ledger[19].end.number == 1  # in the second pass, which has the held-out documents again
    for block, content in zip(ledger, expected):
        assert (block.documents, block.pairs) == (len(content), block.tokens - len(content))


def test_text_of_validation_files_is_not_trained_on(shards, tmp_path, monkeypatch):
    copies = [shards[path][5] for path in shards]
    held_out = write_paragraphs(tmp_path / "v.txt", ["Never seen.", *copies])
    arguments = settings(shards, block_bytes=1500, validation_files=[held_out])
    driven = Driven(tmp_path / "run", arguments, monkeypatch)
    later = [text for number in range(1, 8) for text in driven.kept(number)]
    of_first = texts(driven.first, "train")
    assert not set(later) & set(copies)
    every = {text for given in shards.values() for text in given if text.strip()}
    assert {*later, *of_first, *copies} == every


def test_few_blocks_are_on_the_disk_and_one_that_was_removed_is_made_again(driven):
    first_time = {}
    for number in range(1, 14):
        driven.kept(number)
        folder = driven.stream.block(number)
        first_time[number] = {path.name: path.read_bytes() for path in folder.iterdir()}
    while driven.writer.step():
        pass
    assert driven.stream.numbers() == list(range(13 - BEHIND, 13 + AHEAD + 1))
    assert driven.most <= AHEAD + BEHIND + 2
    ledger = driven.stream.blocks()
    for number in (2, 9, 5):
        driven.start(number)  # as after a crash: it knows the ledger only
        driven.kept(number)
        folder = driven.stream.block(number)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == first_time[number]
    assert driven.stream.blocks()[: len(ledger)] == ledger
    assert driven.most <= 2 * (AHEAD + BEHIND + 2)


def test_without_its_ledger_a_stream_comes_to_the_same_blocks(driven):
    before = driven.kept(6)
    ledger = driven.stream.blocks()
    driven.stream.remove()
    driven.stream.clean()
    driven.start(6)
    assert driven.kept(6) == before
    assert driven.stream.blocks()[:7] == ledger[:7]


def test_a_block_whose_text_was_changed_is_not_made_again(tmp_path, monkeypatch):
    documents = sentences(40)
    path = write_paragraphs(tmp_path / "a.txt", documents)
    driven = Driven(tmp_path / "run", settings([path]), monkeypatch)
    driven.kept(1)
    behind = driven.stream.blocks()[1].start.record
    write_paragraphs(tmp_path / "a.txt", [*documents[: behind + 1], "Other.", *documents[behind + 2 :]])
    remove_folder(driven.stream.block(1))
    driven.start(1)
    with pytest.raises(RecipeError, match=r"block 1 of .* is not what it was"):
        driven.kept(1)


def causal():
    return CausalObjective()


def masked():
    return MaskedObjective(MaskingArguments(masking="word"))


def hybrid():
    return HybridObjective(MaskingArguments(masking="token"), HybridArguments(causal_share=0.5))


def three_kinds():
    return HybridObjective(MaskingArguments(masking="token"), HybridArguments(causal_share=0.4, diffusion_share=0.3))


def rearranged():
    return CausalObjective(infilling=InfillingArguments(0.5), prefix=PrefixArguments(0.5))


def same(row, other):
    return row.keys() == other.keys() and all(np.array_equal(row[name], other[name]) for name in row)


@pytest.mark.parametrize("make_objective", [causal, masked, hybrid, three_kinds, rearranged])
def test_a_row_is_the_same_wherever_reading_begins(driven, make_objective):
    rows = driven.rows(make_objective())
    found = [rows[index] for index in range(250)]
    assert len(driven.stream.blocks()) > 8
    draw = random.Random(1)
    for index in draw.sample(range(250), 6):
        driven.stream.clean()
        driven.start(rows.block_of(index))
        assert same(driven.rows(make_objective())[index], found[index])
    assert len({row["input_ids"].tobytes() for row in found}) > 200


def test_processes_that_are_apart_read_the_rows_that_one_alone_reads(driven, monkeypatch):
    rows = driven.rows(causal())
    expected = [rows[index] for index in range(200)]
    driven.stream.clean()
    driven.start(0)
    copies = {rank: pickle.loads(pickle.dumps(rows)) for rank in "01"}
    for index in range(200 + 60):  # the second lags behind by more than two blocks
        for rank, place in (("0", index), ("1", index - 60)):
            if 0 <= place < 200:
                monkeypatch.setenv("RANK", rank)
                assert same(copies[rank][place], expected[place])
    assert len(driven.stream.blocks()) > 6


def test_rows_hold_every_place_of_every_block_once_but_for_less_than_a_row(driven):
    rows = driven.rows(causal())
    first = 0
    for number in range(7):
        driven.kept(number) if number else None
        corpus = Corpus.open(driven.stream.block(number))
        naive = TrainingRows(corpus, ROW, 10**9, 5)
        pairs = []
        for local in range(naive.rows_per_epoch):
            row = rows[first + local]
            assert same(row, naive[number * naive.rows_per_epoch + local])
            pairs += zip(row["input_ids"].tolist(), row["labels"].tolist())
        first += naive.rows_per_epoch
        every = [
            pair
            for document in corpus.documents("train")
            for pair in pairs_of(corpus.tokens[corpus.offsets[document] : corpus.offsets[document + 1]].tolist())
        ]
        assert len(every) - ROW < len(pairs) <= len(every)
        for pair in pairs:
            every.remove(pair)


def test_the_ledger_tells_how_many_rows_a_block_has_whose_documents_are_rearranged(driven):
    objective = CausalObjective(infilling=InfillingArguments(0.5))
    rows, first = driven.rows(objective), 0
    tokens = MiddleTokens.find(rows.tokenizer)
    for number in range(7):
        driven.kept(number) if number else None
        corpus = Corpus.open(driven.stream.block(number))
        naive = FillInTheMiddleRows(corpus, ROW, 10**9, 5, objective.infilling, tokens)
        assert naive.num_places > TrainingRows(corpus, ROW, 10**9, 5).num_places
        for local in range(naive.rows_per_epoch):
            assert same(rows[first + local], naive[number * naive.rows_per_epoch + local])
        first += naive.rows_per_epoch
    assert rows.block_of(first - 1) == 6 and rows.block_of(first) == 7


def pairs_of(ids):
    return list(itertools.pairwise(ids))


def test_the_schedule_of_masks_follows_the_run_rather_than_the_block(driven):
    objective = MaskedObjective(MaskingArguments(masking="token", mask_rate=0.1, mask_rate_end=0.9))
    rows = driven.rows(objective, num_steps=100)
    shares = [np.mean([np.mean(rows[index]["targets"] >= 0) for index in range(i, i + 40)]) for i in (0, 180, 360)]
    assert shares[0] < 0.25 < shares[1] < 0.7 < shares[2]


def test_a_stream_that_gives_no_row_any_more_is_told(shards, tmp_path, monkeypatch):
    long, short = " ".join(["long"] * 400), [f"s{i}" for i in range(6)]
    path = write_paragraphs(tmp_path / "a.txt", [long, *short])
    arguments = settings([path], validation_files=[write_paragraphs(tmp_path / "v.txt", ["v"])], block_bytes=1)
    driven = Driven(tmp_path / "run", arguments, monkeypatch)
    driven.writer.held_out.update(digest for _, digest in DocumentStream(arguments).block(1))
    rows = driven.rows(causal())
    with pytest.raises(RecipeError, match="a whole pass over the stream gives no row of 16 tokens"):
        rows[len(long)]


def check(data=None, has_length=True, **fields):
    StreamArguments(stream=True, **fields).check(data or BlockArguments(train_files=["a.txt"]), has_length)


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"block_size": "much"}, "block_size is 'much': give a number of bytes"),
        ({"block_size": "0"}, "block_size is '0': give a number of bytes"),
        ({"data": BlockArguments()}, "give train_files or dataset_name"),
        ({"has_length": False}, "give tokens or max_steps"),
        ({"data": BlockArguments(train_files=["a.txt"], source_weights=["a=2"])}, "source_weights cannot be given"),
        ({"data": BlockArguments(train_files=["a.txt"], validation_split="tail")}, "choose document"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(changes, sentence):
    with pytest.raises(RecipeError, match=sentence):
        check(**changes)


def test_other_settings_than_those_of_the_ledger_are_refused(driven, shards):
    with pytest.raises(RecipeError, match=r"other settings \(text_column differ\)"):
        open_first_block(settings(shards, segmenter="characters", text_column="content"), driven.stream)
