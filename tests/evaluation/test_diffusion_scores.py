"""The bound of diffusion scoring is the one by enumeration over masks and orders, and says how sure it is."""

import json
import math

import numpy as np
import pytest
from helpers.diffusion import bound_over_orders, make_letters_model, masked_sets, nats_of_masks, share_of
from helpers.models import make_model, tiny_config
from helpers.scored import SPECIAL, TEXTS, make_scored_model, make_tokenizer, text_ids
from helpers.text import write_paragraphs
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from weft import WeftForMaskedLM
from weft.recipes import evaluate_lm
from weft.recipes.common.errors import RecipeError
from weft.recipes.evaluation.diffusion import DiffusionScorer, make_scorer
from weft.recipes.evaluation.likelihood import Scorer, ScoringRow, TokenSpan
from weft.recipes.evaluation.likelihood_tasks import multiple_choice, perplexity
from weft.recipes.evaluation.records import ChoiceQuestion

WORDS = ["<pad>", "<s>", "</s>", "<mask>", "a", "b", "c", "d"]
TEXT = "b a d d c"


@pytest.fixture(scope="module")
def letters():
    """A tokenizer of four words, and a tiny model of them in float64."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names, model_max_length=32)
    config = tiny_config(vocab_size=8, is_causal=False, **SPECIAL)
    return make_model(config, model_class=WeftForMaskedLM).double(), tokenizer


@pytest.fixture(scope="module")
def encoder_tokenizer():
    return make_tokenizer(encoder=True)


def scorer_of(model, tokenizer, **options):
    return make_scorer(model, tokenizer, "diffusion", quiet=True, **options)


class EveryMask(DiffusionScorer):
    """Takes each set of places, as much as it counts, in place of random ones."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.rates = 31 + 1  # of five tokens; one more for pairs

    def _noised(self, stretch):
        size = stretch.last - stretch.first
        sets = masked_sets(range(stretch.first, stretch.last))
        for chosen in sets:
            places = np.array(sorted(chosen))
            row = ScoringRow(stretch.ids, stretch.first, stretch.last, stretch.last, places)
            yield row, self.rates * share_of(chosen, size) * size / len(chosen)
        yield row, 0.0


@pytest.mark.parametrize("shifted", [False, True], ids=["own places", "places before"])
def test_with_every_mask_the_bound_is_the_mean_over_all_orders(letters, shifted):
    """Four tokens, five places, in float64; also of a model of both roles, whose masks are predicted from before."""
    model, tokenizer = letters
    if shifted:
        model = make_letters_model(masked_next_token=True, **SPECIAL)
    ids = [1, *text_ids(tokenizer, TEXT), 2]
    exact = bound_over_orders(nats_of_masks(model, ids, range(1, 6), mask=3))
    (score,) = EveryMask(model, tokenizer, "diffusion", quiet=True).score_texts([TEXT])
    assert -score.total == pytest.approx(exact, rel=1e-12) and len(score.log_probs) == 5


def test_the_bound_of_random_masks_is_that_but_for_its_error(letters):
    model, tokenizer = letters
    exact = bound_over_orders(nats_of_masks(model, [1, *text_ids(tokenizer, TEXT), 2], range(1, 6), mask=3))
    (score,) = scorer_of(model, tokenizer, rates=2000).score_texts([TEXT])
    assert 0 < math.sqrt(score.variance) < 0.02 * exact
    assert abs(-score.total - exact) < 4 * math.sqrt(score.variance)
    errors = []
    for first in "abcd":  # other texts have other masks
        for last in "abcd":
            text = f"{first} {TEXT[2:-2]} {last}"
            table = nats_of_masks(model, [1, *text_ids(tokenizer, text), 2], range(1, 6), mask=3)
            (found,) = scorer_of(model, tokenizer, rates=8).score_texts([text])
            errors.append((-found.total - bound_over_orders(table)) / math.sqrt(found.variance))
    assert abs(np.mean(errors)) < 1.25 and np.std(errors) < 2


def test_a_text_of_one_token_has_its_probability(letters):
    model, tokenizer = letters
    (score,) = scorer_of(model, tokenizer, rates=2).score_texts(["c"])
    (masked,) = Scorer(model, tokenizer, "masked", quiet=True).score_texts(["c"])
    assert score.log_probs == pytest.approx(masked.log_probs, rel=1e-12)
    assert score.variance == pytest.approx(0, abs=1e-20) and score.is_top.tolist() == masked.is_top.tolist()


