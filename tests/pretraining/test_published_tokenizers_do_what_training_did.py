"""A published tokenizer puts around a text what stood around the documents of training, whatever was given."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from helpers import runs
from helpers.models import tiny_config
from helpers.stock_tokenizers import STOCK, TEXTS, train_small
from helpers.text import pieces, prepare_documents
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, pipeline

import weft
from weft.recipes.conversion.run import export_checkpoint
from weft.recipes.data.arguments import DataArguments
from weft.recipes.data.corpus import Corpus
from weft.recipes.evaluation.likelihood import Scorer
from weft.recipes.evaluation.model_loading import load_model
from weft.recipes.generation.generate_text import start_ids
from weft.recipes.pretraining.datasets.denoising.infilling import InfillArguments
from weft.recipes.pretraining.datasets.denoising.pieces import TextPair
from weft.recipes.pretraining.datasets.denoising.spans import SentinelArguments, SpanArguments
from weft.recipes.pretraining.datasets.fill_in_the_middle import InfillingArguments
from weft.recipes.pretraining.datasets.hybrid import HybridArguments
from weft.recipes.pretraining.datasets.masking import MaskingArguments
from weft.recipes.pretraining.objectives.causal import CausalObjective
from weft.recipes.pretraining.objectives.hybrid import HybridObjective
from weft.recipes.pretraining.objectives.masked import MaskedObjective, make_vocabulary
from weft.recipes.pretraining.objectives.sentence_pairs import NextSentenceObjective
from weft.recipes.pretraining.objectives.span_corruption import SpanObjective
from weft.recipes.pretraining.objectives.text_infilling import InfillObjective
from weft.tokenizer.fill_in_the_middle import MiddleTokens
from weft.tokenizer.special_tokens import add_mask_token, for_role

OBJECTIVES = {
    "causal": lambda: CausalObjective(),
    "infilling": lambda: CausalObjective(infilling=InfillingArguments(0.5)),
    "masked": lambda: MaskedObjective(MaskingArguments()),
    "hybrid": lambda: HybridObjective(MaskingArguments(), HybridArguments()),
    "next-sentence": lambda: NextSentenceObjective(MaskingArguments()),
}
TEXT = TEXTS[7]
SHORT = {"max_steps": 2, "save_steps": 2, "sequence_length": 512, "tokens_per_step": 512, "num_hidden_layers": 1}
WEIGHT_FIELDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")


def given(kind, folder):
    """The folder of a tokenizer that was made elsewhere; None: one is trained on the text."""
    if kind is None:
        return {"vocab_size": 300}
    STOCK[kind]().save_pretrained(folder / kind)
    return {"tokenizer_name": str(folder / kind)}


def published(objective, corpus, folder):
    """The tokenizer as a run publishes it, loaded again."""
    OBJECTIVES[objective]().prepare_tokenizer(corpus.tokenizer()).save_pretrained(folder / objective)
    return AutoTokenizer.from_pretrained(folder / objective)


def document_of(corpus, tokenizer):
    """Ids of TEXT in a corpus."""
    inner = tokenizer(TEXT, add_special_tokens=False).input_ids
    return next(ids for ids in pieces(corpus) if inner in (ids, ids[1:-1]))


@pytest.mark.parametrize("marks", ["both", "none"])
@pytest.mark.parametrize("kind", [None, *STOCK])
def test_it_makes_of_a_text_what_the_corpus_holds(tmp_path, kind, marks):
    corpus = prepare_documents(tmp_path, TEXTS, document_tokens=marks, **given(kind, tmp_path))
    for objective in OBJECTIVES if marks == "both" else list(OBJECTIVES)[:-1]:
        tokenizer = published(objective, corpus, tmp_path)
        document = document_of(corpus, tokenizer)
        if objective in ("causal", "infilling") and marks == "both":
            assert tokenizer(TEXT).input_ids == document[:-1]
        else:
            assert tokenizer(TEXT).input_ids == document
        assert start_ids(tokenizer, TEXT) == (document[:-1] if marks == "both" else document)
        assert tokenizer.bos_token_id == (document[0] if marks == "both" else None)
        assert tokenizer.eos_token_id == (document[-1] if marks == "both" else None)
        assert (MiddleTokens.find(tokenizer) is not None) == (objective == "infilling")


@pytest.mark.parametrize("kind", [None, *STOCK])
def test_sources_of_text_to_text_have_around_them_what_documents_have(tmp_path, kind):
    corpus = prepare_documents(tmp_path, TEXTS, **given(kind, tmp_path))
    for objective in (
        SpanObjective(SpanArguments(), SentinelArguments()),
        InfillObjective(InfillArguments(permute_sentences=False)),
    ):
        folder = tmp_path / type(objective).__name__
        objective.prepare_tokenizer(corpus.tokenizer()).save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        document = document_of(corpus, tokenizer)
        assert tokenizer(TEXT).input_ids == document
        text = np.array(document[1:-1])
        assert [side.tolist() for side in objective.frame.put_around(TextPair(text, text))] == [document, document[1:]]
        marks = set(tokenizer.get_vocab()) & {"<extra_id_0>", "<extra_id_99>"}
        assert len(marks) == (2 if isinstance(objective, SpanObjective) else 0)
        assert objective.role()["decoder_start_token_id"] == document[0]


@pytest.mark.parametrize("kind", list(STOCK))
def test_a_corpus_of_before_whose_tokenizer_is_as_it_was_given_is_read_as_it_was_made(tmp_path, kind):
    fields = given(kind, tmp_path)
    corpus = prepare_documents(tmp_path, TEXTS, document_tokens="none", **fields)
    shutil.rmtree(corpus.folder / "tokenizer")
    shutil.copytree(fields["tokenizer_name"], corpus.folder / "tokenizer")
    for objective in ("causal", "masked", "hybrid"):
        tokenizer = published(objective, corpus, tmp_path)
        assert tokenizer(TEXT).input_ids == document_of(corpus, tokenizer)


@pytest.mark.parametrize("kind", list(STOCK))
def test_tokens_without_a_name_are_still_no_text_that_masking_draws(tmp_path, kind):
    corpus = prepare_documents(tmp_path, TEXTS, document_tokens="none", **given(kind, tmp_path))
    source = STOCK[kind]()
    add_mask_token(source)
    tokenizer = published("masked", corpus, tmp_path)
    assert set(make_vocabulary(tokenizer).ordinary) == set(make_vocabulary(source).ordinary)


def test_many_tasks_publish_the_tokenizer_that_one_process_publishes(tmp_path):
    pytest.importorskip("datatrove", reason="the extra 'many' is not installed")
    from weft.recipes.data.cluster import prepare_many
    from weft.recipes.data.cluster_arguments import ClusterArguments

    alone = prepare_documents(tmp_path, TEXTS, document_tokens="none", **given("bert", tmp_path))
    data = DataArguments(**alone.description["made_from"]["settings"])
    many = prepare_many(data, ClusterArguments(workers=1), tmp_path / "many")
    for path in (alone.folder / "tokenizer").iterdir():
        assert (many.folder / "tokenizer" / path.name).read_bytes() == path.read_bytes()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return runs.write_text(tmp_path_factory.mktemp("text") / "text.txt", 60)


def score_alone(folder):
    """Bits per byte of the held-out text of a run, by scoring its published folder."""
    corpus = Corpus.open(folder / "data")
    texts = [corpus.tokenizer().decode(ids, skip_special_tokens=True) for ids in pieces(corpus, "validation")]
    scorer = Scorer(*load_model(str(folder), "causal", "cpu"), quiet=True)
    nats = -sum(scores.total for scores in scorer.score_texts(texts))
    return nats / math.log(2) / sum(len(text.encode()) for text in texts)


@pytest.mark.parametrize("marks", ["both", "none"])
@pytest.mark.parametrize("stream", [{}, {"stream": "true"}, {"objective": "hybrid"}])
def test_a_run_and_its_published_folder_give_the_same_bits_per_byte(tmp_path, text, marks, stream):
    folder = tmp_path / "run"
    fields = {"train_files": text, "document_tokens": marks, **stream, **given("gpt2", tmp_path)}
    runs.run_here(output_dir=folder, **fields, **SHORT)
    said = next(entry for entry in reversed(runs.history(folder)) if "eval_bits_per_byte" in entry)
    assert score_alone(folder) == pytest.approx(said["eval_bits_per_byte"], rel=1e-4)


def test_a_checkpoint_goes_on_without_the_tokens_that_it_began_with(tmp_path, text):
    first, second = tmp_path / "first", tmp_path / "second"
    runs.run_here(train_files=text, output_dir=first, **given("gpt2", tmp_path), **SHORT)
    assert json.loads((first / "generation_config.json").read_text())["eos_token_id"] is not None
    fields = {name: value for name, value in SHORT.items() if name != "num_hidden_layers"}
    shape = dict.fromkeys(runs.SMALL_MODEL.keys() & {*WEIGHT_FIELDS})
    runs.run_here(
        train_files=text, output_dir=second, model_name_or_path=first, document_tokens="none", **{**fields, **shape}
    )
    config = json.loads((second / "config.json").read_text())
    generation = json.loads((second / "generation_config.json").read_text())
    for name in ("bos_token_id", "eos_token_id"):
        assert config.get(name) is None and generation.get(name) is None
    tokenizer = AutoTokenizer.from_pretrained(second)
    assert tokenizer("the cat").input_ids == tokenizer("the cat", add_special_tokens=False).input_ids
    said = next(entry for entry in reversed(runs.history(second)) if "eval_bits_per_byte" in entry)
    assert score_alone(second) == pytest.approx(said["eval_bits_per_byte"], rel=1e-4)


@pytest.fixture(scope="module")
def hybrid(text, tmp_path_factory):
    """A trained model of both roles."""
    folder = tmp_path_factory.mktemp("hybrid") / "run"
    runs.run_here(train_files=text, output_dir=folder, vocab_size=300, objective="hybrid", **SHORT)
    return str(folder)


def test_the_masked_role_of_a_hybrid_checkpoint_is_scored_alike_by_a_loop_of_ones_own(hybrid):
    texts = ["The old cat sees a small tree", "it hears the river and they like dogs."]
    model = AutoModelForMaskedLM.from_pretrained(hybrid).eval()
    tokenizer = AutoTokenizer.from_pretrained(hybrid)
    alone = []
    for each in texts:
        ids = torch.tensor(tokenizer(each).input_ids)
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        total = 0.0
        for place in range(1, len(ids) - 1):
            row = ids.clone()
            row[place] = tokenizer.mask_token_id
            with torch.no_grad():
                total += model(input_ids=row[None]).logits[0, place].log_softmax(-1)[ids[place]].item()
        alone.append(total)
    scorer = Scorer(*load_model(hybrid, "masked", "cpu"), quiet=True)
    assert [scores.total for scores in scorer.score_texts(texts)] == pytest.approx(alone, rel=1e-5)


def test_a_hybrid_checkpoint_writes_on_without_reading_an_end_token(hybrid):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(hybrid).eval(), AutoTokenizer.from_pretrained(hybrid)
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    for prompts in (["the old cat"], ["the old cat", "a dog"], [""]):
        opened = [start_ids(tokenizer, prompt) for prompt in prompts]
        longest = max(map(len, opened))
        pad = [[tokenizer.pad_token_id] * (longest - len(ids)) + ids for ids in opened]
        mask = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in opened]
        expected = model.generate(input_ids=torch.tensor(pad), attention_mask=torch.tensor(mask), **options)
        given = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
        assert (given.input_ids[:, -1] == tokenizer.eos_token_id).all()
        written = model.generate(**{**given, **options})
        assert torch.equal(written[:, : longest + 1], given.input_ids)
        assert torch.equal(written[:, longest + 1 :], expected[:, longest:])
    write = pipeline("text-generation", model=model, tokenizer=tokenizer)
    written = write("the old cat", **options)[0]["generated_text"]
    ids = torch.tensor([start_ids(tokenizer, "the old cat")])
    assert written == tokenizer.decode(model.generate(input_ids=ids, **options)[0], skip_special_tokens=True)
    assert written.startswith("the old cat")


def test_an_export_of_the_causal_role_closes_no_text(tmp_path):
    tokenizer = for_role(train_small("bpe"), "encoder")
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = tiny_config(vocab_size=320, masked_next_token=True, **ids)
    weft.WeftForCausalLM(config).save_pretrained(tmp_path / "hybrid")
    tokenizer.save_pretrained(tmp_path / "hybrid")
    export_checkpoint(str(tmp_path / "hybrid"), "qwen3", tmp_path / "stock")
    exported = AutoTokenizer.from_pretrained(tmp_path / "stock")
    assert exported("the river").input_ids == tokenizer("the river").input_ids[:-1]