def test_scores_come_again_whatever_stands_beside_them(encoder_tokenizer):
    model = make_scored_model("weft-masked", encoder_tokenizer)
    whole = scorer_of(model, encoder_tokenizer, rates=4).score_texts(TEXTS)
    assert [len(score.log_probs) for score in whole] == [len(text_ids(encoder_tokenizer, text)) for text in TEXTS]
    for tokens in (1, 100, 4096):
        again = scorer_of(model, encoder_tokenizer, rates=4, tokens_per_batch=tokens).score_texts(TEXTS[::-1])[::-1]
        for one, other in zip(whole, again):
            assert one.log_probs == pytest.approx(other.log_probs, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("family", ["bert", "weft-masked", "weft-hybrid"])
def test_a_continuation_is_bounded_given_its_context(encoder_tokenizer, family):
    """Of two tokens: either order, both by hand."""
    model = make_scored_model(family, encoder_tokenizer).double()
    ids = [1, *text_ids(encoder_tokenizer, "the river is"), 2]
    places = (len(ids) - 3, len(ids) - 2)
    exact = bound_over_orders(nats_of_masks(model, ids, places, mask=encoder_tokenizer.mask_token_id))
    (score,) = scorer_of(model, encoder_tokenizer, rates=400).score_continuations([("the river", " is")])
    assert len(score.log_probs) == 2 and abs(-score.total - exact) < 4 * math.sqrt(score.variance) + 1e-4
    assert scorer_of(model, encoder_tokenizer).name == ("diffusion-next-token" if "hybrid" in family else "diffusion")


@pytest.mark.parametrize("family", ["weft-masked", "weft-hybrid"])
@pytest.mark.parametrize(("window", "stride"), [(12, 4), (12, 12), (9, 1), (60, 20)])
def test_a_long_text_goes_from_stretch_to_stretch_each_given_what_stands_before(
    encoder_tokenizer, window, stride, family
):
    model = make_scored_model(family, encoder_tokenizer)
    scorer = scorer_of(model, encoder_tokenizer, window=window, stride=stride, rates=2)
    (text,) = scorer.encode([TEXTS[2][:50]])
    whole, covered = [1, *text.ids.tolist(), 2], []
    for stretch in scorer._stretches(TokenSpan(text, 0, len(text.ids))):
        assert len(stretch.ids) <= window and stretch.last - stretch.first > 0
        begin = stretch.place + 1 - stretch.first  # of the input in the whole text
        assert stretch.ids.tolist() == whole[begin : begin + len(stretch.ids)]
        assert stretch.first >= (1 if family == "weft-hybrid" else 0)  # something stands before what is predicted
        covered += range(stretch.place, stretch.place + stretch.last - stretch.first)
        is_end = begin + stretch.last == len(whole) - 1
        assert len(stretch.ids) - stretch.last == is_end  # nothing behind it but the end token
        if begin and not is_end:
            assert stretch.last - stretch.first <= stride
            assert len(stretch.ids) == window
    assert covered == list(range(len(text.ids)))
    (score,) = scorer.score([TokenSpan(text, 0, len(text.ids))])
    assert len(score.log_probs) == len(text.ids) and (score.log_probs <= 0).all()


def test_perplexity_tells_the_bound_in_bits_with_its_error(encoder_tokenizer):
    model = make_scored_model("weft-masked", encoder_tokenizer)
    scorer = scorer_of(model, encoder_tokenizer, rates=4)
    found, scores = perplexity(scorer, iter(TEXTS)), scorer.score_texts(TEXTS)
    size = sum(len(text.encode()) for text in TEXTS)
    assert found["bits_per_byte"] == pytest.approx(-sum(score.total for score in scores) / math.log(2) / size)
    error = math.sqrt(sum(score.variance for score in scores)) / math.log(2) / size
    assert found["bits_per_byte_error"] == pytest.approx(error) and error > 0
    assert "bits_per_byte_error" not in perplexity(Scorer(model, encoder_tokenizer, "masked", quiet=True), iter(TEXTS))


def test_choices_are_told_apart_by_their_bounds(letters):
    model, tokenizer = letters
    pairs = [("a b", " c"), ("a b", " d")]
    best = int(np.argmax([score.total for score in Scorer(model, tokenizer, "masked", quiet=True)
                          .score_continuations(pairs)]))  # fmt: skip
    question = ChoiceQuestion("a b", ["c", "d"], best, "line 1")
    assert multiple_choice(scorer_of(model, tokenizer), [question])["accuracy"] == 1.0


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, encoder_tokenizer):
    """Call the command on a masked model's folder."""
    folder = tmp_path / "model"
    make_scored_model("weft-masked", encoder_tokenizer).save_pretrained(folder)
    encoder_tokenizer.save_pretrained(folder)
    write_paragraphs(tmp_path / "text.txt", TEXTS)

    def call(*words):
        given = ["--model", folder, "--files", tmp_path / "text.txt", *words]
        monkeypatch.setattr("sys.argv", ["evaluate_lm.py", *map(str, given)])
        evaluate_lm.main()
        return capsys.readouterr().out

    return call


def test_the_command_prints_and_writes_the_bound(run, tmp_path):
    printed = run("--scoring", "diffusion", "--rates", 4, "--output_file", tmp_path / "out.json")
    assert "diffusion scoring" in printed and "bits_per_byte_error" in printed
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["scoring"] == "diffusion"
    (values,) = found["results"].values()
    assert values["bits_per_byte"] > 0 < values["bits_per_byte_error"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rates", "4"], "rates has no effect without scoring diffusion: give that too"),
        (["--scoring", "diffusion", "--rates", "5"], "rates is 5: give an even number"),
        (["--scoring", "diffusion", "--rates", "0"], "rates is 0: give at least 2"),
        (["--scoring", "diffusion", "--task", "last-word"], "give --scoring masked"),
        (["--scoring", "difusion"], "scoring is 'difusion' (did you mean diffusion?)"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(run, words, said):
    with pytest.raises(RecipeError) as caught:
        run(*words)
    assert said in str(caught.value)
